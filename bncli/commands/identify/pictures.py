"""What an identification shows: how far off each hypothesis is, the best first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.pictures import Axis, Kind, Panel, Picture, Series
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.report import Value

MOST = 16
"""Hypotheses that are drawn."""


EXPLAINS, WITHIN, OFF = "explains it", "within rounding too", "is off"
"""The labels of hypotheses."""


def residual_pictures(
    rows: Sequence[dict[str, Value]],
    words: Sequence[str],
    what: str,
    within: Sequence[bool],
    tried: int,
) -> tuple[Picture, ...]:
    """The largest difference that each of the first hypotheses leaves, on a log axis.

    `rows` and their `words` are those of the ranking, whose order is kept from the top down,
    `within` says which leave no more than rounding may, and `what` is what was to be explained.
    None where no difference is a number.
    """
    known = [
        (float(off), EXPLAINS if row["explains"] is True else WITHIN if fits else OFF, said)
        for row, said, fits in zip(rows, words, within, strict=True)
        if isinstance(off := row["max_abs_diff"], (int, float)) and math.isfinite(off)
    ][:MOST]
    if not known:
        return ()
    series = []
    for label in (EXPLAINS, OFF, WITHIN):
        own = [(off, place) for place, (off, kind, _) in enumerate(known) if kind == label]
        if own:
            x, y = zip(*own, strict=True)
            series.append(Series(label, Kind.POINTS, x, y))
    names = [said for _, _, said in known]
    panel = Panel("", Axis("largest difference", log=True), Axis("", names=names), tuple(series))
    text = _said(known, what, tried)
    return (Picture("residuals", "How far off each hypothesis is", (panel,), text),)


def _said(known: list[tuple[float, str, str]], what: str, tried: int) -> str:
    """Which hypotheses explain it, and how far off the best of the others is."""
    fitting, within, others = (
        [each for each in known if each[1] == label] for label in (EXPLAINS, WITHIN, OFF)
    )
    said = [
        f"Each point is the largest difference between {what} and what a hypothesis gives.",
        "The hypotheses are in the order of the table.",
    ]
    if fitting:
        off, _, best = fitting[0]
        left = f": {off:.2g} is left, which may be rounding" if off else " exactly"
        said.append(f"The first, “{best}”, explains it{left}.")
        if len(fitting) > 1:
            more = len(fitting) - 1
            verb = "explains" if more == 1 else "explain"
            said.append(f"{more} more of those drawn {verb} it too.")
    else:
        said.append("None explains it.")
    if within:
        said.append(_within_said(len(within), explained=bool(fitting)))
    if others:
        off, _, best = min(others)
        said.append(
            f"Of those that leave more than rounding may, the nearest is “{best}”, off by "
            f"{off:.2g}."
        )
        if any(off <= each[0] for each in fitting):
            said.append(
                "An explanation may leave more, because rounding may leave more in "
                "some channels than in others, and each channel counts by itself."
            )
    said.append(
        f"{len(known)} of the {counted(tried, 'hypothesis', 'hypotheses')} tried are drawn."
    )
    return " ".join(said)


def _within_said(number: int, *, explained: bool) -> str:
    """Why hypotheses that leave no more than rounding may are no explanations."""
    leave = "leaves" if number == 1 else "leave"
    if not explained:
        return (
            f"{number} of those drawn {leave} no more than rounding may, but anything of this size "
            "would."
        )
    they = "it does not count as an explanation because it is less simple or fits"
    if number > 1:
        they = "they do not count as explanations because they are less simple or fit"
    return (
        f"{number} more of those drawn also {leave} no more than rounding may; {they} only within "
        "a wider tolerance."
    )
