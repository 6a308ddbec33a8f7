"""PyTorch on the CPU: `torch.nn.BatchNorm1d/2d/3d`, forward and backward."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from bncli.backends.interface import BackendRun
from bncli.errors import MissingBackendError
from bncli.tolerance import Arithmetic

if TYPE_CHECKING:
    import torch as torch_library
    from numpy.typing import NDArray

    from bncli.backends.interface import Backend, BatchNormCall

INSTALL = "python -m pip install torch"

REPEATED_VERSION = "2.13."
"""The release whose order of additions was found to be what `bncli.pytorch_cpu` repeats."""

REPEATED_KERNELS = ("AVX2", "AVX512")
"""The builds of its kernels for which that was found; they add by fused multiply-add."""


class TorchBackend:
    """Runs the module a user would run, in the memory format in which the input is stored."""

    name = "torch"

    def run(self, call: BatchNormCall) -> BackendRun:
        """Run forward and backward on the CPU; see `Backend.run`."""
        torch = _torch()

        dtype: torch_library.dtype = getattr(torch, call.dtype)
        parameter_dtype: torch_library.dtype = getattr(torch, call.parameter_dtype)
        x = _laid_out(_tensor(call.x, dtype).movedim(call.channel_axis, 1))
        module = self._module(call, parameter_dtype)
        x.requires_grad_(True)
        y = module(x)
        grad_output = torch.empty_like(y)
        grad_output.copy_(_tensor(call.grad_output, dtype).movedim(call.channel_axis, 1))
        y.backward(grad_output)

        found: dict[str, Any] = {"output": y, "grad_input": x.grad}
        if call.settings.normalizes_with_batch:
            found |= self._batch_statistics(x.detach(), parameter_dtype, module.eps)
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

        # What counts for PyTorch's kernels: (N, C) input is summed row by row, as channels last is.
        rows = not x.is_contiguous() or x.numel() == x.shape[0] * x.shape[1]
        threads = torch.get_num_threads()
        count = x.numel() // x.shape[1]
        share = -(-count // threads)
        additions = backward_additions = share if rows else count
        accumulate_dtype = backward_dtype = "float64"
        if call.dtype != "float64":
            backward_dtype = "float32"
            if rows or call.dtype != "float32":
                accumulate_dtype = "float32"
            if not rows and call.dtype == "float32":
                # Backward, images are summed one by one, and the images' sums in float64.
                backward_additions = count // x.shape[0]
        return BackendRun(
            version=torch.__version__,
            quantities={name: _array(tensor) for name, tensor in found.items()},
            arithmetic=Arithmetic(
                dtype=call.dtype,
                parameter_dtype=call.parameter_dtype,
                accumulate_dtype=accumulate_dtype,
                backward_dtype=backward_dtype,
                additions=additions,
                backward_additions=backward_additions,
                rows=rows,
                order_known=(
                    platform.machine().lower() in ("x86_64", "amd64")
                    and torch.backends.cpu.get_cpu_capability() in REPEATED_KERNELS
                    and torch.__version__.startswith(REPEATED_VERSION)
                ),
            ),
            threads=threads,
        )

    def steps(self, call: BatchNormCall) -> dict[str, NDArray[Any]]:
        """The steps one by one, with autograd's gradients of var and mean; see `Backend.steps`.

        Half precision is widened to float32, as the module's kernels do.
        """
        torch = _torch()
        settings, axis = call.settings, call.channel_axis
        dtype = torch.float64 if call.parameter_dtype == "float64" else torch.float32
        x = _tensor(call.x, dtype).movedim(axis, 1).requires_grad_()
        g = _tensor(call.grad_output, dtype).movedim(axis, 1)
        others = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)

        def parameter(values: Any, fill: float) -> Any:
            if values is None:
                return torch.full((x.shape[1],), fill, dtype=dtype)
            return _tensor(values, dtype)

        weight, bias = parameter(call.weight, 1.0), parameter(call.bias, 0.0)
        found: dict[str, Any] = {}
        if settings.normalizes_with_batch or call.running is None:
            mean, var = x.mean(others), x.var(others, correction=0)
            found["unbiased_var"] = x.var(others, correction=1)
        else:
            mean = parameter(call.running.running_mean, 0.0).requires_grad_()
            var = parameter(call.running.running_var, 1.0).requires_grad_()
        mean.retain_grad()
        var.retain_grad()
        var_plus_eps = var + settings.eps
        invstd = var_plus_eps.rsqrt()
        deviation = x - mean.view(shape)
        x_hat = deviation * invstd.view(shape)
        x_hat.retain_grad()
        scaled = x_hat * weight.view(shape)
        output = scaled + bias.view(shape)
        output.backward(g)

        alpha = invstd * weight
        var_sum = deviation.square().sum(others)
        found |= {
            "mean": mean,
            "var": var,
            "var_plus_eps": var_plus_eps,
            "sqrt": var_plus_eps.sqrt(),
            "invstd": invstd,
            "alpha": alpha,
            "beta": bias - mean * alpha,
            "sum_g": g.sum(others),
            "sum_g_x_hat": (g * x_hat).sum(others),
        }
        if settings.affine:
            found |= {"weight": weight, "bias": bias}
        if settings.normalizes_with_batch:
            found |= {"var_sum": var_sum, "grad_var": var.grad, "grad_mean": mean.grad}
        by_element = {
            "x": x,
            "deviation": deviation,
            "squared": deviation.square(),
            "x_hat": x_hat,
            "scaled": scaled,
            "output": output,
            "g": g,
            "grad_x_hat": x_hat.grad,
            "grad_input": x.grad,
        }
        found |= {name: tensor.movedim(1, axis) for name, tensor in by_element.items()}
        return {name: _array(tensor) for name, tensor in found.items()}

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

    def _batch_statistics(self, x: Any, parameter_dtype: Any, eps: float) -> dict[str, Any]:
        """The mean, biased variance and invstd of the batch, from the kernels the module uses."""
        import torch

        zeros = torch.zeros(x.shape[1], dtype=parameter_dtype)
        ones = torch.ones(x.shape[1], dtype=parameter_dtype)
        mean, var = torch.batch_norm_update_stats(x, zeros, ones, 0.0)
        _, _, invstd = torch.native_batch_norm(x, ones, zeros, zeros, ones, True, 0.0, eps)
        return {"mean": mean, "var": var, "invstd": invstd}


def _torch() -> Any:
    """The library. Raises MissingBackendError where it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise MissingBackendError(
            f"--against torch needs PyTorch, which is not installed here: {INSTALL}"
        ) from error
    return torch


def _tensor(values: NDArray[Any], dtype: Any) -> Any:
    """A tensor of `dtype` with the strides of `values`, sharing no memory with them."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(values, order="K")).to(dtype)


def _laid_out(x: Any) -> Any:
    """`x` in its memory format where that is channels last, and contiguous otherwise.

    Its strides become those of a fresh tensor: with the odd ones that axes of size 1 allow,
    PyTorch falls back to a kernel that sums half precision in half precision.
    """
    import torch

    channels_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    chosen = torch.contiguous_format
    if (
        channels_last is not None
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=channels_last)
    ):
        chosen = channels_last
    return torch.empty(x.shape, dtype=x.dtype, memory_format=chosen).copy_(x)


def _array(tensor: Any) -> NDArray[Any]:
    """A NumPy array with the tensor's values, bfloat16 widened to float32."""
    import numpy as np
    import torch

    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


BACKEND: Backend = TorchBackend()
