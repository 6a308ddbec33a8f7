"""A module of PyTorch taken through batches, and PyTorch's recomputation of running statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.backends.torch.tensors import laid_out, library, to_tensor, with_threads
from bncli.model import RunningStats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from bncli.backends.interface import SteppingCall

REFUSAL = "Expected more than 1 value per channel"
"""How the sentence begins by which a module in training refuses one value a channel."""


def step(call: SteppingCall, batches: Iterable[NDArray[Any]]) -> Iterator[RunningStats]:
    """The module's buffers after each batch; see `StepsModule.step`."""
    torch = library()
    module = _stepping_module(call)
    with with_threads(call.threads):
        for i, x in enumerate(batches):
            if call.freeze_after is not None and i >= call.freeze_after:
                module.eval()
            with torch.no_grad():
                try:
                    module(laid_out(to_tensor(x, module.running_mean.dtype), None))
                except ValueError as error:
                    if not str(error).startswith(REFUSAL):
                        raise
            yield _buffers(module)


def average(call: SteppingCall, batches: Iterable[NDArray[Any]]) -> RunningStats:
    """What `torch.optim.swa_utils.update_bn` leaves; see `Averages.average`."""
    torch = library()
    module = _stepping_module(call)
    with with_threads(call.threads), torch.no_grad():
        torch.optim.swa_utils.update_bn(
            (laid_out(to_tensor(x, module.running_mean.dtype), None) for x in batches), module
        )
    return _buffers(module)


def _stepping_module(call: SteppingCall) -> Any:
    """A module in training mode with the wanted buffers."""
    torch = library()
    kind = getattr(torch.nn, f"BatchNorm{max(call.ndim - 2, 1)}d")
    module = kind(call.num_features, momentum=call.momentum, dtype=getattr(torch, call.dtype))
    module.running_mean.copy_(torch.from_numpy(call.running.running_mean.copy()))
    module.running_var.copy_(torch.from_numpy(call.running.running_var.copy()))
    module.num_batches_tracked.fill_(call.running.num_batches_tracked)
    return module


def _buffers(module: Any) -> RunningStats:
    """A copy of the module's buffers."""
    return RunningStats(
        module.running_mean.double().numpy().copy(),
        module.running_var.double().numpy().copy(),
        int(module.num_batches_tracked),
    )
