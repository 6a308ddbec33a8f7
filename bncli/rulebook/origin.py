"""Whether training can have left a layer's statistics, or nothing ever wrote them.

What is found here needs no other layer: values that are all exactly 0, memory that was never
filled, and one tensor in the place of another.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.rulebook.interface import span
from bncli.rulebook.order import among, distinct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bncli.model import FloatArray
    from bncli.rulebook.layers import Layer

Leaf = str

HUGE = 1e20
"""Training leaves no finite mean from here on: the squares of such inputs overflow float32."""
TINY = 1e-20
"""Up to here, a value beside a HUGE one is not from training: statistics do not decay in one
channel and explode in the next."""
FLOOR = 1e-41
"""float32 values that decay stop below this, all at one magnitude for any momentum above 1e-4."""
LARGE = 1e10
"""From here on, a value does not stand beside several subnormal ones after training."""
MOST_BATCHES = 10**9
"""The most batches that training can count."""
LEAST_NORMAL = {"float16": 2.0**-24, "float64": 2.0**-1022}
"""By dtype, below which size a decaying value becomes 0; 2^-126 in others, as GPUs flush."""
MANTISSAS = {"float16": 10, "float32": 23, "float64": 52}
DISTINCT = {"float16": 3, "bfloat16": 5, "float32": 2, "float64": 2}
"""By dtype, how many values must agree in every bit for it not to be an accident."""


def counted(layer: Layer) -> float | None:
    """The layer's counter, or None where it is missing or NaN."""
    counter = layer.state.num_batches_tracked
    return None if counter is None or counter != counter else counter  # noqa: PLR0124  # NaN


def never_counted(layer: Layer) -> bool:
    """Whether the counter is there and 0."""
    return counted(layer) == 0


def may_be_decayed(layer: Layer) -> bool:
    """Whether a variance can have decayed to 0 over the batches that the layer counted.

    That takes an input that was always 0. Without a counter, only weights other than 0 say that
    the layer was trained.
    """
    counter, momentum = counted(layer), layer.momentum
    if counter is None:
        return layer.weight is not None and bool(layer.weight.any())
    if counter <= 0 or (momentum is not None and momentum <= 0):
        return False
    if momentum is None or momentum >= 1:
        return True
    dtype = layer.dtypes.get("running_var", "")
    return bool((1 - momentum) ** float(counter) < LEAST_NORMAL.get(dtype, 2.0**-126))


def all_zero(layer: Layer) -> bool:
    """Whether both statistics are exactly 0 in every channel, and did not decay to that.

    They may have in a layer whose weights died with its input, if it counted enough batches; and
    where a new layer has a variance of 0, that is all that zeros say.
    """
    mean, var = layer.mean, layer.var
    if layer.initial_var == 0:
        return False
    if mean is None or var is None or not mean.size or not var.size or mean.any() or var.any():
        return False
    return bool(layer.live().any()) or not may_be_decayed(layer)


def same_bits(layer: Layer) -> tuple[Leaf, Leaf] | None:
    """Two of the layer's vectors that have the same bits, if there are such.

    Vectors of different dtypes are compared in the narrower one. A bias may be a copy of the mean
    on purpose, so that the layer changes nothing; and constants, or few values other than 0 and
    1, prove nothing.
    """
    vectors = layer.vectors
    for leaf, other in (
        ("running_var", "running_mean"),
        ("running_var", "weight"),
        ("running_var", "bias"),
        ("running_mean", "weight"),
    ):
        mine, its = vectors[leaf], vectors[other]
        if mine is None or its is None or mine.shape != its.shape or not mine.size:
            continue
        dtypes = layer.dtypes.get(leaf, ""), layer.dtypes.get(other, "")
        if dtypes[0] == dtypes[1] and mine[0] != its[0] and mine[0] == mine[0]:
            continue  # the usual case, at once; NaN is not itself
        dtype = min(dtypes, key=_precision)
        if dtype not in DISTINCT:
            continue
        mine, its = _narrowed(mine, dtype), _narrowed(its, dtype)
        if not np.array_equal(mine, its, equal_nan=True):
            continue
        telling = distinct(mine[np.isfinite(mine) & (np.abs(mine) > TINY) & (mine != 1)])
        if len(telling) >= DISTINCT[dtype]:
            return leaf, other
    return None


@dataclass(frozen=True, slots=True)
class Garbage:
    """What shows that memory was never filled: facts as clauses, and where, by tensor."""

    facts: tuple[str, ...]
    where: Mapping[Leaf, NDArray[Any]]


def garbage(layer: Layer) -> Garbage | None:
    """Values that training cannot leave, and all that is not finite beside them; None for none."""
    facts: list[str] = []
    where: dict[Leaf, NDArray[Any]] = {}
    wide = {"running_mean": layer.mean, "running_var": layer.var}
    wide |= {"weight": layer.weight, "bias": layer.bias}
    counter = counted(layer)
    senseless = counter is not None and abs(counter) > MOST_BATCHES
    known = {leaf: values for leaf, values in wide.items() if values is not None}
    if not senseless and all(map(_ordinary, known.values())):
        return None
    for leaf, values in known.items():
        raw = layer.vectors[leaf]
        if raw is None or raw.dtype.kind != "f" or not values.size:
            continue
        for fact, odd in (
            _far_apart(layer, leaf, values),
            _subnormal(
                leaf, values, layer.dtypes.get(leaf, ""), few=2 if never_counted(layer) else 3
            ),
            _odd_nan(leaf, raw, layer.dtypes.get(leaf, "")),
        ):
            if fact:
                facts.append(fact)
                where[leaf] = where.get(leaf, odd) | odd
    fact, shared = _shared_subnormal(layer)
    if fact:
        facts.append(fact)
        where |= {leaf: where.get(leaf, these) | these for leaf, these in shared.items()}
    spoilt = {
        leaf: ~np.isfinite(values)
        | ((values < -layer.eps) & (leaf == "running_var"))
        | (_is_subnormal(layer, leaf) & senseless)
        for leaf, values in known.items()
    }
    spoilt = {leaf: odd for leaf, odd in spoilt.items() if odd.any()}
    if senseless and spoilt:
        beside = "" if facts else ", beside impossible values"
        facts.append(f"num_batches_tracked is {counter:g}{beside}")
    if not facts:
        return None
    for leaf, odd in spoilt.items():
        where[leaf] = where.get(leaf, odd) | odd
    return Garbage(tuple(facts), where)


def untrained_statistics(layer: Layer) -> bool:
    """Whether the statistics are not from training: all 0, garbage, or another tensor's."""
    if all_zero(layer) or same_bits(layer) is not None:
        return True
    odd = garbage(layer)
    return odd is not None and not {"running_mean", "running_var"}.isdisjoint(odd.where)


def _ordinary(values: FloatArray) -> bool:
    """Whether no value is LARGE, subnormal or not finite, as in nearly every layer."""
    size = np.abs(values)
    if not values.size:
        return True
    # NaN is not below LARGE.
    return bool(size.max() < LARGE) and not ((size > 0) & (size < 2.0**-126)).any()


NOTHING_ODD: tuple[str, Any] = ("", None)


def _far_apart(layer: Layer, leaf: Leaf, values: FloatArray) -> tuple[str, Any]:
    """HUGE and TINY values in one vector, or values of an impossible size."""
    size = np.abs(values)
    huge = np.isfinite(size) & (size >= HUGE)
    if not huge.any():
        return NOTHING_ODD
    tiny = (size > 0) & (size <= TINY)
    low = tiny & (size < FLOOR * (2.0**16 if layer.dtypes.get(leaf) == "bfloat16" else 1))
    if len(distinct(size[low])) == 1:  # where dead channels stop decaying
        tiny &= ~low
    alone = np.zeros(len(size), bool)
    mean, var = layer.mean, layer.var
    if mean is not None and var is not None and mean.shape == var.shape == size.shape:
        if leaf == "running_mean":
            # Inputs of this size vary by at least a last place, or not at all, in which case the
            # variance decays; an overflow makes it infinite.
            last = np.finfo(layer.vectors[leaf].dtype).eps  # type: ignore[union-attr]  # it is there
            with np.errstate(over="ignore", invalid="ignore"):
                alone = huge & ~np.isinf(var) & ~(var >= (size * last) ** 2 / 100)
        elif leaf == "running_var":
            # Inputs of such a spread have a mean that fits it, however near to 0 it is by chance.
            fits = (np.abs(mean) < HUGE) & (mean * mean >= 1e-16 * size)
            huge &= ~fits | (values < 0)
            usual = np.sort(size[np.isfinite(size) & (size > 0)])
            middle = usual[(len(usual) - 1) // 2]
            alone = huge & ((values < 0) | (middle <= 1e-10 * size))
    if huge.any() and tiny.any():
        least, most = np.where(tiny, size, np.inf).argmin(), np.where(huge, size, 0).argmax()
        fact = (
            f"{leaf} is {values[least]:.3g} in channel {least} and {values[most]:.3g} in "
            f"channel {most}"
        )
        return fact, huge | tiny
    if alone.any():
        most = np.where(alone, size, 0).argmax()
        beside = ""
        if leaf == "running_mean" and var is not None:
            beside = f" beside a running_var of {var[most]:.3g}"
        return f"{leaf} is {values[most]:.3g} in channel {most}{beside}", alone
    return NOTHING_ODD


def _is_subnormal(layer: Layer, leaf: Leaf) -> NDArray[Any]:
    """Which values of a vector are subnormal float32 numbers other than 0."""
    raw = layer.vectors[leaf]
    assert raw is not None
    size = np.abs(raw)
    result: NDArray[Any] = (size > 0) & (size < 2.0**-126) & (layer.dtypes.get(leaf) == "float32")
    return result


def _shared_subnormal(layer: Layer) -> tuple[str, dict[Leaf, NDArray[Any]]]:
    """Subnormal values of a statistic that mostly stand in another vector too, as with pointers.

    Values that decay from different starts meet only where decay ends, or once in a thousand.
    """
    lows: dict[Leaf, NDArray[Any]] = {}
    for leaf, raw in layer.vectors.items():
        if raw is not None:
            size = np.where(_is_subnormal(layer, leaf), np.abs(raw), 0)
            lows[leaf] = np.where(size > FLOOR, size, 0)
    for leaf, other in combinations(lows, 2):
        mine, its = (distinct(lows[each][lows[each] > 0]) for each in (leaf, other))
        both = mine[among(mine, its)]
        if leaf.startswith("running") and 2 * len(both) > min(len(mine), len(its)):
            fact = f"{leaf} and {other} have {span(both)} in common"
            return fact, {each: among(lows[each], both) for each in (leaf, other)}
    return "", {}


def _subnormal(leaf: Leaf, values: FloatArray, dtype: str, few: int) -> tuple[str, Any]:
    """Subnormal float32 values beside others that rule out decay.

    Where subnormal numbers are kept, decay ends above 0 and at one magnitude, so a variance of 0
    does not stand beside `few` others; and channels that die one by one are far below LARGE ones.
    """
    size = np.abs(values)
    low = (size > 0) & (size < 2.0**-126)
    odd = low & (size > FLOOR)
    if dtype != "float32" or low.sum() < 2:
        return NOTHING_ODD
    several, all_low = len(distinct(size[odd])), len(distinct(size[low]))
    large = np.isfinite(size) & (size >= LARGE)
    if several >= 3 and large.any():
        most = int(np.where(large, size, 0).argmax())
        fact = f"{leaf} has {several} subnormal values beside {values[most]:.3g} in channel {most}"
        return fact, odd | large
    if leaf == "running_var" and (size == 0).any() and (odd.sum() > 1 or all_low >= few):
        zeros = int((size == 0).sum())
        return f"{leaf} has {all_low} subnormal values beside {zeros} of exactly 0", low
    values_of = distinct(size[odd])
    times = np.bincount(np.searchsorted(values_of, size[odd]), minlength=1)
    if leaf == "running_mean" and times.max(initial=0) > 1 and 2 * times.max() >= odd.sum():
        often = values_of[times.argmax()]
        return f"{leaf} is the subnormal {often:.3g} in {times.max()} channels", size == often
    return NOTHING_ODD


def _odd_nan(leaf: Leaf, raw: NDArray[Any], dtype: str) -> tuple[str, Any]:
    """NaN whose bits arithmetic never makes.

    Processors set the first bit of the mantissa, or all bits, and casts keep the first ones.
    """
    nan = np.isnan(raw)
    bits = MANTISSAS.get(raw.dtype.name)
    if bits is None or dtype != raw.dtype.name or not nan.any():
        return NOTHING_ODD
    own = raw.astype(raw.dtype.newbyteorder("="))
    number = own.view(f"u{raw.dtype.itemsize}").astype(np.uint64)
    mantissa = number & np.uint64((1 << bits) - 1)
    # Adding the lowest set bit turns a run of ones from the top into a power of 2.
    lowest = mantissa & (~mantissa + np.uint64(1))
    odd = nan & ((mantissa + lowest) != np.uint64(1 << bits))
    if not odd.any():
        return NOTHING_ODD
    first = int(np.flatnonzero(odd)[0])
    width = raw.dtype.itemsize * 2
    return f"{leaf} is a NaN with the bits 0x{int(number[first]):0{width}x} in channel {first}", odd


def _precision(dtype: str) -> int:
    """The bits of a dtype's mantissa; 64 for what is not floating point."""
    return 7 if dtype == "bfloat16" else MANTISSAS.get(dtype, 64)


def _narrowed(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Values rounded to a dtype; those of bfloat16 are kept in float32."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        kept = values.astype(np.float32)
    bits = kept.view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.where(np.isnan(kept), kept, nearest.astype(np.uint32).view(np.float32))
