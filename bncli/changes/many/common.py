"""The layers that all of several files have, and the values of some of their tensors, read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from bncli.changes.kinship import kinship
from bncli.changes.matching import Match, matched
from bncli.changes.pair import as_dtype, coarser
from bncli.dtypes import DTYPES
from bncli.errors import TensorError
from bncli.light import dataclass, np
from bncli.model.changes import How
from bncli.report import Certainty
from bncli.state_dict import LayerRefs, announce, batch_norm_layers
from bncli.state_dict.in_front import InFront, in_front

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, TensorFile, TensorRef

MOST_VALUES = 1 << 22
"""How many values of a group of tensors are in memory at once, those of all files together."""
MOST_ROWS = 16
MOST_OF_A_ROW = 256
"""How many output channels of a weight are read, evenly spread over it, and how much of each."""
MOST_WEIGHTS = 16
"""How many of the weights before the layers are read, evenly spread over the network."""

Refs = tuple["TensorRef", ...]
"""One tensor as each of the files has it, in the order of the files."""


@dataclass(frozen=True, slots=True)
class Common:
    """The BatchNorm layers that all files have: each as one `LayerRefs` a file.

    The layers are in the order of the first file that was given, and `names` are those that it has
    for them. `lacking` names those of its layers that other files lack, by their paths, and `sure`
    says how sure it is that these layers belong together. `fronts` keeps what was found in front of
    layers.
    """

    files: tuple[TensorFile, ...]
    names: tuple[str, ...]
    layers: tuple[tuple[LayerRefs, ...], ...]
    lacking: tuple[tuple[str, tuple[str, ...]], ...] = ()
    sure: Certainty = Certainty.CERTAIN
    fronts: dict[int, Mapping[str, InFront]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, files: Sequence[TensorFile]) -> Common:
        """The layers that the files have in common; at least one file. Raises FileError."""
        first, *others = files
        ours = {layer.name: layer for layer in batch_norm_layers(first)}
        theirs = [_partners(ours, first, other) for other in others]
        common = {
            name: (layer, *(partners[name].refs for partners in theirs))
            for name, layer in ours.items()
            if all(name in partners for partners in theirs)
        }
        announce(layer for of_layer in common.values() for layer in of_layer)
        likely = any(partners[name].likely for partners in theirs for name in common)
        return cls(
            tuple(files),
            tuple(common),
            tuple(common.values()),
            tuple(
                (str(other.path), missing)
                for other, partners in zip(others, theirs, strict=True)
                if (missing := tuple(name for name in ours if name not in partners))
            ),
            Certainty.LIKELY if likely else Certainty.CERTAIN,
        )

    def in_order(self, order: Sequence[int]) -> Common:
        """The same with the files in another order; the layers keep their names and theirs."""
        layers = tuple(tuple(versions[at] for at in order) for versions in self.layers)
        return replace(self, files=tuple(self.files[at] for at in order), layers=layers, fronts={})

    def related(self, one: int, other: int) -> bool | None:
        """Whether the weights of two files are of one network at two times; None if untold."""
        pairs = [Match(each[one], each[other], How.NAME) for each in self.layers]
        return kinship(self.files[one], self.files[other], pairs)[1]

    def tensors(self, *leaves: str) -> list[tuple[str, str, Refs]]:
        """The tensors of some leaves that every file has: the layer's name, the leaf, the refs."""
        return [
            (name, leaf, tuple(ref for ref in refs if ref is not None))
            for leaf in leaves
            for name, versions in zip(self.names, self.layers, strict=True)
            if None not in (refs := [layer.tensors.get(leaf) for layer in versions])
        ]

    def before(self, names: Iterable[str] | None = None) -> list[tuple[str, str, Refs]]:
        """The weights in front of some layers, as `tensors` has them, under the leaf "before".

        Without names, those of MOST_WEIGHTS layers, evenly spread.
        """
        first = in_front(self.files[0], {versions[0].name: versions[0] for versions in self.layers})
        found: list[tuple[str, str, Refs]] = []
        wanted = None if names is None else set(names)
        for at, versions in enumerate(self.layers):
            ours = first.get(versions[0].name)
            if ours is None or (wanted is not None and self.names[at] not in wanted):
                continue
            refs = [
                self._in_front(file, number, at, ours.weight)
                for number, file in enumerate(self.files[1:], 1)
            ]
            known = tuple(ref for ref in refs if ref is not None)
            if len(known) == len(refs):
                found.append((self.names[at], "before", (ours.weight, *known)))
        return found if wanted is not None else found[:: -(-len(found) // MOST_WEIGHTS) or 1]

    def _in_front(
        self, file: TensorFile, number: int, at: int, ours: TensorRef
    ) -> TensorRef | None:
        """The weight in front of a layer in another file: of the same name, or as it shows."""
        own = file.tensors.get(ours.name)
        if own is not None and self.layers[at][number].name == self.layers[at][0].name:
            return own
        found = self.fronts.get(number)
        if found is None:
            found = in_front(file, {each[number].name: each[number] for each in self.layers})
            self.fronts[number] = found
        near = found.get(self.layers[at][number].name)
        return None if near is None else near.weight


@dataclass(frozen=True, slots=True)
class _Partner:
    """A layer of another file, and whether it is only likely that it belongs to the first's."""

    refs: LayerRefs
    likely: bool = False


def _partners(
    ours: Mapping[str, LayerRefs], first: TensorFile, other: TensorFile
) -> dict[str, _Partner]:
    """The layers of another file by the names of those of the first that they belong to."""
    theirs = {layer.name: layer for layer in batch_norm_layers(other)}
    if list(ours) == list(theirs):
        return {name: _Partner(layer) for name, layer in theirs.items()}
    return {
        match.a.name: _Partner(match.b, match.sure is not Certainty.CERTAIN)
        for match in matched(first, other)
        if match.a is not None and match.b is not None and match.a.name in ours
    }


@dataclass(frozen=True, slots=True)
class Values:
    """Tensors of a group, as each file has them, one after the other.

    `each` has shape (files, values), float64; the target, where there is one, is the last row.
    `parts` says which layer and leaf some columns are of, `dtypes` how each file stores them, and
    `sizes` how many values are stored.
    """

    each: FloatArray
    parts: tuple[tuple[str, str, slice], ...]
    dtypes: tuple[tuple[str, ...], ...]
    sizes: tuple[int, ...]
    roundoffs: FloatArray = field(init=False)
    tiniest: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Set what one rounding costs at most, of the coarsest dtype that holds a value."""
        roundoffs, tiniest = (np.empty(self.each.shape[1]) for _ in range(2))
        for (_, _, where), dtypes in zip(self.parts, self.dtypes, strict=True):
            kind = DTYPES[coarsest(dtypes)]
            roundoffs[where], tiniest[where] = kind.unit_roundoff, kind.tiniest
        object.__setattr__(self, "roundoffs", roundoffs)
        object.__setattr__(self, "tiniest", tiniest)

    @property
    def total(self) -> int:
        """How many values the tensors have, read or not."""
        return sum(self.sizes)

    def only(self, leaves: Iterable[str]) -> Values:
        """The values of some leaves alone."""
        leaves = set(leaves)
        kept = [i for i, (_, leaf, _) in enumerate(self.parts) if leaf in leaves]
        columns = [self.each[:, self.parts[i][2]] for i in kept]
        parts, at = [], 0
        for i, some in zip(kept, columns, strict=True):
            layer, leaf, _ = self.parts[i]
            parts.append((layer, leaf, slice(at, at := at + some.shape[1])))
        each = np.concatenate(columns, axis=1) if columns else self.each[:, :0]
        dtypes = tuple(self.dtypes[i] for i in kept)
        return Values(each, tuple(parts), dtypes, tuple(self.sizes[i] for i in kept))

    def rounded(self, values: FloatArray, file: int = -1) -> FloatArray:
        """Values, shape (values,), as a file's dtypes hold them."""
        result = np.array(values, np.float64)
        names = {dtypes[file] for dtypes in self.dtypes}
        if len(names) == 1:
            return as_dtype(result, names.pop())
        for (_, _, where), dtypes in zip(self.parts, self.dtypes, strict=True):
            result[where] = as_dtype(result[where], dtypes[file])
        return result

    def layers_where(self, mask: NDArray[np.bool_]) -> tuple[str, ...]:
        """The layers with a value of a mask, shape (values,)."""
        return tuple(dict.fromkeys(name for name, _, where in self.parts if mask[where].any()))


def names_of(paths: Iterable[str]) -> dict[str, str]:
    """What files are called, by path: their names, or their paths where two have one name."""
    names = {path: PurePath(path).name for path in paths}
    return names if len(set(names.values())) == len(names) else {path: path for path in names}


def coarsest(dtypes: Iterable[str]) -> str:
    """The dtype with the fewest digits."""
    first, *others = dict.fromkeys(dtypes)
    for other in others:
        first = coarser(first, other)
    return first


def read(tensors: Sequence[tuple[str, str, Refs]]) -> Values:
    """The values of tensors, each as all files have it; of very many, some of each.

    Tensors whose shapes differ, without values or without real ones are left out. Raises FileError
    where a file is damaged.
    """
    usable = [each for each in tensors if _usable(each[2])]
    sizes = [_size(refs[0]) for _, _, refs in usable]
    files = len(usable[0][2]) if usable else 1
    step = max(1, -(-sum(sizes) * files // MOST_VALUES))
    columns: list[FloatArray] = []
    parts: list[tuple[str, str, slice]] = []
    dtypes: list[tuple[str, ...]] = []
    stored: list[int] = []
    at = 0
    for layer, leaf, refs in usable:
        try:
            some = np.stack([sample(ref, step) for ref in refs])
        except TensorError:  # one file cannot give it; what is wrong there is not asked here
            continue
        parts.append((layer, leaf, slice(at, at := at + some.shape[1])))
        dtypes.append(tuple(ref.dtype for ref in refs))
        columns.append(some)
        stored.append(refs[0].numel)
    each = np.concatenate(columns, axis=1) if columns else np.empty((files, 0))
    return Values(each, tuple(parts), tuple(dtypes), tuple(stored))


def sample(ref: TensorRef, step: int = 1) -> FloatArray:
    """A tensor's values as float64 of one axis: of a vector, every `step`-th.

    Of a tensor with two or more axes, the first values of some rows (of MOST_ROWS at most, evenly
    spread). Raises FileError.
    """
    if ref.ndim <= 1:
        return _wide(ref.read())[::step]
    block: list[slice] = []
    left = max(1, MOST_OF_A_ROW // step)
    for size in reversed(ref.shape[1:]):
        block.append(slice(0, min(size, left)))
        left //= max(1, min(size, left))
        left = max(1, left)
    rows = slice(0, None, max(1, -(-ref.shape[0] // MOST_ROWS)))
    return _wide(ref.part((rows, *reversed(block))).read())


def same_rows(values: FloatArray) -> bool:
    """Whether all rows have the same bits."""
    return all(row.tobytes() == values[0].tobytes() for row in values[1:])


def _size(ref: TensorRef) -> int:
    """How many values of a tensor are wanted, at most."""
    return ref.numel if ref.ndim <= 1 else min(ref.numel, MOST_ROWS * MOST_OF_A_ROW)


def _usable(refs: Refs) -> bool:
    if len({ref.shape for ref in refs}) > 1 or not refs[0].numel:
        return False
    return all(ref.storage is not None and DTYPES[ref.dtype].kind == "float" for ref in refs)


def _wide(values: NDArray[Any]) -> FloatArray:
    with np.errstate(invalid="ignore"):
        return np.asarray(values, np.float64).reshape(-1)
