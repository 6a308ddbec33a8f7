"""What is called ordinary has no findings, by the rules themselves, and healthy layers are it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from bncli.commands.inspect_checkpoint.layer_rows import layer_row
from bncli.model import BatchNormState
from bncli.rulebook.checkpoint import layer_findings
from bncli.rulebook.layers import Layer
from bncli.rulebook.ordinary import measured
from bncli.rulebook.summaries import summary
from bncli.state_dict import LayerRefs

SPECIAL = [
    *(0.0, -0.0, 1.0, -1.0, 1e-45, 1e-41, 1.1e-38, 1.2e-38, 1e-20, 2.9e-8, 3e-8, 1e-6, 9.9e-7),
    *(1e-5, 9.9e-6, 0.01, 0.0099, 1e4, 10001, 65504, 65520, 9e9, 1e10, 1e20, 3e38),
    *(float("inf"), float("-inf"), float("nan")),
]
VECTORS = ("running_mean", "running_var", "weight", "bias")


def layer_of(vectors, counter=1000, dtype="float32", **given):
    """A layer with these vectors, as a file would give it."""
    shapes = {leaf: values.shape for leaf, values in vectors.items()}
    dtypes = {leaf: values.dtype.name for leaf, values in vectors.items()}
    if counter is not None:
        shapes["num_batches_tracked"], dtypes["num_batches_tracked"] = (), "int64"
    state = BatchNormState("bn", **vectors, num_batches_tracked=counter, dtype=dtype)
    return Layer(state, shapes=shapes, dtypes=dtypes, **given)


def healthy(seed, channels=None, dtype=np.float32):
    draw = np.random.default_rng(seed)
    channels = channels or int(draw.choice([1, 2, 4, 16, 64]))
    return {
        "running_mean": draw.standard_normal(channels).astype(dtype),
        "running_var": draw.uniform(0.5, 1.5, channels).astype(dtype),
        "weight": draw.uniform(0.5, 1.5, channels).astype(dtype),
        "bias": draw.standard_normal(channels).astype(dtype),
    }


def odd(seed):
    """A layer with a few values that a rule may look for, or just not."""
    draw = random.Random(seed)
    dtype = draw.choice([np.float32, np.float32, np.float16, np.float64])
    with np.errstate(over="ignore"):
        vectors = healthy(seed, dtype=dtype)
        for _ in range(draw.choice([0, 1, 1, 2])):
            values = vectors[draw.choice(VECTORS)]
            where = slice(None) if draw.random() < 0.2 else draw.randrange(len(values))
            values[where] = draw.choice(SPECIAL)
        if draw.random() < 0.2:
            vectors[draw.choice(VECTORS)] *= dtype(draw.choice([1e-3, 0.02, 50, 1e3]))
    if draw.random() < 0.1:
        source, target = draw.sample(VECTORS, 2)
        vectors[target] = vectors[source].copy()
    for leaf in VECTORS[2:] if draw.random() < 0.2 else ():
        del vectors[leaf]
    if draw.random() < 0.1:
        vectors["running_mean"] = vectors["running_mean"].astype(np.float32)
    return layer_of(
        vectors,
        draw.choice([None, 0, 5, 1000, 1000, 2 * 10**9, -1]),
        eps=draw.choice([1e-5, 1e-5, 1e-3, 0.0, 1e-9]),
        momentum=draw.choice([0.1, 0.1, None, 0.0, 1.5]),
        momentum_assumed=draw.random() < 0.5,
    )


@pytest.mark.parametrize("seeds", range(6))
def test_no_rule_finds_anything_in_what_is_ordinary(seeds):
    ordinary = 0
    for seed in range(200 * seeds, 200 * seeds + 200):
        layer = odd(seed)
        numbers = measured(layer)
        refs = LayerRefs("bn")
        if numbers is not None:
            assert repr(layer_row(layer, refs, numbers)) == repr(layer_row(layer, refs)), seed
        if numbers is None or not numbers.ordinary:
            continue
        ordinary += 1
        assert layer_findings(layer) == [], seed
        assert summary(layer, numbers) == summary(layer), seed
    assert ordinary > 40


@pytest.mark.parametrize("seed", range(20))
def test_healthy_layers_are_ordinary(seed):
    numbers = measured(layer_of(healthy(seed)))
    assert numbers is not None
    assert numbers.ordinary
    assert layer_findings(layer_of(healthy(seed)), numbers) == []


def test_a_new_layer_and_zeros_in_it_are_summed_up_alike():
    channels = 8
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    for weight in (ones, np.linspace(0.5, 1, channels).astype(np.float32)):
        vectors = {"running_mean": zeros, "running_var": ones, "weight": weight, "bias": zeros}
        layer = layer_of(vectors, 0)
        numbers = measured(layer)
        assert summary(layer, numbers) == summary(layer)
        assert layer_row(layer, LayerRefs("bn"), numbers) == layer_row(layer, LayerRefs("bn"))


@pytest.mark.parametrize("leaf", VECTORS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20, 1e-45])
def test_one_odd_value_is_seen(leaf, value):
    vectors = healthy(3, 16)
    vectors[leaf][5] = value
    numbers = measured(layer_of(vectors))
    assert numbers is None or not numbers.ordinary


def test_what_could_not_be_read_is_not_measured():
    layer = layer_of(healthy(1, 4))
    assert measured(replace(layer, unread=("weight cannot be read",))) is None
    assert measured(replace(layer, shapes={**layer.shapes, "bias": (2, 2)})) is None
    vectors = healthy(1, 4)
    del vectors["weight"]
    without = layer_of(vectors)
    assert measured(replace(without, shapes={**without.shapes, "weight": (4,)})) is None
