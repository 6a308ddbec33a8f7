"""Files of one run in the order of their counters: what moves, what jumps and what stands still."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from bncli.changes.many.common import Common, read, same_rows
from bncli.changes.many.counters import counter_of
from bncli.changes.many.moves import Move, stacked
from bncli.changes.many.spoilt import Health
from bncli.changes.pair import Side
from bncli.light import dataclass, np
from bncli.model.many import FileRow, Jump, LayerMove, Still
from bncli.rulebook.order import median, middle_of

JUMP = 1.0
"""The least distance of a jump: a mean by 1 standard deviation, or a variance by a factor of 4.

With momentum 0.1 and batches of 4 values, statistics scatter by sqrt(0.1/1.9/4) = 0.11 standard
deviations, and their variances by 19%: about 0.2 from one file to the next."""
UNUSUAL = 5.0
"""How many times the usual step of its layer a jump is at least."""
LONGEST = 3
"""How many files in a row may be spoilt."""
FEWEST_LAYERS = 6
"""How many layers it takes to say how the drift depends on depth."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way of one layer's statistics through the files.

    `steps` has the moves from each file to the next, `distance` how far each file is from one of
    the next ones, by the number of files between; `same` says which steps leave every bit. In the
    files `spoilt`, which tell nothing about the way, the layer counts as where it was before, and
    up to the file `first`, the first that is not spoilt, as where it is there.
    """

    name: str
    steps: tuple[Move, ...]
    distance: dict[tuple[int, int], float]
    same: tuple[bool, ...]
    spoilt: frozenset[int] = frozenset()
    first: int = 0

    def compared(self, file: int) -> bool:
        """Whether the layer of a file can be compared with that of one before it."""
        return file > self.first and file not in self.spoilt


@dataclass(frozen=True, slots=True)
class Series:
    """What a series comes to: a row a file, the jumps, what stands still, the drift by depth."""

    rows: tuple[FileRow, ...]
    jumps: tuple[Jump, ...]
    stills: tuple[Still, ...]
    drift: tuple[float, float] | None


def in_series(common: Common, health: Health) -> Series:
    """The files of `common`, in the order of their counters, as a series. Raises FileError."""
    paths = [
        path
        for number in range(len(common.layers))
        if (path := _path(common, number, health.bad(common.names[number], series=True)))
    ]
    counts = [count_of(common, number) for number in range(len(common.files))]
    jumps = _jumps(paths, common, counts)
    return Series(
        tuple(_rows(paths, common, jumps, counts)), jumps, _stills(paths, common), _drift(paths)
    )


def _path(common: Common, number: int, spoilt: frozenset[int]) -> Way | None:
    """One layer through all files; None where a file lacks its statistics, or all are spoilt."""
    versions = common.layers[number]
    sides = [Side.read(refs) for refs in versions]
    both = stacked(sides)
    if both is None:
        return None
    mean, var = both
    files = len(sides)
    sound = [file for file in range(files) if file not in spoilt]
    if not sound:
        return None
    if spoilt:
        known = [
            max((file for file in sound if file <= at), default=sound[0]) for at in range(files)
        ]
        mean, var = mean[known], var[known]
    eps = sides[0].layer.eps
    steps = [Move(mean[at : at + 2], var[at : at + 2], eps) for at in range(files - 1)]
    distance = {(at, at + 1): step.distance for at, step in enumerate(steps)}
    for reach in range(2, LONGEST + 2):
        for at in range(files - reach):
            ends = [at, at + reach]
            distance[at, at + reach] = Move(mean[ends], var[ends], eps).distance
    same = tuple(
        at >= sound[0]
        and at + 1 not in spoilt
        and mean[at].tobytes() == mean[at + 1].tobytes()
        and var[at].tobytes() == var[at + 1].tobytes()
        for at in range(files - 1)
    )
    return Way(common.names[number], tuple(steps), distance, same, spoilt, sound[0])


def _jumps(
    paths: Sequence[Way], common: Common, counts: Sequence[float | None]
) -> tuple[Jump, ...]:
    """The files at which layers jump, in order; those that come back first of all claims."""
    files = len(common.files)
    back: dict[int, list[tuple[float, Way]]] = {}
    spoilt: set[int] = set()
    for path in paths:
        for first, last, times in _there_and_back(path, files):
            back.setdefault(first, []).append((times, path))
            spoilt.update(range(first, last + 1))
    away: dict[int, list[tuple[float, Way]]] = {}
    batches = _batches(counts)
    for path in paths:
        for at in range(2, files):
            known = at > path.first + 1 and not spoilt & {at - 1, at}
            unusual = _stays(path, at, batches) if known else None
            if unusual:
                away.setdefault(at, []).append((unusual, path))
    found: list[tuple[int, bool | None, list[tuple[float, Way]]]] = []
    begins = [] if 1 in spoilt else _begins_elsewhere(paths)
    found += [(0, None, begins)] if begins else []
    found += [(at, True, layers) for at, layers in back.items()]
    found += [(at, None if at == files - 1 else False, layers) for at, layers in away.items()]
    return tuple(_jump(common, *each) for each in sorted(found, key=lambda each: each[0]))


def _jump(common: Common, at: int, back: bool | None, layers: list[tuple[float, Way]]) -> Jump:
    times, worst = max(layers, key=lambda each: each[1].distance[max(at - 1, 0), max(at, 1)])
    step = worst.steps[at - 1] if at else worst.steps[0].backwards
    names = tuple(path.name for _, path in layers)
    z, ratio = (median(values) for values in (step.z, step.var_ratio))
    return Jump(str(common.files[at].path), names, worst.name, times, z, ratio, back)


def _begins_elsewhere(paths: Sequence[Way]) -> list[tuple[float, Way]]:
    """The layers that are far from all other files in the first.

    Where many layers are, that is how training begins.
    """
    found = []
    for path in paths:
        move, usual = path.distance[0, 1], _usual(path, {0})
        if len(path.steps) < 3 or {0, 1, 2} & path.spoilt or not usual:
            continue
        if move >= max(JUMP, UNUSUAL * usual, 2 * path.distance[1, 2]):
            found.append((move / usual, path))
    return found if 2 * len(found) < len(paths) else []


def _there_and_back(path: Way, files: int) -> list[tuple[int, int, float]]:
    """The runs of files that a layer spends elsewhere: the first, the last, how unusual it is."""
    found: list[tuple[int, int, float]] = []
    first = 1
    while first < files - 1:
        run = _run(path, first, files)
        if run is None:
            first += 1
            continue
        last, unusual = run
        found.append((first, last, unusual))
        first = last + 2
    return found


def _run(path: Way, first: int, files: int) -> tuple[int, float] | None:
    """The last file of a run elsewhere that begins at `first`, and how unusual the way there is.

    A layer has come back in the first file that is at most half as far, or, where nothing is known
    of how it moved before, at most a fifth as far from where it was.
    """
    start = first - 1
    out = path.distance[start, first]
    before = path.distance[start - 1, start] if start > path.first else None
    for last in range(first, min(first + LONGEST, files - 1)):
        left = path.distance[start, last + 1]
        ways = [path.distance[at, at + 1] for at in range(first, last + 1)]
        others = {*range(start, last + 1)}
        known = before is not None or bool(_steps(path, others))
        usual = max(_usual(path, others), before or 0) if known else left
        near = left <= out / (2 if before is not None else UNUSUAL)
        if near and out >= max(JUMP, UNUSUAL * usual) and max(ways) >= out / UNUSUAL:
            return last, out / usual if usual > 0 else np.inf
    return None


def _stays(path: Way, at: int, batches: Sequence[float | None]) -> float | None:
    """How many times its usual step a layer moves to the file `at`, if it jumps there."""
    move = path.distance[at - 1, at]
    usual = _usual(path, {at - 1})
    near = [
        path.distance[step - 1, step] for step in (at - 1, at + 1) if step < len(path.steps) + 1
    ]
    counts = [count for step, count in enumerate(batches) if step != at - 1 and count is not None]
    own = batches[at - 1]
    if own is not None and counts and own > 2 * sorted(counts)[len(counts) // 2]:
        return None  # more batches than between the other files explain a longer way
    if move < JUMP or move < UNUSUAL * usual or move < 2 * max(near) or not usual:
        return None
    return move / usual


def _usual(path: Way, without: set[int]) -> float:
    """The median step of a layer, but for some of the steps; 0 where there is no other."""
    rest = _steps(path, without)
    return median(np.array(rest)) if rest else 0.0


def _steps(path: Way, without: set[int]) -> list[float]:
    """How far each step that can be compared goes, but for some of the steps."""
    wanted = (at for at in range(len(path.steps)) if at not in without)
    return [path.distance[at, at + 1] for at in wanted if path.compared(at + 1)]


def _batches(counts: Sequence[float | None]) -> list[float | None]:
    """The batches between each file and the next, by their counts."""
    return [None if one is None or two is None else two - one for one, two in pairwise(counts)]


def count_of(common: Common, number: int) -> float | None:
    """The median of the layers' counters in a file, the upper one of two."""
    return middle_of(counter_of(versions[number]) for versions in common.layers)


def _rows(
    paths: Sequence[Way],
    common: Common,
    jumps: Sequence[Jump],
    counts: Sequence[float | None],
) -> list[FileRow]:
    batches = _batches(counts)
    said = {jump.path: _said(jump) for jump in jumps}
    if jumps and jumps[0].path == str(common.files[0].path):
        said[jumps[0].path] = "far from the files after it"
    rows = []
    for number, file in enumerate(common.files):
        name = str(file.path)
        moves = [(path.name, path.steps[number - 1]) for path in paths if path.compared(number)]
        count = batches[number - 1] if number else None
        rows.append(row_of(name, counts[number], count, moves, said))
    return rows


def row_of(
    name: str,
    counter: float | None,
    batches: float | None,
    moves: Sequence[tuple[str, Move]],
    said: dict[str, str],
) -> FileRow:
    """The row of a file with the moves of its layers, none of them for the first."""
    known = [(layer, move) for layer, move in moves if move.z.size]
    if not known:
        return FileRow(name, counter, batches, what=said.get(name, ""))
    layers = tuple(
        LayerMove(
            layer, median(move.z), float(move.z.max()), median(move.var_ratio), move.furthest_ratio
        )
        for layer, move in known
    )
    ratios = [each.var_ratio_worst for each in layers]
    worst, _ = max(known, key=lambda each: each[1].distance)
    return FileRow(
        name,
        counter,
        batches,
        z=middle_of(each.z for each in layers),
        z_max=max(each.z_max for each in layers),
        var_ratio=middle_of(each.var_ratio for each in layers),
        var_ratio_worst=max(ratios, key=lambda ratio: max(ratio, 1 / ratio) if ratio else np.inf),
        worst=worst,
        what=said.get(name, ""),
        moves=layers,
    )


def _said(jump: Jump) -> str:
    if jump.back is None:
        return "jumps in the last file"
    return "jumps, and comes back later" if jump.back else "jumps, and stays there"


def _stills(paths: Sequence[Way], common: Common) -> tuple[Still, ...]:
    """The layers that stand still up to the last file while others move, by where they begin to."""
    begins: dict[int, list[str]] = {}
    moving = [any(not path.same[at] for path in paths) for at in range(len(common.files) - 1)]
    for path in paths:
        since = len(path.same)
        while since and path.same[since - 1]:
            since -= 1
        if sum(moving[since:]) >= min(2, len(path.same)):
            begins.setdefault(since, []).append(path.name)
    return tuple(
        Still(names, str(common.files[since].path), moved)
        for since in sorted(begins)
        for moved, names in _by_weights(common, since, begins[since])
    )


def _by_weights(
    common: Common, since: int, names: list[str]
) -> list[tuple[bool | None, tuple[str, ...]]]:
    """Layers apart by whether their weights, or those before them, move from a file on."""
    found: dict[bool | None, list[str]] = {}
    own, before = common.tensors("weight", "bias"), common.before(names)
    for name in names:
        moved = None
        for tensors in (before, own):  # the layer's own, where it has any
            values = read([each for each in tensors if each[0] == name]).each[since:]
            moved = moved if not values.size else not same_rows(values)
        found.setdefault(moved, []).append(name)
    return [(moved, tuple(layers)) for moved, layers in found.items()]


def _drift(paths: Sequence[Way]) -> tuple[float, float] | None:
    """The median step, in standard deviations, in the first and the last third of the layers."""
    if len(paths) < FEWEST_LAYERS:
        return None
    third = len(paths) // 3
    first, last = (
        middle_of(
            median(step.z)
            for path in some
            for file, step in enumerate(path.steps, 1)
            if step.z.size and path.compared(file)
        )
        for some in (paths[:third], paths[-third:])
    )
    return None if first is None or last is None else (first, last)
