"""What most layers are: sound, as a few numbers tell, so that no rule has to look at them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.rulebook.channels import FEWEST_CHANNELS, MOST_VARIANCE, scales
from bncli.rulebook.layers import LIVE, NO_WEIGHT, NOTHING
from bncli.rulebook.origin import LARGE, MOST_BATCHES, same_bits
from bncli.rulebook.precision import LARGEST, MOST_RANGE, ROUNDS_TO_ZERO

if TYPE_CHECKING:
    from bncli.model import FloatArray
    from bncli.rulebook.layers import Layer

LEAST_NORMAL = 2.0**-126
"""Below it, a float32 number other than 0 is subnormal."""
COUNTERS = ("", "int64")
"""The dtype of a counter as PyTorch writes it; none where there is none."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The numbers of a layer whose vectors were all read, are finite and have the same length.

    By the vector's name, `lows` and `highs` are its extremes, `least` the size of what is nearest
    to 0. `scale` is that of each channel, of shape (num_features,), with extremes too.
    `ordinary` says that no check of one layer finds anything.
    """

    lows: Mapping[str, float]
    highs: Mapping[str, float]
    least: Mapping[str, float]
    scale: FloatArray
    scale_low: float
    scale_high: float
    ordinary: bool


def measured(layer: Layer) -> Measured | None:
    """The numbers of a layer with both statistics; None where they are not all finite."""
    mean, var, weight, bias = layer.mean, layer.var, layer.weight, layer.bias
    if mean is None or var is None or layer.unread:
        return None
    there = {"running_mean": mean, "running_var": var, "weight": weight, "bias": bias}
    known = {leaf: values for leaf, values in there.items() if values is not None}
    shape = mean.shape
    if not mean.size or any(own != shape for leaf, own in layer.shapes.items() if leaf in there):
        return None
    if len(known) != sum(leaf in there for leaf in layer.shapes):
        return None
    block = np.array(list(known.values()))
    low, high = np.minimum.reduce(block, 1).tolist(), np.maximum.reduce(block, 1).tolist()
    if not (all(map(math.isfinite, low)) and all(map(math.isfinite, high))):
        return None
    lows, highs = dict(zip(known, low, strict=True)), dict(zip(known, high, strict=True))
    least = dict(zip(known, np.minimum.reduce(np.abs(block), 1).tolist(), strict=True))
    scale = scales(layer)
    scale_low, scale_high = float(np.minimum.reduce(scale)), float(np.maximum.reduce(scale))
    if not (math.isfinite(scale_low) and math.isfinite(scale_high)):
        return None
    numbers = Measured(lows, highs, least, scale, scale_low, scale_high, ordinary=False)
    ordinary = _is_plain(layer, numbers) and _is_even(layer, numbers) and not _copied(layer)
    return Measured(lows, highs, least, scale, scale_low, scale_high, ordinary)


def _is_plain(layer: Layer, of: Measured) -> bool:
    """Whether each number lies where no rule has anything to say of it, whatever the others are.

    The bounds are those of BN203 to BN211, BN304, BN401 to BN408, BN502 and BN503.
    """
    counter, eps, momentum = layer.state.num_batches_tracked, layer.eps, layer.momentum
    if layer.shapes.get("num_batches_tracked", ()) != ():
        return False
    if layer.dtypes.get("num_batches_tracked", "") not in COUNTERS:
        return False
    if counter is not None and abs(counter) > MOST_BATCHES:
        return False
    if not (0 <= eps < math.inf and (momentum is None or 0 <= momentum <= 1)):
        return False
    if not of.lows["running_var"] > max(NOTHING * eps, ROUNDS_TO_ZERO):
        return False
    if not (of.lows["running_var"] >= eps and of.highs["running_var"] <= MOST_VARIANCE):
        return False
    if of.least.get("weight", 1.0) < NO_WEIGHT:
        return False
    largest = LARGEST["float16"]
    for low, high in (
        (of.lows["running_mean"], of.highs["running_mean"]),
        (of.scale_low, of.scale_high),
    ):
        if not (max(-low, high) <= largest):
            return False
    for leaf, least in of.least.items():
        if not (max(-of.lows[leaf], of.highs[leaf]) < LARGE):
            return False
        if least < LEAST_NORMAL and (least or _has_subnormal(layer, leaf)):
            return False
    return True


def _has_subnormal(layer: Layer, leaf: str) -> bool:
    """Whether a vector with a 0 has a subnormal number, too."""
    values: FloatArray = getattr(layer, leaf.removeprefix("running_"))
    sizes = np.abs(values)
    return bool(((sizes > 0) & (sizes < LEAST_NORMAL)).any())


def _is_even(layer: Layer, of: Measured) -> bool:
    """Whether no live channel's scale stands out (BN405), and they are not wide apart (BN504).

    No variance is below eps.
    """
    sizes = np.abs(of.scale)
    if layer.weight is not None and of.least["weight"] < LIVE:
        sizes = sizes[layer.live()]
    if len(sizes) < FEWEST_CHANNELS:
        return True
    if np.maximum.reduce(sizes) <= 10 * np.minimum.reduce(sizes):
        return True
    ordered = np.sort(sizes)
    first, second = float(ordered[-1]), float(ordered[-2])
    low, high = float(ordered[(len(ordered) - 1) // 2]), float(ordered[len(ordered) // 2])
    middle = low if low == high else low + (high - low) / 2
    alone = first > 10 * second and first > 20 * middle
    return not alone and not first > MOST_RANGE * middle


def _copied(layer: Layer) -> bool:
    """Whether one tensor stands in the place of another (BN210)."""
    dtypes = {layer.dtypes[leaf] for leaf in layer.shapes if leaf != "num_batches_tracked"}
    if len(dtypes) == 1:
        state = layer.state
        mean, var = layer.mean, layer.var
        assert mean is not None
        assert var is not None
        first_mean, first_var = mean[0], var[0]
        weight = None if state.weight is None else state.weight[0]
        bias = None if state.bias is None else state.bias[0]
        if first_var not in (first_mean, weight, bias) and first_mean != weight:
            return False
    return same_bits(layer) is not None
