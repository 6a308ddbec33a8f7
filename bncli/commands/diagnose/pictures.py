"""What a page shows of a diagnosis: how far off each layer is over depth, and what trials close."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.model.capture import Propagation
from bncli.pictures import Axis, Kind, Panel, Picture, Series
from bncli.rulebook.live.measures import BLAMED
from bncli.rulebook.running import INVERTED, MOST_NEW_WEIGHT
from bncli.sections.answer import counted, share
from bncli.sections.depth import (
    band,
    by_layer,
    drawn,
    drawn_said,
    factors,
    findings_said,
    furthest,
    known,
    layer_axis,
    level,
    panel,
    points,
    ranges,
    sentences,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.pictures import Numbers
    from bncli.report import Finding, Value

    Row = Mapping[str, Value]

MEASURED = ("predicted_error", "noise", "z_median", "z_max", "var_ratio_min", "var_ratio_max")
MOST_TRIALS = 12
"""Trials whose shares the text tells."""


def pictures(
    findings: Sequence[Finding],
    *,
    rows: Sequence[Row],
    tried: Sequence[Row],
    facts: Mapping[str, Value],
) -> tuple[Picture, ...]:
    """The pictures of a diagnosis, of its tables' rows and its facts; () where nothing is known."""
    return (*_depth(rows, by_layer(findings)), *_trials(tried, facts))


# ------------------------------------------------------------------ over depth


def _depth(rows: Sequence[Row], found: Mapping[str, Sequence[Finding]]) -> tuple[Picture, ...]:
    """The predicted error with what chance gives, and the distance of the statistics."""
    shown = drawn(rows, lambda row: str(row["name"]) in found)
    names = [str(row["name"]) for row in shown]
    marked = {at: found[name] for at, name in enumerate(names) if name in found}
    axis = layer_axis(names)
    of = {key: known(row[key] for row in shown) for key in MEASURED}
    error, noise = of["predicted_error"], of["noise"]
    off = [
        points("layer", error),
        *band("noise: what chance gives", noise, [*error, BLAMED]),
        level(f"{BLAMED} std, from where it matters", BLAMED),
    ]
    distance = [ranges("means: median to worst channel", of["z_median"], of["z_max"])]
    ratio = [
        ranges("variances: least to greatest channel", of["var_ratio_min"], of["var_ratio_max"]),
        level("equal", 1.0),
    ]
    panels = (
        panel("Output off by", axis, "standard deviations", off, marked),
        panel("Distance of the means", axis, "standard deviations", distance),
        panel("Variance of the data over the stored one", axis, "ratio", ratio),
    )
    there = tuple(each for each in panels if each is not None)
    if not there:
        return ()
    means = furthest("The mean of a channel is off", of["z_max"], names).removesuffix(".")
    subject = f"{'the' if means else 'The'} variances of the data are"
    variances = factors(subject, ratio[0].y, ratio[0].upper, names).removesuffix(".")
    told = {id(each): each for those in marked.values() for each in those}
    text = sentences(
        drawn_said(len(shown), len(rows)),
        _errors(names, error, noise),
        ", and ".join(filter(None, (means, variances))) + "." * bool(means or variances),
        findings_said(told.values()),
        _within(marked, error, noise),
    )
    # Its key is that of the chart that terminals have of the same numbers.
    return (
        Picture("predicted_error", "Distance of the data from the stored statistics", there, text),
    )


def _errors(names: Sequence[str], errors: Numbers, noise: Numbers) -> str:
    """Which layer's output is off most, what chance gives there, and how many layers matter."""
    known_errors = [(error, at) for at, error in enumerate(errors) if error is not None]
    if not known_errors:
        return "How far the outputs are off is not known of any layer."
    most, worst = max(known_errors, key=lambda each: (each[0], -each[1]))
    said = f"The output of {names[worst]} is off by {most:.3g} standard deviations"
    if len(names) > 1:
        said += ", the most of all layers"
    chance = noise[worst]
    if chance is not None:
        said += "; chance, which is how the batches scatter, gives a healthy layer up to "
        said += f'{chance:.3g} there ("noise up to" in the table)'
    large = [(error, at) for error, at in known_errors if error >= BLAMED]
    of = f"{len(large)} of {counted(len(known_errors), 'layer')}"
    said += f". {of} {'is' if len(large) == 1 else 'are'} off by {BLAMED} or more"
    bounds = [(error, bound) for error, at in large if (bound := noise[at]) is not None]
    if not large or len(bounds) < len(large):
        return f"{said}."
    beyond = sum(error > bound for error, bound in bounds)
    return f"{said}, {beyond or 'none'} of them by more than chance gives."


def _within(marked: Mapping[int, Sequence[Finding]], errors: Numbers, noise: Numbers) -> str:
    """Why layers are marked that are off by no more than chance gives; "" where none are."""
    codes = {}
    number = 0
    for at, those in marked.items():
        error, bound = errors[at], noise[at]
        if error is not None and bound is not None and error <= max(BLAMED, bound):
            number += 1
            codes.update(dict.fromkeys(each.code for each in those))
    if not number:
        return ""
    first, *others = sorted(codes)
    rules = f"{', '.join([first, *others[:-1]])} and {others[-1]}" if others else first
    said = (
        f"{number} of the marked layers {'is' if number == 1 else 'are'} within {BLAMED} or chance"
    )
    said += f": {rules} {'need' if others else 'needs'} no larger distance"
    if INVERTED.code not in codes:
        return f"{said} (bncli rules {first} says what {first} needs)."
    momentum = f"a momentum above {MOST_NEW_WEIGHT}"
    return f"{said} ({INVERTED.code}: {momentum})." if others else f"{said}, but {momentum}."


# ------------------------------------------------------------------ what was tried


def _trials(tried: Sequence[Row], facts: Mapping[str, Value]) -> tuple[Picture, ...]:
    """The gap that each repair leaves, between the gap as it is and its floor; and the metric."""
    names = [str(row["what"]) for row in tried]
    gaps, metrics = (known(row[key] for row in tried) for key in ("gap", "metric"))
    gap, floor = known((facts["gap"], facts["gap_floor"]))
    now = [("gap as it is", gap), ("its floor", floor)]
    panels = [_bars("Gap that is left", "standard deviations of the output", names, gaps, now)]
    if any(value is not None for value in metrics):
        stages = [
            (f"metric in {key}", known((facts.get(f"metric_{mode.value}"),))[0])
            for key, mode in (("training", Propagation.TRAINING), ("evaluation", Propagation.EVAL))
        ]
        metric = str(facts["metric"]).rpartition(":")[2]
        panels.append(_bars("Metric in evaluation", metric, names, metrics, stages))
    there = tuple(each for each in panels if each is not None)
    if not there:
        return ()
    text = sentences(
        "" if gap is None else f"The gap between train() and eval() is {gap:.3g}.",
        "" if floor is None else f"Its floor is {floor:.3g}.",
        _closed(tried),
    )
    return (Picture("tried", "What new statistics or another input would do", there, text),)


def _bars(
    title: str,
    measure: str,
    names: Sequence[str],
    values: Numbers,
    levels: Sequence[tuple[str, float | None]],
) -> Panel | None:
    """A bar for each trial, and what it is to be compared with; None where none is known."""
    if all(value is None for value in values):
        return None
    lines = [level(name, value) for name, value in levels if value is not None]
    bars = Series("with the repair", Kind.BARS, range(len(values)), values)
    return Panel(title, Axis("", names=tuple(names)), Axis(measure), (bars, *lines))


def _closed(tried: Sequence[Row]) -> str:
    """The share of the gap above its floor that each trial closes, the largest first."""
    shares = [
        (closes, f"{'the' if row['kind'] == 'input' else 'new statistics in'} {row['what']}")
        for row in tried
        if isinstance(closes := row["closes"], float)
    ]
    shares.sort(key=lambda each: -each[0])
    if not shares:
        return "The share that each repair closes is not known, or the gap is at its floor."
    said = [_share(*each) for each in shares[:MOST_TRIALS]]
    if (more := len(shares) - MOST_TRIALS) > 0:
        said.append(f"{counted(more, 'more trial')} not better than these")
    return f"Of what lies above the floor, {'; '.join(said)}."


def _share(closes: float, what: str) -> str:
    """What a trial does to the gap above its floor."""
    if closes < 0:
        return f"the gap widens by {share(-closes)} with {what}"
    return f"{share(min(closes, 1.0))} closes with {what}"
