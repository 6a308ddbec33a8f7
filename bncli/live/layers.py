"""The BatchNorm layers of a model: which they are, their state, and which of them stay as they are.

A layer is what PyTorch makes of it (`torch.nn.modules.batchnorm._NormBase`, of which BatchNorm,
SyncBatchNorm, InstanceNorm and timm's BatchNormAct2d are), and any other module with the buffers
running_mean and running_var of one axis, as detectron2's and torchvision's FrozenBatchNorm2d.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.errors import ModelError, UsageError
from bncli.gate.places import matches
from bncli.light import dataclass
from bncli.live.users_code import users_code
from bncli.model import BatchNormModule, BatchNormState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

WRAPPERS = ("OptimizedModule", "DataParallel", "DistributedDataParallel")
"""Modules around a model, which run it as it is."""

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, slots=True)
class LiveLayer:
    """A BatchNorm layer of a model that is in memory.

    `frozen`, `in_training` and `per_sample` are as in `bncli.model.capture.WatchedLayer`.
    """

    name: str
    module: nn.Module
    frozen: bool
    in_training: bool
    per_sample: bool

    @property
    def stored(self) -> tuple[Tensor, Tensor] | None:
        """running_mean and running_var; None where the layer has none."""
        mean, var = getattr(self.module, BUFFERS[0], None), getattr(self.module, BUFFERS[1], None)
        return None if mean is None or var is None else (mean, var)

    def input_of(self, given: Any) -> Tensor | None:
        """What the layer takes in as (N, num_features, ...); None where it is no such tensor.

        A layer that moves its channels from the last axis to the second is given them last.
        """
        import torch

        if not isinstance(given, torch.Tensor) or not given.numel():
            return None
        x = given.dequantize() if given.is_quantized else given
        if self.per_sample and x.ndim == self.module._get_no_batch_dim():  # type: ignore[operator]  # noqa: SLF001
            x = x.unsqueeze(0)
        channels = self._num_features
        if x.ndim < 2 or channels in (None, x.shape[1]):
            return x if x.ndim >= 2 else None
        return x.movedim(-1, 1) if x.shape[-1] == channels else None

    @property
    def _num_features(self) -> int | None:
        """The number of channels; None where the layer does not say it."""
        for name in ("running_mean", "weight"):
            tensor = getattr(self.module, name, None)
            if tensor is not None:
                return int(tensor.numel())
        return getattr(self.module, "num_features", None)

    def state(self) -> BatchNormState:
        """The layer's own tensors, copied, and what its module says."""
        module: Any = self.module
        tensors = {
            name: _array(getattr(module, name, None))
            for name in ("weight", "bias", "running_mean", "running_var")
        }
        counter = getattr(module, "num_batches_tracked", None)
        typical = next(
            (
                tensor
                for name in ("running_var", "weight", "running_mean", "bias")
                if (tensor := getattr(module, name, None)) is not None
            ),
            None,
        )
        return BatchNormState(
            self.name,
            **tensors,
            num_batches_tracked=None if counter is None else int(counter),
            dtype=None if typical is None else str(typical.dtype).removeprefix("torch."),
            module=BatchNormModule(
                class_name=type(module).__name__,
                eps=_number(module, "eps"),
                momentum=_number(module, "momentum"),
                affine=tensors["weight"] is not None or tensors["bias"] is not None,
                track_running_stats=bool(
                    getattr(module, "track_running_stats", self.stored is not None)
                ),
                training=module.training,
                has_momentum=hasattr(module, "momentum"),
            ),
        )


def model_to_run(model: nn.Module) -> nn.Module:
    """The model itself, out of what torch.compile and parallel training wrap it in.

    Raises ModelError for layers that have no shape yet, or that are watched in vain.
    """
    import torch
    from torch.nn.parameter import is_lazy

    while type(model).__name__ in WRAPPERS and len(inner := list(model.children())) == 1:
        model = inner[0]
    for name, module in model.named_modules():
        tensors = (*module._parameters.values(), *module._buffers.values())  # noqa: SLF001
        if any(map(is_lazy, tensors)):
            raise ModelError(
                f"{name or 'the model'} ({type(module).__name__}) has no shape before a first "
                "batch went through the model; load a checkpoint, or run a batch where the model "
                "is built."
            )
        if isinstance(module, torch.jit.ScriptModule) and any(
            buffer.rpartition(".")[2] == BUFFERS[0] for buffer, _ in module.named_buffers()
        ):
            raise ModelError(
                f"{name or 'the model'} is a TorchScript program, which takes no hooks, so its "
                "layers cannot be watched; build the model from the class that it was made from."
            )
    return model


def find_layers(
    model: nn.Module, frozen: Sequence[str] = (), *, switching: bool = True
) -> list[LiveLayer]:
    """The BatchNorm layers of a model, in the order of its modules; modes are left as they are.

    `frozen` has patterns of names. A layer is also frozen if its weight and bias are buffers, if
    they take no gradient while other parameters of the model do and its counter is not that of a
    layer that is trained, if it is quantised, or if the model keeps it in evaluation mode after
    `model.train()`; without `switching`, the model is not asked by calling that. Raises UsageError
    for a pattern that fits no layer.
    """
    named = [(name, module) for name, module in model.named_modules() if _is_layer(module)]
    names = [name for name, _ in named]
    for pattern in frozen:
        if not any(matches(name, pattern) for name in names):
            near = f"it has {', '.join(names[:4])}" if names else "it has no BatchNorm layer"
            raise UsageError(f"--frozen {pattern}: the model has no such layer; {near}.")
    trained = any(parameter.requires_grad for parameter in model.parameters())
    kept, left = _modes(model) if switching else (set(), set())
    counts = {
        _counted(module)
        for _, module in named
        if module not in kept and not _takes_no_gradient(module, trained=trained)
    }
    return [
        LiveLayer(
            name,
            module,
            frozen=any(matches(name, pattern) for pattern in frozen)
            or module in kept
            or ".quantized." in type(module).__module__
            or (_takes_no_gradient(module, trained=trained) and not _went_on(module, counts)),
            in_training=module in left,
            per_sample=_is_instance_norm(module),
        )
        for name, module in named
    ]


def still_training(model: nn.Module) -> list[str]:
    """The modules, BatchNorm layers apart, that are in training mode after `model.eval()`.

    Only those that have no module of that kind in them: a container is named by what it holds.
    """
    _, left = _modes(model)
    return _innermost(model, left)


def in_training_now(model: nn.Module) -> list[str]:
    """The same of the modules that are in training mode as the model is."""
    return _innermost(model, {module for module in model.modules() if module.training})


def _innermost(model: nn.Module, some: set[nn.Module]) -> list[str]:
    """The names of some modules that are no layers, without those that hold others of them."""
    return [
        name or "the model"
        for name, module in model.named_modules()
        if module in some
        and not _is_layer(module)
        and not any(child in some for child in module.children())
    ]


def active_dropout(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that drop values, samples or paths in training, by class: p above 0."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if "drop" in type(module).__name__.lower()
        and any(
            isinstance(rate := getattr(module, attribute, None), float) and rate > 0
            for attribute in ("p", "drop_prob", "rate", "drop_rate")
        )
    ]


def _modes(model: nn.Module) -> tuple[set[nn.Module], set[nn.Module]]:
    """The modules in evaluation mode after `model.train()`, and in training after `model.eval()`.

    A model that comes in evaluation mode with a module in training counts among the second: someone
    left it so. Every module's mode is put back.
    """
    modules = list(model.modules())
    before = [module.training for module in modules]
    try:
        with users_code("switching the model's mode"):
            model.train()
        kept = {module for module in modules if not module.training}
        with users_code("switching the model's mode"):
            model.eval()
        left = {module for module in modules if module.training}
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode
    if not model.training:
        left |= {module for module in modules if module.training}
    return kept, left


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm layer, or an InstanceNorm that keeps running statistics."""
    import torch
    from torch.nn.modules.batchnorm import _NormBase

    if isinstance(module, torch.jit.ScriptModule):
        return False
    buffers = module._buffers  # noqa: SLF001  # named_buffers leaves out what is None
    mean, var = buffers.get(BUFFERS[0]), buffers.get(BUFFERS[1])
    if isinstance(module, _NormBase):
        return mean is not None or not _is_instance_norm(module)
    return mean is not None and var is not None and mean.ndim == var.ndim == 1


def _is_instance_norm(module: nn.Module) -> bool:
    from torch.nn.modules.instancenorm import _InstanceNorm

    return isinstance(module, _InstanceNorm)


def _takes_no_gradient(module: nn.Module, *, trained: bool) -> bool:
    """Whether weight and bias are buffers, or parameters without gradient in a `trained` model."""
    affine = [
        tensor for name in ("weight", "bias") if (tensor := getattr(module, name, None)) is not None
    ]
    if not affine:
        return False
    if not any(name in module._parameters for name in ("weight", "bias")):  # noqa: SLF001
        return True
    return trained and not any(tensor.requires_grad for tensor in affine)


def _counted(module: nn.Module) -> int:
    """The batches that a layer counted; 0 where it has no counter."""
    counter = getattr(module, "num_batches_tracked", None)
    return 0 if counter is None or counter.is_meta else int(counter)


def _went_on(module: nn.Module, counts: set[int]) -> bool:
    """Whether a layer counted as many batches as one that is trained, so that it was not frozen.

    requires_grad=False alone leaves running statistics moving.
    """
    return "weight" in module._parameters and _counted(module) > 0 and _counted(module) in counts  # noqa: SLF001


def _number(module: Any, name: str) -> float | None:
    value = getattr(module, name, None)
    return float(value) if isinstance(value, (int, float)) else None


def _array(tensor: Tensor | None) -> NDArray[Any] | None:
    """A copy as NumPy holds it; bfloat16 as float32."""
    if tensor is None:
        return None
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return tensor.numpy().copy()
