"""Which layer of the first file has the statistics that a layer of the second holds."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from bncli.changes.pair import Files, LayerPair, as_dtype
from bncli.changes.permutations import same_rows
from bncli.dtypes import COMPUTE_DTYPES
from bncli.errors import TensorError
from bncli.light import dataclass, np
from bncli.state_dict import VECTORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.model import FloatArray, TensorRef
    from bncli.state_dict import LayerRefs

MOST_CANDIDATES = 8
"""Variances that more layers share than this tell nothing."""
WIDTHS = "order: widths"
"""Where `Files.kept` has the names of the layers by their number of channels."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A layer of the first file, and its vectors, so rounded that they can be compared.

    `offset` is its place among the layers of its width, less that of the layer that was looked at.
    `swapped` says that the second file has the latter's statistics in its place, `chain` names a
    further layer that holds the statistics of the one at this offset, "" for none. `branch` says
    that the two names differ in one word that is no number, as those of a network and its copy.
    """

    name: str
    vectors: Mapping[str, FloatArray]
    offset: int
    swapped: bool
    chain: str
    branch: bool


def holder_of(
    pair: LayerPair,
    files: Files,
    ours: Mapping[str, FloatArray],
    theirs: Mapping[str, FloatArray],
    dtypes: Mapping[str, str],
) -> Holder | None:
    """The only layer of the first file with the second's statistics, if it is not the first's own.

    `ours` and `theirs` are the vectors of the pair, rounded to `dtypes`. Raises FileError.
    """
    own, width = pair.a.refs.name, len(theirs["running_var"])
    digest = _digest(theirs["running_var"])
    names = _index(files, width, dtypes["running_var"]).get(digest, [])
    if own in names or not 0 < len(names) <= MOST_CANDIDATES:
        return None
    read = ((name, _vectors(files.layers[name], dtypes)) for name in names)
    held = [(name, vectors) for name, vectors in read if _hold(vectors, theirs)]
    if len(held) != 1:
        return None
    name, vectors = held[0]
    same_width = _widths(files)[width]
    if own not in same_width:
        return None
    at, here = same_width.index(name), same_width.index(own)
    offset = at - here
    there = _partner(pair, files, name)
    swapped = there is not None and _hold(_vectors(there, dtypes), ours)
    chain = ""
    for later, sooner in ((at, at + offset), (here - offset, here)):
        if abs(offset) == 1 and not swapped and not chain and _inside(same_width, later, sooner):
            partner = _partner(pair, files, same_width[later])
            wanted = ours if sooner == here else _vectors(files.layers[same_width[sooner]], dtypes)
            if partner is not None and _hold(_vectors(partner, dtypes), wanted):
                chain = same_width[later]
    return Holder(name, vectors, offset, swapped, chain, _other_branch(own, name))


def _inside(names: list[str], *places: int) -> bool:
    return all(0 <= place < len(names) for place in places)


def _widths(files: Files) -> dict[int, list[str]]:
    """The layers of the first file by their number of channels, in its order."""
    found: dict[int, list[str]] | None = files.kept.get(WIDTHS)
    if found is None:
        found = {}
        for name, refs in files.layers.items():
            if refs.running_var is not None and refs.running_mean is not None:
                found.setdefault(refs.running_var.numel, []).append(name)
        files.kept[WIDTHS] = found
    return found


def _index(files: Files, width: int, dtype: str) -> dict[bytes, list[str]]:
    """The layers of the first file with so many channels, by a digest of their variances.

    One tensor of each layer is read, once for all pairs, and none is kept.
    """
    key = f"order: {width} channels in {dtype}"
    found: dict[bytes, list[str]] | None = files.kept.get(key)
    if found is None:
        found = {}
        for name in _widths(files).get(width, []):
            ref = files.layers[name].running_var
            values = None if ref is None else _vector(ref, dtype)
            if values is not None:
                found.setdefault(_digest(values), []).append(name)
        files.kept[key] = found
    return found


def _vectors(refs: LayerRefs, dtypes: Mapping[str, str]) -> dict[str, FloatArray]:
    """The vectors of a layer that can be read, rounded to these dtypes."""
    read = {
        leaf: _vector(refs.tensors[leaf], dtypes[leaf])
        for leaf in VECTORS
        if leaf in refs.tensors and leaf in dtypes
    }
    return {leaf: values for leaf, values in read.items() if values is not None}


def _vector(ref: TensorRef, dtype: str) -> FloatArray | None:
    """A vector as float64, rounded to a dtype, without negative zeros; None where it has none."""
    if ref.ndim != 1 or ref.dtype not in COMPUTE_DTYPES:
        return None
    try:
        values = ref.read()
    except TensorError:
        return None
    with np.errstate(invalid="ignore"):
        wide = values.astype(np.float64)
    return (wide if ref.dtype == dtype else as_dtype(wide, dtype)) + 0.0


def _hold(vectors: Mapping[str, FloatArray], wanted: Mapping[str, FloatArray]) -> bool:
    """Whether the statistics are the same."""
    return all(
        leaf in vectors and same_rows(vectors[leaf], wanted[leaf])
        for leaf in ("running_mean", "running_var")
    )


def _digest(values: FloatArray) -> bytes:
    return hashlib.blake2b(values.tobytes(), digest_size=16).digest()


def _partner(pair: LayerPair, files: Files, name: str) -> LayerRefs | None:
    """The layer of the second file that goes with one of the first, if its name is so prefixed."""
    own, other = pair.a.refs.name.split("."), pair.b.refs.name.split(".")
    while own and other and own[-1] == other[-1]:
        own.pop()
        other.pop()
    parts = name.split(".")
    if parts[: len(own)] == own:
        found = files.other_layers.get(".".join([*other, *parts[len(own) :]]))
        if found is not None:
            return found
    return files.other_layers.get(name)


def _other_branch(one: str, two: str) -> bool:
    """Whether two names differ in one part, and in more than a number there."""
    ours, theirs = one.split("."), two.split(".")
    if len(ours) != len(theirs):
        return False
    apart = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    if len(apart) != 1:
        return False
    a, b = ("".join(c for c in part if not c.isdigit()) for part in apart[0])
    return a != b
