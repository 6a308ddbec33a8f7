"""The user's own model, which is as it was after bncli has run it, whatever happened meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bncli.live.passes import same_bytes
from bncli.live.random_streams import RandomStreams

if TYPE_CHECKING:
    from torch import Tensor, nn

TABLES = ("_parameters", "_buffers", "_modules")
"""What a module holds its tensors and the modules in it by."""
NUMBERS = ("eps", "momentum")
"""What else a BatchNorm computes with."""


def kept_whole(model: nn.Module) -> Callable[[], None]:
    """A function that puts the model back as it is now.

    That is the mode of each module, its eps and momentum, its parameters, buffers, gradients,
    modules and hooks by identity, the values of all tensors, and where they lie. The values are
    copied, into the memory of the CPU.
    """
    from torch.nn.parameter import is_lazy

    modules = list(model.modules())
    held = [_Module(each) for each in modules]
    tensors = {
        id(tensor): tensor
        for each in modules
        for table in (each._parameters, each._buffers)  # noqa: SLF001  # not the saved alone
        for tensor in table.values()
        if tensor is not None and not is_lazy(tensor)
    }
    values = [_Values(each) for each in tensors.values()]

    def put_back() -> None:
        for module in held:
            module.put_back()
        for tensor in values:
            tensor.put_back()

    return put_back


class _Module:
    """One module: its mode, what it holds, and its eps and momentum."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.training = module.training
        self.numbers = {key: vars(module)[key] for key in NUMBERS if key in vars(module)}
        self.hidden = set(module._non_persistent_buffers_set)  # noqa: SLF001
        self.tables: dict[str, tuple[dict[Any, Any], dict[Any, Any]]] = {
            key: (table, table.copy())
            for key, table in vars(module).items()
            if (key in TABLES or "_hooks" in key) and isinstance(table, dict)
        }

    def put_back(self) -> None:
        """The same tables with the same things in them, in their order."""
        own = vars(self.module)
        self.module.training = self.training
        own.update(self.numbers)
        for key, (table, held) in self.tables.items():
            if own.get(key) is not table:
                own[key] = table
            same = list(table) == list(held)
            if not same or any(table[name] is not each for name, each in held.items()):
                table.clear()
                table.update(held)
        hidden = self.module._non_persistent_buffers_set  # noqa: SLF001
        hidden.clear()
        hidden.update(self.hidden)


class _Values:
    """A parameter or a buffer: where it lies, what is in it, and its gradient."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.data = tensor.data
        self.values = tensor.data.to("cpu", copy=True)
        self.requires_grad = tensor.requires_grad
        self.grad = tensor.grad if tensor.is_leaf else None
        self.of_grad = None if self.grad is None else _Values(self.grad)

    def put_back(self) -> None:
        """The same memory with the same values, in the gradient too."""
        import torch

        tensor = self.tensor
        if _place(tensor) != _place(self.data):
            tensor.data = self.data
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():
            if not same_bytes(tensor.detach().cpu(), self.values):
                tensor.copy_(self.values)
        if tensor.requires_grad != self.requires_grad:
            tensor.requires_grad_(self.requires_grad)
        if tensor.is_leaf and tensor.grad is not self.grad:
            tensor.grad = self.grad
        if self.of_grad is not None:
            self.of_grad.put_back()


def _place(tensor: Tensor) -> object:
    """Where the values of a tensor lie; the device alone, where there is no one place."""
    try:
        return tensor.device, tensor.data_ptr()
    except RuntimeError:  # a sparse one, or a subclass with parts of its own
        return tensor.device


def random_numbers_kept() -> Callable[[], None]:
    """A function that lets the process go on with its random numbers as they are now."""
    import torch

    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # PyTorch's own
    cuda = torch.cuda.get_rng_state_all() if begun else None
    now = RandomStreams.now()

    def put_back() -> None:
        now.go_on()
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)

    return put_back
