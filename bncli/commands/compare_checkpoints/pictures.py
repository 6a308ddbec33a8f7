"""What a page shows of two files: the state of each layer over depth, and how far it moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.commands.compare_checkpoints.answer import ORDER
from bncli.commands.compare_checkpoints.rows import LABELS
from bncli.pictures import Axis, Kind, Panel, Picture, Series
from bncli.sections.depth import (
    drawn,
    drawn_said,
    factors,
    findings_said,
    furthest,
    known,
    layer_axis,
    level,
    marks,
    panel,
    ranges,
    sentences,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.report import Finding, Value

    Row = Mapping[str, Value]

STATES = {state.value: LABELS[state] for state in ORDER}
"""What people read of the states in the table, the worst first."""


def pictures(findings: Sequence[Finding], *, rows: Sequence[Row]) -> tuple[Picture, ...]:
    """The picture of the table's rows; () where all layers are in one state and nothing moved."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.subject, []).append(finding)
    shown = drawn(rows, lambda row: _name(row) in found)
    names = [_name(row) for row in shown]
    marked = {at: found[name] for at, name in enumerate(names) if name in found}
    axis = layer_axis(names)
    of = {key: known(row[key] for row in shown) for key in MEASURED}
    z = ranges("least to greatest channel", of["z_min"], of["z_max"])
    ratio = ranges("least to greatest channel", of["var_ratio_min"], of["var_ratio_max"])
    states = _states(axis, [str(row["state"]) for row in shown], marked)
    measured = [
        panel("Shift of the means", axis, "standard deviations", [z]) if any(of["z_max"]) else None,
        panel("Second variance over the first", axis, "ratio", [ratio, level("equal", 1.0)])
        if _differs(ratio)
        else None,
    ]
    told_apart = bool(marked) or len(states.y.names) > 1  # one state for all is said in the text
    panels = [each for each in (states if told_apart else None, *measured) if each is not None]
    if not panels:
        return ()
    told = [finding for those in marked.values() for finding in those]
    text = sentences(
        drawn_said(len(shown), len(rows)),
        _counted([str(row["state"]) for row in rows]),
        _known_still("No mean moved.", z, 0.0)
        or furthest("The mean of a channel moved", z.upper, names),
        _known_still("No variance changed.", ratio, 1.0)
        or factors("The variances became", ratio.y, ratio.upper, names),
        findings_said(told),
    )
    title = (
        "State of each layer, and how far it moved" if told_apart else "How far each layer moved"
    )
    return (Picture("layers", title, tuple(panels), text),)


MEASURED = ("z_min", "z_max", "var_ratio_min", "var_ratio_max")


def _name(row: Row) -> str:
    """A layer's name in the first file, or in the second where the first has no such layer."""
    return str(row["name"] if row["name"] is not None else row["other_name"])


def _states(axis: Axis, states: Sequence[str], marked: Mapping[int, Sequence[Finding]]) -> Panel:
    """The state of each layer, those that are there from the worst down; findings at theirs."""
    there = [state for state in STATES if state in states]
    at = [there.index(state) for state in states]
    layers = Series("layer", Kind.POINTS, range(len(at)), at)
    names = tuple(STATES[state] for state in there)
    return Panel("State", axis, Axis("", names=names), (layers, *marks(marked, at)))


def _differs(ratio: Series) -> bool:
    """Whether any variance is another one."""
    return any(value not in (None, 1.0) for value in (*ratio.y, *ratio.upper))


# ------------------------------------------------------------------ in words


def _known_still(said: str, moves: Series, still: float) -> str:
    """What is said where all that is known stands still; "" where it does not, or none is."""
    there = {value for value in (*moves.y, *moves.upper) if value is not None}
    return said if there == {still} else ""


def _counted(states: Sequence[str]) -> str:
    """How many layers are in which state."""
    there = [(states.count(state), said) for state, said in STATES.items() if state in states]
    if len(there) == 1:
        number, said = there[0]
        return f"The state of {'the layer' if number == 1 else f'all {number} layers'}: {said}."
    said_each = ", ".join(f"{number} {said}" for number, said in there)
    return f"The states of {len(states)} layers: {said_each}."
