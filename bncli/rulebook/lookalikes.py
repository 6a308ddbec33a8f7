"""BN107: what looks like BatchNorm, but has too few of its tensors to be judged."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from bncli.light import dataclass
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.copies import parameters_alone, parts_of
from bncli.rulebook.estimation import named_batch_norm
from bncli.rulebook.interface import Rule, examples
from bncli.rulebook.layers import Checkpoint, label

if TYPE_CHECKING:
    from bncli.model import TensorFile
    from bncli.state_dict import LayerRefs

LOOKS_LIKE = Rule(
    "BN107",
    "looks-like-batch-norm",
    Severity.INFO,
    "layers that look like BatchNorm were not judged",
    "If they are BatchNorm, export all four tensors of a layer under one prefix; in PyTorch, save "
    "state_dict() rather than parameters().",
    symptom="A network has BatchNorm layers, and none of them is found.",
    arithmetic="A weight and a bias of one axis that either have as many values as the preceding "
    "convolution has output channels, or have a BatchNorm-like name; or running_mean and "
    "running_var without weight, bias and counter. If most pairs of weight and bias in a file do "
    "not follow a convolution, as in a transformer, those that do are not reported.",
    certainty="Likely at best. Weight and bias alone may be a BatchNorm without its buffers, a "
    "GroupNorm or a LayerNorm. Statistics alone may be an InstanceNorm with track_running_stats, a "
    "BatchNorm with affine=False from before there were counters (PyTorch 0.4.1), or a normaliser "
    "of inputs.",
    lookalike="In a file whose other layers have their statistics, a layer that is a BatchNorm by "
    "its name or counter and has none is BN106. A convolution before a BatchNorm rarely has a "
    "bias.",
    sure=Certainty.LIKELY,
    seen=("microsoft/DeepSpeed#1101", "KupynOrest/DeblurGAN#94"),
)

_PAIR = "weight and bias alone"
_STATISTICS = "running_mean and running_var alone"
MOST_NAMED = 4
"""How many layers a sentence names."""

_ANOTHER_NORM = re.compile(
    r"(?:^|_)(?:ln|gn|rms)_?\d*(?:_|$)|(?:^|_)in_?\d+(?:_|$)|(?:layer|group|instance|rms)_?norm",
    re.IGNORECASE,
)
"""The last component of the name of a norm other than BatchNorm."""


@dataclass(frozen=True, slots=True)
class Likely:
    """Something that looks like a BatchNorm layer and is not judged as one.

    `statistics` says that it has running statistics and nothing else; otherwise it has weight and
    bias alone, and `after` is the convolution before it, None where only the name suggests it.
    `biased` says that this convolution has a bias, which a BatchNorm behind it would make useless.
    """

    name: str
    statistics: bool
    after: str | None = None
    biased: bool = False


def likely_layers(
    file: TensorFile, possible: Mapping[str, LayerRefs], judged: Collection[str]
) -> list[Likely]:
    """What looks like a BatchNorm layer among what is not `judged`, in the file's order."""
    from bncli.state_dict.names import split

    skipped = [
        layer for layer in possible.values() if layer.name not in judged and layer.module is None
    ]
    counts = {split(name)[0] for name in file.tensors if parts_of(name)[-1] == "count"}
    statistics = [
        Likely(layer.name, statistics=True)
        for layer in skipped
        if set(layer.tensors) == {"running_mean", "running_var"}
        and layer.naming.mean != "mean"  # a name of many other things
        and all(ref.ndim == 1 for ref in layer.tensors.values())
        and len({ref.shape for ref in layer.tensors.values()}) == 1
        and layer.name not in counts  # a normaliser of inputs counts them
    ]
    pairs = [
        layer
        for layer in skipped
        if set(layer.tensors) == {"weight", "bias"}
        and all(ref.ndim == 1 for ref in layer.tensors.values())
        and layer.weight is not None
        and layer.bias is not None
        and layer.weight.shape == layer.bias.shape
    ]
    norms = {name: layer for name, layer in possible.items() if name in judged}
    behind = _convolutions_before(file, pairs, norms)
    affine = []
    for layer in pairs:
        before = behind.get(layer.name)
        if named_batch_norm(layer.name):
            affine.append(Likely(layer.name, statistics=False))
        elif before is not None and not _ANOTHER_NORM.search(parts_of(layer.name)[-1]):
            biased = f"{before}.bias" in file.tensors or f"{before}/bias" in file.tensors
            affine.append(Likely(layer.name, statistics=False, after=before, biased=biased))
    if 2 * len(affine) < len(pairs):
        affine = [layer for layer in affine if layer.after is None]
    return affine + statistics


def check_lookalikes(file: Checkpoint) -> list[Finding]:
    """BN107: one note for all of a file's layers that look like BatchNorm."""
    copies = parameters_alone(file)
    named = {bare.name for bare in file.bare if named_batch_norm(bare.name)}
    whole = any(layer.has_statistics for layer in file.layers)
    layers = [
        layer
        for layer in file.likely
        if layer.name not in copies and not (whole and layer.name in named)  # BN106
    ]
    if not layers:
        return []
    affine = [layer for layer in layers if not layer.statistics]
    statistics = [layer for layer in layers if layer.statistics]
    claims, details = [], []
    both = bool(affine and statistics)
    if affine:
        behind = [layer for layer in affine if layer.after is not None]
        place = ""
        claims.append(f"{_count(affine)} {_PAIR}")
        if len(behind) == len(affine):
            place = "as many values as the preceding convolution has output channels"
        reading = "GroupNorm or LayerNorm, or BatchNorm whose buffers were not saved"
        if not whole and not (behind and all(layer.biased for layer in behind)):
            reading = (
                "probably BatchNorm whose buffers were not saved, although LayerNorm and GroupNorm "
                "would look the same"
            )
        details.append(_which(affine, place or _PAIR, reading, named=both or bool(place)))
    if statistics:
        reading = (
            "InstanceNorm with track_running_stats, BatchNorm with affine=False from before "
            "PyTorch 0.4.1, or a normaliser of inputs"
        )
        claims.append(f"{_count(statistics)} {_STATISTICS}")
        details.append(_which(statistics, _STATISTICS, reading, named=both))
    return [
        LOOKS_LIKE.finding(
            label(layers[0].name),
            ", ".join(claims),
            {
                "cause": "affine-alone" if affine else "statistics-alone",
                "affine_alone": [layer.name for layer in affine],
                "after": [layer.after for layer in affine],
                "statistics_alone": [layer.name for layer in statistics],
            },
            detail=" ".join(details),
            hint=""
            if affine
            else "Look in the network's code to see what they are. An InstanceNorm or "
            "BatchNorm uses these statistics in evaluation, so they must be right.",
            extent=tuple(label(layer.name) for layer in layers),
            places=("layers that look like BatchNorm",),
        )
    ]


FILE_CHECKS = (check_lookalikes,)


def _count(layers: list[Likely]) -> str:
    """How many layers have something: "1 layer has", "3 layers have"."""
    return f"{len(layers)} layers have" if len(layers) > 1 else "1 layer has"


def _which(layers: list[Likely], what: str, reading: str, *, named: bool) -> str:
    """The sentences that say which layers have what, and what that makes them.

    Of a single layer, the claim has said all of that unless it has to be `named`.
    """
    names = examples([label(layer.name) for layer in layers], MOST_NAMED)
    if len(layers) > 1:
        return f"Layers {names} each have {what}. They are {reading}."
    return f"{f'Layer {names} has {what}. ' * named}It is {reading}."


def _convolutions_before(
    file: TensorFile, pairs: Sequence[LayerRefs], judged: Mapping[str, LayerRefs]
) -> dict[str, str]:
    """For each of the pairs, the convolution in front of it, which is in front of no other layer.

    It has as many output channels, more than one.
    """
    if not pairs:
        return {}
    from bncli.state_dict.in_front import in_front

    layers = {layer.name: layer for layer in pairs} | dict(judged)
    front = in_front(file, layers)
    return {
        layer.name: near.name
        for layer in pairs
        if (near := front.get(layer.name)) is not None and near.weight.ndim >= 3
        if near.weight.shape[near.axis] > 1
    }
