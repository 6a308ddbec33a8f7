"""The row of a pair of layers, for scripts and for -v."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import dataclass
from bncli.model.changes import State
from bncli.report import Certainty, Column, Table
from bncli.rulebook.layers import label
from bncli.sections.answer import short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model.changes import LayerVersion, Measures
    from bncli.report import Value

NEAR = 0.05
"""A ratio that is closer to 1 needs another digit."""

LARGE, HUGE = 100, 1e6
"""Between these, a number is written as a whole one."""

COLUMNS = (
    *Column.plain("name", "other_name", "match", "state", "certainty"),
    *Column.plain("batches", "z_max", "var_ratio", "weight_change", "effect", spec=".4g"),
    Column("what", "what", wraps=True),
    *Column.plain("z_min", "var_ratio_min", "var_ratio_max", spec=".4g"),
    *Column.plain("channels", "worst_channel", "cause", "before", "before_name", "match_certainty"),
)
NOTE = (
    "z is the shift of running_mean in standard deviations of the first file, var_ratio the second "
    "variance over the first (with eps added) that is furthest from 1, weight_change how far weight"
    " and bias moved relative to their size, and effect how far the output of the worst channel is "
    "off. before is how the weights of the layer in front of it compare."
)
LABELS = {
    State.IDENTICAL: "identical",
    State.ROUNDED: "rounded",
    State.TRAINED: "trained on",
    State.STATISTICS: "statistics moved",
    State.WEIGHTS: "weights moved",
    State.COUNTER: "counter moved",
    State.RESET: "reset",
    State.EMPTY: "never filled",
    State.LOST: "lost",
    State.IMPOSSIBLE: "impossible",
    State.CONVENTION: "other convention",
    State.ORDER: "other order",
    State.FOLDED: "folded",
    State.DIFFERENT: "different",
}
"""What people read of a state."""

CAUSES = {
    "swapped": "swapped",
    "factor": "scaled",
    "one-ratio": "scaled",
    "scale-factor": "scaled",
    "input-scaled": "scaled",
    "mean-scaled": "scaled",
    "mean-negated": "sign flipped",
    "few-roundings": "nearly the same",
}
"""What they read of a convention that is another one in a narrow sense only, by its cause."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The range of each measure over some layers; None where it is not known of any."""

    batches: tuple[float, float] | None
    moved: tuple[float, float] | None
    ratio: tuple[float, float] | None
    change: tuple[float, float] | None
    effect: tuple[float, float] | None

    @classmethod
    def of(cls, layers: Sequence[LayerVersion]) -> Numbers:
        """Those of the layers together."""
        each = [layer.measures for layer in layers]
        return cls(
            _ends([item.batches for item in each]),
            _ends([end for item in each for end in (item.z_min, item.z_max)]),
            _ends([end for item in each for end in (item.var_ratio_min, item.var_ratio_max)]),
            _ends([item.weight_change for item in each]),
            _ends([item.effect for item in each]),
        )


def layers_table(layers: Sequence[LayerVersion]) -> Table:
    """A row for each layer, in the order of the first file; those of the second alone follow."""
    rows = [layer_row(layer) for layer in layers]
    return Table("layers", "BatchNorm layers", COLUMNS, rows, NOTE if rows else "")


def layer_row(layer: LayerVersion) -> dict[str, Value]:
    """The row of one pair; a name is None where that file has no such layer."""
    measures = layer.measures
    return {
        "name": layer.name or (None if layer.how is None else label("")),
        "other_name": layer.other_name or (None if layer.how is None else label("")),
        "match": layer.how.value if layer.how is not None else None,
        "state": layer.found.state.value,
        "certainty": short_certainty(layer.found.certainty),
        "batches": measures.batches,
        "z_max": measures.z_max,
        "var_ratio": furthest_ratio(measures),
        "weight_change": measures.weight_change,
        "effect": measures.effect,
        "what": layer.found.what or None,
        "z_min": measures.z_min,
        "var_ratio_min": measures.var_ratio_min,
        "var_ratio_max": measures.var_ratio_max,
        "channels": layer.channels,
        "worst_channel": measures.worst,
        "cause": layer.found.numbers.get("cause"),
        "before": layer.before.value if layer.before is not None else None,
        "before_name": layer.before_name or None,
        "match_certainty": short_certainty(layer.sure) if layer.how is not None else None,
    }


def state_said(layers: Sequence[LayerVersion]) -> str:
    """The state of layers that are all in one, as people read it."""
    state = layers[0].found.state
    if state is State.CONVENTION:
        said = {CAUSES.get(str(layer.found.numbers.get("cause")), "") for layer in layers}
        if len(said) == 1 and (one := said.pop()):
            return one
    return LABELS[state]


def furthest_ratio(measures: Measures) -> float | None:
    """The ratio of variances that is furthest from 1, as a factor in either direction."""
    ends = [end for end in (measures.var_ratio_min, measures.var_ratio_max) if end is not None]
    return max(ends, key=lambda end: abs(math.log(end)) if end > 0 else math.inf, default=None)


def plain(value: float) -> str:
    """A number in few digits, a large one as a whole number: "0.021", "2.13", "1012".

    One that is nearly 1 has the digits that tell it from 1.
    """
    return f"{value:.4g}" if 0 < abs(value - 1) < NEAR else rounded(value)


def rounded(value: float) -> str:
    """A number in few digits, a large one as a whole number."""
    return f"{value:.0f}" if LARGE <= value < HUGE else short(value)


def short_certainty(sure: Certainty) -> str:
    """A certainty in one word."""
    return "assumed" if sure is Certainty.ASSUMED else sure.value


def _ends(values: Sequence[float | None]) -> tuple[float, float] | None:
    there = [value for value in values if value is not None]
    return (min(there), max(there)) if there else None
