"""LayerNorm, InstanceNorm, GroupNorm, RMSNorm and BatchNorm as PyTorch's modules run them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.backends.interface import NormRun
from bncli.backends.torch.tensors import (
    arithmetic_of,
    batch_statistics,
    library,
    to_array,
    to_tensor,
)
from bncli.norms import BATCH, GROUP, INSTANCE, LAYER, RMS

if TYPE_CHECKING:
    import torch as torch_library

    from bncli.backends.interface import NormCall
    from bncli.norms import Norm


def run_norm(call: NormCall) -> NormRun:
    """Run the module in training on a contiguous copy; see `RunsNorms`."""
    torch = library()
    norm = call.norm
    dtype: torch_library.dtype = getattr(torch, call.dtype)
    held = "float64" if call.dtype == "float64" else "float32"
    if norm.name == INSTANCE:  # which has no weight, and keeps its statistics as the input
        held = call.dtype
    x = to_tensor(call.x, dtype)
    channels_first = norm.name in (BATCH, INSTANCE, GROUP)
    if channels_first:
        x = x.movedim(norm.channel_axis, 1)
    x = torch.empty(x.shape, dtype=dtype).copy_(x)  # with the strides of a fresh tensor
    found: dict[str, Any] = {}
    affine_shape = None
    if hasattr(torch.nn, _class_name(norm)):
        # RMSNorm alone wants its weight in the input's dtype.
        weight_dtype = call.dtype if norm.name == RMS else held
        module = _module(norm, getattr(torch, weight_dtype))
        weight = module.weight
        affine_shape = () if weight is None else tuple(weight.shape)
        with torch.no_grad():
            found = {"output": module(x), **_statistics(norm, x, module)}
        if channels_first:
            found["output"] = found["output"].movedim(1, norm.channel_axis)
    arithmetic = arithmetic_of(x, call.dtype, held)
    if norm.name != BATCH:
        arithmetic = replace(arithmetic, **_row_sums(norm, call.dtype))
    return NormRun(
        quantities={
            name: to_array(tensor if name == "output" else tensor.reshape(norm.kept))
            for name, tensor in found.items()
        },
        affine_shape=affine_shape,
        arithmetic=arithmetic,
        threads=torch.get_num_threads(),
    )


def _module(norm: Norm, parameter_dtype: Any) -> Any:
    """The module as a user makes it, with PyTorch's own default of eps where none was given."""
    import torch

    channels = norm.shape[norm.channel_axis]
    arguments: tuple[Any, ...] = (channels,)
    if norm.name == GROUP:
        arguments = (norm.groups, channels)
    elif norm.name in (LAYER, RMS):
        arguments = (norm.normalized_shape,)
    # Before RMSNorm was one kernel, its own default was another in half precision.
    older = norm.name == RMS and not hasattr(torch.ops.aten, "_fused_rms_norm")
    eps = {"eps": norm.eps} if norm.eps_given or older else {}
    kind = getattr(torch.nn, _class_name(norm))
    return kind(*arguments, **eps, dtype=parameter_dtype)


def _statistics(norm: Norm, x: Any, module: Any) -> dict[str, Any]:
    """The mean and invstd from the kernels that the module uses."""
    import torch

    batch, channels = x.shape[:2]
    weight, bias = module.weight, getattr(module, "bias", None)
    if norm.name == RMS:
        shape = norm.normalized_shape
        try:  # the only way to the statistic; not public, so that releases differ in it
            _, invstd = torch.ops.aten._fused_rms_norm(x, shape, weight, module.eps)  # noqa: SLF001  # as said
        except (AttributeError, RuntimeError, TypeError, ValueError):
            return {}
        return {"invstd": invstd}
    if norm.name == LAYER:
        _, mean, invstd = torch.native_layer_norm(
            x, norm.normalized_shape, weight, bias, module.eps
        )
    elif norm.name == GROUP:
        size = x.numel() // (batch * channels)
        _, mean, invstd = torch.native_group_norm(
            x, weight, bias, batch, channels, size, module.num_groups, module.eps
        )
    else:
        if norm.name == INSTANCE:
            x = x.reshape(1, batch * channels, *x.shape[2:])
        dtype = x.dtype if weight is None else weight.dtype
        statistics = batch_statistics(x, dtype, module.eps)
        mean, invstd = statistics["mean"], statistics["invstd"]
    return {"mean": mean, "invstd": invstd}


def _class_name(norm: Norm) -> str:
    """The module's name in torch.nn."""
    if norm.name in (BATCH, INSTANCE):
        return f"{norm.name}{max(len(norm.shape) - 2, 1)}d"
    return norm.name


def _row_sums(norm: Norm, dtype: str) -> dict[str, Any]:
    """The dtype and the longest chain of additions of the sums over a row of a norm's values."""
    wide = "float64" if dtype == "float64" else "float32"
    if norm.name == INSTANCE:
        # One running sum, or for half precision one a lane. Equal values all round the same way,
        # so that n additions lose n/2 roundings and not about sqrt(n).
        if dtype == "float64":
            return {"accumulate_dtype": wide, "additions": max(1, norm.count**2 // 16)}
        return {"accumulate_dtype": "float64" if dtype == wide else wide, "additions": norm.count}
    # Pieces of 16 values in each of 8 lanes, then by twos; torch.sum goes by four levels.
    levels = math.ceil(math.log2(norm.count)) if norm.count > 1 else 0
    return {"accumulate_dtype": wide, "additions": min(norm.count, 16) + 2 * levels}
