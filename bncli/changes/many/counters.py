"""What a target's counters are of those of the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np
from bncli.model.many import Made, Origin
from bncli.rulebook.layers import plain_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.changes.many.common import Common
    from bncli.model import FloatArray
    from bncli.state_dict import LayerRefs


def counters_of(
    common: Common, names: Sequence[str], beside: Origin | None = None
) -> Origin | None:
    """Where the counters of the last file come from; None where no other file has any.

    `names` are what the other files are called. What the statistics `beside` them are of the files
    is tried first: the middle one of three epochs counted as many batches as their mean.
    """
    read = {
        name: [counter_of(layer) for layer in versions]
        for name, versions in zip(common.names, common.layers, strict=True)
    }
    counted = {name: row for name, row in read.items() if None not in row[:-1]}
    if not counted:
        return None
    rows = {name: row for name, row in counted.items() if row[-1] is not None}
    if not rows:
        return Origin("counters", Made.MISSING, "missing in the target", total=len(read))
    table = np.array([*rows.values()], np.float64).T
    made, what, weights = _as_beside(table, names, beside) or _explained(table, names)
    odd = np.abs(table[-1] - table[:-1].mean(0)) > 0
    off = [name for name, bad in zip(rows, odd, strict=True) if bad and made is Made.NONE]
    return Origin(
        "counters",
        made,
        what,
        exact=made not in (Made.NONE, Made.MEAN, Made.SUBSET),
        weights=tuple(weights.tolist()),
        values=len(rows),
        total=len(read),
        off=tuple(off),
    )


def counter_of(layer: LayerRefs) -> float | None:
    """A layer's num_batches_tracked; None where it is missing or not one real, finite number."""
    ref = layer.num_batches_tracked
    if ref is None or ref.numel != 1 or ref.storage is None:
        return None
    value = ref.read().reshape(()).item()
    if isinstance(value, complex):
        return None
    number = float(value)
    return number if np.isfinite(number) else None


def _as_beside(
    table: FloatArray, names: Sequence[str], beside: Origin | None
) -> tuple[Made, str, FloatArray] | None:
    """The same of the files as the statistics are, where these are of some of them alone."""
    if beside is None or beside.made not in (Made.FILE, Made.SUBSET) or len(names) < 2:
        return None
    weights = np.array(beside.weights)
    some = table[:-1][weights > 0]
    x, t = table[:-1], table[-1]
    if not some.size or np.array_equal(x, np.broadcast_to(t, x.shape)):
        return None
    if beside.made is Made.FILE:
        chosen = int(np.argmax(weights))
        return (Made.FILE, f"those of {names[chosen]}", weights) if (x[chosen] == t).all() else None
    if np.array_equal(t, some.sum(0)):
        return Made.SUM, f"the sum of the same {len(some)} files", (weights > 0).astype(np.float64)
    if _is_mean(some, t):
        return Made.SUBSET, f"the mean of the same {len(some)} files", weights
    return None


def _explained(table: FloatArray, names: Sequence[str]) -> tuple[Made, str, FloatArray]:
    """What the last row of a table, shape (files + 1, layers), is of the others."""
    x, t = table[:-1], table[-1]
    files = len(x)
    like = [number for number in range(files) if np.array_equal(x[number], t)]
    ones, none = np.ones(files), np.zeros(0)
    if len(like) == files:
        return Made.SAME, "the same in all files", none
    if np.array_equal(t, x.sum(0)):
        return Made.SUM, "their sum", ones
    if _is_mean(x, t):
        return Made.MEAN, "their mean", ones / files
    largest, smallest = np.array_equal(t, x.max(0)), np.array_equal(t, x.min(0))
    if like:
        weights = np.zeros(files)
        weights[like[0]] = 1
        extreme = ", the largest" if largest else ", the smallest" if smallest else ""
        more = f" and {len(like) - 1} more" if len(like) > 1 else ""
        return Made.FILE, f"those of {names[like[0]]}{more}{extreme}", weights
    if largest:
        return Made.LARGEST, "the largest of each layer", none
    if smallest:
        return Made.SMALLEST, "the smallest of each layer", none
    if not t.any():
        return Made.NONE, "0", none
    low, high = float(t.min()), float(t.max())
    said = plain_count(low) if low == high else f"{plain_count(low)} to {plain_count(high)}"
    return Made.NONE, f"{said}, none of these, their sum or their mean", none


def _is_mean(x: FloatArray, t: FloatArray) -> bool:
    """Whether counters are the mean: up to float32's rounding, or rounded to whole numbers."""
    mean = x.mean(0)
    steps = len(x) + 2
    if bool((np.abs(t - mean) <= steps * 2.0**-24 * np.abs(x).mean(0)).all()):
        return True
    whole = np.abs(mean - np.round(mean)) <= steps * 2.0**-24 * np.abs(mean)
    down, near = np.where(whole, np.round(mean), np.floor(mean)), np.round(mean)
    return bool(np.array_equal(t, down) or np.array_equal(t, near))
