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


def residual_pictures(
    rows: Sequence[dict[str, Value]], words: Sequence[str], what: str, tried: int
) -> tuple[Picture, ...]:
    """The largest difference that each of the first hypotheses leaves, on a log axis.

    `rows` and their `words` are those of the ranking, whose order is kept from the top down, and
    `what` is what was to be explained. None where no difference is a number.
    """
    known = [
        (float(off), row["explains"] is True, said)
        for row, said in zip(rows, words, strict=True)
        if isinstance(off := row["max_abs_diff"], (int, float)) and math.isfinite(off)
    ][:MOST]
    if not known:
        return ()
    series = []
    for label, explains in (("explains it", True), ("does not", False)):
        own = [(off, place) for place, (off, fits, _) in enumerate(known) if fits is explains]
        if own:
            x, y = zip(*own, strict=True)
            series.append(Series(label, Kind.POINTS, x, y))
    names = [said for _, _, said in known]
    panel = Panel("", Axis("largest difference", log=True), Axis("", names=names), tuple(series))
    text = _said(known, what, tried)
    return (Picture("residuals", "How far off each hypothesis is", (panel,), text),)


def _said(known: list[tuple[float, bool, str]], what: str, tried: int) -> str:
    """Which hypotheses explain it, and how far off the best of the others is."""
    fitting = [each for each in known if each[1]]
    others = [each for each in known if not each[1]]
    said = [
        f"Each point is the largest difference between {what} and what a hypothesis gives.",
        "The best hypothesis is at the top.",
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
    if others:
        off, _, best = min(others)
        said.append(f"Of those that do not, the nearest is “{best}”, off by {off:.2g}.")
    said.append(
        f"{len(known)} of the {counted(tried, 'hypothesis', 'hypotheses')} tried are drawn."
    )
    return " ".join(said)
