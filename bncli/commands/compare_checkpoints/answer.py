"""What a person sees of two files: the layers in trouble, and what the others have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.commands.compare_checkpoints.rows import NEAR, Numbers, plain, rounded, state_said
from bncli.light import dataclass
from bncli.model.changes import How, State
from bncli.report import ANSWER_ROWS, Column, Severity, Table
from bncli.rulebook.interface import percent
from bncli.rulebook.layers import label, plain_count
from bncli.sections.answer import FEW_ROWS, counted, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bncli.model.changes import LayerVersion
    from bncli.report import FailOn, Finding, Report, Value

    Row = dict[str, Value]

ORDER = (
    State.IMPOSSIBLE,
    State.LOST,
    State.RESET,
    State.EMPTY,
    State.CONVENTION,
    State.ORDER,
    State.STATISTICS,
    State.WEIGHTS,
    State.FOLDED,
    State.DIFFERENT,
    State.TRAINED,
    State.COUNTER,
    State.ROUNDED,
    State.IDENTICAL,
)
"""The states as people are told of them, the worst first."""

STILL = frozenset({State.IDENTICAL, State.ROUNDED})
"""The states of layers that did not move, whose names tell little."""

GREATEST, LISTED = (
    "the layers with the greatest effect in each state are named",
    "-v lists each layer",
)
"""What stands below a table that does not show all layers."""

LEGEND = "effect: how far off the worst channel's output is (-v explains the columns)"
"""What stands below a table that says how far layers moved."""

UNCHANGED = {"batches": "0", "moved": "0", "ratio": "1", "effect": "0", "change": "0"}
"""The cells of each column that says nothing where all are such."""

MOST_NAMED = 3
"""Layers of one state that have rows of their own where there are many."""

TINY = 0.001
"""Standard deviations by which a mean has hardly moved."""

SMALL = 0.01
"""A share below which its digits tell more than a whole percent."""

COLUMNS = (
    Column("layer", "layer"),
    Column("state", "state"),
    Column("batches", "batches"),
    Column("moved", "moved (std)"),
    Column("effect", "effect"),
    Column("ratio", "var ratio", spare=2),
    Column("change", "weights moved", spare=3),
    Column("other", "in the second file", spare=1),
)


@dataclass(frozen=True, slots=True)
class Group:
    """The layers of one state, and the worst that was found of any of them (None: nothing)."""

    state: State
    layers: tuple[LayerVersion, ...]
    severity: Severity | None

    @property
    def warned(self) -> bool:
        """Whether a warning or an error is about some layer of it."""
        return self.severity is not None and self.severity is not Severity.INFO


def grouped(layers: Sequence[LayerVersion], severities: Mapping[str, Severity]) -> list[Group]:
    """The layers by state, the states in trouble first; `severities` are by the layer's name."""
    groups = []
    for state in ORDER:
        own = tuple(layer for layer in layers if layer.found.state is state)
        found = [severities[name] for layer in own if (name := called(layer)) in severities]
        if own:
            worst = max(found, key=lambda each: each.rank) if found else None
            groups.append(Group(state, own, worst))
    return sorted(groups, key=lambda group: not group.warned)


def called(layer: LayerVersion) -> str:
    """A layer's name in the first file, or in the second where the first has no such layer."""
    return label(layer.name or layer.other_name)


def layers_answer(
    report: Report,
    fail_on: FailOn,  # noqa: ARG001  # a verdict is for files
    layers: Sequence[LayerVersion],
) -> tuple[Table, ...]:
    """The rows of layers in trouble, then of those that moved most, and one for each state."""
    severities = severities_of(report.findings)
    groups = grouped(layers, severities)
    few = len(layers) <= FEW_ROWS
    trouble = any(group.warned for group in groups)
    room = ANSWER_ROWS - len(groups)
    rows: list[Row] = []
    summed = chosen = False
    for group in groups:
        most = len(group.layers) if few else min(_most(group, trouble=trouble), max(room, 0))
        if len(group.layers) == most + 1:
            most += 1  # a row that sums up one layer may as well name it
        named, rest = _worst(group.layers, most, severities)
        equally_bad = len({severities.get(called(layer)) for layer in group.layers}) == 1
        if rest and equally_bad and all(_alike(layer, group.layers) for layer in named):
            named, rest = (), group.layers  # their rows would tell nothing but names
        rows += [_row(called(layer), (layer,)) for layer in named]
        if rest:
            summed = True
            chosen = chosen or any(row["effect"] for row in rows[len(rows) - len(named) :])
            rows.append(_row(counted(len(rest), "more layer" if named else "layer"), rest))
        room -= len(named)
    note = LISTED if summed else ""
    if chosen:
        note = f"{GREATEST}; {LISTED}"
    columns = tuple(
        column
        for column in COLUMNS
        if column.key in ("layer", "state")
        or any(row[column.key] not in (None, UNCHANGED.get(column.key)) for row in rows)
    )
    if any(column.key == "effect" for column in columns):
        note = f"{note}; {LEGEND}" if note else LEGEND
    return (Table("answer", "", columns, rows, note=note),)


def _worst(
    layers: Sequence[LayerVersion], most: int, severities: Mapping[str, Severity]
) -> tuple[Sequence[LayerVersion], Sequence[LayerVersion]]:
    """The layers in worse trouble and with the greater effect, and the others."""
    if len(layers) <= most:
        return layers, ()

    def good(layer: LayerVersion) -> tuple[int, float]:
        severity = severities.get(called(layer))
        return 1 if severity is None else -severity.rank, -(layer.measures.effect or 0)

    ordered = sorted(layers, key=good)
    return ordered[:most], ordered[most:]


def severities_of(findings: Iterable[Finding]) -> dict[str, Severity]:
    """How bad the worst finding of each layer is, by the layer's name."""
    found: dict[str, Severity] = {}
    for finding in findings:
        known = found.get(finding.subject, finding.severity)
        found[finding.subject] = max(known, finding.severity, key=lambda each: each.rank)
    return found


def _most(group: Group, *, trouble: bool) -> int:
    """How many layers of a state get rows of their own where there are many layers.

    Where some layer is in `trouble`, those that are not tell little.
    """
    if not group.warned and (trouble or group.state in STILL):
        return 0
    return MOST_NAMED


def _alike(layer: LayerVersion, layers: Sequence[LayerVersion]) -> bool:
    """Whether the row of a layer says how far it moved as the row of all layers of its state."""
    own, whole = _row("", (layer,)), _row("", layers)
    return all(own[key] == whole[key] for key in ("batches", "moved", "ratio", "change"))


def _row(name: str, layers: Sequence[LayerVersion]) -> Row:
    """The row of layers of one state."""
    numbers = Numbers.of(layers)
    state = layers[0].found.state
    still = state in STILL or state is State.IMPOSSIBLE  # NaN is far from anything
    unrelated = any(layer.found.numbers.get("cause") == "unrelated" for layer in layers)
    other = {layer.other_name for layer in layers if layer.how not in (None, How.NAME)}
    return {
        "layer": name,
        "state": state_said(layers),
        "batches": None if unrelated else batches_said(numbers.batches),
        "moved": None if still else _range(numbers.moved, rounded, TINY),
        "ratio": None if still else _ratios(numbers.ratio),
        "change": None if still or numbers.change is None else _most_percent(numbers.change),
        "effect": None if still or numbers.effect is None else rounded(numbers.effect[1]),
        "other": other.pop() if len(other) == 1 else None,
    }


def batches_said(ends: tuple[float, float] | None) -> str | None:
    """The batches of some layers, as one number or a range."""
    if ends is None:
        return None
    return " .. ".join(dict.fromkeys(map(plain_count, ends)))


def _range(
    ends: tuple[float, float] | None, said: Callable[[float], str], tiny: float = 0.0
) -> str | None:
    """A range as one cell; from a number below `tiny`, how small that is does not matter."""
    if ends is None:
        return None
    low, high = ends
    if 0 < low < tiny <= high:
        return f"<{tiny:g} .. {said(high)}"
    return " .. ".join(dict.fromkeys(map(said, ends)))


def _ratios(ends: tuple[float, float] | None) -> str | None:
    """A range of ratios; only where all of it is nearly 1, it needs the digits that say so."""
    near = ends is not None and all(abs(end - 1) < NEAR for end in ends)
    return _range(ends, plain if near else rounded)


def _most_percent(ends: tuple[float, float]) -> str:
    change = ends[1]
    if not change:
        return "0"
    return percent(change) if change < SMALL else share(change)
