"""Which tensors of a checkpoint are which layer's, and whether statistics are of its weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES, decode, encode
from bncli.errors import FileError, TensorError
from bncli.files.reading import current
from bncli.gate.places import unwrapped
from bncli.light import dataclass, np
from bncli.live.fingerprints import summed
from bncli.live.parts import Part, Parts, few, fitting_parts
from bncli.loaders import open_model, split_spec
from bncli.loaders.elements import crc_of_ref
from bncli.loaders.names import listed, quoted
from bncli.report import printable
from bncli.state_dict import LayerRefs, batch_norm_layers
from bncli.state_dict.names import LEAVES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import BatchNormState, TensorFile, TensorRef
    from bncli.model.capture import Capture, WatchedLayer

SUMS = ("weights", "checkpoint")
"""The sums of `Capture.fingerprint` that a checkpoint's weights may have."""
MOST_PARTS = 100
"""How many parts of a checkpoint are tried for those weights, before the user is asked."""
_QUOTE = "'"


@dataclass(frozen=True, slots=True)
class Targets:
    """The part of a checkpoint that holds some layers.

    `layers` has the tensors of each, by the names that were asked for; what the part has beside
    them (a counter, a weight) is there, too. `missing` has what the part lacks, leaf by leaf, of
    layers that lack something. `refs` are all tensors of the part, by their names without its
    prefix, and `sums` their fingerprint; nothing where it was not asked for.
    """

    file: TensorFile
    part: str
    layers: Mapping[str, LayerRefs]
    missing: Mapping[str, tuple[str, ...]]
    refs: Mapping[str, TensorRef]
    sums: Mapping[str, str]

    @property
    def label(self) -> str:
        """The part as `--checkpoint` takes it, for a sentence."""
        path = quoted(str(self.file.path), 200)
        return f"{path}::{quoted(self.part)}" if self.part else path


def leaves_of(capture: Capture) -> dict[str, tuple[str, ...]]:
    """The names of the tensors that each layer of a capture has, by the layer's name."""
    return {
        layer.name: tuple(leaf for leaf in LEAVES if getattr(layer.state, leaf, None) is not None)
        for layer in capture.norms
    }


def targets_of(
    spec: str,
    layers: Mapping[str, Collection[str]],
    fingerprint: Mapping[str, str] | None = None,
) -> Targets:
    """The tensors of these layers in a checkpoint, `FILE` or `FILE::PART`.

    `layers` has the leaves of each layer, such as running_mean, by its name in the model. As for a
    model's weights, the part with most of them is taken, whatever wrappers stand before the names
    on either side. With the `fingerprint` of a capture, a part with these weights comes first; this
    reads the part where its file keeps no checksums.

    Raises MissingTensorError where no part fits or two fit equally, and FileError where none of
    several has these weights, and for what cannot be read.
    """
    path, name = split_spec(spec)
    file = open_model(path)
    keys = {_joined(layer, leaf): (layer, leaf) for layer, each in layers.items() for leaf in each}
    parts = fitting_parts(file.path, file.tensors, name, tuple(keys), "capture")
    wanted = _wanted(fingerprint or {})
    crcs: dict[str, int] = {}
    part = _of_these_weights(parts, wanted, crcs) if wanted else None
    part = part or parts.the_one()
    missing: dict[str, tuple[str, ...]] = {}
    for key, (layer, leaf) in keys.items():
        if key not in part.found:
            missing[layer] = (*missing.get(layer, ()), leaf)
    found = {}
    for layer, each in layers.items():
        refs = {leaf: ref for leaf in each if (ref := part.found.get(_joined(layer, leaf)))}
        if refs:
            found[layer] = _layer(file, refs)
    sums = _sums(file.path, part, crcs) if wanted else {}
    return Targets(file, part.prefix, found, missing, part.refs, sums)


def check_weights(targets: Targets, capture: Capture) -> None:
    """Raise FileError where the statistics are of other weights than the part's.

    They are of these weights where the sum of the part's weights is that of the model's or that of
    the checkpoint that the model was loaded from, so that a dtype that was converted is no matter.
    A frozen layer normalises by its own running statistics, so that those belong to the weights.
    Where a capture has no sum, the weights of the BatchNorm layers alone are compared, and a note
    of the call says so. Raises TensorError where a tensor cannot be read.
    """
    wanted = _wanted(capture.fingerprint)
    path, again = targets.file.path, f"capture them again with --checkpoint {targets.label}"
    sums = targets.sums
    if wanted and not sums:
        sums = _sums(path, Part(targets.part, {}, targets.refs), {})
    if not wanted or sums["weights"] not in wanted:
        which = _other(targets, capture.norms, ("weight", "bias"))
        if wanted and not which:
            which = "their checksum is another, although those of its layers agree"
        if which:
            raise FileError(path, f"the statistics are of other weights ({which}); {again}.")
        current().notes[
            f"{printable(str(path))}: the statistics do not say which weights they are of; only "
            "the weights of the BatchNorm layers were compared."
        ] = None
    elif sums["weights"] != capture.fingerprint.get("weights"):
        _note_missing(path, capture)
    frozen = [layer for layer in capture.norms if layer.frozen]
    if other := _other(targets, frozen, ("running_mean", "running_var")):
        raise FileError(
            path,
            f"the statistics are of another network: {other}, and the layer is frozen, so that all "
            f"layers behind it see what these running statistics make; {again}.",
        )


def copies_of(targets: Targets, capture: Capture) -> dict[str, tuple[LayerRefs, ...]]:
    """Further layers of the part that hold the same values in bytes of their own, by layer.

    A module that a model uses under two names is one layer of its capture, and a file may hold it
    twice. When that is loaded, one of the two is put over the other, so both have to change. A
    layer counts as such a copy if the capture knows no layer of its name. Raises FileError where it
    may be one of several layers, and TensorError where a tensor cannot be read.
    """
    before = f"{targets.part}." if targets.part else ""
    names = (refs.name[len(before) :] for refs in targets.layers.values())
    known = set(
        map(unwrapped, (*names, *capture.uncalled, *(layer.name for layer in capture.norms)))
    )
    found: dict[str, tuple[LayerRefs, ...]] = {}
    for each in batch_norm_layers(replace(targets.file, tensors=targets.refs)):
        if unwrapped(each.name) in known:
            continue
        of = [name for name, refs in targets.layers.items() if _is_copy(refs, each)]
        if len(of) > 1:
            raise FileError(
                targets.file.path,
                f"'{quoted(each.name)}', which the model has no layer for, holds the same as "
                f"{listed(of, ' and ', mark=_QUOTE)}, so it cannot be said which of them it is a "
                "copy of; save the model's state_dict with torch.save, which keeps a layer with "
                "two names once.",
            )
        for name in of:
            copy = replace(each, name=f"{before}{each.name}")
            found[name] = (*found.get(name, ()), copy)
    return found


def _is_copy(one: LayerRefs, other: LayerRefs) -> bool:
    """Whether another layer has the same tensors, bit for bit, and not the same bytes."""
    if one.tensors.keys() != other.tensors.keys():
        return False
    pairs = [(ref, other.tensors[leaf]) for leaf, ref in one.tensors.items()]
    if all(a.place is not None and a.place == b.place for a, b in pairs):
        return False
    return all(
        (a.dtype, a.shape) == (b.dtype, b.shape) and crc_of_ref(a) == crc_of_ref(b)
        for a, b in pairs
    )


def _note_missing(path: Path, capture: Capture) -> None:
    """Say which keys the checkpoint lacked, so that the statistics are of more than its weights."""
    checkpoint = capture.source.get("checkpoint")
    missing = checkpoint.get("missing") if isinstance(checkpoint, Mapping) else None
    if isinstance(missing, list) and missing:
        current().notes[
            f"{printable(str(path))}: it lacks {few(map(str, missing))}, so the statistics are of "
            "a model with the values that it was built with there."
        ] = None


# ------------------------------------------------------------------ the part, by its weights


def _wanted(fingerprint: Mapping[str, str]) -> frozenset[str]:
    """The sums that a checkpoint's weights may have; none where a capture has none."""
    return frozenset(each for key in SUMS for each in fingerprint.get(key, "").split())


def _of_these_weights(parts: Parts, wanted: frozenset[str], crcs: dict[str, int]) -> Part | None:
    """The part whose weights have a sum that is wanted; None where it is not one part.

    Raises FileError where it is none of several.
    """
    names, path = parts.names, parts.path
    if len(names) > MOST_PARTS:
        return None
    found = []
    for group in parts.groups:
        for part in map(parts.part, group):
            if _sums(path, part, crcs)["weights"] in wanted:
                found.append(part)
                break
    if not found and len(names) > 1:
        raise FileError(
            path,
            f"{listed(names, ' and ', mark=_QUOTE)} hold the layers, and the statistics are of "
            "none of these weights; capture them again with --checkpoint "
            f"{quoted(str(path), 200)}::{quoted(names[0])}.",
        )
    return found[0] if len(found) == 1 else None


def _sums(path: Path, part: Part, crcs: dict[str, int]) -> dict[str, str]:
    """The fingerprint of a part; `crcs` keeps each tensor's own sum, by its full name."""
    for ref in part.refs.values():
        if ref.name not in crcs:
            try:
                crcs[ref.name] = crc_of_ref(ref)
            except TensorError as error:
                raise FileError(
                    path,
                    "it cannot be said whether the statistics are of its weights, as one of its "
                    f"tensors cannot be read ({quoted(ref.name)}: {ref.unreadable}).",
                ) from error
    return summed({name: crcs[ref.name] for name, ref in part.refs.items()})


# ------------------------------------------------------------------ layers


def _joined(layer: str, leaf: str) -> str:
    """The key of a layer's tensor."""
    return f"{layer}.{leaf}" if layer else leaf


def _layer(file: TensorFile, found: Mapping[str, TensorRef]) -> LayerRefs:
    """The layer that has these tensors, with what the file has beside the first of them."""
    name = next(iter(found.values())).name
    beside = name[: max(name.rfind("."), name.rfind("/")) + 1]
    refs = (found.get(leaf) or file.tensors.get(f"{beside}{leaf}") for leaf in LEAVES)
    weight, bias, mean, var, counter = refs
    own = beside.rstrip("./")
    return LayerRefs(own, weight, bias, mean, var, counter, file.modules.get(own))


def _other(targets: Targets, layers: Iterable[WatchedLayer], leaves: Collection[str]) -> str:
    """Which tensor of these layers is another than in the capture, "" where none is."""
    for layer in layers:
        refs = targets.layers.get(layer.name)
        for leaf in leaves:
            ref = getattr(refs, leaf, None)
            held = getattr(layer.state, leaf, None)
            if ref is not None and held is not None and not _same(ref, held, layer.state):
                return f"the {leaf} of '{quoted(layer.name)}' is another in it"
    return ""


def _same(ref: TensorRef, held: NDArray[Any], state: BatchNormState | None) -> bool:
    """Whether a tensor, in the dtype of the model, has the values that a layer held."""
    stored = ref.read().reshape(-1)
    if stored.shape != held.shape:
        return False
    dtypes = {held.dtype.name, state.dtype if state and state.dtype in DTYPES else None}
    return any(
        np.array_equal(decode(encode(stored, dtype), dtype), held, equal_nan=True)
        for dtype in dtypes
        if dtype is not None
    )
