"""The tables of a recalibration: how each layer's statistics move, and which layers do not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Column, Table
from bncli.rulebook.layers import label
from bncli.sections.answer import counted, known, span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.model.recalibration import LayerChange
    from bncli.report import Value

    Row = dict[str, Value]

SHOWN, FEW = 8, 3
"""Layers that the answer shows, and where a finding takes the room."""

LAYER_COLUMNS = (
    Column("name", "layer"),
    Column("moved", "moves by", ".4g"),
    Column("z_max", "z max", ".4g"),
    Column("var_ratio_min", "var ratio min", ".4g"),
    Column("var_ratio_max", "var ratio max", ".4g"),
    Column("standard_error", "standard error", ".4g"),
    *Column.plain("channels", "values", "samples", "batches"),
    Column("worst_channel", "worst channel"),
    Column("old_mean", "old mean", ".4g"),
    Column("new_mean", "new mean", ".4g"),
    Column("old_var", "old var", ".4g"),
    Column("new_var", "new var", ".4g"),
)
LAYER_NOTE = (
    "z = (new mean - running_mean) / sqrt(new var + eps), var ratio = (new var + eps) / "
    "(running_var + eps); moves by: sqrt(z^2 + (ln(var ratio) / 2)^2) of the worst channel, whose "
    "numbers old mean to new var are. standard error: of the new means, in standard deviations."
)
LEFT_COLUMNS = (Column("name", "layer"), Column("why", "why"))

ANSWER_COLUMNS = (
    Column("name", "layer"),
    Column("mean", "mean moves by"),
    Column("var", "variance, new/old"),
    Column("error", "standard error", spare=1),
    Column("worst_channel", "channel", spare=3),
    Column("was", "mean, var", spare=2),
    Column("becomes", "become", spare=2),
)


def layer_rows(layers: Sequence[LayerChange]) -> list[Row]:
    """A row for each layer that changes, in their order; what is not finite is None."""
    return [_layer_row(layer) for layer in layers]


def _layer_row(layer: LayerChange) -> Row:
    z, ratio, moved = np.abs(layer.z), layer.var_ratio, layer.moved
    worst = int(np.argmax(np.nan_to_num(moved, nan=math.inf)))
    old_mean, old_var = layer.state.running_mean, layer.state.running_var
    assert old_mean is not None
    assert old_var is not None
    return {
        "name": label(layer.name),
        "moved": known(float(moved[worst])),
        "z_max": known(float(z.max())),
        "var_ratio_min": known(float(ratio.min())),
        "var_ratio_max": known(float(ratio.max())),
        "standard_error": known(layer.standard_error),
        "channels": len(layer.mean),
        "values": layer.values,
        "samples": layer.samples,
        "batches": layer.batches,
        "worst_channel": worst,
        "old_mean": known(float(old_mean[worst])),
        "new_mean": known(float(layer.mean[worst])),
        "old_var": known(float(old_var[worst])),
        "new_var": known(float(layer.var[worst])),
    }


def layers_table(rows: Sequence[Row]) -> Table:
    """Every layer that changes, with all numbers."""
    return Table("layers", "Layers that change", LAYER_COLUMNS, rows, LAYER_NOTE if rows else "")


def left_table(left: Mapping[str, str]) -> Table:
    """Every other layer, and why it stays as it is."""
    rows: list[Row] = [{"name": label(name), "why": why} for name, why in left.items()]
    return Table("left", "Layers left alone", LEFT_COLUMNS, rows)


def answer(rows: Sequence[Row], most: int = SHOWN) -> tuple[Table, ...]:
    """The layers that move furthest, and a line that sums up the others."""
    worst = sorted(rows, key=lambda row: -_number(row["moved"], unknown=math.inf))
    shown, rest = worst[:most], worst[most:]
    said = [
        {
            "name": row["name"],
            "mean": _std(row["z_max"]),
            "var": span(_float(row["var_ratio_min"]), _float(row["var_ratio_max"]), ".3g"),
            "error": _std(row["standard_error"], ".2g"),
            "worst_channel": row["worst_channel"],
            "was": _pair(row["old_mean"], row["old_var"]),
            "becomes": _pair(row["new_mean"], row["new_var"]),
        }
        for row in shown
    ]
    return (Table("answer", "", ANSWER_COLUMNS, said, note=_note(rest)),) if said else ()


def _note(rest: Sequence[Row]) -> str:
    """One line that sums up the layers that are not shown."""
    if not rest:
        return ""
    z = max(_number(row["z_max"], unknown=math.inf) for row in rest)
    low = min(_number(row["var_ratio_min"], unknown=math.nan) for row in rest)
    high = max(_number(row["var_ratio_max"], unknown=math.nan) for row in rest)
    they = "it" if len(rest) == 1 else "them"
    return (
        f"{counted(len(rest), 'more layer')}: up to {z:.3g} std, variance times "
        f"{span(low, high, '.3g')} (-v lists {they})"
    )


def _number(value: Value, *, unknown: float) -> float:
    return value if isinstance(value, float) else unknown


def _float(value: Value) -> float | None:
    return value if isinstance(value, float) else None


def _std(value: Value, spec: str = ".3g") -> str | None:
    return f"{value:{spec}} std" if isinstance(value, float) else None


def _pair(mean: Value, var: Value) -> str:
    """A mean and a variance in a cell."""
    return ", ".join(f"{each:.3g}" if isinstance(each, float) else "-" for each in (mean, var))
