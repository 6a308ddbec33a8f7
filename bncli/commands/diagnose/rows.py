"""The tables of a diagnosis and its chart: the layers, the repairs that were tried, the error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.commands.diagnose.words import at_floor
from bncli.report import Chart, Column, Table
from bncli.rulebook.layers import label
from bncli.sections.answer import known
from bncli.sections.live import momentum_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.model.capture import Capture, Trials, WatchedLayer
    from bncli.report import Finding, Value
    from bncli.rulebook.live.measures import LayerMeasure

    Row = dict[str, Value]

LAYER_COLUMNS = (
    Column("name", "layer"),
    Column("predicted_error", "output off by", ".4g"),
    Column("noise", "noise", ".4g"),
    Column("flags", "findings"),
    Column("z_max", "z max", ".4g"),
    Column("z_median", "z median", ".4g"),
    Column("var_ratio_min", "var ratio min", ".4g"),
    Column("var_ratio_max", "var ratio max", ".4g"),
    Column("closes", "closes", ".0%"),
    *Column.plain("order", "channels", "values", "batches"),
    Column("worst_channel", "worst channel"),
    *Column.plain("running_mean", "mean", "running_var", "var", spec=".4g"),
    Column("between", "between batches", ".4g"),
    Column("class_name", "class", foldable=True),
    *Column.plain("eps", "momentum", "frozen", "judged_in", foldable=True),
)
LAYER_NOTE = (
    "output off by: in standard deviations, rms(|weight| * sqrt(z^2 + (sqrt(var ratio) - 1)^2)); "
    "z = (mean - running_mean) / sqrt(running_var + eps), var ratio = (var + eps) / (running_var + "
    "eps), of the data's mean and var in the propagation judged_in; noise: what chance reaches. "
    "running_mean to var are the worst channel's. between batches: the share of the variance that "
    "lies between the batches."
)
TRIED_COLUMNS = (
    Column("what", "what", wraps=True),
    Column("gap", "gap", ".4g"),
    Column("closes", "closes", ".0%"),
    Column("metric", "metric", ".4g"),
    Column("kind", "kind"),
    Column("layers", "layers", wraps=True),
)
TRIED_NOTE = (
    "what: the layers with new statistics, or a map of the input; closes: the share of the gap "
    "above its floor, (gap - gap with it) / (gap - floor), left out where the gap is at its floor."
)


def layer_rows(
    capture: Capture,
    measures: Sequence[LayerMeasure],
    findings: Sequence[Finding],
    closed: Mapping[str, float | None],
) -> list[Row]:
    """A row for each layer in the order of execution; what is not known is None.

    `closed` has the share of the gap that a layer's own trial closes.
    """
    measured = {each.name: each for each in measures}
    codes = codes_of(findings)
    return [
        _layer_row(layer, measured.get(layer.name))
        | {
            "flags": " ".join(codes.get(label(layer.name), ())) or None,
            "closes": closed.get(layer.name),
        }
        for layer in capture.norms
    ]


def _layer_row(layer: WatchedLayer, measure: LayerMeasure | None) -> Row:
    """What a layer is, and what was measured of it."""
    seen = layer.seen.get(measure.judged_in) if measure else next(iter(layer.seen.values()), None)
    state = layer.state
    module = state.module if state is not None else None
    row: Row = {
        "name": label(layer.name),
        "order": layer.order,
        "channels": layer.num_features,
        "values": seen.values if seen else None,
        "batches": seen.batches if seen else None,
        "class_name": module.class_name if module else None,
        "eps": layer.eps,
        "momentum": momentum_of(layer),
        "frozen": layer.frozen,
        "judged_in": measure.judged_in.value if measure else None,
    }
    for key in MEASURED:
        row[key] = getattr(measure, key) if measure else None
    between = measure.evaluation.between if measure else None
    return row | {"between": between} | _worst_channel(layer, measure)


MEASURED = (
    *("predicted_error", "noise", "z_max", "z_median", "var_ratio_min", "var_ratio_max"),
    "worst_channel",
)


def _worst_channel(layer: WatchedLayer, measure: LayerMeasure | None) -> Row:
    """The stored numbers of the worst channel, and the data's."""
    state = layer.state
    row: Row = dict.fromkeys(("running_mean", "running_var", "mean", "var"))
    if state is None or measure is None:
        return row
    seen, channel = layer.seen[measure.judged_in], measure.worst_channel
    values = {
        "running_mean": state.running_mean,
        "running_var": state.running_var,
        "mean": seen.mean,
        "var": seen.within / seen.values if measure.per_sample else seen.var,
    }
    for key, array in values.items():
        row[key] = known(float(array[channel])) if array is not None else None
    return row


def layers_table(rows: Sequence[Row]) -> Table:
    """Every layer with all that was measured."""
    return Table("layers", "BatchNorm layers", LAYER_COLUMNS, rows, LAYER_NOTE if rows else "")


def tried_table(capture: Capture, trials: Trials | None) -> Table:
    """Every repair that was tried, and the gap that it left; no rows where none was."""
    rows: list[Row] = [
        {
            "what": trial.what,
            "layers": list(trial.layers),
            "gap": known(trial.gap),
            "closes": None if at_floor(capture) else known(capture.closes(trial)),
            "metric": known(trial.metric),
            "kind": trial.kind,
        }
        for trial in (trials.trials if trials else ())
    ]
    return Table("tried", "What was tried", TRIED_COLUMNS, rows, TRIED_NOTE if rows else "")


def depth_charts(layers: Sequence[LayerMeasure]) -> tuple[Chart, ...]:
    """How far off each layer's output is, over the order of execution; none for one layer."""
    if len(layers) < 2:
        return ()
    series = {
        "output off by": [layer.predicted_error for layer in layers],
        "noise": [layer.noise for layer in layers],
    }
    known = {
        name: values
        for name, values in series.items()
        if any(value is not None for value in values)
    }
    title = "How far each layer's output is off, in standard deviations, by order of execution"
    return (Chart("predicted_error", title, [layer.order for layer in layers], known),)


def codes_of(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """The codes of the findings of each layer, in their order."""
    codes: dict[str, dict[str, None]] = {}
    for finding in findings:
        layers = finding.evidence.get("layers", [finding.evidence.get("layer")])
        for name in layers if isinstance(layers, (list, tuple)) else ():
            if isinstance(name, str):
                codes.setdefault(label(name), {})[finding.code] = None
    return {name: list(those) for name, those in codes.items()}
