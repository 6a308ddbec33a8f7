"""What the trials showed, in sentences for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.rulebook.interface import in_prose
from bncli.rulebook.layers import label
from bncli.rulebook.live import batches
from bncli.rulebook.live.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model.capture import Capture, Trial, Trials

NOTHING = 0.1
"""The share below which nothing closes that anyone would notice."""


def closes(capture: Capture, trial: Trial) -> float | None:
    """(gap - the trial's gap) / (gap - floor); None where that is not known, or nothing can close.

    Below 0 the trial makes the gap wider, and above 1 it goes below the floor.
    """
    return Evidence(capture, ()).closes(trial)


def trial_sentences(capture: Capture, trials: Trials, codes: Sequence[str] = ()) -> list[str]:
    """What the trials showed: the best single layer, the first ones, all layers, and the input.

    `codes` are those of the findings. Empty where nothing was tried, or its gap is not known.
    """
    found = Evidence(capture, (), trials)
    gap, floor = found.gap, capture.gap_floor
    if not trials.trials or gap is None or floor is None:
        return []
    if gap <= floor:
        return ["The gap is at its floor, so there is nothing to close."]
    sentences = []
    for kind in ("input", "one", "first", "all but one", "all"):
        best = found.best(kind)
        if best is not None and (kind not in WEAKER or _shown(found, kind, best[1])):
            sentences.append(_sentence(*best, codes))
    return sentences


WEAKER = {"first": "one", "all but one": "all"}
"""What is said only where it closes more than another kind."""


def _shown(found: Evidence, kind: str, share: float) -> bool:
    """Whether a kind closes more than the one it is measured by, or as much."""
    other = found.best(WEAKER[kind])
    return share >= NOTHING and (other is None or share > other[1] + 0.05)


def _sentence(trial: Trial, share: float, codes: Sequence[str]) -> str:
    """What one trial closes."""
    where = _where(trial)
    if share < -NOTHING:
        return f"{where} the gap gets {-share:.0%} wider."
    if share < NOTHING:
        why = ": the batches differ" if batches.DIFFER.code in codes and trial.kind == "all" else ""
        return f"{where} nothing closes{why}."
    return f"{where} {share:.0%} of what can close closes."


def _where(trial: Trial) -> str:
    """How a sentence on a trial begins."""
    names = [in_prose(label(name)) for name in trial.layers]
    if trial.kind == "input":
        return f"With the {trial.what}"
    if trial.kind == "one" and names:
        return f"With the data's statistics in {names[0]} alone"
    if trial.kind == "first":
        return f"With the data's statistics in the first {len(names)} layers"
    if trial.kind == "all but one":
        return f"With the data's statistics in {trial.what}"
    return "With the data's statistics in all layers"
