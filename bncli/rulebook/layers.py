"""What the rules for checkpoints are given: one layer with its arrays, then all without them.

A layer check sees a `Layer` and its arrays; a file check sees the `Summary` of every layer. So
only one layer's arrays are in memory at a time, however large the file is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal

from bncli.light import dataclass, np
from bncli.report import Certainty
from bncli.rulebook.interface import MOST_EVIDENCE, Rule, name_channels
from bncli.rulebook.origin import untrained_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import BatchNormModule, BatchNormState, FloatArray
    from bncli.report import Finding, Value
    from bncli.rulebook.lookalikes import Likely
    from bncli.rulebook.pairs import Pair

Affine = Literal["none", "initial", "weight", "trained"]
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
        for name, values in self.vectors.items():
            with np.errstate(invalid="ignore"):  # a NaN that no arithmetic made may signal
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

    def live(self) -> NDArray[Any]:
        """Which channels have a |weight| of LIVE or more; all where there is no weight."""
        assert self.var is not None
        if self.weight is None:
            return np.ones(len(self.var), bool)
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
class Summary:
    """One layer as a file check sees it, without its arrays.

    `module` is what the file stores of it. `initial` says that running_mean is exactly 0 and
    running_var exactly `initial_var` in every channel, which is 1 but in few frameworks.
    `affine` is "none" without weight and bias, "initial" where both are as a module begins,
    "weight" where the weight has values of its own and the bias is still 0, else "trained".
    `lacks_statistics` says that the stored module tracks them and the file has none.
    Digests are equal where all bits of the tensors are, and None where there are no tensors.
    `varied` says that running_var is not the same in every channel, `mean_zero` that running_mean
    is exactly 0 in each, `finite` that neither has NaN or Inf. `least_var` and `greatest_var` are
    among the finite ones. `untrained` says that training cannot have left these
    statistics (BN208 to BN210). `dead` is the number of channels that carry nothing.
    """

    name: str
    channels: int | None
    has_statistics: bool
    lacks_statistics: bool
    initial: bool
    affine: Affine
    frozen: bool
    has_counter: bool
    counter: int | float | None
    momentum: float | None
    momentum_assumed: bool
    least_var: float | None
    greatest_var: float | None
    mean_zero: bool
    finite: bool
    varied: bool
    statistics_dtype: str | None
    affine_dtype: str | None
    statistics_digest: int | None
    affine_digest: int | None
    untrained: bool = False
    dead: int = 0
    initial_var: float = 1.0
    module: BatchNormModule | None = None

    @property
    def momentum_said(self) -> str:
        """The momentum as a sentence names it: what the file says, or that it was assumed."""
        own = "none" if self.momentum is None else f"{self.momentum:g}"
        if self.momentum_assumed or self.module is None:
            return f"momentum {own}{' (assumed)' * self.momentum_assumed}"
        from bncli.running_stats.stored import said_momentum

        return said_momentum(self.module, self.momentum)


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


def summary(layer: Layer) -> Summary:
    """What is kept of a layer when its arrays are dropped."""
    state, mean, var = layer.state, layer.mean, layer.var
    module = state.module
    finite = np.empty(0) if var is None else var[np.isfinite(var)]
    lengths = [shape[0] for shape in layer.shapes.values() if len(shape) == 1]
    return Summary(
        name=state.name,
        channels=lengths[0] if lengths else None,
        has_statistics=layer.coherent,
        lacks_statistics=(
            module is not None
            and module.track_running_stats is True
            and not {"running_mean", "running_var"} <= set(layer.shapes)
        ),
        initial=(
            layer.coherent
            and mean is not None
            and var is not None
            and not mean.any()
            and bool((var == layer.initial_var).all())
        ),
        affine=_affine(layer),
        frozen=module is not None and "Frozen" in module.class_name,
        has_counter="num_batches_tracked" in layer.shapes,
        counter=state.num_batches_tracked,
        momentum=layer.momentum,
        momentum_assumed=layer.momentum_assumed,
        least_var=float(finite.min()) if finite.size else None,
        greatest_var=float(finite.max()) if finite.size else None,
        finite=all(bool(np.isfinite(v).all()) for v in (mean, var) if v is not None),
        mean_zero=mean is not None and bool(mean.size) and not mean.any(),
        varied=bool(finite.size) and finite.min() != finite.max(),
        statistics_dtype=layer.dtypes.get("running_var"),
        affine_dtype=layer.dtypes.get("weight", layer.dtypes.get("bias")),
        statistics_digest=_digest(state.running_mean, state.running_var),
        affine_digest=_digest(state.weight, state.bias),
        untrained=untrained_statistics(layer),
        dead=int(carries_nothing(layer).sum()) if layer.coherent else 0,
        initial_var=layer.initial_var,
        module=module,
    )


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


def _affine(layer: Layer) -> Affine:
    """Whether weight and bias are those that a module begins with."""
    if layer.weight is None and layer.bias is None:
        return "none"
    if layer.bias is not None and not _begins(layer.bias):
        return "trained"
    if layer.weight is not None and not _begins(layer.weight):
        return "weight" if layer.bias is not None else "trained"
    return "initial"


def _begins(values: FloatArray) -> bool:
    """Whether all values are 0, or 1, or several and equal, which no gradient leaves."""
    if not values.size:
        return True
    first = values.flat[0]
    return bool((values == first).all()) and (first in (0.0, 1.0) or values.size > 1)


def _digest(*tensors: NDArray[Any] | None) -> int | None:
    """A number that is the same where all bits of the tensors are; None without tensors."""
    if all(values is None for values in tensors):
        return None
    # Python's own hash of bytes has 64 bits, and no library to load.
    return hash(tuple(v if v is None else (str(v.dtype), v.tobytes()) for v in tensors))
