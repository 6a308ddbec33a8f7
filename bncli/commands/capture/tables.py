"""The tables of a capture: each layer with what it took in, and the model's input by channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import ANSWER_ROWS, Column, Table
from bncli.sections.answer import counted, known, span
from bncli.sections.live import modes_of, momentum_of, seen_first

if TYPE_CHECKING:
    from bncli.model import FloatArray
    from bncli.model.capture import Capture, InputSums, WatchedLayer
    from bncli.report import Value

    Row = dict[str, Value]

LAYER_COLUMNS = (
    Column("name", "layer"),
    *Column.plain("order", "channels", "values", "batches", "samples", "calls"),
    *Column.plain("mean_min", "mean_max", "var_min", "var_max", spec=".4g"),
    *Column.plain("running_mean_min", "running_mean_max", spec=".4g"),
    *Column.plain("running_var_min", "running_var_max", spec=".4g"),
    *Column.plain("nan", "inf"),
    Column("class_name", "class", foldable=True),
    *Column.plain("eps", "momentum", "num_batches_tracked", foldable=True),
    *Column.plain("frozen", "in_training", foldable=True),
)
LAYER_NOTE = (
    "values: of a channel. mean and var: of all values that a layer took in, the biased variance, "
    "in the first of the modes; min and max are the channels'."
)
INPUT_COLUMNS = (
    Column("channel", "channel"),
    *Column.plain("mean", "var", "min", "max", "at_zero", "nan", "inf"),
)
ANSWER_COLUMNS = (
    Column("name", "layer"),
    Column("channels", "channels", spare=2),
    Column("values", "values", spare=3),
    Column("mean", "mean"),
    Column("var", "var"),
    Column("running_mean", "running_mean", spare=1),
    Column("running_var", "running_var"),
    Column("calls", "calls", spare=5),
    Column("class_name", "class", spare=4),
)


def layers_table(capture: Capture) -> Table:
    """Every BatchNorm layer in the order of execution."""
    rows = [_row(layer) for layer in capture.norms]
    return Table("layers", "BatchNorm layers", LAYER_COLUMNS, rows, LAYER_NOTE if rows else "")


def layers_answer(capture: Capture) -> Table:
    """The model's input and the first layers, their channels as ranges."""
    shown, rest = capture.layers[:ANSWER_ROWS], capture.layers[ANSWER_ROWS:]
    rows = [_with_ranges(_row(layer)) for layer in shown]
    columns = tuple(
        column
        for column in ANSWER_COLUMNS
        if column.key != "calls" or any(layer.calls > 1 for layer in shown)
    )
    more = f"{counted(len(rest), 'more layer')} (-v lists them); " if rest else ""
    mode = next(iter(modes_of(capture)))
    note = f"{more}mean, var: of what a layer takes in, in {mode}, over its channels"
    return Table("answer", "", columns, rows, note)


def input_table(capture: Capture) -> Table:
    """The channels of the model's input; no rows where it has no floating-point tensor."""
    rows: list[Row] = []
    sums = seen_first(capture.input) if capture.input is not None else None
    if sums is not None:
        columns = {
            "mean": sums.mean,
            "var": sums.var,
            "min": sums.min,
            "max": sums.max,
            "at_zero": sums.at_zero,
            "nan": sums.nan,
            "inf": sums.posinf + sums.neginf,
        }
        values = {key: column.tolist() for key, column in columns.items()}
        rows = [
            {"channel": channel, **{key: known(column[channel]) for key, column in values.items()}}
            for channel in range(sums.num_features)
        ]
    return Table("input", "The model's input", INPUT_COLUMNS, rows)


def _row(layer: WatchedLayer) -> Row:
    """A layer with the ranges of its channels; what is not known is None."""
    sums, state = seen_first(layer), layer.state
    module = state.module if state is not None else None
    return {
        "name": layer.name,
        "order": layer.order,
        "channels": layer.num_features,
        **_amounts(sums),
        "calls": layer.calls,
        **_range("mean", None if sums is None else sums.mean),
        **_range("var", None if sums is None else sums.var),
        **_range("running_mean", None if state is None else state.running_mean),
        **_range("running_var", None if state is None else state.running_var),
        "class_name": None if module is None else module.class_name,
        "eps": None if module is None else module.eps,
        "momentum": momentum_of(layer),
        "num_batches_tracked": None if state is None else state.num_batches_tracked,
        "frozen": layer.frozen,
        "in_training": layer.in_training,
    }


def _amounts(sums: InputSums | None) -> Row:
    """How much a layer took in, and how many values of it are not finite."""
    if sums is None:
        return dict.fromkeys(("values", "batches", "samples", "nan", "inf"))
    return {
        "values": sums.values,
        "batches": sums.batches,
        "samples": sums.samples,
        "nan": int(sums.nan.sum()),
        "inf": int((sums.posinf + sums.neginf).sum()),
    }


def _range(key: str, values: FloatArray | None) -> Row:
    """The least and the greatest finite value of the channels."""
    ends: tuple[float | None, float | None] = (None, None)
    if values is not None and (finite := values[np.isfinite(values)]).size:
        ends = float(finite.min()), float(finite.max())
    return dict(zip((f"{key}_min", f"{key}_max"), ends, strict=True))


def _with_ranges(row: Row) -> Row:
    """A row whose ranges are one cell each."""
    ranges = {
        key: span(row[f"{key}_min"], row[f"{key}_max"])  # type: ignore[arg-type]  # numbers or None
        for key in ("mean", "var", "running_mean", "running_var")
    }
    return row | ranges
