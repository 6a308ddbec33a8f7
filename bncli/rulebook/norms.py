"""BN02x: what a tensor's shape shows where several norms are to choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.report import Severity
from bncli.rulebook.interface import Rule

if TYPE_CHECKING:
    from bncli.report import Finding

AMBIGUOUS_AXES = Rule(
    "BN020",
    "ambiguous-axes",
    Severity.WARNING,
    "the last two axes have the same size, so the shape does not show where the channels are",
    "Say which axis holds the channels: --channel-axis 1 for (N, C, L), or -1 for (N, T, D).",
    symptom="A BatchNorm1d after an RNN or a transformer trains without an error, and normalises "
    "time steps instead of features.",
    arithmetic="The input has 3 axes, the last two have the same size, and the channel axis was "
    "not named. PyTorch takes axis 1, and can refuse only a size that does not fit.",
    certainty="Certain that the shape is ambiguous; only you know which layout was meant.",
    lookalike="An (N, C, L) input in which C happens to equal L is correct: pass --channel-axis 1 "
    "to say so.",
)


def shape_findings(shape: tuple[int, ...], *, axis_given: bool) -> list[Finding]:
    """What the shape of an input shows; `axis_given` says that the user named the channel axis."""
    if axis_given or len(shape) != 3 or shape[1] != shape[2]:
        return []
    return [
        AMBIGUOUS_AXES.finding(
            "input",
            f"axes 1 and 2 both have size {shape[1]}; axis 1 was taken as the channels",
            {"shape": list(shape)},
        )
    ]
