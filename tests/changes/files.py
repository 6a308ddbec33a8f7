"""Files of tensors made of arrays, without a disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bncli.dtypes import DTYPES, encode
from bncli.model import TensorFile, TensorRef


def made(tensors, path="net.npz", container="npz"):
    """A file with these arrays by name, in this order; integers stay integers."""
    refs = {name: ref(name, np.asarray(values), path) for name, values in tensors.items()}
    return TensorFile(Path(path), container, refs)


def ref(name, values, path="net.npz", dtype=None):
    """An array as a tensor of a file, float32 where it is float64."""
    if dtype is None:
        dtype = "float32" if values.dtype == np.float64 else str(values.dtype)
    stored = encode(values, dtype) if DTYPES[dtype].kind == "float" else values
    flat = np.ascontiguousarray(stored).reshape(-1)
    strides = tuple(int(np.prod(values.shape[at + 1 :])) for at in range(values.ndim))
    return TensorRef(name, Path(path), values.shape, dtype, strides, lambda: flat)


def norm(name, channels, seed=None, leaves=None, joint="."):
    """The tensors of a BatchNorm layer: fresh, or with values that a seed gives."""
    rng = np.random.default_rng(seed)
    fresh = seed is None
    values = {
        "weight": np.ones(channels) if fresh else rng.uniform(0.5, 1.5, channels),
        "bias": np.zeros(channels) if fresh else rng.normal(0, 0.1, channels),
        "running_mean": np.zeros(channels) if fresh else rng.normal(0, 1, channels),
        "running_var": np.ones(channels) if fresh else rng.uniform(0.1, 4, channels),
        "num_batches_tracked": np.int64(0 if fresh else 100),
    }
    names = leaves or dict(zip(values, values, strict=True))
    return {f"{name}{joint}{own}" if name else own: values[leaf] for leaf, own in names.items()}


def network(widths, prefix="", seed=None, name="layer{}.bn", **kwargs):
    """BatchNorm layers of some widths, each behind a convolution (`layer{}.conv`)."""
    tensors = {}
    inputs = 3
    for at, width in enumerate(widths):
        rng = np.random.default_rng((seed or 0) * 1000 + at)
        layer = prefix + name.format(at)
        front = layer.replace("bn", "conv")
        tensors[f"{front}.weight"] = rng.normal(0, 1, (width, inputs, 3, 3))
        tensors |= norm(layer, width, None if seed is None else seed * 1000 + at, **kwargs)
        inputs = width
    return tensors
