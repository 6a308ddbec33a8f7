"""Files whose counters are equal: copies, ranks with statistics of their own, or clients."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.changes.many.common import Common, read, same_rows
from bncli.changes.many.moves import Move, stacked
from bncli.changes.many.series import count_of, row_of
from bncli.changes.many.spoilt import Health
from bncli.changes.pair import Side, agree
from bncli.light import dataclass, np
from bncli.model.many import FileRow, Kind, Ranks

if TYPE_CHECKING:
    from bncli.model import FloatArray

LARGEST_COUNT = 100
"""Up to which number of values in a channel the counts of two ranks are looked for: among larger
ones, some pair fits any ratio."""
NEAR = 3e-7
"""How near the ratio of two counts has to be, relative to it: some roundings of float32."""
ULPS = 512
"""How many ulps a ratio of two variances may vary over the channels and count as one factor: each
of some hundred updates rounds."""


@dataclass(frozen=True, slots=True)
class Together:
    """What files with equal counters come to."""

    kind: Kind
    rows: tuple[FileRow, ...]
    ranks: Ranks | None


@dataclass(frozen=True, slots=True)
class _Worst:
    """A layer in which the files differ, and the file furthest from the others there."""

    name: str
    file: int
    distance: float
    z: float
    var_ratio: float
    factor: float | None


def side_by_side(common: Common, health: Health) -> Together:
    """The files of `common` beside each other: RANKS if their parameters are equal, or CLIENTS.

    APART where no parameters tell. Raises FileError.
    """
    parameters = read([*common.tensors("weight", "bias"), *common.before()])
    equal = same_rows(parameters.each)
    kind = Kind.RANKS if equal else Kind.CLIENTS
    if not parameters.each.size or (equal and _initial(parameters.each[0])):
        kind = Kind.APART
    moves: list[list[tuple[str, Move]]] = [[] for _ in common.files]
    worst: list[_Worst] = []
    for name, versions in zip(common.names, common.layers, strict=True):
        sides = [Side.read(refs) for refs in versions]
        both = stacked(sides)
        if both is None:
            continue
        mean, var = both
        bad = health.bad(name, series=False)
        sound = [file for file in range(len(sides)) if file not in bad]
        for file in sound[1:] if sound[:1] == [0] else ():
            move = Move(mean[[0, file]], var[[0, file]], sides[0].layer.eps)
            moves[file].append((name, move))
        if sound and not (same_rows(mean[sound]) and same_rows(var[sound])):
            far = _worst(name, [sides[file] for file in sound], mean[sound], var[sound])
            worst.append(replace(far, file=sound[far.file]))
    rows = tuple(
        row_of(str(file.path), count_of(common, number), None, moves[number], {})
        for number, file in enumerate(common.files)
    )
    return Together(kind, rows, _ranks(common, worst))


def _initial(values: FloatArray) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _worst(name: str, sides: list[Side], mean: FloatArray, var: FloatArray) -> _Worst:
    """The file furthest from the middle of the others in one layer."""
    eps = sides[0].layer.eps
    far: list[tuple[float, int, Move]] = []
    for file in range(len(sides)):
        others = np.arange(len(sides)) != file
        middle = [np.median(values[others], axis=0) for values in (mean, var)]
        move = Move(np.stack([middle[0], mean[file]]), np.stack([middle[1], var[file]]), eps)
        far.append((move.distance, file, move))
    distance, file, move = max(far, key=lambda each: each[0])
    z = float(move.z.max(initial=0))
    return _Worst(name, file, distance, z, move.furthest_ratio, _factor(sides, mean, var, file))


def _factor(sides: list[Side], mean: FloatArray, var: FloatArray, file: int) -> float | None:
    """The one ratio of a file's variances to another's, where the means are equal."""
    other = int(file == 0)
    dtype = sides[file].layer.dtypes["running_mean"]
    if mean.shape[1] < 2 or not bool(agree(mean[file], mean[other], dtype, ULPS).all()):
        return None
    if not bool((np.minimum(var[file], var[other]) > 0).all()):
        return None
    ratio = var[file] / var[other]
    middle = float(ratio.mean())
    dtype = sides[file].layer.dtypes["running_var"]
    same = bool(agree(ratio, np.full_like(ratio, middle), dtype, ULPS).all())
    return (
        middle if same and not bool(agree(ratio, np.ones_like(ratio), dtype, ULPS).all()) else None
    )


def _ranks(common: Common, worst: list[_Worst]) -> Ranks | None:
    if not worst:
        return None
    most = max(worst, key=lambda each: each.distance)
    return Ranks(
        tuple(each.name for each in worst),
        most.name,
        str(common.files[most.file].path),
        most.z,
        most.var_ratio,
        most.factor,
        None if most.factor is None else counts_for(most.factor),
    )


def counts_for(factor: float) -> tuple[int, int] | None:
    """The smallest numbers (n, m) with n/(n-1) over m/(m-1) equal to a factor, if there are any."""
    found = []
    if abs(factor - 1) < 1000 * NEAR:  # every such ratio is near that of some two numbers
        return None
    for n in range(2, LARGEST_COUNT + 1):
        other = n / (n - 1) / factor
        m = round(other / (other - 1)) if other > 1 else 0
        if 2 <= m <= LARGEST_COUNT and abs(n / (n - 1) * (m - 1) / m / factor - 1) < NEAR:
            found.append((n, m))
    return min(found, key=max, default=None)
