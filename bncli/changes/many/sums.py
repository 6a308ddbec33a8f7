"""What one vector is of several others: one of them, their mean, a weighted sum, pooled.

Each candidate is held against what rounding may leave. Rows of all arrays are files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from bncli.changes.many.common import Values, coarsest
from bncli.changes.pair import as_dtype
from bncli.light import dataclass, np
from bncli.model.many import Made
from bncli.report import Certainty
from bncli.rulebook.layers import HALVES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray

FEWEST = 8
"""How many values have to differ between the files before their sum is asked for."""
TELLING = 50.0
"""How many times what rounding leaves the files have to be apart for a sum to be certain."""
LEAST_TELLING = 4.0
"""The same for a sum to be told at all."""
FEWEST_PER_FILE = 4
"""How many values there have to be for each weight that is fitted."""
KNOWN = 0.01
"""The error of a weight up to which it counts as known."""
OWN_ROUNDOFF = 2.0**-45
"""The rounding that float64 values are allowed: sums and weights are computed in float64 here, too,
and are not better known than that."""
MOST_TRIED = 4
"""Of how many of the nearest plain candidates the layers are counted in which they hold."""
LEAST_SHARE = 1e-3
"""The least share of the initial value that is told."""
POOLED_LEFT = 0.05
"""How much of the variance between the files' means pooling may leave unexplained."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A candidate that explains the target: `weights` of the files, and how well.

    `unique` says whether no other weights would do as well. `dtype` is that to whose rounding one
    file's values are the target's, and `off` masks the values, of all, that are not explained.
    """

    made: Made
    weights: FloatArray
    residual: float | None = None
    roundings: float | None = None
    exact: bool = False
    certainty: Certainty = Certainty.CERTAIN
    unique: bool = True
    initial: float | None = None
    dtype: str = ""
    off: NDArray[np.bool_] | None = None


class Sources:
    """The values of a group in the files and in the target, and how far the files are apart.

    `x` has shape (files, values) and `t` shape (values,), both float64 and finite. Of each value,
    `initial` is its value in a fresh layer (0, or 1 for variances), `leaf` the tensor it is of, and
    `channel` a number that the channels of a layer share in its tensors. `columns` chooses some of
    the values, as a mask.
    """

    def __init__(self, values: Values, columns: NDArray[np.bool_] | None = None) -> None:
        self.values = values
        self.every, self.target = values.each[:-1], values.each[-1]
        # A number that is finite in all files and not in the target is explained by none.
        finite = np.isfinite(values.each)
        sources_finite: NDArray[np.bool_] = np.logical_and.reduce(finite[:-1], axis=0)
        self.usable: NDArray[np.bool_] = sources_finite & finite[-1]
        self.broken: NDArray[np.bool_] = sources_finite & ~finite[-1]
        if columns is not None:
            self.usable, self.broken = self.usable & columns, self.broken & columns
        self.x, self.t = self.every[:, self.usable], self.target[self.usable]
        self.roundoffs = np.maximum(values.roundoffs[self.usable], OWN_ROUNDOFF)
        self.tiniest = values.tiniest[self.usable]
        self.files = len(self.x)
        leaf = np.full(values.each.shape[1], "", dtype="U12")
        channel = np.zeros(values.each.shape[1], np.int64)
        names = list(dict.fromkeys(name for name, _, _ in values.parts))
        starts = {name: at << 32 for at, name in enumerate(names)}
        for name, own, where in values.parts:
            leaf[where] = own
            channel[where] = starts[name] + np.arange(where.stop - where.start)
        self.leaf, self.channel = leaf[self.usable], channel[self.usable]
        self.initial = (self.leaf == "running_var").astype(np.float64)

    @cached_property
    def room(self) -> FloatArray:
        """What one rounding of a value of usual size in the files may cost, shape (values,)."""
        size: FloatArray = np.abs(self.x).max(0, initial=0)
        room: FloatArray = self.roundoffs * np.maximum(size, np.abs(self.t)) + self.tiniest
        return room

    @cached_property
    def mean(self) -> FloatArray:
        """The mean of the files."""
        return np.asarray(self.x.mean(0))

    @cached_property
    def spread(self) -> float:
        """The root mean square distance of the files from their mean, in roundings."""
        return _rms((self.x - self.mean) / self.room)

    @cached_property
    def informative(self) -> int:
        """How many values differ between the files by more than some roundings."""
        return int((np.ptp(self.x, axis=0) > LEAST_TELLING * self.room).sum()) if self.files else 0

    def judged(
        self, made: Made, weights: FloatArray, expected: FloatArray, size: FloatArray, steps: int
    ) -> Fit | None:
        """The candidate `expected`, shape (values,); None where rounding does not explain the rest.

        `size` is the sum of the absolute values of its terms, and `steps` how many times a sum of
        them was rounded: each costs half an ulp of a sum that is at most that large.
        """
        apart = np.abs(self.t - expected)
        bound = steps * (self.roundoffs * size + self.tiniest)
        if self.broken.any() or not bool((apart <= bound).all()):
            return None
        left = _rms((self.t - expected) / self.room)
        telling = self.spread / max(left, 0.5)
        if self.informative < FEWEST or telling < LEAST_TELLING:
            return None
        certainty = Certainty.CERTAIN if telling >= TELLING else Certainty.LIKELY
        return Fit(made, weights, *self.left(expected), certainty=certainty)

    def sum_of(
        self,
        made: Made,
        weights: FloatArray,
        initial: float | None = None,
        *,
        fitted: bool = False,
    ) -> Fit | None:
        """The candidate that the files weigh so much, and the initial values `initial`.

        Weights that were `fitted` are as far off as the rounding of the target's values made them,
        which costs a value in proportion to the largest that it is the sum of.
        """
        expected = weights @ self.x + (initial or 0) * self.initial
        size = np.abs(weights) @ np.abs(self.x) + abs(initial or 0) * self.initial
        if fitted:
            size = np.maximum(size, np.abs(self.x).max(0, initial=0))
        fit = self.judged(made, weights, expected, size, self.files + 3)
        return None if fit is None else replace(fit, initial=initial)

    def left(self, expected: FloatArray) -> tuple[float | None, float]:
        """What a candidate leaves: as a share of the files' spread, and at most in roundings."""
        away = (self.t - expected) / self.room
        most = float(np.abs(away).max(initial=0))
        return (_rms(away) / self.spread if self.spread > 0 else None), most


def one_of(sources: Sources) -> Fit | None:
    """SAME or FILE: bit for bit, up to the rounding of a narrower dtype, or up to rounding."""
    values = sources.values
    bits = np.ascontiguousarray(values.each).view(np.int64)
    dtypes = list(zip(*values.dtypes, strict=True))
    like = [
        file
        for file in range(sources.files)
        if dtypes[file] == dtypes[-1] and np.array_equal(bits[file], bits[-1])
    ]
    if like:
        made = Made.SAME if len(like) == sources.files else Made.FILE
        return Fit(made, _unit(sources.files, *like), 0.0, 0.0, exact=True, unique=len(like) == 1)
    rounded = [(file, d) for file in range(sources.files) if (d := _rounded(values, file))]
    if not rounded:
        near = (sources.sum_of(Made.FILE, _unit(sources.files, n)) for n in range(sources.files))
        return next((fit for fit in near if fit is not None), None)
    made = Made.SAME if len(rounded) == sources.files else Made.FILE
    left = sources.left(sources.x[rounded[0][0]])
    weights = _unit(sources.files, *(file for file, _ in rounded))
    return Fit(made, weights, *left, unique=len(rounded) == 1, dtype=rounded[0][1])


def reset(sources: Sources) -> Fit | None:
    """RESET: statistics that are exactly 0 and 1 in every channel, where those of files are not."""
    target = sources.target
    bare = set(sources.leaf) <= {"running_mean", "running_var"} and bool(sources.usable.all())
    if not bare or not target.size or not np.array_equal(target, sources.initial):
        return None
    return Fit(Made.RESET, np.zeros(sources.files), 0.0, 0.0, exact=True)


def mean_of(sources: Sources) -> Fit | None:
    """MEAN of all, or SUM of all: bit for bit as it is usually computed, or up to rounding."""
    weights = np.full(sources.files, 1 / sources.files)
    fit = sources.sum_of(Made.MEAN, weights)
    exact = sources.informative >= FEWEST and not sources.broken.any()
    if exact and any(np.array_equal(each, sources.target) for each in _means(sources)):
        left = sources.left(sources.mean)
        return Fit(Made.MEAN, weights, *left, exact=True)
    return fit or sources.sum_of(Made.SUM, np.ones(sources.files))


def subset_of(sources: Sources, weights: Fit | None) -> Fit | None:
    """SUBSET: the mean of some files, by fitted weights, or of the first or last ones in order."""
    files = sources.files
    candidates: list[NDArray[np.bool_]] = []
    if weights is not None and weights.unique:
        candidates.append(weights.weights > weights.weights.max() / 2)
    fits_alone = not candidates
    if fits_alone:
        numbers = np.arange(files)
        for count in range(2, files):
            candidates += [numbers >= files - count, numbers < count]
    found = []
    for chosen in candidates:
        if 2 <= (count := int(chosen.sum())) < files:
            fit = sources.sum_of(Made.SUBSET, chosen / count)
            if fit is not None:
                found.append(fit)
    if len(found) > 1:
        return replace(found[0], unique=False, certainty=Certainty.LIKELY)
    return found[0] if found else None


def weighted_sum(sources: Sources, *, initial: bool = False) -> Fit | None:
    """WEIGHTED, or INITIAL with the share of the initial values: least squares over all values.

    Also where it is not within rounding, with what is left; None where there are too few values.
    """
    fit, errors = _least_squares(sources, initial=initial)
    if fit is None:
        return None
    weights, share = (fit[:-1], float(fit[-1])) if initial else (fit, None)
    unique = bool((errors <= KNOWN).all())
    if initial and (share is None or not max(LEAST_SHARE, 3 * errors[-1]) < share < 1):
        return None
    made = Made.INITIAL if initial else Made.WEIGHTED
    found = sources.sum_of(made, weights, share, fitted=True)
    return None if found is None else replace(found, unique=unique)


def pooled(sources: Sources) -> Fit | None:
    """POOLED: the variance of all data together, which that between the files' means adds to."""
    mean, var = (sources.leaf == leaf for leaf in ("running_mean", "running_var"))
    if not mean.any() or not np.array_equal(sources.channel[mean], sources.channel[var]):
        return None
    fits = [np.full(sources.files, 1 / sources.files)]
    where = sources.usable.copy()
    where[sources.usable] = mean
    fitted, errors = _least_squares(Sources(sources.values, where), initial=False)
    if fitted is not None and bool((errors <= KNOWN).all()):
        fits.append(fitted)
    for weights in fits:
        centre = weights @ sources.x[:, mean]
        between = weights @ (sources.x[:, mean] - centre) ** 2
        expected = np.empty_like(sources.t)
        expected[mean], expected[var] = centre, weights @ sources.x[:, var] + between
        size = np.maximum(np.abs(weights) @ np.abs(sources.x), np.abs(sources.x).max(0))
        size[var] += np.abs(weights) @ sources.x[:, mean] ** 2
        fit = sources.judged(Made.POOLED, weights, expected, size, sources.files + 6)
        left = _rms((sources.t - expected)[var] / sources.room[var])
        if fit is not None and left <= POOLED_LEFT * _rms(between / sources.room[var]):
            return fit
    return None


def nearest(sources: Sources) -> Fit:
    """NONE: the plain candidate that holds in most layers, or else lies nearest; and where not."""
    candidates = [np.full(sources.files, 1 / sources.files)]
    candidates += [_unit(sources.files, file) for file in range(sources.files)]
    left = [_rms((sources.t - weights @ sources.x) / sources.room) for weights in candidates]
    order = sorted(range(len(candidates)), key=left.__getitem__)[:MOST_TRIED]
    found = [(_off(sources, candidates[at]), candidates[at]) for at in order]
    off, weights = min(found, key=lambda each: len(sources.values.layers_where(each[0])))
    return Fit(Made.NONE, weights, *sources.left(weights @ sources.x), off=off)


def _off(sources: Sources, weights: FloatArray) -> NDArray[np.bool_]:
    """Which values, of all, a weighted sum does not explain."""
    size = np.abs(weights) @ np.abs(sources.x)
    bound = (sources.files + 3) * (sources.roundoffs * size + sources.tiniest)
    off = sources.broken.copy()
    off[sources.usable] = np.abs(sources.t - weights @ sources.x) > bound
    return off


def _least_squares(sources: Sources, *, initial: bool) -> tuple[FloatArray | None, FloatArray]:
    """The weights that leave least, in roundings, and three standard errors of each."""
    columns = np.vstack([sources.x, sources.initial]) if initial else sources.x
    count = len(columns)
    if sources.x.shape[1] < FEWEST_PER_FILE * count or sources.informative < FEWEST:
        return None, np.full(count, np.inf)
    system = (np.vstack([columns, sources.t]) / sources.room).T
    # All that least squares needs is in the triangle, at most 1 + files wide.
    triangle: FloatArray = np.asarray(np.linalg.qr(system, mode="r"), np.float64)
    a, b = triangle[:count, :count], triangle[:count, count]
    solved, _, rank, _ = np.linalg.lstsq(a, b, rcond=1e-13)
    weights = np.asarray(solved, np.float64)
    if rank < count:
        return weights, np.full(count, np.inf)
    rest = float(np.abs(triangle[count:, count]).sum())
    noise = max(rest / np.sqrt(len(system) - count), 0.5)
    errors: FloatArray = 3 * noise * np.linalg.norm(np.linalg.inv(a), axis=1)
    return weights, errors


def _means(sources: Sources) -> Iterator[FloatArray]:
    """The mean as it is usually computed, in the dtype of the target and of wider ones."""
    values, every = sources.values, sources.every
    own = values.rounded
    yield own(every.mean(0))
    count = len(every)
    dtypes = {coarsest(names) for names in values.dtypes}
    for wide in (None, "float32") if dtypes & {*HALVES} else (None,):

        def step(some: FloatArray, wide: str | None = wide) -> FloatArray:
            return own(some) if wide is None else as_dtype(some, wide)

        total, divided, running = every[0], step(every[0] / count), every[0]
        for number, each in enumerate(every[1:], 2):
            total = step(total + each)
            divided = step(divided + step(each / count))
            running = step(running + step(step(each - running) / number))
        yield from (own(step(total / count)), own(divided), own(running))


def _rounded(values: Values, file: int) -> str:
    """The dtype to which the target or a file was rounded to make them equal; "" if none does."""
    found = ""
    for (_, _, where), dtypes in zip(values.parts, values.dtypes, strict=True):
        ours, theirs = values.each[file, where], values.each[-1, where]
        narrow = coarsest((dtypes[file], dtypes[-1]))
        tried = (narrow,) if dtypes[file] != dtypes[-1] else HALVES
        equal = np.array_equal(ours, theirs, equal_nan=True)
        if equal and dtypes[file] == dtypes[-1]:
            continue
        through = next(
            (
                name
                for name in tried
                if np.array_equal(as_dtype(ours, name), theirs, equal_nan=True)
                or np.array_equal(as_dtype(theirs, name), ours, equal_nan=True)
            ),
            "",
        )
        if not through:
            return ""
        found = found or through
    return found


def _unit(files: int, *chosen: int) -> FloatArray:
    weights = np.zeros(files)
    weights[list(chosen)] = 1 / len(chosen)
    return weights


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
