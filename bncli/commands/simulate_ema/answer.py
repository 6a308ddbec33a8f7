"""What a simulation tells first: its subject, the table that answers, the plan and the verdict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.given import whence
from bncli.light import dataclass, np
from bncli.report import ANSWER_ROWS, Column, Table
from bncli.rulebook.interface import percent
from bncli.running_stats.plan import FADED, relative_errors
from bncli.sections.answer import counted, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from bncli.commands.simulate_ema.batches import Batches
    from bncli.commands.simulate_ema.running_start import Rows
    from bncli.commands.simulate_ema.running_tables import Simulated
    from bncli.model import FloatArray, IntArray
    from bncli.report import Value
    from bncli.running_stats.scatter import Population

FEW_CHANNELS = 2
"""Channels whose course is shown if the user chose none; more where the steps are few."""

FEW_NAMES = 3
"""Conventions that a sentence names."""

MANY_ROWS = 1000
"""Rows that are too many to be shown without a word of how many they are."""

FEW_STEPS = 4
"""Steps of a channel's course that are shown if the user did not say how many."""

NEAR = 3.0
"""Standard errors from the population that chance explains."""

LEAST_SHARE = 1e-4
"""The share, 0.01%, below which the initial value's is not told apart from others."""

COURSE_COLUMNS = (
    *Column.plain("channel", "step"),
    Column("batch_mean", "batch mean", ".4g"),
    Column("batch_var", "batch var", ".4g", spare=1),
    *Column.plain("running_mean", "running_var", spec=".4g"),
    Column("initial_weight", "initial"),
)
PORT_ANSWER_COLUMNS = (
    *Column.plain("channel", "convention", "momentum", spec=".6g"),
    *Column.plain("running_mean", "running_var", spec=".4g"),
    Column("var_ratio", "var ratio", ".4g"),
    Column("output_ratio", "output ratio", ".4g", spare=1),
    Column("mean_difference", "mean off", ".4g", spare=2),
    Column("momentum_weighs", "weighs", spare=3),
    Column("variance", "variance", spare=4),
)


@dataclass(frozen=True, slots=True)
class Distance:
    """How far buffers are from the population, in standard errors, (num_features,) each.

    NaN where there is no standard error, Inf where running_var is not finite.
    """

    mean: FloatArray
    var: FloatArray

    @classmethod
    def of(
        cls, run: Simulated, scatter: Population, errors: tuple[FloatArray, FloatArray]
    ) -> Distance:
        """From the final buffers of a run, and the standard errors of their mean and variance."""
        final = run.trajectory.final
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            mean, var = (
                np.where(error > 0, np.abs(value - expected) / error, np.nan)
                for value, expected, error in (
                    (final.running_mean, scatter.mean, errors[0]),
                    (final.running_var, scatter.var, errors[1]),
                )
            )
        return cls(mean, np.where(np.isfinite(final.running_var), var, np.inf))

    @property
    def worst(self) -> FloatArray:
        """The larger of the two in each channel, 0 where neither is known."""
        return np.nan_to_num(np.fmax(self.mean, self.var), posinf=np.inf)

    def worst_first(self, channels: Sequence[int]) -> list[int]:
        """The channels, the farthest from the population first; equal ones keep their order."""
        worst = self.worst
        return sorted(channels, key=lambda channel: -worst[channel])


def subject(source: Batches, rows: Rows, counts: IntArray, dtype: str) -> tuple[str, ...]:
    """What is simulated: the batches, and the update with its momentum."""
    flags = source.flags
    low, high = int(counts.min()), int(counts.max())
    values = counted(low, "value") if low == high else f"{low} to {high} values"
    features = source.given.num_features
    channels = f"each of {features} channels" if features > 1 else "1 channel"
    number = counted(source.per_epoch, "batch", "batches")
    label = flags.inputs[0] if len(flags.inputs) > 1 else source.label
    more = f" and {len(flags.inputs) - 1} more" if len(flags.inputs) > 1 else ""
    batches = f"{label}{more}  {number} of {values} in {channels}{source.given.axis_said}"
    (first, momentum), *others = rows.conventions
    as_number = "none (cumulative average)" if momentum is None else f"{momentum:.6g}"
    origins = {"default": " (default)", "file": f" (from {whence(rows.state)})"}
    origin = origins.get(rows.momentum_source, "")
    beside = f" beside {listed([row.name for row, _ in others], FEW_NAMES)}" if others else ""
    update = f"{first.name}{beside}, momentum {as_number}{origin}, {dtype} buffers"
    if flags.epochs > 1:
        update += f", {flags.epochs} epochs"
    return batches, update + (", shuffled" if flags.shuffle else "")


def course_table(
    rows: Sequence[Mapping[str, Any]],
    distance: Distance,
    channels: list[int],
    *,
    chosen: bool,
    every: bool,
) -> Table:
    """The start, the end and a few steps between, of the channels farthest from the population.

    `rows` are those of the table of steps, of one convention; `chosen` says that the user chose
    the channels, and `every` that the user chose the steps: then as many as fit are shown.
    """
    steps = np.unique([row["step"] for row in rows])
    few = max(FEW_CHANNELS, ANSWER_ROWS // 2 // len(steps))
    most = ANSWER_ROWS // 2 if chosen else few
    shown = channels if len(channels) <= most else distance.worst_first(channels)[:most]
    fitting = ANSWER_ROWS // len(shown)
    if len(steps) <= (fitting if every else fitting // 2):
        wanted = set(steps)
    else:
        marks = np.geomspace(steps[0], steps[-1], fitting if every else min(fitting, FEW_STEPS))
        wanted = set(steps[np.searchsorted(steps, np.floor(marks + 0.5)).clip(0, len(steps) - 1)])
    kept = [
        {**row, "initial_weight": remaining(row["initial_weight"])}
        for row in rows
        if row["channel"] in shown and row["step"] in wanted
    ]
    kept.sort(key=lambda row: shown.index(row["channel"]))
    hidden = {"more step": len(steps) - len(wanted), "more channel": len(channels) - len(shown)}
    return _of_channels(COURSE_COLUMNS, kept, shown, _hidden(hidden, len(rows)))


def _hidden(numbers: Mapping[str, int], rows: int) -> str:
    """What is not shown of a table of so many rows, and why these channels are."""
    said = [counted(number, what) for what, number in numbers.items() if number]
    if not said:
        return ""
    all_of_it = "them" if rows <= MANY_ROWS else f"all {rows} rows, --channel and --every fewer"
    note = f"{' and '.join(said)}: -v shows {all_of_it}"
    if not numbers["more channel"]:
        return note
    return f"These channels are farthest from the population (all batches' values pooled). {note}"


def port_answer(
    rows: Sequence[Mapping[str, Any]],
    runs: Sequence[Simulated],
    channels: list[int],
    *,
    chosen: bool,
) -> Table:
    """What a port would see in the channels that differ most; `rows` are those of all channels."""
    most = max(ANSWER_ROWS // len(runs), 1) if chosen else 1
    worst = dict.fromkeys(channels, 0.0)
    for row in rows:
        off = abs(row["var_ratio"] - 1) if math.isfinite(row["var_ratio"]) else math.inf
        worst[row["channel"]] = max(worst[row["channel"]], off)
    shown = sorted(channels, key=lambda channel: -worst[channel])[:most]
    kept = [row for channel in shown for row in rows if row["channel"] == channel]
    first = runs[0].convention.name
    note = f"ratios: running_var, and the spread of evaluation's output, over those of {first}"
    left = {
        "more convention": max(len(kept) - ANSWER_ROWS, 0) if len(shown) == 1 else 0,
        "more channel": len(channels) - len(shown),
    }
    said = [counted(number, what) for what, number in left.items() if number]
    if left["more channel"]:
        said[-1] += f" {'differs' if left['more channel'] == 1 else 'differ'} less"
    if said:
        note += f". {'; '.join(said)}: -v shows them"
    return _of_channels(PORT_ANSWER_COLUMNS, kept[:ANSWER_ROWS], shown, note)


def _of_channels(
    columns: tuple[Column, ...],
    rows: Sequence[Mapping[str, Value]],
    shown: list[int],
    note: str,
) -> Table:
    """A table of the shown channels; a single one is named above it and not in each row."""
    if len(shown) > 1:
        return Table("", "", columns, rows, note=note, lead=2)
    return Table("", f"Channel {shown[0]}", columns[1:], rows, note=note)


def settled_errors(run: Simulated, counts: IntArray, kurtosis: float) -> tuple[float, float]:
    """The relative errors of running_mean and running_var that the simulated momentum leaves.

    Once settled, or at the end for a cumulative average; NaN where it does not settle. `counts`
    (batches,) are the values per channel in each batch, `kurtosis` their excess kurtosis.
    """
    effective = run.memory.effective_batches
    squares = math.nan if effective is None else 1 / effective
    if run.memory.new is None:
        squares = run.trajectory.squared_weights or math.nan
    return relative_errors(counts, kurtosis, squares)


def plan_lines(run: Simulated, errors: tuple[float, float], start: str) -> tuple[str, ...]:
    """The `errors` that the momentum leaves, as `settled_errors`, and how long `start` lasts."""
    trajectory, memory = run.trajectory, run.memory
    lines = []
    when = f"after {trajectory.updates} updates" if memory.new is None else "once settled"
    if all(map(math.isfinite, errors)):
        lines.append(
            f"Expected error {when}: {errors[0]:.2g} std for running_mean, "
            f"{percent(errors[1])} for running_var."
        )
    if trajectory.updates and not trajectory.initial_weight.any():
        lines.append(f"Nothing of {start} is left after the first update.")
    elif memory.steps_to_1_percent is not None:
        lines.append(f"{counted(memory.steps_to_1_percent, 'step')} until 1% of {start} is left.")
    return tuple(lines)


def verdict(runs: Sequence[Simulated], distance: Distance, start: str) -> tuple[str, bool]:
    """What the buffers have come to, in a sentence, and whether that judges them.

    What is far from the population by itself is told and not judged: batches of one sample may be.
    """
    trajectory = runs[0].trajectory
    after = f"after {counted(trajectory.updates, 'update')}"
    weight = trajectory.final_weight
    worst = distance.worst
    channel = int(np.argmax(worst))
    known = bool((np.isfinite(distance.mean) | np.isfinite(distance.var)).any())
    judged = len(runs) == 1 and worst[channel] <= NEAR
    if len(runs) > 1:
        sentence = _ratios(runs)
    elif trajectory.impossible is not None:
        sentence = f"running_var was negative or not finite after step {trajectory.impossible}"
    elif not math.isfinite(weight):
        sentence = f"{after} the running statistics have overflowed"
    elif abs(weight) > 1:
        sentence = f"{after}, {start} counts {weight:.3g} times"
    elif abs(weight) > FADED or not known:
        sentence = f"{after}, {remaining(weight)} of each statistic is still {start}"
    elif judged:
        sentence = (
            f"{after} the running statistics are within {worst[channel]:.2g} standard errors of "
            "the population's"
        )
    else:
        name = "running_var" if distance.var[channel] == worst[channel] else "running_mean"
        sentence = (
            f"{after}, {name} of channel {channel} is {worst[channel]:.3g} standard errors from "
            "the population's"
        )
    return sentence, judged


def _ratios(runs: Sequence[Simulated]) -> str:
    """How large each convention's running_var is beside the first one's, in the middle channel."""
    first = runs[0]
    alike: dict[str, list[str]] = {}
    for run in runs[1:]:
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = run.trajectory.final.running_var / first.trajectory.final.running_var
        ratio = ratio[np.isfinite(ratio)]
        said = f"{np.median(ratio):.4g} times" if len(ratio) else "not comparable with"
        alike.setdefault(said, []).append(run.convention.name)
    clauses = [
        f"running_var in {listed(names, FEW_NAMES)} is {said} {first.convention.name}'s"
        for said, names in alike.items()
    ]
    return listed(clauses, FEW_NAMES)


def remaining(weight: float) -> str:
    """The share that the initial value still has: "90%", "<0.01%"."""
    if not math.isfinite(weight):
        return "not finite"
    if weight and abs(weight) < LEAST_SHARE:
        return "<0.01%"
    return percent(weight) if abs(weight) <= 1 else f"{100 * weight:.3g}%"
