"""What `trace` has beside its input: an upstream gradient, and a backend's values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.arguments.input import open_real
from bncli.arguments.layer import about_spec
from bncli.dtypes import decode, encode
from bncli.errors import TensorError
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bncli.arguments.input import Input
    from bncli.backends.interface import Backend, BackendRun
    from bncli.report import Finding, Value
    from bncli.verify.batch_norm_pass import BatchNormPass


def open_gradient(spec: str, given: Input) -> NDArray[Any]:
    """The upstream gradient in the input's dtype. Raises TensorError where it does not fit it."""
    tensor = open_real(spec, "no gradient can")
    wanted = given.tensors[0].shape
    if tensor.shape != wanted:
        raise TensorError(
            f"{tensor.label}: the upstream gradient has shape {list(tensor.shape)}, but "
            f"{given.label} has {list(wanted)}: the two shapes must be equal."
        )
    return np.asarray(decode(encode(tensor.read(), given.dtype), given.dtype))


@dataclass(frozen=True, slots=True)
class Upstream:
    """The upstream gradient, in the input's dtype: from a file, or noise from a seed."""

    values: NDArray[Any]
    facts: dict[str, Value]
    about: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, spec: str | None, seed: int, given: Input) -> Upstream:
        """The gradient in a file, or else noise; raises as `open_gradient`."""
        from bncli.verify.batch_norm_pass import upstream_gradient

        if spec is None:
            noise = upstream_gradient(given.tensors[0].shape, given.dtype, seed)
            return cls(noise, {"seed": seed}, ())
        return cls(open_gradient(spec, given), {}, (about_spec(spec),))

    def findings(self, given: Input) -> list[Finding]:
        """What a file's values show."""
        from bncli.rulebook.batch import gradient_findings

        return gradient_findings(self.values, given.channel_axis) if self.about else []


@dataclass(frozen=True, slots=True)
class BackendSide:
    """The backend `name`'s value of each step: its run's own where it has them.

    `module` holds whole arrays, `steps` those of the channels `shown` alone; a backend that gives
    no steps has none.
    """

    name: str
    module: Mapping[str, NDArray[Any]]
    steps: Mapping[str, NDArray[Any]]
    shown: list[int]
    channel_axis: int
    threads: int

    @classmethod
    def of(
        cls,
        done: BatchNormPass,
        x: NDArray[Any],
        grad_output: NDArray[Any],
        shown: list[int],
        backend: Backend,
        run: BackendRun,
    ) -> BackendSide:
        """Ask `backend` for the steps of the channels `shown`."""
        from bncli.backends.interface import GivesSteps
        from bncli.model import RunningStats
        from bncli.sections.findings import short_name
        from bncli.verify.batch_norm_pass import backend_call

        axis = done.channel_axis
        chosen = (slice(None),) * axis + (shown,)

        def part(values: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if values is None else values[shown]

        running = done.before
        if running is not None:
            running = RunningStats(
                running.running_mean[shown], running.running_var[shown], running.num_batches_tracked
            )
        call = replace(
            backend_call(done, x[chosen], grad_output[chosen]),
            weight=part(done.layer.weight),
            bias=part(done.layer.bias),
            running=running,
        )
        steps = backend.steps(call) if isinstance(backend, GivesSteps) else {}
        return cls(short_name(backend), run.quantities, steps, shown, axis, run.threads)

    def value(
        self, quantity: str, channel: int, index: tuple[int, ...] | None
    ) -> float | int | None:
        """The backend's value of a quantity of `channel`, at `index` where each element has one."""
        if quantity in self.module:
            values, place = self.module[quantity], channel
        elif quantity in self.steps:
            values, place = self.steps[quantity], self.shown.index(channel)
        else:
            return None
        if values.ndim > 1:
            if index is None:
                return None
            own = list(index)
            own[self.channel_axis] = place
            return float(values[tuple(own)])
        value = values[place if len(values) > 1 else 0]
        return int(value) if values.dtype.kind in "iu" else float(value)
