"""Flags that go together, as commands take them: the panels Input, Layer and Comparison."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import typer

from bncli.arguments import options


@dataclass(frozen=True, slots=True)
class InputFlags:
    """How an input is read, and which channels of it are shown; None where a flag was not given."""

    channel_axis: options.ChannelAxis = 1
    dtype: options.Dtype = None
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
        typer.Option(
            "--training/--eval",
            help="One mode only.",
            rich_help_panel=options.LAYER,
            show_default="both modes",
        ),
    ] = None  # type: ignore[assignment]  # one choice more than a layer has

    def in_mode(self, *, training: bool) -> LayerFlags:
        """The same in one of the modes."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return LayerFlags(**values | {"training": training})


@dataclass(frozen=True, slots=True)
class AgainstFlags:
    """What a result is compared with, if anything, and how closely."""

    against: options.Against = None
    rtol: options.Rtol = None
    atol: options.Atol = None

    @property
    def tolerance(self) -> tuple[float, float] | None:
        """(rtol, atol), or None for the tolerance that follows from the arithmetic.

        Raises UsageError where only one is given, or one is negative or not a number, or where
        there is nothing to compare with.
        """
        return self.pair(compared=self.against is not None)

    def pair(self, *, compared: bool) -> tuple[float, float] | None:
        """As `tolerance`, where it is known whether something is `compared`."""
        from bncli.verify.closeness import tolerance_pair

        return tolerance_pair(self.rtol, self.atol, compared=compared)
