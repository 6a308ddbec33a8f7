"""PyTorch on the CPU or a CUDA device: BatchNorm, forward and backward, and other norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.backends.interface import BackendRun
from bncli.backends.torch.norms import run_norm
from bncli.backends.torch.stepping import average, step
from bncli.backends.torch.steps import steps
from bncli.backends.torch.tensors import (
    arithmetic_of,
    batch_statistics,
    laid_out,
    library,
    repeats,
    to_array,
    to_tensor,
    way_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch as torch_library
    from numpy.typing import NDArray

    from bncli.backends.interface import Backend, BatchNormCall, NormCall, NormRun, SteppingCall
    from bncli.model import RunningStats


class TorchBackend:
    """Runs the module a user would run, in the input's own memory format if none is named."""

    name = "torch"
    devices = ("cpu", "cuda")
    module = "torch.nn.BatchNorm"

    def run(self, call: BatchNormCall) -> BackendRun:
        """Run forward and backward; see `Backend.run`."""
        with way_of(call):
            return self._run(call)

    def _run(self, call: BatchNormCall) -> BackendRun:
        """Run with the threads that are set."""
        import torch

        dtype: torch_library.dtype = getattr(torch, call.dtype)
        parameter_dtype: torch_library.dtype = getattr(torch, call.parameter_dtype)
        x = laid_out(to_tensor(call.x, dtype).movedim(call.channel_axis, 1), call.memory_format).to(
            call.device
        )
        module = self._module(call, parameter_dtype).to(call.device)
        x.requires_grad_(True)
        y = module(x)

        grad_output = torch.empty_like(y)
        grad_output.copy_(to_tensor(call.grad_output, dtype).movedim(call.channel_axis, 1))
        found: dict[str, Any] = {"output": y}
        y.backward(grad_output)
        found["grad_input"] = x.grad
        if call.settings.normalizes_with_batch:
            found |= batch_statistics(x.detach(), parameter_dtype, module.eps)
        if call.settings.affine:
            found |= {"grad_weight": module.weight.grad, "grad_bias": module.bias.grad}
        if call.settings.track_running_stats:
            found |= {
                "running_mean": module.running_mean,
                "running_var": module.running_var,
                "num_batches_tracked": module.num_batches_tracked.reshape(1),
            }
        for name in ("output", "grad_input"):
            found[name] = found[name].movedim(1, call.channel_axis)
        return BackendRun(
            quantities={name: to_array(tensor) for name, tensor in found.items()},
            arithmetic=arithmetic_of(x, call.dtype, call.parameter_dtype),
            threads=torch.get_num_threads(),
        )

    def steps(self, call: BatchNormCall) -> dict[str, NDArray[Any]]:
        """The steps one by one; see `GivesSteps.steps`."""
        return steps(call)

    def run_norm(self, call: NormCall) -> NormRun:
        """Run the module in training on a contiguous copy; see `RunsNorms.run_norm`."""
        return run_norm(call)

    def version(self) -> str:
        """The version of torch; see `Backend.version`."""
        return str(library().__version__)

    def repeats(self) -> bool:
        """Whether the order of additions here is known; see `IsRepeated.repeats`."""
        return repeats()

    def step(self, call: SteppingCall, batches: Iterable[NDArray[Any]]) -> Iterator[RunningStats]:
        """The module's buffers after each batch; see `StepsModule.step`."""
        return step(call, batches)

    def average(self, call: SteppingCall, batches: Iterable[NDArray[Any]]) -> RunningStats:
        """What `torch.optim.swa_utils.update_bn` leaves; see `Averages.average`."""
        return average(call, batches)

    def _module(self, call: BatchNormCall, parameter_dtype: Any) -> Any:
        """The module, in the wanted mode and with the wanted state."""
        import torch

        kind = getattr(torch.nn, f"BatchNorm{max(call.x.ndim - 2, 1)}d")
        settings = call.settings
        module = kind(
            call.x.shape[call.channel_axis],
            eps=settings.eps,
            momentum=settings.momentum,
            affine=settings.affine,
            track_running_stats=settings.track_running_stats,
            dtype=parameter_dtype,
        )
        state: dict[str, Any] = {}
        if call.weight is not None and call.bias is not None:
            state |= {"weight": call.weight, "bias": call.bias}
        if call.running is not None:
            state |= {
                "running_mean": call.running.running_mean,
                "running_var": call.running.running_var,
            }
        tensors = {name: torch.from_numpy(values.copy()) for name, values in state.items()}
        if call.running is not None:
            tensors["num_batches_tracked"] = torch.tensor(call.running.num_batches_tracked)
        module.load_state_dict(tensors)
        return module.train(settings.training)


BACKEND: Backend = TorchBackend()
