"""A copy of a network compared with the live one: what of its statistics is still initial."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import TensorError
from bncli.light import dataclass, np
from bncli.rulebook.order import median, middle_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, TensorFile, TensorRef
    from bncli.rulebook.summaries import Summary
    from bncli.state_dict import LayerRefs

ALIKE = 0.8
"""The distance of two weights, relative to the larger, up to which one may be a copy of the other:
those of two networks that were trained separately are about 1.4 apart, never much below 1."""

LEAST_INITIAL = 0.1
"""The least share of the initial value that can be told from movement of the live statistics."""

FEWEST_CHANNELS = 8
"""How many channels it takes to estimate the share of the initial value."""

FAR_FROM_1 = 0.1
"""How far a live variance has to be from 1 for a mixture with 1 to differ from it."""

_MOST_CHANNELS = 4096
"""How many channels of a layer are compared, evenly spread over it."""
_MOST_PARTS = 64
"""How many parts of a file are compared by their weights: a network has one or two copies, in a few
parts each."""
_MOST_WEIGHTS = 8
"""How many weights of a network are compared, evenly spread over it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A layer of a copy compared with its live twin.

    `root` names the two parts of the file, the copy's first. `initial_weight` is the share of the
    copy's statistics that is still the initial 0 and 1, None where they do not show one.
    `statistics_apart` is the median distance of the two layers' outputs, in standard deviations of
    the copy's, if both were given the live layer's activations. `weights_apart` is the distance of
    the weights, relative to their size: 0 if they are equal, about 1.4 for two networks. Each is
    None where it is not known.
    """

    root: tuple[str, str]
    initial_weight: float | None
    statistics_apart: float | None
    weights_apart: float | None


class Comparison:
    """The parts of a file to which layers and their twins belong, each pair compared once."""

    def __init__(self, file: TensorFile, refs: Mapping[str, LayerRefs]) -> None:
        self.file = file
        self.refs = refs
        self.apart: dict[tuple[str, str], float | None] = {}

    def alike(self, copy: str, live: str) -> bool:
        """Whether the weights below the two parts are roughly those of one network."""
        apart = self.weights_apart(roots_of(copy, live))
        return apart is not None and apart <= ALIKE

    def weights_apart(self, roots: tuple[str, str]) -> float | None:
        """The median distance of the weights with two or more axes; None where there are none."""
        if roots not in self.apart:
            if len(self.apart) >= _MOST_PARTS:
                return None
            self.apart[roots] = middle_of(
                _distance(copy, live) for copy, live in _weights(self.file.tensors, *roots)
            )
        return self.apart[roots]

    def pairs(self, twins: Mapping[str, str], layers: Sequence[Summary]) -> dict[str, Pair]:
        """How each layer of a copy with statistics of its own compares with its twin."""
        summaries = {layer.name: layer for layer in layers}
        parts: dict[tuple[str, str], dict[str, Statistics]] = {}
        for name, live in twins.items():
            ours, theirs = summaries[name], summaries[live]
            if not (ours.has_statistics and theirs.has_statistics) or ours.initial:
                continue
            if ours.statistics_digest == theirs.statistics_digest:
                continue
            read = _statistics(self.refs[name], self.refs[live])
            if read is not None:
                parts.setdefault(roots_of(name, live), {})[name] = read
        found: dict[str, Pair] = {}
        for roots, read_ones in parts.items():
            least = [
                float("-inf") if (var := summaries[name].least_var) is None else var
                for name in read_ones
            ]
            initial = initial_weight(list(read_ones.values()), min(least))
            weights = self.weights_apart(roots)
            for name, statistics in read_ones.items():
                apart = weights
                if apart is None:
                    apart = _affine_apart(self.refs[name], self.refs[twins[name]])
                found[name] = Pair(roots, initial, statistics_apart(*statistics), apart)
        return found


Statistics = tuple["FloatArray", "FloatArray", "FloatArray", "FloatArray"]
"""running_mean and running_var of the copy, then those of the live layer."""


def roots_of(copy: str, live: str) -> tuple[str, str]:
    """What is left of two layers' names without the components at the end that they share."""
    ours, theirs = (re.split(r"([./])", name) for name in (copy, live))
    while len(ours) > 1 and len(theirs) > 1 and ours[-2:] == theirs[-2:]:
        del ours[-2:], theirs[-2:]
    if ours[-1] == theirs[-1]:
        del ours[-1], theirs[-1]
    return "".join(ours).rstrip("./"), "".join(theirs).rstrip("./")


def initial_weight(pairs: Sequence[Statistics], least_var: float) -> float | None:
    """The share of a copy's statistics that is still the initial 0 and 1, over all its layers.

    An average that began at a fresh layer holds q + (1 - q) times a mean of the live variances,
    with the same q in every channel of every layer. q is the median of (copy - live)/(1 - live),
    where a channel has the more weight the further its live variance is from 1. It is accepted
    only if most channels agree on it, if no variance of the copy (the least is `least_var`) lies
    below q, if such a mixture explains the copy much better than a common factor on all live
    variances, and if the copy's means are not far above (1 - q) times the live ones. None where it
    is not, where q is below LEAST_INITIAL, or where fewer than FEWEST_CHANNELS can be used.
    """
    mean, var, live_mean, live = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    usable = np.isfinite(var) & np.isfinite(live) & (var > 0) & (live >= 0)
    usable &= np.isfinite(mean) & np.isfinite(live_mean)
    usable &= np.abs(1 - live) >= FAR_FROM_1
    if usable.sum() < FEWEST_CHANNELS:
        return None
    var, live = var[usable], live[usable]
    weights = np.abs(1 - live) / (1 + live)
    each = (var - live) / (1 - live)
    weight = _weighted_median(each, weights)
    if not LEAST_INITIAL <= weight <= 1.01 or least_var < 0.8 * weight:
        return None
    weight = min(weight, 1.0)
    if _weighted_median(np.abs(each - weight), weights) > 0.2 * weight:
        return None
    mixed = np.abs(np.log(var / (weight + (1 - weight) * live)))
    floor = np.maximum(live, np.finfo(np.float32).tiny)
    ratio = np.log(var / floor)
    scaled = np.abs(ratio - median(ratio))
    if median(mixed) > 0.5 * median(scaled):
        return None
    size, live_size = (median(np.abs(values[usable])) for values in (mean, live_mean))
    return weight if size <= 3 * (1 - weight) * live_size + 0.1 * median(np.sqrt(var)) else None


def statistics_apart(
    mean: FloatArray, var: FloatArray, live_mean: FloatArray, live_var: FloatArray
) -> float | None:
    """The median distance of the normalised values, if both get the live layer's activations.

    In a channel it is the root of z^2 + (r - 1)^2, with z the distance of the means in standard
    deviations of the copy and r the ratio of the two standard deviations. All arguments have shape
    (num_features,). None where no channel has finite, positive variances.
    """
    usable = np.isfinite(mean + live_mean + var + live_var) & (var > 0) & (live_var > 0)
    if not usable.any():
        return None
    mean, var, live_mean, live_var = (v[usable] for v in (mean, var, live_mean, live_var))
    with np.errstate(over="ignore"):
        z = (live_mean - mean) / np.sqrt(var)
        apart = np.hypot(z, np.sqrt(live_var / var) - 1)
    return median(apart)


def _weighted_median(values: NDArray[Any], weights: NDArray[Any]) -> float:
    """The value with half of the total weight on either side."""
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(sums, sums[-1] / 2)])


def _statistics(copy: LayerRefs, live: LayerRefs) -> Statistics | None:
    """Both layers' statistics as float64; of some channels only, if there are very many."""
    refs = (copy.running_mean, copy.running_var, live.running_mean, live.running_var)
    read = [sample(ref, _MOST_CHANNELS) for ref in refs if ref is not None]
    values = [value.reshape(-1) for value in read if value is not None]
    if len(values) < 4 or len({len(value) for value in values}) != 1:
        return None
    return tuple(values)  # type: ignore[return-value]  # four arrays


def _affine_apart(copy: LayerRefs, live: LayerRefs) -> float | None:
    """The distance of two layers' weights and biases, if there is nothing else to compare."""
    return middle_of(
        _distance(ours, theirs)
        for ours, theirs in ((copy.weight, live.weight), (copy.bias, live.bias))
        if ours is not None and theirs is not None
    )


def _weights(
    tensors: Mapping[str, TensorRef], copy: str, live: str
) -> Iterator[tuple[TensorRef, TensorRef]]:
    """Some weights below one part of a file, each with the one of its name below the other."""
    both = [
        (ref, twin)
        for name, ref in tensors.items()
        if copy and name.startswith((f"{copy}.", f"{copy}/"))
        if (twin := tensors.get(live + name[len(copy) :] if live else name[len(copy) + 1 :]))
        if ref.ndim >= 2 and ref.shape == twin.shape
    ]
    step = -(-len(both) // _MOST_WEIGHTS) or 1
    yield from both[::step]


def _distance(copy: TensorRef, live: TensorRef) -> float | None:
    """How far two tensors are apart, relative to the larger; None where that has no meaning."""
    if copy.place is not None and copy.place == live.place:
        return 0.0
    ours, theirs = sample(copy, _MOST_CHANNELS), sample(live, _MOST_CHANNELS)
    if ours is None or theirs is None or ours.shape != theirs.shape or not ours.size:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        size = max(float(np.linalg.norm(ours)), float(np.linalg.norm(theirs)))
        apart = float(np.linalg.norm(ours - theirs))
    return apart / size if np.isfinite(size) and size > 0 and np.isfinite(apart) else None


def sample(ref: TensorRef, most: int) -> FloatArray | None:
    """Some values of a tensor, evenly spread; None where they are no floats or cannot be read.

    float64, with the tensor's axes, which are as long as `most` values allow. Raises FileError
    where the file is found to be damaged.
    """
    if ref.storage is None or DTYPES[ref.dtype].kind != "float":
        return None
    block = []
    left = most
    for size in reversed(ref.shape):
        step = max(1, -(-size // left))
        block.append(slice(0, size, step))
        left = max(1, left // max(1, -(-size // step)))
    try:
        values = ref.part(tuple(reversed(block))).read()
    except TensorError:  # what is wrong with the whole file is the caller's to handle
        return None
    return np.asarray(values, np.float64)
