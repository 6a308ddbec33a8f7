"""What the rules for checkpoints are given: one layer with its arrays, then all without them.

A layer check sees a `Layer` and its arrays; a file check sees the `Summary` of every layer. So
only one layer's arrays are in memory at a time, however large the file is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.report import Certainty
from bncli.rulebook.interface import MOST_EVIDENCE, Rule, name_channels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import BatchNormState, FloatArray
    from bncli.report import Finding, Value
    from bncli.rulebook.lookalikes import Likely
    from bncli.rulebook.pairs import Pair
    from bncli.rulebook.summaries import Summary

HALVES = ("float16", "bfloat16")
NOTHING = 1e-6
"""The share of eps below which a variance no longer counts: the input's standard deviation is then
below a thousandth of the root of eps."""
NO_WEIGHT = 1e-6
"""The |weight| below which a channel passes nothing on, whatever its variance."""
SETTLED = 100
"""From this multiple of eps on, a variance gives nearly the same scale under any usual eps."""
LIVE = 0.01
"""The |weight| from which a channel counts as live: a normalised value then moves the output by
a hundredth or more."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One BatchNorm layer as a layer check sees it.

    `state` holds what could be read, `shapes` and `dtypes` what is stored, under PyTorch's names.
    `mean`, `var`, `weight` and `bias` are the state's vectors as float64, of shape
    (num_features,). `momentum` is the weight of the new batch, or None for the cumulative
    average.
    """

    state: BatchNormState
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    eps: float = 1e-5
    momentum: float | None = 0.1
    eps_assumed: bool = True
    momentum_assumed: bool = True
    unread: tuple[str, ...] = ()
    mean: FloatArray | None = field(init=False)
    var: FloatArray | None = field(init=False)
    weight: FloatArray | None = field(init=False)
    bias: FloatArray | None = field(init=False)

    def __post_init__(self) -> None:
        """Widen the vectors."""
        with np.errstate(invalid="ignore"):  # a NaN that no arithmetic made may signal
            for name, values in self.vectors.items():
                wide = None if values is None else values.astype(np.float64)
                object.__setattr__(self, name.removeprefix("running_"), wide)

    @property
    def vectors(self) -> dict[str, NDArray[Any] | None]:
        """The state's tensors with one value a channel, by name."""
        state = self.state
        return {
            "running_mean": state.running_mean,
            "running_var": state.running_var,
            "weight": state.weight,
            "bias": state.bias,
        }

    @property
    def coherent(self) -> bool:
        """Whether both statistics were read, and all vectors have the same length, not 0."""
        lengths = {len(values) for values in self.vectors.values() if values is not None}
        if self.mean is None or self.var is None:
            return False
        return len(lengths) == 1 and lengths != {0}

    @property
    def initial_var(self) -> float:
        """The running_var that a new layer has: 1, and 0 in a framework that divides it out."""
        if self.state.module is None:
            return 1.0
        from bncli.running_stats.stored import convention_of

        row = convention_of(self.state.module)
        return 1.0 if row is None else row.initial_var

    @property
    def eps_said(self) -> str:
        """eps as a sentence names it, and whether it was assumed."""
        return f"eps {self.eps:g}{' (assumed)' * self.eps_assumed}"

    def sure_of_scales(self, channels: NDArray[Any]) -> Certainty | None:
        """How sure the scales of these channels (a mask) are, if another usual eps changes them."""
        assert self.var is not None
        rests = self.eps_assumed and bool((self.var[channels] < SETTLED * self.eps).any())
        return Certainty.ASSUMED if rests else None

    def under_eps(self, channels: NDArray[Any]) -> str:
        """The end of a sentence on these channels' scales: under which eps, if that matters."""
        return f", with {self.eps_said}" if self.sure_of_scales(channels) else ""

    @property
    def weight_unknown(self) -> bool:
        """Whether the layer has a weight that could not be read."""
        return self.weight is None and "weight" in self.shapes

    def live(self) -> NDArray[Any]:
        """Which channels are known to have a |weight| of LIVE or more; all without a weight."""
        assert self.var is not None
        if self.weight is None:
            return np.full(len(self.var), not self.weight_unknown)
        result: NDArray[Any] = np.abs(self.weight) >= LIVE
        return result

    def silent(self) -> NDArray[Any]:
        """Which channels have a variance next to 0 (NOTHING): their input hardly varied."""
        assert self.var is not None
        result: NDArray[Any] = (
            np.isfinite(self.var) & (self.var >= 0) & (self.var <= NOTHING * self.eps)
        )
        return result

    def dead(self) -> NDArray[Any]:
        """Which channels carry nothing: they are silent, and their weight is not live either."""
        silent = self.silent()
        return silent & False if self.weight is None else silent & (np.abs(self.weight) < LIVE)

    def weightless(self) -> NDArray[Any]:
        """Which channels have a weight next to 0, and so pass nothing on."""
        assert self.var is not None
        if self.weight is None:
            return np.zeros(len(self.var), bool)
        result: NDArray[Any] = np.abs(self.weight) < NO_WEIGHT
        return result


@dataclass(frozen=True, slots=True)
class Bare:
    """Something that has tensors of a BatchNorm layer, by name, and no statistics."""

    name: str
    leaves: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One file as a file check sees it.

    `twins` gives, for each layer of an averaged copy, the layer of the live model that it
    belongs to, and `pairs` how the two compare, by the copy's name. `followers` are the copies
    that no average made: target networks, recognised by their weights. `shared` gives, for a layer
    whose tensors are those of an earlier one, byte by byte in the file, the name of that one.
    `averaged` holds the value of each n_averaged, by the name in front of it. `likely` are layers
    that look like BatchNorm and are not judged. `parameter_dtypes` are those of the
    floating-point weights and biases of all layers. `runs_as_stored` says that the file is a
    program, in which a layer's mode is part of what it does.
    """

    layers: Sequence[Summary]
    bare: Sequence[Bare] = ()
    twins: Mapping[str, str] = field(default_factory=dict)
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    followers: Sequence[str] = ()
    shared: Mapping[str, str] = field(default_factory=dict)
    averaged: Mapping[str, float] = field(default_factory=dict)
    likely: Sequence[Likely] = ()
    parameter_dtypes: frozenset[str] = frozenset()
    runs_as_stored: bool = False

    def own(self) -> list[Summary]:
        """The layers that belong to no averaged copy."""
        return [layer for layer in self.layers if layer.name not in self.twins]

    def distinct(self, layers: Sequence[Summary]) -> list[Summary]:
        """These layers, each once, under the first of its names."""
        seen: set[str] = set()
        result = []
        for layer in layers:
            first = self.shared.get(layer.name, layer.name)
            if first not in seen:
                seen.add(first)
                result.append(layer)
        return result

    def averaged_count(self, name: str) -> float | None:
        """The n_averaged that belongs to a layer."""
        return next((n for root, n in self.averaged.items() if is_below(name, root)), None)


def found(
    rule: Rule,
    layer: Layer,
    message: str,
    cause: str,
    channels: NDArray[Any] | None = None,
    *,
    detail: str = "",
    hint: str = "",
    sure: Certainty | None = None,
    extent: Any = (),  # of Members
    **numbers: Any,
) -> Finding:
    """A finding at a layer. Arrays among `numbers` are evidence for the `channels` (a mask).

    The first MOST_EVIDENCE of them are listed, and `channel_count` says how many there are.
    `message`, `detail`, `hint`, `sure` and `extent` are as in `Rule.finding`.
    """
    evidence: dict[str, Value] = {"layer": layer.state.name, "cause": cause}
    if channels is not None:
        at = np.flatnonzero(channels)
        evidence["channel_count"] = len(at)
        at = at[:MOST_EVIDENCE]
        evidence["channels"] = at.tolist()
        numbers = {
            key: value[at].tolist() if isinstance(value, np.ndarray) else value
            for key, value in numbers.items()
        }
    return rule.finding(
        label(layer.state.name),
        message,
        {**evidence, **numbers},
        detail=detail,
        hint=hint,
        sure=sure,
        extent=extent,
    )


def carries_nothing(layer: Layer) -> NDArray[Any]:
    """Which channels of a coherent layer carry nothing, without those masked on purpose.

    A mask leaves a weight and a bias of exactly 0. A weight of exactly 0 under a live variance is
    how residual branches begin.
    """
    weight, bias = layer.weight, layer.bias
    if weight is None:
        return layer.dead()
    masked = (weight == 0) & (bias is None or bias == 0)
    result: NDArray[Any] = (layer.dead() & ~masked) | (layer.weightless() & (weight != 0))
    return result


def label(name: str) -> str:
    """A layer's name as a person reads it."""
    return name or "(the file itself)"


def plain_count(counter: float) -> str:
    """A count in full, whatever its type."""
    whole = math.isfinite(counter) and 0 <= counter == int(counter) < 1 << 64
    return str(int(counter)) if whole else f"{counter:.9g}"


def is_below(name: str, root: str) -> bool:
    """Whether a layer's name lies under `root`; every name lies under an empty one."""
    return not root or name.startswith((f"{root}.", f"{root}/"))


def channels_of(channels: NDArray[Any]) -> list[int]:
    """The first MOST_EVIDENCE channels of a mask."""
    first: list[int] = np.flatnonzero(channels)[:MOST_EVIDENCE].tolist()
    return first


def named(channels: NDArray[Any]) -> str:
    """The channels of a mask as a person lists them, and of how many they are.

    "channel 3 of 48", "channels 0 and 2 of 48", "20 of 48 channels (0, 1, 2, ...)", "all 48
    channels".
    """
    these, total = np.flatnonzero(channels).tolist(), len(channels)
    if total == 1:
        return "the only channel"
    if len(these) == total:
        return name_channels(these, total)
    if len(these) <= 4:
        return f"{name_channels(these)} of {total}"
    return f"{len(these)} of {total} channels ({', '.join(map(str, these[:3]))}, ...)"
