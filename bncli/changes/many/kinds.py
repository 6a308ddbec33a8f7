"""What many files are taken for: sources of a target, a series in time, ranks or clients."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.changes.many.common import Common
from bncli.changes.many.counters import counter_of
from bncli.changes.many.ranks import side_by_side
from bncli.changes.many.series import in_series
from bncli.changes.many.target import of_target
from bncli.light import np
from bncli.model.many import Kind, Many

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model import FloatArray, TensorFile


def compare_many(files: Sequence[TensorFile], target: TensorFile | None = None) -> Many:
    """What the target is of the files; without one, what the files are to each other.

    A series where the counters grow, else ranks or clients where they are equal or missing. Raises
    FileError where a file is damaged.
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
    counters = _counters(common)
    if not counters.size or bool((counters == counters[0]).all()):
        found = side_by_side(common)
        return replace(result, kind=found.kind, rows=found.rows, ranks=found.ranks)
    order = _growing(counters)
    if order is None:
        return replace(result, rows=side_by_side(common).rows)
    ordered = common.in_order(order)
    series = in_series(ordered)
    return replace(
        result,
        kind=Kind.SERIES,
        paths=tuple(paths[at] for at in order),
        reordered=order != list(range(len(files))),
        rows=series.rows,
        jumps=series.jumps,
        stills=series.stills,
        drift=series.drift,
    )


def _counters(common: Common) -> FloatArray:
    """The counters of the layers that have one in all files, shape (files, layers)."""
    read = [[counter_of(layer) for layer in versions] for versions in common.layers]
    rows = [row for row in read if None not in row]
    return np.array(rows, np.float64).T if rows else np.empty((0, 0))


def _growing(counters: FloatArray) -> list[int] | None:
    """The order in which no layer's counter falls and some grow at each file; None for none.

    Files with equal counters stay in the order given, and are a series only with others.
    """
    order = sorted(range(len(counters)), key=lambda file: float(counters[file].sum()))
    steps = np.diff(counters[order], axis=0)
    grows = bool((steps >= 0).all()) and bool((steps > 0).any(1).all())
    return order if grows else None
