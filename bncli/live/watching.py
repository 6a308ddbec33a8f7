"""Hooks on the BatchNorm layers of a model, which pass on what every call of them takes in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import field
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.model.capture import InputKernel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bncli.live.layers import LiveLayer
    from bncli.model import FloatArray
    from bncli.moments.batches import BatchSums

MOST_KERNEL = 1 << 16
"""Kernel sums that are kept: one for each output and input channel."""

Seen = Callable[["LiveLayer", "Tensor"], None]


@contextmanager
def watched(layers: list[LiveLayer], seen: Seen) -> Iterator[None]:
    """While the block runs, call `seen` with every layer's input before it is normalised."""
    with ExitStack() as stack:
        for layer in layers:
            hook = Hook(_hook(layer, seen))
            stack.callback(layer.module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


class Hook:
    """A hook that is left behind when its module is copied, pickled or saved as a whole."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> None:
        """What PyTorch does before or after the module runs."""
        self._call(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        """Something of Python's own that takes any arguments, and does nothing."""
        return getattr, (nullcontext(), "__exit__")


def _hook(layer: LiveLayer, seen: Seen) -> Callable[..., None]:
    """What PyTorch calls before the layer."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG001
        x = layer.input_of(args[0] if args else next(iter(kwargs.values()), None))
        if x is not None:
            seen(layer, x)

    return hook


def add_input(sums: BatchSums, x: Tensor) -> None:
    """Take a layer's input into its sums, without a copy: with NumPy on the CPU, else torch."""
    import torch

    x = x.detach()
    if x.ndim < 2 or not x.numel():
        return
    if x.device.type != "cpu":
        from bncli.live.device_sums import TensorBlocks

        sums.take(x, TensorBlocks)
    elif x.dtype == torch.bfloat16:
        bits = x.view(torch.int16).numpy().view(np.uint16)
        sums.add(bits, "bfloat16", threads=torch.get_num_threads())
    else:
        sums.add(x.numpy(), threads=torch.get_num_threads())


@dataclass(slots=True)
class KernelFinder:
    """Finds the layers directly behind a convolution that reads the model's input.

    What a convolution returned is held until the pass ends, so that a layer that takes in the same
    object is recognised.
    """

    found: dict[str, InputKernel] = field(default_factory=dict)
    _behind: dict[str, tuple[nn.Module, tuple[int, ...]]] = field(default_factory=dict)
    _inputs: list[Tensor] = field(default_factory=list)
    _given: list[tuple[Any, nn.Module, tuple[int, ...]]] = field(default_factory=list)

    @contextmanager
    def looking(self, model: nn.Module, inputs: list[Tensor]) -> Iterator[None]:
        """Watch what the model's convolutions and linear layers make of its `inputs`."""
        from torch import nn

        kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
        self._inputs[:] = inputs
        with ExitStack() as stack:
            for module in model.modules():
                if any(_runs_as(module, kind) for kind in kinds):
                    handle = module.register_forward_hook(self._convolved)
                    stack.callback(handle.remove)
            yield
        self._given.clear()
        self._inputs.clear()

    def _convolved(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Remember what came of the model's input."""
        if args and any(_same(args[0], each) for each in self._inputs):
            self._given.append((output, module, tuple(args[0].shape[2:])))

    def look(self, layer: LiveLayer, x: Tensor) -> None:
        """Note the kernel, if a layer takes in what a convolution just gave."""
        for output, module, size in self._given:
            if output is x and (kernel := input_kernel(module, size)) is not None:
                self.found.setdefault(layer.name, kernel)
                self._behind.setdefault(layer.name, (module, size))

    def renew(self) -> None:
        """Take the sums of the kernels as they are by now."""
        for name, (module, size) in self._behind.items():
            kernel = input_kernel(module, size)
            assert kernel is not None  # as many sums as before
            self.found[name] = kernel


def _runs_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is of a kind and computes what that does, with the weight that it has."""
    own = type(module)
    return isinstance(module, kind) and all(
        getattr(own, name, None) is getattr(kind, name, None)
        for name in ("forward", "_conv_forward")
    )


def _same(a: Any, b: Tensor) -> bool:
    """Whether two tensors are the same values in the same place."""
    if a is b:
        return True
    shape = getattr(a, "shape", None)
    return shape == b.shape and bool(a.data_ptr() == b.data_ptr()) and a.dtype == b.dtype


def input_kernel(module: Any, size: Sequence[int] = ()) -> InputKernel | None:
    """The kernel sums of a convolution or a linear layer; None where they would be too many.

    `size` is that of the input's axes behind the channels. At its borders a kernel reaches into
    padding of zeros, so that each of its places counts by the share of outputs that see data there.
    """
    weight = module.weight.detach().double().cpu().numpy()
    channels, group = weight.shape[:2]
    groups = getattr(module, "groups", 1)
    if channels * group * groups > MOST_KERNEL:
        return None
    padded = weight.ndim > 2 and bool(np.any(module._reversed_padding_repeated_twice))  # noqa: SLF001
    if padded and module.padding_mode == "zeros":
        for axis, length in enumerate(size[: weight.ndim - 2]):
            inside = _share_inside(module, axis, length)
            weight = weight * inside.reshape(-1, *(1,) * (weight.ndim - 3 - axis))
    each = weight.reshape(channels, group, -1).sum(2)
    sums = np.zeros((channels, group * groups))
    rows = channels // groups
    for number in range(groups):
        these = slice(number * rows, (number + 1) * rows)
        sums[these, number * group : (number + 1) * group] = each[these]
    bias = None if module.bias is None else module.bias.detach().double().cpu().numpy().copy()
    return InputKernel(sums, bias, padded)


def _share_inside(module: Any, axis: int, length: int) -> FloatArray:
    """For each place of a kernel along an axis, the share of outputs for which it is inside."""
    before, after = module._reversed_padding_repeated_twice[::-1][2 * axis : 2 * axis + 2][::-1]  # noqa: SLF001
    reach = module.dilation[axis] * np.arange(module.kernel_size[axis])
    starts = np.arange(0, length + before + after - reach[-1], module.stride[axis]) - before
    places = starts[:, np.newaxis] + reach
    return np.asarray(((places >= 0) & (places < length)).mean(0))


class _Eager:
    """While any block is open, what torch.compile made runs without its compiled code."""

    def __init__(self) -> None:
        self._open = 0
        self._stance: Any = None

    def __enter__(self) -> None:
        import torch

        self._open += 1
        compiling = "torch._dynamo" in sys.modules  # which is slow to import
        if self._open == 1 and compiling and hasattr(torch.compiler, "set_stance"):
            self._stance = torch.compiler.set_stance("force_eager")
            self._stance.__enter__()

    def __exit__(self, *error: object) -> None:
        self._open -= 1
        if self._open == 0 and self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None


EAGER = _Eager()
