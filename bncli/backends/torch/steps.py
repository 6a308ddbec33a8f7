"""Each step of a BatchNorm pass, forward and backward, by PyTorch's own operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.backends.torch.tensors import library, to_array, to_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.backends.interface import BatchNormCall


def steps(call: BatchNormCall) -> dict[str, NDArray[Any]]:
    """The steps one by one, with autograd's gradients of var and mean; see `GivesSteps.steps`.

    Half precision is widened to float32, as the module's kernels do.
    """
    torch = library()
    settings, axis = call.settings, call.channel_axis
    dtype = torch.float64 if call.parameter_dtype == "float64" else torch.float32
    x = to_tensor(call.x, dtype).movedim(axis, 1).requires_grad_()
    g = to_tensor(call.grad_output, dtype).movedim(axis, 1)
    others = [0, *range(2, x.ndim)]
    shape = [1, -1] + [1] * (x.ndim - 2)
    weight, bias = _parameter(call.weight, 1.0, x), _parameter(call.bias, 0.0, x)
    found: dict[str, Any] = {}
    if settings.normalizes_with_batch or call.running is None:
        mean, var = x.mean(others), x.var(others, correction=0)
        found["unbiased_var"] = x.var(others, correction=1)
    else:
        mean = _parameter(call.running.running_mean, 0.0, x).requires_grad_()
        var = _parameter(call.running.running_var, 1.0, x).requires_grad_()
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
        var_sum = deviation.square().sum(others)
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
    return {name: to_array(tensor) for name, tensor in found.items()}


def _parameter(values: NDArray[Any] | None, fill: float, x: Any) -> Any:
    """One value a channel of `x`, of shape (N, C, ...), in its dtype; `fill` for None."""
    if values is None:
        return x.new_full((x.shape[1],), fill)
    return to_tensor(values, x.dtype)
