"""What many files are taken for: sources of a target, a series in time, ranks or clients."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from bncli.changes.many.common import Common, read, same_rows
from bncli.changes.many.counters import counter_of
from bncli.changes.many.ranks import side_by_side
from bncli.changes.many.series import in_series
from bncli.changes.many.spoilt import Health, marked, spoilt
from bncli.changes.many.target import of_target
from bncli.light import np
from bncli.model.many import Kind, Many
from bncli.state_dict import VECTORS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bncli.model import FloatArray, TensorFile

EQUAL: list[int] = []
"""In the place of an order: the counters are equal in all files, or there are none."""


def compare_many(files: Sequence[TensorFile], target: TensorFile | None = None) -> Many:
    """What the target is of the files; without one, what the files are to each other.

    A series where the counters grow, unless the weights are of networks that were trained apart;
    ranks or clients where they are equal or missing. Raises FileError where a file is damaged.
    """
    if target is not None:
        return of_target(files, target)
    common = Common.of(files)
    paths = tuple(str(file.path) for file in files)
    result = Many(
        Kind.APART, paths, len(common.layers), unmatched=common.unmatched, sure=common.sure
    )
    if not common.layers:
        return result
    health = Health.of(common)
    order = _order(common, health)
    if order == EQUAL or order is None:
        return _beside(result, common, health, equal=order == EQUAL)
    if any(common.related(*pair) is False for pair in pairwise(order)):
        return replace(_beside(result, common, health, equal=False), related=False)
    ordered, health = common.in_order(order), health.in_order(order)
    series = in_series(ordered, health)
    paths = tuple(paths[at] for at in order)
    result = replace(
        result,
        kind=Kind.SERIES,
        paths=paths,
        reordered=order != list(range(len(files))),
        rows=series.rows,
        jumps=series.jumps,
        stills=series.stills,
        drift=series.drift,
    )
    return _with_health(result, health, series=True)


def _beside(result: Many, common: Common, health: Health, *, equal: bool) -> Many:
    """Files that are no series; `equal` says that their counters are, or missing."""
    found = side_by_side(common, health)
    kind = found.kind if equal else Kind.APART
    result = replace(
        result,
        kind=kind,
        rows=found.rows,
        ranks=found.ranks if equal else None,
        related=None if kind is Kind.RANKS else _all_related(common),
    )
    return _with_health(result, health, series=False)


def _with_health(result: Many, health: Health, *, series: bool) -> Many:
    """The same with what is wrong in some of the files."""
    bad = spoilt(result.paths, health, series=series)
    new = tuple(result.paths[at] for at in sorted(health.new))
    return replace(result, spoilt=bad, new=new, rows=marked(result.rows, bad, new))


def _order(common: Common, health: Health) -> list[int] | None:
    """The order in which the counters grow; EQUAL where they do not differ, None for no order."""
    counters = _counters(common)
    if not counters.size or bool((counters == counters[0]).all()):
        return EQUAL
    order = _growing(common, counters)
    if order is None and (steady := health.steady()):
        # Where statistics are reset, the layer's counter often is, too: the others tell the order.
        order = _growing(common, _counters(common, steady))
    return order


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


def _all_related(common: Common) -> bool | None:
    """False where some file is not related to the first; None where that is not shown."""
    found = [common.related(0, other) for other in range(1, len(common.files))]
    return False if False in found else True if all(found) else None
