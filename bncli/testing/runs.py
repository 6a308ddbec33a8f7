"""An implementation, taken through configurations: what it computed in each step, or raised."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bncli.backends.interface import BatchNormCall
from bncli.backends.users.function import TensorFunctionBackend
from bncli.backends.users.module import ModuleBackend
from bncli.errors import BncliError
from bncli.light import dataclass, np
from bncli.model import RunningStats
from bncli.testing.inputs import batch_of, layer_of, settings_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.backends.interface import Backend
    from bncli.model import ChannelStats
    from bncli.testing.configurations import Configuration


MOST = 100
"""Characters of an error's message that are shown."""


class RaisedError(Exception):
    """The user's code raised the `__cause__`; it is judged, not told."""


class EndedError(Exception):
    """The user's code would have ended the process."""


@contextmanager
def raising(what: str) -> Iterator[None]:
    """Runs the user's code: what it raises becomes a RaisedError, which names `what` ran."""
    try:
        with warnings.catch_warnings():
            # Overflow, NaN and empty means are what some configurations are for.
            for category in (RuntimeWarning, UserWarning):
                warnings.simplefilter("ignore", category)
            yield
    except SystemExit as error:
        raise RaisedError(what) from EndedError(f"SystemExit: {error.code}")
    except Exception as error:
        raise RaisedError(what) from error


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a configuration: what was given, and what the implementation made of it.

    `stats` are the exact ones of the batch, None for an empty one. `found` has arrays by quantity,
    as a `BackendRun`; `error` is what was raised in their place, while `doing`. `changed` are the
    arguments that were overwritten. `has_autograd` says that the code computes on tensors that
    require gradients.
    """

    configuration: Configuration
    number: int
    call: BatchNormCall
    stats: ChannelStats | None
    found: Mapping[str, NDArray[Any]]
    error: Exception | None = None
    doing: str = ""
    changed: tuple[str, ...] = ()
    has_autograd: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """What the implementation may give of this step, and does not."""
        if self.error is not None or self.stats is None:
            return ()
        call = self.call
        given = {
            "num_batches_tracked": call.running is not None,
            "grad_input": True,
            "grad_weight": call.weight is not None,
            "grad_bias": call.bias is not None,
        }
        return tuple(
            name for name, is_there in given.items() if is_there and name not in self.found
        )

    @property
    def never_trains(self) -> tuple[str, ...]:
        """The gradients that are missing in training, where autograd does not reach the input.

        That of weight or bias alone is missing where the output does without them.
        """
        if not (self.has_autograd and self.call.settings.training and "grad_input" in self.missing):
            return ()
        return tuple(name for name in self.missing if name.startswith("grad_"))

    @property
    def key(self) -> tuple[str, int]:
        """The configuration's name and the number."""
        return self.configuration.name, self.number

    @property
    def place(self) -> str:
        """The configuration's name, and the step where there are several."""
        name = str(self.configuration)
        return f"{name}, step {self.number + 1}" if len(self.configuration.modes) > 1 else name


def steps_of(backend: Backend, configuration: Configuration) -> tuple[Step, ...]:
    """Each step, from the buffers that the one before it left; none after one that raised."""
    layer = layer_of(configuration)
    running, done = layer.running, []
    has_autograd = isinstance(backend, ModuleBackend | TensorFunctionBackend)
    for number in range(len(configuration.modes)):
        batch = batch_of(configuration, number)
        call = BatchNormCall(
            x=batch.x,
            grad_output=batch.g,
            dtype=configuration.dtype,
            parameter_dtype=configuration.parameter_dtype,
            channel_axis=1,
            settings=settings_of(configuration, number),
            weight=layer.weight,
            bias=layer.bias,
            running=running,
        )
        try:
            run = backend.run(call)
        except RaisedError as error:
            cause = error.__cause__
            assert isinstance(cause, Exception)
            done.append(Step(configuration, number, call, batch.stats, {}, cause, str(error)))
            break
        except BncliError as error:
            done.append(Step(configuration, number, call, batch.stats, {}, error))
            break
        changed = tuple(getattr(run, "changed", ()))
        done.append(
            Step(
                configuration,
                number,
                call,
                batch.stats,
                run.quantities,
                changed=changed,
                has_autograd=has_autograd,
            )
        )
        running = _after(done[-1])
    return tuple(done)


def _after(step: Step) -> RunningStats | None:
    """The buffers with which the next step begins: those that this one left.

    A counter that an implementation lacks is counted for it.
    """
    before, found = step.call.running, step.found
    if before is None:
        return None
    counter = found.get("num_batches_tracked")
    return RunningStats(
        np.asarray(found.get("running_mean", before.running_mean), np.float64),
        np.asarray(found.get("running_var", before.running_var), np.float64),
        before.num_batches_tracked + step.call.settings.training
        if counter is None
        else int(counter[0]),
    )


def told(error: Exception | None) -> str:
    """An error in a line."""
    if isinstance(error, EndedError):
        return f"an end of the process ({error})"
    if isinstance(error, BncliError):
        return str(error).rstrip(".")
    said = str(error).strip().partition("\n")[0]
    kind = type(error).__name__
    return f"{kind}: {said[:MOST]}" if said else kind
