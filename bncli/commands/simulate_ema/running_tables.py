"""The tables and charts of a simulation, built from what was computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.report import MOST_ROWS, Chart, Column, Table
from bncli.running_stats.plan import Memory, relative_errors, standard_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.commands.simulate_ema.reach import Reached
    from bncli.model import FloatArray, IntArray
    from bncli.report import Value
    from bncli.running_stats.batch_table import BatchTable
    from bncli.running_stats.conventions import Convention
    from bncli.running_stats.scatter import Population
    from bncli.running_stats.simulation import Trajectory

MOST_POINTS = 400
"""Points of a chart's series."""

STEP_COLUMNS = (
    *Column.plain("step", "channel"),
    Column("convention", "convention", foldable=True),
    *Column.plain("batch_mean", "batch_var", "running_mean", "running_var"),
    Column("initial_weight", "initial", ".4g"),
)
CHANNEL_COLUMNS = (
    *Column.plain("channel", "running_mean", "population_mean", "running_var", "population_var"),
    *Column.plain("gap_var", "between_var", spec=".4g"),
    Column("shuffled_between_var", "if_shuffled", ".4g"),
    Column("f_ratio", "f_ratio", ".4g"),
    *Column.plain("within_var", "debiased_mean", "debiased_var"),
    *Column.plain(
        "initial_in_mean",
        "initial_in_var",
        "se_mean",
        "se_var",
        "measured_se_mean",
        "measured_se_var",
        "kurtosis",
        spec=".4g",
    ),
)
PLAN_COLUMNS = Column.plain("quantity", "value", "formula")
PORT_COLUMNS = (
    *Column.plain("convention", "channel", "running_mean", "running_var"),
    Column("mean_difference", "mean off", ".4g"),
    Column("var_ratio", "var ratio", ".6g"),
    Column("output_ratio", "output ratio", ".6g"),
    Column("momentum", "momentum"),
    Column("momentum_weighs", "weighs"),
    Column("variance", "variance"),
)


@dataclass(frozen=True, slots=True)
class Simulated:
    """One convention's trajectory; `momentum` is its own, None for the cumulative average."""

    convention: Convention
    momentum: float | None
    trajectory: Trajectory

    @property
    def memory(self) -> Memory:
        """What its momentum remembers."""
        new = None if self.momentum is None else self.convention.new_weight(self.momentum)
        return Memory(new)


def chosen_steps(steps: int, rows_a_step: int, every: int | None) -> IntArray:
    """The steps that are shown: all of them, or log-spaced ones, with the first and the last.

    With `every`, its multiples and the last one, whatever their number.
    """
    if every is not None:
        every = min(every, steps)  # any larger number shows the last one too
        return np.unique(np.append(np.arange(every, steps + 1, every), steps))
    most = max(MOST_ROWS // rows_a_step, 2)
    if steps <= most:
        return np.arange(1, steps + 1)
    return np.unique(np.geomspace(1, steps, most).round().astype(np.int64))


def charted_steps(steps: int, shown: IntArray) -> IntArray:
    """The shown steps, and those that charts need beside them."""
    return np.union1d(shown, np.linspace(1, steps, MOST_POINTS).round().astype(np.int64))


def steps_table(
    runs: list[Simulated], batches: BatchTable, shown: IntArray, channels: list[int]
) -> Table:
    """The `shown` steps' batches and the buffers after them, channel by channel, side by side."""
    mean, var = (values[:, channels] for values in batches.shown)
    rows: list[dict[str, Value]] = []
    first = runs[0].trajectory
    at = np.searchsorted(first.steps, shown)
    columns = [
        {
            "running_mean": run.trajectory.running_mean[at].tolist(),
            "running_var": run.trajectory.running_var[at].tolist(),
            "initial_weight": run.trajectory.initial_weight[at].tolist(),
        }
        for run in runs
    ]
    for i, (step, batch) in enumerate(zip(shown.tolist(), first.batches[at].tolist(), strict=True)):
        batch_mean, batch_var = mean[batch].tolist(), var[batch].tolist()
        for c, channel in enumerate(channels):
            rows += [
                {
                    "step": step,
                    "channel": channel,
                    "convention": run.convention.name,
                    "batch_mean": batch_mean[c],
                    "batch_var": batch_var[c],
                    "running_mean": values["running_mean"][i][c],
                    "running_var": values["running_var"][i][c],
                    "initial_weight": values["initial_weight"][i],
                }
                for run, values in zip(runs, columns, strict=True)
            ]
    return Table(
        "steps",
        "Running statistics, step by step",
        STEP_COLUMNS,
        rows,
        note="initial: the share of the running statistics that is still the initial value.",
        lead=3 if len(runs) > 1 else 2,
    )


def channels_table(
    run: Simulated,
    scatter: Population,
    errors: tuple[FloatArray, FloatArray],
    channels: list[int],
) -> Table:
    """What each channel has come to, beside the population, and what it still lacks."""
    trajectory = run.trajectory
    first, final = trajectory.first, trajectory.final
    weight = trajectory.final_weight
    root = float(np.sqrt(trajectory.squared_weights))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        debiased = {
            name: (getattr(final, name) - weight * getattr(first, name)) / (1 - weight)
            for name in ("running_mean", "running_var")
        }
        values = {
            "running_mean": final.running_mean,
            "population_mean": scatter.mean,
            "running_var": final.running_var,
            "population_var": scatter.var,
            "gap_var": final.running_var - scatter.var,
            "between_var": scatter.between,
            "shuffled_between_var": scatter.shuffled_between,
            "f_ratio": scatter.f_ratio.ratio,
            "within_var": scatter.within,
            "debiased_mean": debiased["running_mean"],
            "debiased_var": debiased["running_var"],
            "initial_in_mean": final.running_mean - debiased["running_mean"],
            "initial_in_var": final.running_var - debiased["running_var"],
            "se_mean": errors[0],
            "se_var": errors[1],
            "measured_se_mean": root * scatter.mean_std,
            "measured_se_var": root * scatter.var_std,
            "kurtosis": scatter.kurtosis,
        }
    columns = {name: array.tolist() for name, array in values.items()}
    return Table(
        "channels",
        f"After {trajectory.updates} updates, beside the population ({run.convention.name})",
        CHANNEL_COLUMNS,
        [{"channel": c, **{name: column[c] for name, column in columns.items()}} for c in channels],
        note="gap_var: running_var - population_var; running_var misses between_var, of which "
        "shuffled batches have if_shuffled. initial_in: what the initial value still adds. se: "
        "standard errors that batches of this size leave; measured_se: from the batches' own "
        "scatter.",
    )


def final_errors(
    run: Simulated, batches: BatchTable, scatter: Population
) -> tuple[FloatArray, FloatArray]:
    """The standard errors of a run's final running_mean and running_var, (num_features,) each.

    Those that independent batches of this size leave; NaN or Inf where that is not known.
    """
    count = float(batches.count.mean())
    unbiased = scatter.within * (count / (count - 1)) if count > 1 else scatter.within * np.nan
    kurtosis = np.where(np.isfinite(scatter.kurtosis), scatter.kurtosis, 0.0)
    counts = several_values(batches)
    return standard_errors(unbiased, kurtosis, counts, run.trajectory.squared_weights)


def several_values(batches: BatchTable) -> IntArray:
    """The values per channel of each batch that has several, or of all if none has."""
    return batches.count[batches.count > 1] if batches.count.max() > 1 else batches.count


def plan_table(
    run: Simulated, counts: IntArray, kurtosis: float, reach: Sequence[Reached]
) -> Table:
    """What the momentum means, each figure with its formula; `counts` (batches,) are their n."""
    trajectory, memory = run.trajectory, run.memory
    squared_weights = trajectory.squared_weights
    errors = relative_errors(counts, kurtosis, squared_weights)
    noise = ("1/n", "2/(n - 1) + k/n")
    even = counts.min() == counts.max()
    if not even:
        noise = (f"mean({noise[0]})", f"mean({noise[1]})")
    constant = memory.new is not None
    rows: list[tuple[str, Value, str]] = [
        ("a, weight of the new batch", memory.new, "PyTorch's momentum" if constant else "1/t"),
        ("N, updates", trajectory.updates, ""),
        ("n, values per channel", float(counts.mean()), "on average"),
        ("half-life, in steps", memory.half_life, "ln(1/2) / ln(1 - a)"),
        ("mean age of a batch, in steps", memory.mean_age, "(1 - a)/a"),
        ("effective batches", memory.effective_batches, "(2 - a)/a"),
        (
            "steps until 1% is still initial",
            memory.steps_to_1_percent,
            "ceil(ln(0.01) / ln(1 - a))" if constant else "the first batch replaces it",
        ),
        ("initial value's weight now", trajectory.final_weight, _weight_formula(run)),
        (
            "S, sum of squared weights",
            squared_weights,
            _squares_formula(run),
        ),
        ("k, excess kurtosis", kurtosis, "the median of the channels"),
        ("se of running_mean, in std", errors[0], "sqrt(S/n)" if even else f"sqrt(S*{noise[0]})"),
        ("se of running_var, relative", errors[1], f"sqrt(S*({noise[1]}))"),
        *((f"momentum for {each.asked}", each.momentum, each.formula(*noise)) for each in reach),
    ]
    return Table(
        "plan",
        "What this momentum means",
        PLAN_COLUMNS,
        [
            {"quantity": quantity, "value": value, "formula": formula}
            for quantity, value, formula in rows
        ],
        note="se: the standard error that independent batches leave.",
    )


def _weight_formula(run: Simulated) -> str:
    """How the initial value's weight comes about."""
    if run.momentum is None:
        return "batches tracked before / tracked now"
    if run.convention.debias == "divided":
        return "(1 - a)**N, debiased"
    if run.convention.debias == "first":
        return "0: the first batch replaces it"
    return "(1 - a)**N"


def _squares_formula(run: Simulated) -> str:
    """How the sum of the squared weights comes about."""
    trajectory, debias = run.trajectory, run.convention.debias
    before = trajectory.first.num_batches_tracked
    if run.momentum is None:
        tracked = trajectory.final.num_batches_tracked
        if tracked != before + trajectory.updates:
            return "from each update's 1/t"
        return f"N/{tracked}**2, all batches tracked" if before else "1/N"
    if debias == "divided":
        t = "N" if not before else f"(N + {before})"
        return f"a/(2 - a)*(1 - (1 - a)**(2*N))/(1 - (1 - a)**{t})**2"
    if debias == "first" and not before:
        return "a/(2 - a) + (2 - 2*a)/(2 - a)*(1 - a)**(2*N - 2)"
    return "a/(2 - a)*(1 - (1 - a)**(2*N))"


def port_table(runs: list[Simulated], channels: list[int]) -> Table:
    """The conventions' buffers in the end, and how far they are from the first one's."""
    first = runs[0].trajectory.final
    columns = []
    for run in runs:
        final = run.trajectory.final
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = final.running_var / first.running_var
            columns.append(
                {
                    "running_mean": final.running_mean,
                    "running_var": final.running_var,
                    "mean_difference": (final.running_mean - first.running_mean)
                    / np.sqrt(first.running_var),
                    "var_ratio": ratio,
                    "output_ratio": 1 / np.sqrt(ratio),
                }
            )
    rows: list[dict[str, Value]] = [
        {
            "convention": run.convention.name,
            "channel": c,
            **{name: float(values[c]) for name, values in column.items()},
            "momentum": run.momentum,
            "momentum_weighs": run.convention.weighs,
            "variance": run.convention.variance,
        }
        for c in channels
        for run, column in zip(runs, columns, strict=True)
    ]
    return Table(
        "conventions",
        f"What a port would see, against {runs[0].convention.name}",
        PORT_COLUMNS,
        rows,
        note="mean off: in standard deviations. output ratio: what the spread of an evaluation's "
        "output is multiplied by.",
        lead=2,
    )


def charts(
    runs: list[Simulated], batches: BatchTable, scatter: Population, channels: list[int]
) -> tuple[Chart, ...]:
    """The course of the first channel shown: batch, population and running values; the initial
    value's weight.
    """
    first = runs[0].trajectory
    if len(first.steps) < 2:
        return ()
    wanted = np.linspace(1, first.steps[-1], MOST_POINTS).round()
    at = np.unique(np.searchsorted(first.steps, wanted))
    steps = first.steps[at].tolist()
    channel = channels[0]
    made = []
    for name, seen, all_of_it in (
        ("running_mean", batches.shown[0], scatter.mean),
        ("running_var", batches.shown[1], scatter.var),
    ):
        series: dict[str, Any] = {
            "batch": seen[first.batches[at], channel].tolist(),
            "population": [float(all_of_it[channel])] * len(steps),
        }
        for run in runs:
            key = "running" if len(runs) == 1 else run.convention.name
            series[key] = getattr(run.trajectory, name)[at, 0].tolist()
        made.append(Chart(name, f"{name} of channel {channel}", steps, series))
    weights = {
        "initial" if len(runs) == 1 else run.convention.name: run.trajectory.initial_weight[
            at
        ].tolist()
        for run in runs
    }
    made.append(Chart("initial_weight", "Share that is still the initial value", steps, weights))
    return tuple(made)
