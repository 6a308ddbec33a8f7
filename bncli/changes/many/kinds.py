"""What many files are taken for: sources of a target, a series in time, ranks or clients."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from bncli.changes.many.common import Common, read, same_rows
from bncli.changes.many.counters import counter_of
from bncli.changes.many.distances import (
    DISORDERED,
    LONGEST_GAP,
    ORDERED,
    STAR,
    about_equal,
    distances,
    ordered,
    turned_back,
)
from bncli.changes.many.ranks import side_by_side
from bncli.changes.many.series import count_of, in_series
from bncli.changes.many.spoilt import Health, marked, spoilt
from bncli.changes.many.target import of_target
from bncli.light import np
from bncli.model.many import Counted, FileRow, Kind, Many, Stranger
from bncli.report import Certainty
from bncli.state_dict import VECTORS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from bncli.model import FloatArray, TensorFile


def compare_many(files: Sequence[TensorFile], target: TensorFile | None = None) -> Many:
    """What the target is of the files; without one, what the files are to each other.

    A series where the counters grow, unless the weights say that all files come from one start;
    ranks or clients where they are equal. Files of other networks are told apart from most of
    them, if most are of one. Raises FileError where a file is damaged.
    """
    if target is not None:
        return of_target(files, target)
    common = Common.of(files)
    paths = tuple(str(file.path) for file in files)
    result = Many(Kind.APART, paths, len(common.layers), lacking=common.lacking, sure=common.sure)
    if not common.layers:
        return result
    health = Health.of(common)
    order = _order(common, health)[0] or range(len(files))
    runs = sorted(_runs(common, order), key=len, reverse=True)
    main = sorted(runs[0])
    if len(runs) > 1 and not len(files) < 2 * len(main):
        runs_of = tuple(tuple(paths[at] for at in sorted(run)) for run in runs if len(run) > 1)
        return replace(_beside(result, common, health, None), related=False, runs=runs_of)
    strangers = [at for at in range(len(files)) if at not in main]
    if not strangers:
        return _related(result, common, health)
    found = _related(
        replace(result, paths=tuple(paths[at] for at in main)),
        common.in_order(main),
        health.in_order(main),
    )
    rest, rest_health = common.in_order(strangers), health.in_order(strangers)
    rows = tuple(
        FileRow(paths[at], count_of(rest, number), what="weights of another network")
        for number, at in enumerate(strangers)
    )
    bad = spoilt([row.path for row in rows], rest_health, series=False)
    return replace(
        found,
        rows=(*found.rows, *marked(rows, bad, ())),
        spoilt=(*found.spoilt, *bad),
        strangers=tuple(Stranger(row.path, common.names) for row in rows),
    )


def _related(result: Many, common: Common, health: Health) -> Many:
    """Files whose weights are of one network, or cannot tell: series, ranks or clients."""
    order, counted = _order(common, health)
    result = replace(result, counted=counted)
    apart = distances(common if order is None else common.in_order(order))
    if order is not None and _from_one_start(common.in_order(order), apart):
        found = _beside(result, common, health, None)
        return replace(found, kind=Kind.CLIENTS, sure=Certainty.LIKELY)
    if order is None and counted is Counted.NONE and (ordered(apart) or 0) >= ORDERED:
        order = list(range(len(common.files)))
        result = replace(result, sure=Certainty.LIKELY)
    elif order is not None and (share := ordered(apart)) is not None and share <= DISORDERED:
        if _uncounted(common.in_order(order)) > 1:
            return _beside(replace(result, counted=Counted.DIFFERENT), common, health, None)
        result = replace(result, sure=Certainty.LIKELY, wanders=True)
    if order is None:
        return _beside(result, common, health, counted)
    health = health.in_order(order)
    series = in_series(common.in_order(order), health)
    result = replace(
        result,
        kind=Kind.SERIES,
        paths=tuple(result.paths[at] for at in order),
        reordered=order != list(range(len(order))),
        rows=series.rows,
        jumps=series.jumps,
        stills=series.stills,
        drift=series.drift,
    )
    return _with_health(result, health, series=True)


def _uncounted(ordered: Common) -> int:
    """In how many layers the statistics move from one file to the next, but not their counter."""
    found = 0
    for versions in ordered.layers:
        refs = [each.tensors.get("running_mean") for each in versions]
        if None in refs:
            continue
        means = [ref.read().tobytes() for ref in refs if ref is not None]
        counts = [counter_of(each) for each in versions]
        found += any(
            counts[at] == counts[at + 1] is not None and means[at] != means[at + 1]
            for at in range(len(versions) - 1)
        )
    return found


def _from_one_start(ordered: Common, apart: FloatArray) -> bool:
    """Whether files whose counters grow come from one start, and not one from the other."""
    if not about_equal(apart) or turned_back(apart) < STAR:
        return False
    counters = _counters(ordered)
    return bool((np.diff(counters, axis=0) <= LONGEST_GAP).all())


def _beside(result: Many, common: Common, health: Health, counted: Counted | None) -> Many:
    """Files that are no series; `counted` is None where they are not taken for ranks or clients."""
    found = side_by_side(common, health)
    kind = found.kind if counted in (Counted.EQUAL, Counted.NONE) else Kind.APART
    if counted is Counted.NONE and kind is Kind.CLIENTS:
        kind = Kind.APART
    ranks = found.ranks if kind is not Kind.APART or counted is Counted.EQUAL else None
    result = replace(result, kind=kind, rows=found.rows, ranks=ranks)
    return _with_health(result, health, series=False)


def _with_health(result: Many, health: Health, *, series: bool) -> Many:
    """The same with what is wrong in some of the files."""
    bad = spoilt(result.paths, health, series=series)
    new = tuple(result.paths[at] for at in sorted(health.new))
    return replace(result, spoilt=bad, new=new, rows=marked(result.rows, bad, new))


def _order(common: Common, health: Health) -> tuple[list[int] | None, Counted]:
    """The order in which the counters grow, None for none; and what they are among the files."""
    counters = _counters(common)
    if not counters.size:
        return None, Counted.NONE
    if bool((counters == counters[0]).all()):
        return None, Counted.EQUAL
    order = _growing(common, counters)
    if order is None and (steady := health.steady()):
        # Where statistics are reset, the layer's counter often is, too: the others tell the order.
        counters = _counters(common, steady)
        if counters.size and bool((counters == counters[0]).all()):
            return None, Counted.EQUAL
        order = _growing(common, counters)
    return order, Counted.DIFFERENT if order is None else Counted.GROWING


def _counters(common: Common, names: Collection[str] | None = None) -> FloatArray:
    """The counters of the layers that have one in all files, shape (files, layers).

    `names` are the layers that are asked, without it all.
    """
    counters = [
        [counter_of(layer) for layer in versions]
        for name, versions in zip(common.names, common.layers, strict=True)
        if names is None or name in names
    ]
    rows = [row for row in counters if None not in row]
    return np.array(rows, np.float64).T if rows else np.empty((0, 0))


def _growing(common: Common, counters: FloatArray) -> list[int] | None:
    """The order in which no layer's counter falls and some grow at each file; None for none.

    A file may be there twice, as the last one of a run often is.
    """
    if not counters.size:
        return None
    order = sorted(range(len(counters)), key=lambda file: float(counters[file].sum()))
    steps = np.diff(counters[order], axis=0)
    if not bool((steps >= 0).all()):
        return None
    for pair, grown in zip(pairwise(order), steps, strict=True):
        if not grown.any() and not _copies(common.in_order(pair)):
            return None
    return order


def _copies(common: Common) -> bool:
    """Whether two files have the same layers, bit for bit."""
    return same_rows(read(common.tensors(*VECTORS)).each)


def _runs(common: Common, order: Iterable[int]) -> list[list[int]]:
    """The files by the run that they are of: each is held against the last one of each run."""
    runs: list[list[int]] = []
    for file in order:
        own = next((run for run in runs if common.related(run[-1], file) is not False), None)
        if own is None:
            runs.append([file])
        else:
            own.append(file)
    return runs
