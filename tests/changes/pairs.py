"""Pairs of layers made of arrays, as if they had been read from two files."""

from __future__ import annotations

import numpy as np

from bncli.changes.pair import Files, LayerPair, Side
from bncli.dtypes import DTYPES, decode, encode
from bncli.model import BatchNormState
from bncli.rulebook.layers import Layer
from bncli.state_dict import LayerRefs

NO_FILES = Files({}, {})
"""Two files of which nothing is known but their names."""


def random_layer(channels=8, seed=0):
    """The vectors of a trained layer, float32."""
    rng = np.random.default_rng(seed)
    return {
        "weight": rng.uniform(0.5, 1.5, channels).astype(np.float32),
        "bias": rng.normal(0, 0.1, channels).astype(np.float32),
        "running_mean": rng.normal(0, 1, channels).astype(np.float32),
        "running_var": rng.uniform(0.1, 4, channels).astype(np.float32),
    }


def side(vectors, counter=100, dtype="float32", eps=1e-5, name="bn"):
    """A layer whose vectors are stored in a dtype; without those that are None."""
    held = {
        leaf: decode(encode(np.asarray(values), dtype), dtype)
        for leaf, values in vectors.items()
        if values is not None
    }
    state = BatchNormState(name, **held, num_batches_tracked=counter, dtype=dtype)
    shapes = {leaf: values.shape for leaf, values in held.items()}
    dtypes = dict.fromkeys(held, dtype)
    if counter is not None:
        shapes["num_batches_tracked"], dtypes["num_batches_tracked"] = (), "int64"
    assert dtype in DTYPES
    return Side(LayerRefs(name), Layer(state, shapes, dtypes, eps))


def pair(a, b, before=None):
    """Two sides, or the vectors of two with the same counter."""
    sides = (each if isinstance(each, Side) else side(each) for each in (a, b))
    return LayerPair(*sides, before)
