"""What is kept of a layer when its arrays are dropped: what the checks of a whole file go by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bncli.light import dataclass, filler, np
from bncli.rulebook.layers import carries_nothing
from bncli.rulebook.origin import untrained_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import BatchNormModule, FloatArray
    from bncli.rulebook.layers import Layer
    from bncli.rulebook.ordinary import Measured

Affine = Literal["none", "initial", "weight", "trained", "unknown"]


@dataclass(frozen=True, slots=True)
class Summary:
    """One layer as a file check sees it, without its arrays.

    `module` is what the file stores of it. `initial` says that running_mean is exactly 0 and
    running_var exactly `initial_var` in every channel, which is 1 in all but a few frameworks.
    `affine` is "none" without weight and bias, "initial" where both are as a module begins,
    "weight" where the weight has values of its own and the bias is still 0, "unknown" where one
    could not be read and the other is as it begins, else "trained".
    `lacks_statistics` says that the stored module tracks them and the file has none.
    Digests are equal where all bits of the tensors are, and None where there are no tensors.
    `varied` says that running_var is not the same in every channel, `mean_zero` that running_mean
    is exactly 0 in each, `finite` that neither has NaN or Inf. `least_var` and `greatest_var` are
    among the finite ones. `initial_elsewhere` says that some of the statistics are NaN or Inf, and
    that all others are the initial ones. `untrained` says that training cannot have left these
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
    initial_elsewhere: bool = False
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


_filled = filler(Summary)


def summary(layer: Layer, numbers: Measured | None = None) -> Summary:
    """What is kept of a layer when its arrays are dropped; it was perhaps `measured` before."""
    if numbers is not None and numbers.ordinary:
        return _of_ordinary(layer, numbers)
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
        initial_elsewhere=layer.coherent and _initial_elsewhere(mean, var, layer.initial_var),
        dead=int(carries_nothing(layer).sum()) if layer.coherent else 0,
        initial_var=layer.initial_var,
        module=module,
    )


def _initial_elsewhere(mean: FloatArray | None, var: FloatArray | None, initial: float) -> bool:
    """Whether statistics that are not all finite are the initial ones wherever they are."""
    if mean is None or var is None:
        return False
    finite = np.isfinite(mean), np.isfinite(var)
    if finite[0].all() and finite[1].all():
        return False
    values = mean[finite[0]], var[finite[1]]
    known = bool(values[0].size and values[1].size)
    return known and not values[0].any() and bool((values[1] == initial).all())


def _of_ordinary(layer: Layer, of: Measured) -> Summary:
    """The summary of a layer in which no rule finds anything, by its numbers alone."""
    state, shapes, module = layer.state, layer.shapes, layer.state.module
    mean = of.lows["running_mean"], of.highs["running_mean"]
    least, greatest = of.lows["running_var"], of.highs["running_var"]
    zero = mean == (0.0, 0.0)
    channels = len(of.scale)
    initial = layer.initial_var

    def begins(leaf: str) -> bool:
        low, high = of.lows[leaf], of.highs[leaf]
        return low == high and (low in (0.0, 1.0) or channels > 1)

    affine: Affine = "initial"
    if "weight" not in shapes and "bias" not in shapes:
        affine = "none"
    elif "bias" in shapes and not begins("bias"):
        affine = "trained"
    elif "weight" in shapes and not begins("weight"):
        affine = "weight" if "bias" in shapes else "trained"
    return _filled(
        name=state.name,
        channels=channels,
        has_statistics=True,
        lacks_statistics=False,
        initial=zero and least == greatest == initial,
        affine=affine,
        frozen=module is not None and "Frozen" in module.class_name,
        has_counter="num_batches_tracked" in shapes,
        counter=state.num_batches_tracked,
        momentum=layer.momentum,
        momentum_assumed=layer.momentum_assumed,
        least_var=least,
        greatest_var=greatest,
        mean_zero=zero,
        finite=True,
        varied=least != greatest,
        statistics_dtype=layer.dtypes.get("running_var"),
        affine_dtype=layer.dtypes.get("weight", layer.dtypes.get("bias")),
        statistics_digest=_digest(state.running_mean, state.running_var),
        affine_digest=_digest(state.weight, state.bias),
        untrained=False,
        dead=0,
        initial_elsewhere=False,
        initial_var=initial,
        module=module,
    )


def _affine(layer: Layer) -> Affine:
    """Whether weight and bias are those that a module begins with."""
    if layer.weight is None and layer.bias is None and not {"weight", "bias"} & set(layer.shapes):
        return "none"
    if layer.bias is not None and not _begins(layer.bias):
        return "trained"
    if layer.weight is not None and not _begins(layer.weight):
        return "weight" if layer.bias is not None else "trained"
    if layer.weight_unknown or (layer.bias is None and "bias" in layer.shapes):
        return "unknown"
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
    return hash(tuple(v if v is None else (v.dtype.char, v.tobytes()) for v in tensors))
