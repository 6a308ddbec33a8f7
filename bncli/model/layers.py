"""A BatchNorm layer: its arguments, its tensors, and what a file says of its module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model.arrays import FloatArray


@dataclass(frozen=True, slots=True)
class BatchNormModule:
    """What a file stores of a BatchNorm module beside its tensors (pickled modules, ONNX, Keras).

    `momentum` is the weight of the new batch, as in PyTorch; `stated_momentum` is what the file
    says where its framework means something else by it. `has_momentum` is False where the stored
    module has none, as frozen ones: `momentum` is then None without meaning the cumulative average.
    `convention` names the row of `running_stats.frameworks` whose arithmetic the layer has.
    `channel_axis` is that of the layer's input, None where the file does not say it.
    """

    class_name: str
    eps: float | None = None
    momentum: float | None = None
    affine: bool | None = None
    track_running_stats: bool | None = None
    training: bool | None = None
    has_momentum: bool = True
    convention: str = "pytorch"
    stated_momentum: float | None = None
    channel_axis: int | None = None


@dataclass(frozen=True, slots=True)
class StoredFront:
    """The convolution or linear layer in front of a layer, by a file's own account.

    `weight` and `bias` are full names of tensors; `axis` of the weight is that of the output
    channels.
    """

    name: str
    weight: str
    bias: str | None = None
    axis: int = 0


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """Which tensors are a BatchNorm layer's, by a file's own account: its graph or its config.

    `tensors` has the full name in the file of each tensor that the layer uses, by PyTorch's name
    (weight, bias, running_mean, running_var, num_batches_tracked). One that the layer has and the
    file does not (a weight that the graph computes) is among the file's tensors as an `unreadable`
    one, so that nothing takes it for a layer without a weight.
    """

    tensors: Mapping[str, str]
    front: StoredFront | None = None


@dataclass(frozen=True, slots=True)
class BatchNormSettings:
    """The arguments of `torch.nn.BatchNorm1d/2d/3d` with its defaults, and the mode.

    `momentum` is the weight of the new batch, or None for the cumulative average.
    """

    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True
    training: bool = True

    @property
    def normalizes_with_batch(self) -> bool:
        """Whether the batch's own statistics normalise it: in training, or without stored ones."""
        return self.training or not self.track_running_stats


@dataclass(frozen=True, slots=True)
class BatchNormState:
    """The tensors of one BatchNorm layer, read: each of shape (num_features,) or None.

    eps and momentum are known only where the file stores them, in `module`. Its `momentum` of None
    means the cumulative average where its `has_momentum`, and otherwise that none is stored.
    """

    name: str
    weight: NDArray[Any] | None = None
    bias: NDArray[Any] | None = None
    running_mean: NDArray[Any] | None = None
    running_var: NDArray[Any] | None = None
    num_batches_tracked: int | float | None = None
    dtype: str | None = None
    module: BatchNormModule | None = None


@dataclass(frozen=True, slots=True)
class RunningStats:
    """The buffers of a BatchNorm layer; both arrays have shape (num_features,), float64."""

    running_mean: FloatArray
    running_var: FloatArray
    num_batches_tracked: int


@dataclass(frozen=True, slots=True)
class BatchNormLayer:
    """A BatchNorm layer about to be run.

    The arrays are float64 of shape (num_features,), rounded to `parameter_dtype` as a module
    would hold them; None where the layer has none (`running` without track_running_stats).
    """

    settings: BatchNormSettings
    parameter_dtype: str
    weight: FloatArray | None
    bias: FloatArray | None
    running: RunningStats | None
