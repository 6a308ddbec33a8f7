"""Whether one layer is another under a relation, channel by channel, up to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from bncli.changes.pair import LayerPair, as_dtype, coarser
from bncli.dtypes import DTYPES
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray
    from bncli.rulebook.layers import Layer

Terms = tuple["FloatArray | float", ...]
"""What a value is the sum of. Its rounding follows the terms, which may cancel."""

CLEAR = 4
"""How many times the room for rounding a channel has to move by, to show a relation."""
CHANNELS = 3
"""How many channels with different values show one: with fewer, one free number nearly always
fits."""
EPS = (1e-5, 1e-3, 1e-6, 2e-5, 1e-4, 1e-2, 4e-5, 1.001e-5)
"""The eps that frameworks and networks use."""
PROBED = 8
"""How many values are looked at before all of them are."""
NEAR = 0.01
"""How far two numbers that fit are apart at most, relatively, so that the plainer is said."""


@dataclass(frozen=True, slots=True)
class Room:
    """How far apart rounding may leave a value that was stored and one that is computed here.

    The `inputs` of the formula and its result were rounded to `dtype`, each by half an ulp at most;
    the `steps` of the computation were rounded in float32, or float64 for that, half an ulp each.
    """

    dtype: str
    inputs: int
    steps: float

    def __call__(self, size: FloatArray) -> FloatArray:
        """The room beside terms whose absolute values sum to `size`, shape (num_features,)."""
        stored = (self.inputs + 1) / 2
        relative = stored * self.ulp + self.steps / 2 * self.computed_ulp
        return relative * size + stored * DTYPES[self.dtype].tiniest

    @property
    def ulp(self) -> float:
        """The distance of neighbours at 1 in the stored dtype."""
        return _ulp(self.dtype)

    @property
    def computed_ulp(self) -> float:
        """That in the dtype of the computation."""
        return min(self.ulp, _ulp("float32"))

    @property
    def decimals(self) -> int:
        """How many decimal digits to show: 4 of bfloat16, 5 of float16, at most 6."""
        return min(6, int(DTYPES[self.dtype].digits * 0.30103) + 2)


Candidates = Callable[["Layer", "Layer", Room], Sequence[Iterable[float]]]
"""The numbers to try, in groups; a group is tried where none of those before it fits."""


@dataclass(frozen=True, slots=True)
class Relation:
    """How tensors of the one layer follow from the other's; all others are the same.

    `formula` gives the terms of each of `leaves`, from the plain layer and one number;
    `candidates` the numbers to try, the plainest first, from the plain and the odd layer. `inputs`
    and `steps` are counted as in `Room`. A relation that reads alike from either side is tried in
    one direction only (`once`). The tensors `shown_by` have to move clearly; none stands for all
    of `leaves`.
    """

    cause: str
    leaves: tuple[str, ...]
    formula: Callable[[Layer, float], tuple[Terms, ...]]
    candidates: Candidates = lambda *_: ((0.0,),)
    inputs: int = 1
    steps: float = 0
    once: bool = False
    shown_by: tuple[str, ...] = ()

    def moves(self, moved: tuple[str, ...]) -> bool:
        """Whether these are the tensors that the relation changes."""
        return set(self.shown_by or self.leaves) <= set(moved) <= set(self.leaves)


@dataclass(frozen=True, slots=True)
class Fit:
    """A relation that holds in every channel.

    `odd` is the layer that follows from `plain`, `forward` says that it is the second file's.
    `values` are the numbers that fit, and `residual` is the largest distance, in ulps of the dtype.
    """

    pair: LayerPair
    relation: Relation
    plain: Layer
    odd: Layer
    forward: bool
    values: tuple[float, ...]
    residual: float
    room: Room

    @property
    def value(self) -> float | None:
        """The number that the relation holds with; None where quite different ones fit."""
        first = self.values[0]
        near = all(abs(other - first) <= NEAR * abs(first) for other in self.values)
        return first if near else None

    @property
    def where(self) -> str:
        """The file that holds the odd layer."""
        return "second" if self.forward else "first"


def fit(relation: Relation, pair: LayerPair) -> Fit | None:
    """The relation in the pair, in the direction in which it holds; None where it does not."""
    a, b = pair.a.layer, pair.b.layer
    for plain, odd, forward in ((a, b, True), (b, a, False))[: 1 if relation.once else 2]:
        for room in rooms(pair, relation):
            found = _fit(relation, plain, odd, room)
            if found is not None:
                values, residual = found
                return Fit(pair, relation, plain, odd, forward, values, residual, room)
    return None


def rooms(pair: LayerPair, relation: Relation) -> Sequence[Room]:
    """The room for rounding in the stored dtype, then in a narrower one that held the values."""
    stored = held = "float64"
    for leaf in relation.leaves:
        for side in (pair.a, pair.b):
            dtype, values = side.layer.dtypes[leaf], side.vector(leaf)
            assert values is not None
            stored = coarser(stored, dtype)
            held = coarser(held, _narrowest(values, dtype))
    both = dict.fromkeys((stored, held))
    return [Room(dtype, relation.inputs, relation.steps) for dtype in both]


def vector(layer: Layer, leaf: str) -> FloatArray:
    """One of `VECTORS`, which is there."""
    values: FloatArray | None = getattr(layer, leaf.removeprefix("running_"))
    assert values is not None
    return values


def middle(values: FloatArray, room: FloatArray) -> float:
    """The middle of the numbers that all values may be with this much room; NaN for none."""
    known = np.isfinite(values) & np.isfinite(room)
    if not known.any():
        return float("nan")
    low, high = (values - room)[known].max(), (values + room)[known].min()
    return float((low + high) / 2) if low <= high else float("nan")


def shown(before: FloatArray, after: FloatArray, room: FloatArray) -> bool:
    """Whether enough channels moved clearly, to values that differ clearly among themselves."""
    clear = np.isfinite(after) & (np.abs(after - before) > CLEAR * room)
    found, last = 0, -np.inf
    for value, least in sorted(zip(after[clear].tolist(), room[clear].tolist(), strict=True)):
        if value - last > CLEAR * least:
            found, last = found + 1, value
        if found == CHANNELS:
            return True
    return False


def _fit(
    relation: Relation, plain: Layer, odd: Layer, room: Room
) -> tuple[tuple[float, ...], float] | None:
    """The numbers that fit, and the first's residual."""
    with np.errstate(all="ignore"):
        for group in relation.candidates(plain, odd, room):
            tried = [
                (number, _residual(relation, plain, odd, room, number))
                for number in dict.fromkeys(group)
                if np.isfinite(number)
            ]
            fits = [(number, apart) for number, apart in tried if apart is not None]
            if fits:
                return tuple(number for number, _ in fits), fits[0][1]
    return None


def _residual(
    relation: Relation, plain: Layer, odd: Layer, room: Room, number: float
) -> float | None:
    """The largest distance in ulps; None where it is too large or nothing is shown."""
    worst = 0.0
    terms_of = relation.formula(plain, number)
    for leaf, terms in zip(relation.leaves, terms_of, strict=True):
        before, after = vector(plain, leaf), vector(odd, leaf)
        expected = sum(terms) + np.zeros_like(before)
        size = sum(np.abs(term) for term in terms) + np.zeros_like(before)
        allowed, apart = room(size), np.abs(after - expected)
        if not _same(after, expected, apart <= allowed, room.dtype).all():
            return None
        if leaf in (relation.shown_by or relation.leaves) and not shown(before, after, allowed):
            return None
        known = np.isfinite(apart) & (size > 0)
        worst = max(worst, float((apart[known] / (room.ulp * size[known])).max(initial=0.0)))
    return worst


def _same(
    after: FloatArray, expected: FloatArray, near: NDArray[np.bool_], dtype: str
) -> NDArray[np.bool_]:
    if near.all():
        return near
    both = np.isnan(after) & np.isnan(expected)
    result: NDArray[np.bool_] = near | both | (as_dtype(expected, dtype) == after)
    return result


def _narrowest(values: FloatArray, dtype: str) -> str:
    """The narrowest dtype that holds values exactly; the one they are stored in, if none does."""
    some = values[:PROBED]  # nearly always enough to see that a dtype does not hold them
    for narrow in ("bfloat16", "float16", "float32"):
        if not np.array_equal(as_dtype(some, narrow), some, equal_nan=True):
            continue
        if np.array_equal(as_dtype(values, narrow), values, equal_nan=True):
            return coarser(dtype, narrow)
    return dtype


def _ulp(dtype: str) -> float:
    return float(2.0 ** (1 - DTYPES[dtype].digits))
