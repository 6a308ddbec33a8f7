"""Which layers of two files belong together: by name through wrappers, else by what is in them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain, product
from typing import TYPE_CHECKING

from bncli.changes.matching.alignment import contents, out_of_order
from bncli.changes.matching.behind import behind_the_same, kin
from bncli.changes.matching.in_order import FEWEST, fronts_of, in_order
from bncli.changes.matching.sides import Layers, width
from bncli.changes.matching.spelling import bare_name, counted_as, loosely, without_numbers
from bncli.light import dataclass
from bncli.model.changes import How
from bncli.report import Certainty
from bncli.rulebook.copies import COPY, snake
from bncli.state_dict import LayerRefs

if TYPE_CHECKING:
    from bncli.model import TensorFile

CERTAIN = Certainty.CERTAIN

_MOST_PAIRS = 64
"""How many pairs of layers may share the end of a name: `bn1` alone tells little."""
_LONGEST_END = 24
"""How many components at the end of a name are looked at."""
_SAMPLED = 4
"""How many layers are read to tell which of several parts that fit equally is meant."""


_Spellings = tuple[tuple[How, Callable[[str], str]], ...]


@dataclass(frozen=True, slots=True)
class Match:
    """A layer in the first file and the one in the second that belongs to it.

    One is None where the other file has no such layer; `how` is then None as well. `out_of_order`
    says that equal values matched them across the order of the others.
    """

    a: LayerRefs | None
    b: LayerRefs | None
    how: How | None = None
    sure: Certainty = CERTAIN
    out_of_order: bool = False


def matched(a: TensorFile, b: TensorFile, parts: tuple[str, str] = ("", "")) -> list[Match]:
    """The layers of two files in pairs, in the order of `a`; those that `b` alone has follow.

    Layers are first matched by name: a wrapper may come or go, and one file may hold the network
    as a part of a larger one. Of several parts that fit equally, such as a live model and its
    average, the one with the same full names is taken. Where a file has a BatchNorm layer and the
    other has only some of the tensors under that name, these are its partner. What is left is
    matched by equal contents (where these cross the order of the layers, by those of what is in
    front of them), and then by the widths of the layers in order.

    `parts` restricts each file to the names below a prefix, "" for all. Raises MissingTensorError
    where a file has no such part, FileError where a tensor that was read is damaged.
    """
    ours, theirs = Layers.of(a, parts[0]), Layers.of(b, parts[1])
    both = all(parts)  # the user has said which part is which: what the parts are called says less
    found: dict[str, Match] = {}
    crossed: list[tuple[str, str]] = []

    def claim(pairs: Iterable[tuple[str, str]], how: How, sure: Certainty) -> None:
        for name, other in pairs:
            if name in ours.free and other in theirs.free:
                first, second = ours.free.pop(name), theirs.free.pop(other)
                named = how in (How.NAME, How.NAMING)
                kind = How.NAMING if named and not _one_naming(first, second) else how
                found[name] = Match(first, second, kind, sure, (name, other) in crossed)

    spellings: _Spellings = ((How.NAME, bare_name), (How.NAMING, loosely))
    spellings = spellings[: 1 if _counted_apart(ours, theirs) else 2]
    for how, spelling in () if _renumbered(ours, theirs) else spellings:
        keys = _keys(ours, theirs, spelling, parts_alone=both)
        for pairs, sure in _by_name(ours, theirs, *keys, parts=not found):
            claim(pairs, how, sure)
    named = bool(found)
    same = _same_contents(ours, theirs)
    crossed += out_of_order(same, ours.possible, theirs.possible)
    if crossed:
        claim(behind_the_same(crossed, *fronts_of(ours, theirs)), How.VALUES, CERTAIN)
    claim(same, How.VALUES, CERTAIN)
    claim(in_order(ours, theirs, len(found), named=named), How.ORDER, Certainty.LIKELY)
    alone = [Match(layer, None) for layer in ours.left]
    found |= {match.a.name: match for match in alone if match.a is not None}
    order = [found[name] for name in ours.every if name in found]
    return [*order, *(Match(None, layer) for layer in theirs.left)]


def _same_contents(ours: Layers, theirs: Layers) -> list[tuple[str, str]]:
    """The BatchNorm layers with equal contents, then those that are one in one file alone."""
    same = contents(ours.left, theirs.left)
    used, other_used = (set(names) for names in zip(*same, strict=True)) if same else (set(), set())
    rest = [layer for layer in ours.possible if layer.name not in used]
    other_rest = [layer for layer in theirs.possible if layer.name not in other_used]
    more = contents(rest, other_rest) if rest and other_rest else []
    return same + [pair for pair in more if pair[0] in ours.judged or pair[1] in theirs.judged]


def _one_naming(a: LayerRefs, b: LayerRefs) -> bool:
    """Whether the tensors of two layers are named alike, as far as both show it."""
    return a.naming is b.naming or not (a.has_statistics and b.has_statistics)


def _counted_apart(ours: Layers, theirs: Layers) -> bool:
    """Whether a framework named the layers of one file by counting them, and the other did not so.

    The numbers that two frameworks give to one layer have nothing to do with each other, nor with
    those of a sequence.
    """
    one, two = (
        Counter(counted_as(layer.name) for layer in side.left).most_common(1)
        for side in (ours, theirs)
    )
    return bool(one and two) and one[0][0] != two[0][0]


def _renumbered(ours: Layers, theirs: Layers) -> bool:
    """Whether the layers have other numbers in the second file, so that names mislead.

    Such are sequences to which layers without tensors were added: 1, 4, 7 and 1, 3, 5. Some names
    are in both files, all are alike but for their numbers, and the order pairs others.
    """
    a, b = ([bare_name(layer.name) for layer in side.left] for side in (ours, theirs))
    same = set(a) & set(b)
    if not 0 < len(same) < len(a) or without_numbers(a) != without_numbers(b):
        return False
    pairs = in_order(ours, theirs, 0, named=False)
    bare = {bare_name(one): bare_name(two) for one, two in pairs}
    return len(bare) == len(a) and any(bare[name] != name for name in same)


# ------------------------------------------------------------------ names


def _keys(
    ours: Layers, theirs: Layers, spelling: Callable[[str], str], *, parts_alone: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """For both files the names of free layers by how they are compared, which is one to one."""

    def dotted(name: str) -> str:
        return name.replace("/", ".")

    keys: tuple[dict[str, str], ...] = ()
    for each in (spelling, dotted, str):
        keys = tuple(
            {each(side.short(name) if parts_alone else name): name for name in side.free}
            for side in (ours, theirs)
        )
        if len(keys[0]) == len(ours.free) and len(keys[1]) == len(theirs.free):
            break
    return keys[0], keys[1]


def _by_name(
    ours: Layers,
    theirs: Layers,
    keys: Mapping[str, str],
    other_keys: Mapping[str, str],
    *,
    parts: bool,
) -> Iterator[tuple[list[tuple[str, str]], Certainty]]:
    """The pairs of names that belong together, one part of the files after another.

    The pairs of a part share what follows its two prefixes. The part with most layers comes first.
    A part whose prefixes differ has to hold half of the layers of the smaller file that are left;
    without `parts`, there is none of these.
    """
    if not parts:
        yield [(name, other_keys[key]) for key, name in keys.items() if key in other_keys], CERTAIN
        return
    roots = _roots(ours, theirs, keys, other_keys)
    best = max((len(pairs) for pairs in roots.values()), default=0)
    same = roots.get(("", ""), [])
    if same and 2 * len(same) >= best:
        yield same, CERTAIN
        return
    used: list[tuple[str, str]] = []
    while True:
        left = [len(ours.left), len(theirs.left)]
        fewest = min((count for count in left if count), default=0)
        fit = {
            root: pairs
            for root, pairs in roots.items()
            if not any(_nested(root, other) for other in used)
            and _enough(pairs, fewest, ours, theirs)
        }
        if not fit:
            break
        root, sure = _likeliest(fit, ours, theirs)
        if sure is not CERTAIN and len(fit[root]) < FEWEST:
            break  # one layer, and several that are called so
        used.append(root)
        yield fit[root], sure
    yield same, CERTAIN


def _roots(
    ours: Layers, theirs: Layers, keys: Mapping[str, str], other_keys: Mapping[str, str]
) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """The pairs of layers by what stands before the longest end that their names share.

    At least one layer of a pair is a BatchNorm.
    """
    ends: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((keys, other_keys)):
        for key in names:
            for end in _ends(key):
                ends[end][side].append(key)
    roots: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for end, (first, second) in ends.items():
        both: Iterable[tuple[str, str]] = product(first, second)
        if len(first) * len(second) > _MOST_PAIRS:  # then a layer that is called so as a whole
            both = chain(
                product([end] * (end in keys), second),
                product([key for key in first if key != end], [end] * (end in other_keys)),
            )
        for key, other in both:
            root, other_root = key.removesuffix(end), other.removesuffix(end)
            if root and other_root and _last(root) == _last(other_root):
                continue  # a longer end is shared
            name, other_name = keys[key], other_keys[other]
            if name in ours.judged or other_name in theirs.judged:
                roots[root, other_root].append((name, other_name))
    return roots


def _ends(key: str) -> Iterator[str]:
    """A name and what follows each of its last dots."""
    yield key
    at = len(key)
    for _ in range(_LONGEST_END):
        at = key.rfind(".", 0, at)
        if at < 0:
            return
        yield key[at + 1 :]


def _last(root: str) -> str:
    """The last component of a prefix, which ends in a dot."""
    return root[root.rfind(".", 0, -1) + 1 :]


def _nested(root: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether on either side one prefix is inside the other."""
    pairs = zip(root, other, strict=True)
    return any(one.startswith(two) or two.startswith(one) for one, two in pairs)


def _enough(pairs: Collection[tuple[str, str]], fewest: int, ours: Layers, theirs: Layers) -> bool:
    """Whether so many layers share a name and most of them a width that it is no chance."""
    free = [pair for pair in pairs if pair[0] in ours.free and pair[1] in theirs.free]
    alike = sum(width(ours.every[name]) == width(theirs.every[other]) for name, other in free)
    if not free or 2 * len(free) < fewest:
        return False
    if len(free) < FEWEST:
        return alike == len(free) == min(len(ours.judged) or 1, len(theirs.judged) or 1)
    return 2 * alike >= len(free)


def _likeliest(
    roots: Mapping[tuple[str, str], list[tuple[str, str]]], ours: Layers, theirs: Layers
) -> tuple[tuple[str, str], Certainty]:
    """The part with most layers, and how sure it is that this one is meant.

    Of parts with as many, it is the one with equal contents; else the one whose weights are
    correlated; else that which is no average of the network by its name where the other is none;
    else the one with the shortest names.
    """

    def weight(root: tuple[str, str]) -> int:
        return sum((name in ours.judged) + (other in theirs.judged) for name, other in roots[root])

    most = max(map(weight, roots))
    ties = [root for root in roots if weight(root) == most]
    if len(ties) == 1:
        return ties[0], CERTAIN
    same = {root: (_sampled_same(roots[root], ours, theirs), False) for root in ties}
    if not any(number for number, _ in same.values()):
        fronts = fronts_of(ours, theirs)
        same = {root: (0, kin(roots[root], *fronts)) for root in ties}
    marks = {root: tuple(map(_marked, root)) for root in ties}

    def rank(root: tuple[str, str]) -> tuple[object, ...]:
        one, two = marks[root]
        number, kin = same[root]
        return -number, not kin, one != two, one or two, sum(map(len, root))

    ties.sort(key=rank)  # the files' order decides among equals
    clear = same[ties[0]] > same[ties[1]]
    return ties[0], CERTAIN if clear else Certainty.LIKELY


def _sampled_same(pairs: list[tuple[str, str]], ours: Layers, theirs: Layers) -> int:
    """How many of some pairs of layers, evenly spread, have equal contents."""
    some = pairs[:: -(-len(pairs) // _SAMPLED)]
    return sum(bool(contents([ours.every[name]], [theirs.every[other]])) for name, other in some)


def _marked(root: str) -> bool:
    """Whether a prefix marks an averaged copy of a network."""
    return any(COPY.search(snake(part)) for part in root.split("."))
