"""Two layers that belong together, read, and how their tensors compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bncli.dtypes import COMPUTE_DTYPES, DTYPES, decode, encode
from bncli.light import dataclass, np
from bncli.model.changes import STORED, Eps, Measures, Momentum, Same
from bncli.rulebook.layers import Layer
from bncli.state_dict import VECTORS, LayerRefs, read_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray
    from bncli.state_dict.in_front import InFront


@dataclass(frozen=True, slots=True)
class Side:
    """A layer in one of the files; `layer` holds its arrays, widened to float64."""

    refs: LayerRefs
    layer: Layer
    before: InFront | None = None

    @classmethod
    def read(cls, refs: LayerRefs, before: InFront | None = None) -> Side:
        """The layer, read; eps and momentum are the file's, or assumed by what it is named like.

        Raises FileError where a tensor is damaged; one without values is None.
        """
        state, unread = read_tensors(refs)
        module = refs.module
        stored = None if module is None else module.eps
        momentum = None
        if module is not None:
            from bncli.running_stats.stored import stored_momentum

            momentum = stored_momentum(module)
        layer = Layer(
            state,
            shapes={leaf: ref.shape for leaf, ref in refs.tensors.items()},
            dtypes={leaf: ref.dtype for leaf, ref in refs.tensors.items()},
            eps=refs.naming.eps if stored is None else stored,
            momentum=refs.naming.momentum if momentum is None else momentum[0],
            eps_assumed=stored is None,
            momentum_assumed=momentum is None,
            unread=unread,
        )
        return cls(refs, layer, before)

    def vector(self, leaf: str) -> FloatArray | None:
        """One of `VECTORS`, shape (num_features,), float64."""
        values: FloatArray | None = getattr(self.layer, leaf.removeprefix("running_"))
        return values

    @property
    def eps(self) -> Eps:
        """The layer's eps and where it is from."""
        return Eps(self.layer.eps, self.refs.naming.name if self.layer.eps_assumed else STORED)

    @property
    def momentum(self) -> Momentum | None:
        """The layer's momentum and where it is from.

        None where a file names the framework and stores no momentum.
        """
        from bncli.running_stats.stored import said_momentum

        layer, module = self.layer, self.refs.module
        if layer.momentum_assumed and module is not None and not module.has_momentum:
            return None
        source = self.refs.naming.name if layer.momentum_assumed else STORED
        said = said_momentum(module, layer.momentum).removeprefix("momentum ")
        return Momentum(layer.momentum, source, said)

    @property
    def counter(self) -> int | float | None:
        """num_batches_tracked, None where it is missing or counts nothing: NaN, Inf, below 0."""
        counter = self.layer.state.num_batches_tracked
        return None if counter is None or not 0 <= counter < math.inf else counter


class LayerPair:
    """A layer in the first file, `a`, and the same in the second, `b`, both read.

    `before` says how the tensors in front of the two compare, None where that is not known.
    """

    def __init__(self, a: Side, b: Side, before: Same | None = None) -> None:
        self.a = a
        self.b = b
        self.before = before

    @cached_property
    def same(self) -> Mapping[str, Same]:
        """How each of `VECTORS` that both sides have compares."""
        return {
            leaf: same_vectors(ours, theirs, self.a.layer.dtypes[leaf], self.b.layer.dtypes[leaf])
            for leaf in VECTORS
            if (ours := self.a.layer.vectors[leaf]) is not None
            and (theirs := self.b.layer.vectors[leaf]) is not None
        }

    def of(self, *leaves: str) -> Same | None:
        """How some of the vectors compare together: as the one that differs most; None for none."""
        found = [self.same[leaf] for leaf in leaves if leaf in self.same]
        order = (Same.MOVED, Same.ROUNDED, Same.SAME)
        return next((each for each in order if each in found), None)

    @property
    def statistics(self) -> Same | None:
        """How running_mean and running_var compare."""
        return self.of("running_mean", "running_var")

    @property
    def affine(self) -> Same | None:
        """How weight and bias compare."""
        return self.of("weight", "bias")

    @property
    def coherent(self) -> bool:
        """Whether all vectors of both sides could be read and have one length."""
        lengths = {
            len(values)
            for side in (self.a, self.b)
            for values in side.layer.vectors.values()
            if values is not None
        }
        return len(lengths) == 1 and 0 not in lengths

    def dtype(self, leaf: str) -> str:
        """The dtype of the two that keeps fewer digits."""
        return coarser(self.a.layer.dtypes[leaf], self.b.layer.dtypes[leaf])

    @cached_property
    def measures(self) -> Measures:
        """How far the two are apart; all None where the statistics cannot be compared."""
        a, b = self.a, self.b
        batches = None
        if a.counter is not None and b.counter is not None:
            batches = b.counter - a.counter
        change = None if not self.coherent else _weight_change(self)
        mean, var, new_mean, new_var = a.layer.mean, a.layer.var, b.layer.mean, b.layer.var
        if mean is None or var is None or new_mean is None or new_var is None or not self.coherent:
            return Measures(batches=batches, weight_change=change)
        with np.errstate(all="ignore"):
            old, new = np.sqrt(var + a.layer.eps), np.sqrt(new_var + b.layer.eps)
            z = np.abs(new_mean - mean) / old
            ratio = (new / old) ** 2
            off = np.hypot((mean - new_mean) / new, old / new - 1)
        if b.layer.weight_unknown:
            off = np.full(len(off), np.nan)
        elif b.layer.weight is not None:
            off = np.abs(b.layer.weight) * off
        worst = int(np.argmax(np.nan_to_num(off, nan=-1, posinf=np.inf)))
        return Measures(
            batches=batches,
            z_min=_least(z),
            z_max=_most(z),
            var_ratio_min=_least(ratio),
            var_ratio_max=_most(ratio),
            weight_change=change,
            effect=_most(off),
            worst=worst,
        )


@dataclass(frozen=True, slots=True)
class Files:
    """What is known of the two files as wholes, for states that need more than a pair.

    `layers` and `other_layers` are what was found in the first and the second, by full name.
    `related` says whether the weights are those of one network at two times: False where they are
    not correlated, None where that cannot be told. `partners` are the names of the second file's
    layers by those of the first's. `kept` is for what a module computes once.
    """

    layers: Mapping[str, LayerRefs]
    other_layers: Mapping[str, LayerRefs]
    related: bool | None = None
    partners: Mapping[str, str] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


def same_vectors(a: NDArray[Any], b: NDArray[Any], dtype: str, other: str) -> Same:
    """How two vectors compare, each given as it was read and the name of its stored dtype."""
    if a.shape != b.shape:
        return Same.MOVED
    if dtype == other and a.dtype == b.dtype and a.tobytes() == b.tobytes():
        return Same.SAME
    roundings = Roundings(dtype, other)
    roundings.add(a, b)
    return Same.ROUNDED if roundings.explain else Same.MOVED


class Roundings:
    """What rounding may be all that is between two tensors, which are given block by block.

    `dtype` and `other` are the names of their stored dtypes. The blocks' own may be wider.
    """

    def __init__(self, dtype: str, other: str) -> None:
        self._equal = True
        self._trips: list[_Trip | _Cast] = []
        if dtype != other:
            narrow = coarser(dtype, other)
            if narrow in COMPUTE_DTYPES:
                self._trips = [_Cast(narrow, other if narrow == dtype else dtype, narrow == dtype)]
        elif DTYPES[dtype].kind == "float":
            self._trips = [_Trip(each) for each in narrower(dtype)]

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        """Take in two blocks of one shape, as they were read."""
        self._equal = self._equal and _equal(a, b)
        self._trips = [trip for trip in self._trips if trip.add(a, b)]
        if self._trips and not np.array_equal(np.isinf(a), np.isinf(b)):
            self._trips = []  # a value too large for the narrower dtype is lost, not rounded

    @property
    def possible(self) -> bool:
        """Whether some rounding explains all blocks so far; others may show that it was chance."""
        return self._equal or bool(self._trips)

    @property
    def explain(self) -> bool:
        """Whether a rounding explains all blocks."""
        return self._equal or any(trip.shown for trip in self._trips)


class _Cast:
    """Whether the tensor of the narrower dtype is the other, rounded to it.

    `first` says that it is the first of the two. float16 and bfloat16 may both have been rounded
    from one float32; each is then off by half of its last place.
    """

    shown = True

    def __init__(self, narrow: str, wide: str, first: bool) -> None:
        self.narrow = narrow
        self.first = first
        self.halves = DTYPES[wide].itemsize == DTYPES[narrow].itemsize == 2

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> bool:
        """Take in two blocks; whether the cast is possible still."""
        narrow, wide = (a, b) if self.first else (b, a)
        if _equal(decode(encode(wide, self.narrow), self.narrow), narrow):
            return True
        # NumPy casts float64 to float16 at once, and not by way of float32 as PyTorch does.
        if self.narrow == "float16" and wide.dtype.itemsize == 8:
            with np.errstate(over="ignore", invalid="ignore"):
                return _equal(wide.astype(np.float16), narrow)
        if not self.halves:
            return False
        brain, half = _wide(narrow), _wide(wide)
        with np.errstate(invalid="ignore"):
            room = (2.0**-8 + 2.0**-11) * np.maximum(np.abs(brain), np.abs(half)) + 2.0**-25
            near = (np.abs(brain - half) <= room) | (np.isnan(brain) & np.isnan(half))
            near |= brain == half
        return bool(near.all())


class _Trip:
    """Whether one of two tensors of one dtype is the other after a trip through a narrower one.

    The other may have made it, too. That 1.0001 rounds to 1 does not show that the 1 was made so:
    the values that went through must be several.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.sides = [_Fitting(), _Fitting()]

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> bool:
        """Take in two blocks; whether the trip is possible still."""
        one, two = (decode(encode(values, self.dtype), self.dtype) for values in (a, b))
        if not _equal(one, two):
            return False
        for side, before, after in zip(self.sides, (a, b), (one, two), strict=True):
            side.add(before, after)
        return any(side.fits for side in self.sides)

    @property
    def shown(self) -> bool:
        """Whether all values of one side fit the dtype, and are enough of them to show it."""
        return any(side.fits and side.several for side in self.sides)


class _Fitting:
    """Whether a tensor's values fit a dtype, and are `several`."""

    def __init__(self) -> None:
        self.fits = True
        self.several = False
        self._first: float | None = None

    def add(self, before: NDArray[Any], after: NDArray[Any]) -> None:
        """Take in a block, and the same after the trip."""
        self.fits = self.fits and _equal(before, after)
        if self.several or not self.fits:
            return
        finite = before[np.isfinite(before)]
        if self._first is None and finite.size:
            self._first = float(finite[0])
        self.several = bool((finite != self._first).any())


def _equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays hold the same values; a NaN is equal to a NaN."""
    if a.dtype == b.dtype and a.tobytes() == b.tobytes():
        return True
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":  # which float64 does not always tell apart
        return np.array_equal(a, b)
    ours, theirs = (each if each.dtype == np.float32 else _wide(each) for each in (a, b))
    different = ours != theirs
    if not different.any():
        return True
    return bool((np.isnan(ours[different]) & np.isnan(theirs[different])).all())


def narrower(dtype: str) -> list[str]:
    """The dtypes that compute and keep fewer digits than this one, those with most digits first."""
    fewer = [name for name in COMPUTE_DTYPES if DTYPES[name].digits < DTYPES[dtype].digits]
    return sorted(fewer, key=lambda name: -DTYPES[name].digits)


def coarser(dtype: str, other: str) -> str:
    """The dtype of the two with fewer digits; the first of equals."""
    return min(dtype, other, key=lambda name: DTYPES[name].digits or 64)


def as_dtype(values: FloatArray, dtype: str) -> FloatArray:
    """float64 values rounded to what a dtype holds, as float64; as they are for other dtypes."""
    if dtype not in COMPUTE_DTYPES:
        return values
    return np.asarray(decode(encode(values, dtype), dtype), np.float64)


def agree(
    actual: FloatArray, expected: FloatArray, dtype: str, ulps: float = 4
) -> NDArray[np.bool_]:
    """Which values are within some ulps of a dtype of what was expected, or both NaN; a mask."""
    kind = DTYPES.get(dtype, DTYPES["float64"])
    digits = kind.digits or 53
    with np.errstate(all="ignore"):
        room = ulps * (2.0 ** (1 - digits) * np.abs(expected) + (kind.tiniest or 5e-324))
        near = np.abs(actual - expected) <= room
    both = np.isnan(actual) & np.isnan(expected)
    result: NDArray[np.bool_] = near | (actual == expected) | both
    return result


def _wide(values: NDArray[Any]) -> FloatArray:
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


def _weight_change(pair: LayerPair) -> float | None:
    """The distance of weight and bias, relative to the size of the first's."""
    size = apart = 0.0
    for leaf in ("weight", "bias"):
        ours, theirs = pair.a.vector(leaf), pair.b.vector(leaf)
        if ours is None or theirs is None:
            continue
        with np.errstate(all="ignore"):
            size += float(ours @ ours)
            apart += float((ours - theirs) @ (ours - theirs))
    if "weight" not in pair.same and "bias" not in pair.same:
        return None
    if apart == 0:
        return 0.0
    return float(np.sqrt(apart / size)) if size > 0 else None


def _least(values: FloatArray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.min()) if finite.size else None


def _most(values: FloatArray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else None
