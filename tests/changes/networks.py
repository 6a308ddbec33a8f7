"""Layers and convolutions as PyTorch modules, turned into the sides of a pair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bncli.changes.pair import Files, Side
from bncli.dtypes import DTYPES
from bncli.model import TensorRef
from bncli.state_dict import LayerRefs
from bncli.state_dict.in_front import InFront

LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def ref(tensor, name, path="a"):
    """A tensor as one that is read from a file."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    tensor = tensor.detach().contiguous()
    if dtype == "bfloat16":
        bits = tensor.view(torch.int16).numpy().view(np.uint16)
    else:
        bits = tensor.numpy()
    assert bits.dtype == np.dtype(DTYPES[dtype].stored)
    flat = bits.reshape(-1).copy()
    return TensorRef(name, Path(path), tuple(tensor.shape), dtype, tensor.stride(), lambda: flat)


def layer_refs(module, name="bn", path="a"):
    """A BatchNorm module's tensors."""
    tensors = {leaf: getattr(module, leaf) for leaf in LEAVES}
    refs = {k: ref(v, f"{name}.{k}", path) for k, v in tensors.items() if v is not None}
    return LayerRefs(name, **refs)


def before(module, name="conv", path="a", axis=0):
    """A convolution or linear layer."""
    bias = None if module.bias is None else ref(module.bias, f"{name}.bias", path)
    return InFront(name, ref(module.weight, f"{name}.weight", path), bias, axis)


def side(module, conv=None, name="bn", path="a", axis=0):
    """A BatchNorm module behind a convolution."""
    held = None if conv is None else before(conv, f"{name}_conv", path, axis)
    return Side.read(layer_refs(module, name, path), held)


def known_eps(of, eps):
    """A side whose file stores eps."""
    return replace(of, layer=replace(of.layer, eps=eps, eps_assumed=False))


def files(layers=(), others=()):
    """Two files with these layers."""
    named = [{each.name: each for each in some} for some in (layers, others)]
    return Files(*named)


@torch.no_grad()
def trained(module, seed=0):
    """A BatchNorm module as training leaves it, with variances of many sizes."""
    rng = torch.Generator().manual_seed(seed)
    shape = module.running_mean.shape
    module.running_mean.copy_(torch.randn(shape, generator=rng))
    module.running_var.copy_(torch.exp(torch.randn(shape, generator=rng) * 1.5 - 2))
    if module.weight is not None:
        module.weight.copy_(torch.rand(shape, generator=rng) + 0.5)
        module.weight[0] *= -1
        module.bias.copy_(torch.randn(shape, generator=rng) * 0.3)
    module.num_batches_tracked.fill_(100 + seed)
    return module.eval()
