"""Which tensors of a file belong to a BatchNorm layer, by their names and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bncli.errors import TensorError
from bncli.model import BatchNormModule, BatchNormState, TensorFile, TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""The names that PyTorch gives to the tensors of a BatchNorm layer."""


@dataclass(frozen=True, slots=True)
class LayerRefs:
    """The tensors of one layer, not read yet. `name` is the layer's full path in the file.

    `separator` stands between the layer's name and the tensor's: "." or, in archives, "/".
    """

    name: str
    weight: TensorRef | None = None
    bias: TensorRef | None = None
    running_mean: TensorRef | None = None
    running_var: TensorRef | None = None
    num_batches_tracked: TensorRef | None = None
    module: BatchNormModule | None = None

    @property
    def has_statistics(self) -> bool:
        """Whether both running statistics are there."""
        return self.running_mean is not None and self.running_var is not None

    @property
    def has_affine(self) -> bool:
        """Whether weight or bias is there."""
        return self.weight is not None or self.bias is not None


def batch_norm_layers(file: TensorFile) -> list[LayerRefs]:
    """Every BatchNorm layer, in the file's order.

    A layer is one if the file stores its module and that is a BatchNorm; or if it has
    running_mean and running_var, one value a channel, and beside them a weight, a bias or a
    counter. So LayerNorm and GroupNorm stay out (no running statistics), as do normalisers of
    inputs (running statistics and nothing else) and modules stored as InstanceNorm.
    """
    return [layer for layer in possible_layers(file).values() if _is_batch_norm(layer)]


def possible_layers(file: TensorFile) -> dict[str, LayerRefs]:
    """Everything in the file that could be a BatchNorm layer if the user says so, by name.

    That is whatever has running_mean and running_var, or a weight or bias of one axis.
    """
    found: dict[str, dict[str, TensorRef]] = {}
    for name, ref in file.tensors.items():
        layer, leaf = _split(name)
        if leaf in LEAVES:
            found.setdefault(layer, {}).setdefault(leaf, ref)
    layers = {
        name: LayerRefs(name, **leaves, module=file.modules.get(name))
        for name, leaves in found.items()
    }
    return {
        name: layer
        for name, layer in layers.items()
        if layer.has_statistics
        or any(ref is not None and ref.ndim == 1 for ref in (layer.weight, layer.bias))
    }


def read_state(layer: LayerRefs) -> BatchNormState:
    """The values of a layer's tensors, each of shape (num_features,), in their own dtype.

    bfloat16 and float8 come widened to float32; `dtype` names the stored one. Raises TensorError
    where a tensor cannot be read, has not one axis, or the counter is not one number.
    """
    counter = None
    if layer.num_batches_tracked is not None:
        ref = layer.num_batches_tracked
        if ref.numel != 1:
            raise TensorError(
                f"{ref.label}: a counter is one number, and this has shape {ref.shape}."
            )
        counter = ref.read().reshape(()).item()
        if isinstance(counter, complex):
            raise TensorError(f"{ref.label}: a counter is one number, and this is complex.")
    named = (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    return BatchNormState(
        layer.name,
        weight=_vector(layer.weight),
        bias=_vector(layer.bias),
        running_mean=_vector(layer.running_mean),
        running_var=_vector(layer.running_var),
        num_batches_tracked=counter,
        dtype=next((ref.dtype for ref in named if ref is not None), None),
        module=layer.module,
    )


def _vector(ref: TensorRef | None) -> NDArray[Any] | None:
    """The values of a tensor that must have one axis."""
    if ref is None:
        return None
    if ref.ndim != 1:
        raise TensorError(
            f"{ref.label}: a BatchNorm layer has one value a channel, and this has shape"
            f" {ref.shape}."
        )
    return ref.read()


def _split(name: str) -> tuple[str, str]:
    """A tensor's name as its layer's name and its own."""
    at = max(name.rfind("."), name.rfind("/"))
    return (name[:at], name[at + 1 :]) if at >= 0 else ("", name)


def _is_batch_norm(layer: LayerRefs) -> bool:
    if layer.module is not None:
        class_name = layer.module.class_name
        if "InstanceNorm" in class_name:
            return False
        if "BatchNorm" in class_name:
            return True
    if layer.running_mean is None or layer.running_var is None:
        return False
    if layer.running_mean.ndim != 1 or layer.running_var.ndim != 1:
        return False
    return layer.has_affine or layer.num_batches_tracked is not None
