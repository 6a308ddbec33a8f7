"""Flags that go together, as commands take them: the panels Input, Layer and Comparison."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated

from bncli.arguments import options
from bncli.arguments.options import option
from bncli.errors import UsageError
from bncli.light import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.arguments.input import Input
    from bncli.backends.interface import Backend
    from bncli.model import TensorRef
    from bncli.verify.closeness import GivenTolerance


@dataclass(frozen=True, slots=True)
class ReadingFlags:
    """How an input is read; None where a flag was not given."""

    values: options.Values = None
    channel_axis: options.ChannelAxis = None
    dtype: options.Dtype = None

    @property
    def axis(self) -> int:
        """The channel axis: the one given, or 1."""
        return 1 if self.channel_axis is None else self.channel_axis

    def axis_of(self, state: str | None) -> tuple[int, str]:
        """The channel axis, and where it is from, which is "" for a flag and for PyTorch's 1.

        It is the one given, or that of the layer `state`, as `running_stats.stored.channel_axis`
        has it. Raises FileError and TensorError for what is not a layer, as `open_layer`.
        """
        if self.channel_axis is not None or state is None:
            return self.axis, ""
        from bncli.loaders import open_layer
        from bncli.running_stats.stored import channel_axis

        return channel_axis(open_layer(state).module)

    def open(self, specs: Sequence[str | None], state: str | None = None) -> Input:
        """Open the tensors and check them; raises as `tensors`, `axis_of` and `check_input`."""
        from bncli.arguments.input import check_input

        tensors = self.tensors(specs)
        axis, source = self.axis_of(state)
        return replace(check_input(tensors, axis, self.dtype), axis_source=source)

    def tensors(self, specs: Sequence[str | None]) -> tuple[TensorRef, ...]:
        """The tensors that INPUT names, or the one that is typed; None is an INPUT not given.

        Raises UsageError for both and for neither, FileError for what cannot be read.
        """
        from bncli.arguments.input import open_values, opened

        named = [spec for spec in specs if spec is not None]
        if named and self.values is not None:
            raise UsageError(f"--values and INPUT ({named[0]}) are both given; leave one out.")
        if self.values is not None:
            return (open_values(self.values, self.dtype),)
        if not named:
            raise UsageError("INPUT is missing: name a file, or type numbers with --values.")
        return tuple(opened(spec, self.dtype) for spec in named)


@dataclass(frozen=True, slots=True)
class InputFlags(ReadingFlags):
    """How an input is read, and which channels of it are shown."""

    channel: options.Channel = None


@dataclass(frozen=True, slots=True)
class LayerFlags:
    """The Layer panel as typed; None where a flag was not given."""

    training: options.Training = True
    state: options.State = None
    eps: options.Eps = None
    momentum: options.Momentum = None
    affine: options.Affine = None
    track_running_stats: options.TrackRunningStats = True
    weight: options.Weight = None
    bias: options.Bias = None
    running_mean: options.RunningMean = None
    running_var: options.RunningVar = None


@dataclass(frozen=True, slots=True)
class EitherModeFlags(LayerFlags):
    """The Layer panel of a command that goes through both modes; `training` None is both."""

    training: Annotated[
        bool | None,
        option(
            "Compare in one mode only.", options.LAYER, "--training/--eval", default="both modes"
        ),
    ] = None  # type: ignore[assignment]  # one choice more than a layer has
    track_running_stats: Annotated[
        bool | None,
        option("Keep running_mean and running_var.", options.LAYER, default="track-running-stats"),
    ] = None  # type: ignore[assignment]  # None where the flag was not given


@dataclass(frozen=True, slots=True)
class KnownFlags:
    """What a user knows of the layer behind an output; None where a flag was not given."""

    state: Annotated[
        str | None,
        options.layer_option(
            "Take weight, bias, running_mean and running_var from a checkpoint's layer."
        ),
    ] = None
    eps: Annotated[
        float | None,
        option("The expected eps.", options.LAYER, metavar="NUMBER", default="1e-05"),
    ] = None
    weight: options.Weight = None
    bias: options.Bias = None
    running_mean: Annotated[
        str | None,
        options.tensor_option(
            "The running mean. Eval mode is tried only if running_mean and running_var are known, "
            "from these flags or --state."
        ),
    ] = None
    running_var: Annotated[
        str | None, options.tensor_option("The running variance; see --running-mean.")
    ] = None
    training: options.EitherMode = None

    @classmethod
    def of(cls, flags: EitherModeFlags) -> KnownFlags:
        """What the Layer panel of a comparison says of the layer behind an output."""
        return cls(**{field.name: getattr(flags, field.name) for field in fields(cls)})

    def refuse_any(self, what: str) -> None:
        """Raise UsageError where one was given that does not apply to `what`."""
        for field in fields(self):
            if getattr(self, field.name) is not None:
                flag = field.name.replace("_", "-")
                if field.name == "training":
                    flag = "training" if self.training else "eval"
                raise UsageError(f"--{flag} does not apply to {what}; leave it out.")

    @property
    def specs(self) -> tuple[str, ...]:
        """The files that are named, each as it was typed."""
        specs = (self.state, self.weight, self.bias, self.running_mean, self.running_var)
        return tuple(spec for spec in specs if spec)


@dataclass(frozen=True, slots=True)
class AgainstFlags:
    """What a result is compared with, if anything, and how closely."""

    against: options.Against = None
    rtol: options.Rtol = None
    atol: options.Atol = None
    tolerance_factor: options.ToleranceFactor = None

    @property
    def tolerance(self) -> GivenTolerance:
        """(rtol, atol), or a factor on the tolerance that follows from the arithmetic, or None.

        Raises UsageError where only one of the first two is given, or one is negative or not a
        number, or the factor is below 1 or there beside them, or nothing is compared.
        """
        return self.allowed(compared=self.against is not None)

    @property
    def library(self) -> Backend | None:
        """The backend to compare with; raises as `bncli.arguments.against.backend_named`."""
        if self.against is None:
            return None
        from bncli.arguments.against import backend_named

        return backend_named(self.against)

    def allowed(self, *, compared: bool) -> GivenTolerance:
        """As `tolerance`, where it is known whether something is `compared`."""
        factor = self.tolerance_factor
        if factor is not None:
            return self._checked_factor(factor, compared=compared)
        if self.rtol is None and self.atol is None:
            return None
        if self.rtol is None or self.atol is None:
            raise UsageError("--rtol and --atol go together: give both or neither.")
        for flag, value in (("--rtol", self.rtol), ("--atol", self.atol)):
            if not value >= 0:
                raise UsageError(f"{flag} {value:g}: a tolerance must be 0 or more.")
        if not compared:
            raise UsageError("--rtol and --atol are for a comparison: add --against torch.")
        return self.rtol, self.atol

    def _checked_factor(self, factor: float, *, compared: bool) -> float:
        """The factor. Raises UsageError where it is none, or has nothing to multiply."""
        if not 1 <= factor < float("inf"):
            raise UsageError(f"--tolerance-factor {factor:g}: it must be a number from 1 up.")
        if self.rtol is not None or self.atol is not None:
            raise UsageError(
                "--tolerance-factor multiplies the tolerance that follows from the arithmetic, "
                "which --rtol and --atol replace; give one or the other."
            )
        if not compared:
            raise UsageError("--tolerance-factor is for a comparison: add --against torch.")
        return float(factor)
