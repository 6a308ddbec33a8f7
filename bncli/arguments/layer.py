"""The layer of a command: PyTorch's arguments and a state, from flags and files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.arguments.input import open_vector
from bncli.errors import TensorError, UsageError
from bncli.light import dataclass, np
from bncli.loaders import open_layer, split_spec
from bncli.model import BatchNormLayer, BatchNormSettings, BatchNormState, RunningStats

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from bncli.arguments.flags import KnownFlags, LayerFlags
    from bncli.arguments.input import Input
    from bncli.model import BatchNormModule, FloatArray
    from bncli.report import Value


@dataclass(frozen=True, slots=True)
class Layer(BatchNormLayer):
    """The layer that flags and files describe.

    `fresh` says that evaluation has to use a new module's statistics. `sources` says where eps and
    momentum come from, `about` from which file, and under which name, its tensors do. `module` is
    what that file says of the layer beside them.
    """

    fresh: bool
    sources: dict[str, Value]
    read: tuple[str, ...]
    about: tuple[tuple[str, str], ...] = ()
    module: BatchNormModule | None = None


def resolve_layer(flags: LayerFlags, given: Input) -> Layer:
    """The layer that the flags describe, for this input.

    Raises UsageError for flags that contradict each other, TensorError for a state that does not
    fit the input, and FileError for files.
    """
    stored = open_layer(flags.state) if flags.state else BatchNormState("")
    settings, sources = settings_of(flags, stored)
    dtype = given.dtype
    if dtype == "float64":
        parameter_dtype = "float64"
    elif dtype != "float32" and not settings.affine and not settings.track_running_stats:
        parameter_dtype = dtype  # with nothing kept in float32, PyTorch has only the input's dtype
    else:
        parameter_dtype = "float32"
    reader = _Reader(given, parameter_dtype)

    weight = bias = None
    if settings.affine:
        weight = reader.choose("weight", flags.weight, stored.weight, flags.state, 1.0)
        bias = reader.choose("bias", flags.bias, stored.bias, flags.state, 0.0)
    running = None
    if settings.track_running_stats:
        _check_tracked(flags, stored)
        tracked = stored.num_batches_tracked
        running = RunningStats(
            reader.choose(
                "running_mean", flags.running_mean, stored.running_mean, flags.state, 0.0
            ),
            reader.choose("running_var", flags.running_var, stored.running_var, flags.state, 1.0),
            _counter(flags.state, tracked),
        )
    specs = (flags.state, flags.weight, flags.bias, flags.running_mean, flags.running_var)
    about = tuple(about_spec(spec) for spec in specs if spec)
    return Layer(
        settings=settings,
        parameter_dtype=parameter_dtype,
        weight=weight,
        bias=bias,
        running=running,
        fresh=(
            not settings.normalizes_with_batch
            and flags.running_mean is None
            and stored.running_mean is None
        ),
        sources=sources,
        read=tuple(path for path, _ in about),
        about=about,
        module=stored.module,
    )


def about_spec(spec: str) -> tuple[str, str]:
    """A file and the name in it, as `Report.about` has them."""
    path, name = split_spec(spec)
    return str(path), name


def check_count(given: Input, layer: Layer) -> None:
    """Raise TensorError for one value per channel where the batch itself normalises."""
    if given.count == 1 and layer.settings.normalizes_with_batch:
        when, fix = " when training", "use a larger batch, or --eval"
        if not layer.settings.training:
            when = ""
            fix = (
                "with --no-track-running-stats, batch statistics are used even with --eval: use a "
                "larger batch, or leave out --no-track-running-stats"
            )
        raise TensorError(
            f"{given.label}: expected more than 1 value per channel{when}, got input "
            f"size {list(given.tensors[0].shape)}; {fix}."
        )


def parse_momentum(text: str) -> float | None:
    """The momentum that `--momentum` names: a number, or None for "none".

    Raises UsageError for anything else.
    """
    if text.lower() == "none":
        return None
    try:
        momentum = float(text)
    except ValueError:
        momentum = math.nan
    if not math.isfinite(momentum):
        raise UsageError(
            f"--momentum {text}: give a number such as 0.1, or none for the cumulative average."
        )
    return momentum


def settings_of(
    flags: LayerFlags, stored: BatchNormState
) -> tuple[BatchNormSettings, dict[str, Value]]:
    """PyTorch's arguments: a flag first, then what the file stores, then the framework's default.

    That is PyTorch's, unless the file says that the layer is another framework's.
    """
    default = BatchNormSettings()
    eps, eps_source = default.eps, "default"
    momentum, momentum_source = default.momentum, "default"
    affine = True if flags.state is None else not (stored.weight is None and stored.bias is None)
    if (module := stored.module) is not None:
        from bncli.running_stats.stored import stored_momentum
        from bncli.state_dict.names import of_convention

        if (usual := of_convention(module.convention)) is not None:
            eps, momentum = usual.eps, usual.momentum
        if module.eps is not None:
            eps, eps_source = module.eps, "file"
        if (known := stored_momentum(module)) is not None:
            momentum, momentum_source = known[0], "file"
    if flags.eps is not None:
        eps, eps_source = flags.eps, "flag"
    if flags.momentum is not None:
        momentum, momentum_source = parse_momentum(flags.momentum), "flag"
    if flags.affine is not None:
        affine = flags.affine
    elif flags.weight is not None or flags.bias is not None:
        affine = True
    if not affine:
        _contradiction("--no-affine", {"--weight": flags.weight, "--bias": flags.bias})
    if not flags.track_running_stats:
        _contradiction(
            "--no-track-running-stats",
            {"--running-mean": flags.running_mean, "--running-var": flags.running_var},
        )
    settings = BatchNormSettings(eps, momentum, affine, flags.track_running_stats, flags.training)
    if not math.isfinite(eps) or eps < 0 or (eps == 0 and settings.normalizes_with_batch):
        least = " above 0" if settings.normalizes_with_batch else ", 0 or above"
        also = "; only --eval with running statistics takes 0" if eps == 0 else ""
        raise UsageError(f"--eps {eps:g}: eps must be a finite number{least}{also}.")
    return settings, {"eps_source": eps_source, "momentum_source": momentum_source}


def _counter(state: str | None, tracked: float | None) -> int:
    """The counter before this batch: 0 where the state has none.

    Raises UsageError for what is not a count.
    """
    if tracked is None:
        return 0
    if not 0 <= tracked < 2**62 or tracked != int(tracked):
        raise UsageError(
            f"--state {state}: num_batches_tracked is {tracked}, which is not a number of batches; "
            "name another layer, or give its tensors by --running-mean and --running-var."
        )
    return int(tracked)


def _contradiction(flag: str, others: dict[str, str | None]) -> None:
    """Raise UsageError where a flag gives a tensor that another flag rules out."""
    for other, value in others.items():
        if value is not None:
            raise UsageError(f"{other} and {flag} contradict each other; leave one out.")


def _check_tracked(flags: LayerFlags, stored: BatchNormState) -> None:
    """Raise UsageError unless running_mean and running_var are both there, or neither is asked."""
    mean = flags.running_mean is not None or stored.running_mean is not None
    var = flags.running_var is not None or stored.running_var is not None
    if flags.state and not mean and not var:
        raise UsageError(
            f"--state {flags.state}: this layer has neither running_mean nor running_var; "
            "name one that has both, or add --no-track-running-stats."
        )
    check_pair(mean=mean, var=var, flags=flags)


def check_pair(*, mean: bool, var: bool, flags: LayerFlags | KnownFlags) -> None:
    """Raise UsageError where only one of running_mean and running_var is there."""
    if mean != var:
        have, lack = ("mean", "var") if mean else ("var", "mean")
        if flags.state and getattr(flags, f"running_{have}") is None:
            raise UsageError(
                f"--state {flags.state}: this layer has running_{have} but no running_{lack}; "
                f"add --running-{lack}, or name another layer."
            )
        raise UsageError(
            f"--running-{have} is given without --running-{lack}, and both are needed: "
            f"add --running-{lack}."
        )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads per-channel tensors for an input."""

    given: Input
    parameter_dtype: str

    def choose(
        self,
        name: str,
        spec: str | None,
        stored: NDArray[Any] | None,
        state: str | None,
        default: float,
    ) -> FloatArray:
        """The tensor of a flag, else that of the state, else a fresh module's."""
        if spec is not None:
            tensor = open_vector(spec, f"{name} cannot")
            return self._fitted(name, tensor.read(), tensor.label)
        if stored is not None:
            return self._fitted(name, stored, str(state))
        return np.full(self.given.num_features, default)

    def _fitted(self, name: str, values: NDArray[Any], label: str) -> FloatArray:
        """The values as a module of this size would hold them."""
        wanted = self.given.num_features
        if values.shape != (wanted,):
            raise TensorError(
                f"{label}: {name} has shape {list(values.shape)}, but "
                f"{self.given.tensors[0].label} has {self.given.channels_said}; "
                "name another tensor or another --channel-axis."
            )
        with np.errstate(over="ignore"):
            return values.astype(self.parameter_dtype).astype(np.float64)
