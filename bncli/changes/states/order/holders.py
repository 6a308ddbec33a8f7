"""Which other layer, of either file, has the statistics that a layer of the second holds."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from bncli.changes.pair import Files, LayerPair, as_dtype
from bncli.changes.states.order.permutations import equal_values
from bncli.dtypes import COMPUTE_DTYPES
from bncli.errors import TensorError
from bncli.light import dataclass, np
from bncli.rulebook.pairs import statistics_apart
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
    that the two names differ in one word, and not just a number, as those of a network and its copy
    do.
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
    return Holder(name, vectors, offset, swapped, chain, other_branch(own, name))


def twin_of(
    pair: LayerPair,
    files: Files,
    ours: Mapping[str, FloatArray],
    theirs: Mapping[str, FloatArray],
    dtypes: Mapping[str, str],
) -> tuple[str, bool]:
    """The one other layer of the second file with the same statistics, which were taken from it.

    That layer of the first file has statistics nearer to these than the pair's own. Weight and bias
    are either the other layer's, too, which is the second value, or the pair's own. ("", False) for
    none. Arguments as for `holder_of`. Raises FileError.
    """
    nothing = "", False
    digest = _digest(theirs["running_var"])
    found = _index(files, len(theirs["running_var"]), dtypes["running_var"], second=True)
    names = [name for name in found.get(digest, []) if name != pair.b.refs.name]
    if len(names) != 1:
        return nothing
    held = _vectors(files.other_layers[names[0]], dtypes)
    source = _partner(pair, files, names[0], back=True)
    if source is None or held.keys() != theirs.keys():
        return nothing
    before = _vectors(source, dtypes)
    whole = all(equal_values(held[leaf], theirs[leaf]) for leaf in theirs)
    own = all(
        equal_values(ours[leaf], theirs[leaf]) for leaf in theirs if leaf in ("weight", "bias")
    )
    if not (whole or (own and _hold(held, theirs))):
        return nothing
    apart = [_apart(each, theirs) for each in (before, ours)]
    if apart[0] is None or apart[1] is None or apart[0] >= apart[1]:
        return nothing
    return names[0], whole


def _apart(one: Mapping[str, FloatArray], other: Mapping[str, FloatArray]) -> float | None:
    """How far two layers' statistics are apart, in standard deviations."""
    if not {"running_mean", "running_var"} <= one.keys():
        return None
    return statistics_apart(
        one["running_mean"], one["running_var"], other["running_mean"], other["running_var"]
    )


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


def _index(files: Files, width: int, dtype: str, *, second: bool = False) -> dict[bytes, list[str]]:
    """The layers of a file, by default the first, of this width by a digest of their variances.

    One tensor of each layer is read, once for all pairs, and none is kept.
    """
    layers = files.other_layers if second else files.layers
    key = f"order: {width} channels in {dtype}{' of the second' * second}"
    found: dict[bytes, list[str]] | None = files.kept.get(key)
    if found is None:
        found = {}
        for name, refs in layers.items():
            ref = refs.running_var
            if ref is None or ref.numel != width:
                continue
            values = _vector(ref, dtype)
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
        leaf in vectors and equal_values(vectors[leaf], wanted[leaf])
        for leaf in ("running_mean", "running_var")
    )


def _digest(values: FloatArray) -> bytes:
    return hashlib.blake2b(values.tobytes(), digest_size=16).digest()


def _partner(pair: LayerPair, files: Files, name: str, *, back: bool = False) -> LayerRefs | None:
    """The layer of the second file that goes with one of the first, if its name is so prefixed.

    With `back`, that of the first that goes with one of the second. Where names tell nothing, it is
    the one that it was matched with.
    """
    own, other = pair.a.refs.name.split("."), pair.b.refs.name.split(".")
    layers = files.layers if back else files.other_layers
    if back:
        own, other = other, own
    while own and other and own[-1] == other[-1]:
        own.pop()
        other.pop()
    parts = name.split(".")
    if parts[: len(own)] == own:
        found = layers.get(".".join([*other, *parts[len(own) :]]))
        if found is not None:
            return found
    if name in layers:
        return layers[name]
    known = files.partners
    if back:
        known = {other: own for own, other in known.items()}
    return layers.get(known.get(name, ""))


def other_branch(one: str, two: str) -> bool:
    """Whether two names differ in one part, and in more than a number there."""
    ours, theirs = one.split("."), two.split(".")
    if len(ours) != len(theirs):
        return False
    apart = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    if len(apart) != 1:
        return False
    a, b = ("".join(c for c in part if not c.isdigit()) for part in apart[0])
    return a != b
