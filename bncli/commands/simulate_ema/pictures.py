"""What a simulation shows: buffers beside the population, and what is left of the initial value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.commands.simulate_ema.answer import Distance, remaining
from bncli.commands.simulate_ema.running_tables import final_errors
from bncli.light import dataclass, np
from bncli.pictures import Axis, Kind, Panel, Picture, Series
from bncli.running_stats.plan import FADED
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from bncli.commands.simulate_ema.running_tables import Simulated
    from bncli.model import FloatArray, IntArray
    from bncli.running_stats.batch_table import BatchTable
    from bncli.running_stats.scatter import Population

MOST_PANELS = 4
"""Channels of one convention, or conventions of one channel, that are drawn."""

MOST_POINTS = 400
"""Steps that are drawn, over all panels of a picture."""

WIDTH = 2
"""Standard errors from the population to the edge of the band."""

STEP = Axis("step")


@dataclass(frozen=True, slots=True)
class _Course:
    """One panel: a convention in one channel, which is the one at `place` of those simulated.

    `name` is what the panel shows of the two, in a few words, and `squares` of shape (steps,) the
    sums of the squares of the batches' weights after each step.
    """

    name: str
    run: Simulated
    place: int
    channel: int
    squares: FloatArray


@dataclass(frozen=True, slots=True)
class _Quantity:
    """running_mean or running_var: what batches and the population have of it.

    `batches` is of shape (batches, num_features), `population` of shape (num_features,), and
    `errors` has the standard errors of each convention's final buffers, of that shape too.
    """

    name: str
    what: str
    of_batches: str
    batches: FloatArray
    population: FloatArray
    errors: dict[str, FloatArray]


def course_pictures(
    runs: list[Simulated],
    squares: list[FloatArray],
    batches: BatchTable,
    scatter: Population,
    channels: list[int],
    *,
    chosen: bool,
) -> tuple[Picture, ...]:
    """The course of running_mean and running_var, and of the initial value's share.

    `squares` are the sums of the squares of the batches' weights after each step of each run.

    Of one convention the first `channels` are drawn, or those farthest from the population where
    the user has not `chosen` any; of several conventions a channel of each, side by side. None
    where there is one step, which makes no curve.
    """
    steps = runs[0].trajectory.steps
    if len(steps) < 2:
        return ()
    errors = {run.convention.name: final_errors(run, batches, scatter) for run in runs}
    lead = errors[runs[0].convention.name]
    distance = Distance.of(runs[0], scatter, lead)
    courses = _courses(runs, squares, distance, channels, chosen=chosen)
    at = _drawn(steps, MOST_POINTS // len(courses))
    mean, var = batches.shown
    of_mean, of_var = ({name: each[i] for name, each in errors.items()} for i in (0, 1))
    quantities = (
        _Quantity("running_mean", "mean", "means", mean, scatter.mean, of_mean),
        _Quantity("running_var", "variance", "biased variances", var, scatter.var, of_var),
    )
    left_out = _left_out(runs, channels, courses, chosen=chosen)
    return (
        *(_picture(each, courses, at, left_out) for each in quantities),
        *_initial(runs[:MOST_PANELS], _drawn(steps, MOST_POINTS)),
    )


def _courses(
    runs: list[Simulated],
    squares: list[FloatArray],
    distance: Distance,
    channels: list[int],
    *,
    chosen: bool,
) -> list[_Course]:
    """What is drawn, a panel each."""
    if len(runs) > 1:
        channel = channels[0] if chosen else _most_apart(runs, channels)
        place = channels.index(channel)
        return [
            _Course(run.convention.name, run, place, channel, own)
            for run, own in zip(runs[:MOST_PANELS], squares, strict=False)
        ]
    all_fit = chosen or len(channels) <= MOST_PANELS
    shown = (channels if all_fit else distance.worst_first(channels))[:MOST_PANELS]
    return [
        _Course(f"channel {channel}", runs[0], channels.index(channel), channel, squares[0])
        for channel in shown
    ]


def _most_apart(runs: list[Simulated], channels: list[int]) -> int:
    """The channel in which the conventions' variances differ most in the end."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        final = np.array([run.trajectory.final.running_var[channels] for run in runs])
        off = np.abs(final / final[0] - 1).max(0).round(6)  # rounding is no difference
    return channels[int(np.argmax(np.nan_to_num(off, nan=-1.0, posinf=np.inf)))]


def _drawn(steps: IntArray, most: int) -> IntArray:
    """Where the steps that are drawn stand among `steps`: at even distances, the last among them.

    A course has those between the rows of its table, too, so that these are always found.
    """
    wanted = np.linspace(1, steps[-1], max(most, 2)).round()
    return np.unique(np.searchsorted(steps, wanted))


def _left_out(
    runs: list[Simulated], channels: list[int], courses: list[_Course], *, chosen: bool
) -> str:
    """Why this channel is drawn, and how many others are not, in sentences; "" where all are."""
    said = []
    if len(runs) > 1:
        if len(channels) > 1:
            why = "the first chosen" if chosen else "that in which running_var differs most"
            said.append(f"Of {len(channels)} channels it is {why}.")
        more, what = len(runs) - len(courses), "more convention"
    else:
        more, what = len(channels) - len(courses), "more channel"
    if more:
        said.append(f"{counted(more, what)} {'is' if more == 1 else 'are'} in the tables.")
        if len(runs) == 1 and not chosen:
            said.append("Those drawn end farthest from the population, the farthest first.")
    return " ".join(said)


def _picture(quantity: _Quantity, courses: list[_Course], at: IntArray, left_out: str) -> Picture:
    """A panel for each course."""
    name = quantity.name
    beside = len({each.run.convention.name for each in courses}) > 1
    title = f"{name}, step by step"
    if beside:
        title += f", of channel {courses[0].channel}"
    total = int(courses[0].run.trajectory.steps[-1])
    seen = (
        f"The points are the batches' {quantity.of_batches}, the line is {name} after each step, "
        f"and the level is the {quantity.what} of all batches' values pooled."
    )
    panels = tuple(_panel(quantity, course, at) for course in courses)
    band = ""
    if any(series.kind is Kind.BAND for panel in panels for series in panel.series):
        band = (
            f"The shaded band reaches to {WIDTH} standard errors of {name} at that step on either "
            "side of the level; it begins where at most 1% of the initial value is left."
        )
    thinned = ""
    if len(at) < total:
        thinned = f"{len(at)} of the {total} steps are drawn, at even distances."
    said = [_said(quantity, course) for course in courses]
    return Picture(
        name,
        title,
        panels,
        " ".join(filter(None, (seen, band, *said, thinned, left_out))),
        columns=1 if len(courses) == 1 else 2,
        one_scale=beside,
    )


def _panel(quantity: _Quantity, course: _Course, at: IntArray) -> Panel:
    """The batches, the buffer and the population of one course."""
    trajectory = course.run.trajectory
    steps = trajectory.steps[at].tolist()
    value = float(quantity.population[course.channel])
    running = getattr(trajectory, quantity.name)[at, course.place]
    batches = quantity.batches[trajectory.batches[at], course.channel]
    series = [
        Series(quantity.name, Kind.LINE, steps, running.tolist()),
        Series("population", Kind.LEVEL, (), [value]),
        Series("batches", Kind.POINTS, steps, batches.tolist()),
    ]
    faded = np.abs(trajectory.initial_weight[at]) <= FADED
    error = _error(quantity, course)
    if error > 0 and math.isfinite(value) and faded.sum() > 1:
        # Of independent batches: the square of the error goes as the sum of the squared weights.
        share = course.squares[at][faded] / trajectory.squared_weights
        band = WIDTH * error * np.sqrt(share)
        label = f"population ± {WIDTH} standard errors at each step"
        x = trajectory.steps[at][faded].tolist()
        low, high = (value - band).tolist(), (value + band).tolist()
        series.append(Series(label, Kind.BAND, x, low, high))
    return Panel(course.name, STEP, Axis(quantity.name), tuple(series))


def _error(quantity: _Quantity, course: _Course) -> float:
    """The standard error of the final buffer; 0 where there is none."""
    error = float(quantity.errors[course.run.convention.name][course.channel])
    return error if math.isfinite(error) else 0.0


def _said(quantity: _Quantity, course: _Course) -> str:
    """Where the buffer ends, beside the population, in a sentence."""
    final = float(getattr(course.run.trajectory.final, quantity.name)[course.channel])
    value = float(quantity.population[course.channel])
    ends = f"In {course.name}, {quantity.name} ends at {final:.4g}"
    whole = f"the population's {quantity.what} is {value:.4g}"
    left = course.run.trajectory.final_weight
    if not abs(left) <= FADED:
        return f"{ends}, of which the initial value has a share of {remaining(left)}; {whole}."
    error = _error(quantity, course)
    if not error or not (math.isfinite(final) and math.isfinite(value)):
        return f"{ends}; {whole}."
    return (
        f"{ends}, {abs(final - value) / error:.2g} standard errors from the population's "
        f"{value:.4g}."
    )


def _initial(runs: list[Simulated], at: IntArray) -> tuple[Picture, ...]:
    """The share of the buffers that is still the initial value; () where it never counts."""
    if not any(run.trajectory.initial_weight[at].any() for run in runs):
        return ()
    steps = runs[0].trajectory.steps[at].tolist()
    series = [
        Series(run.convention.name, Kind.LINE, steps, run.trajectory.initial_weight[at].tolist())
        for run in runs
    ]
    first, last = runs[0].trajectory.initial_weight[at][[0, -1]].tolist()
    line = "The line is" if len(runs) == 1 else "Each line is, for one convention,"
    seen = f"{line} the share of the running statistics that is still the initial value."
    if len(runs) > 1:
        said = ", ".join(
            f"{remaining(run.trajectory.final_weight)} in {run.convention.name}" for run in runs
        )
        said = f"After step {steps[-1]} it is {said}."
    else:
        said = (
            f"It is {remaining(first)} after step {steps[0]} and {remaining(last)} after step "
            f"{steps[-1]}."
        )
    picture = Picture(
        "initial_weight",
        "Share that is still the initial value",
        (
            Panel(
                "",
                STEP,
                Axis("share of the initial value"),
                (*series, Series("1%", Kind.LEVEL, (), [FADED])),
            ),
        ),
        f"{seen} {said} The level at 1% is where it counts as gone.",
    )
    return (picture,)
