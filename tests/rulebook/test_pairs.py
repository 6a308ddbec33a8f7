"""How a copy and the live network compare by numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncli.loaders import open_file
from bncli.rulebook.pairs import initial_weight, roots_of, sample, statistics_apart

DTYPES = {"float32": np.float32, "float16": np.float16, "float64": np.float64}


def bfloat16(values):
    return torch.tensor(values).to(torch.bfloat16).double().numpy()


def layer_pair(rng, channels, q, drift, dtype):
    """A copy that holds q of the initial values, and the live layer as it is in the end."""
    averaged = 10 ** rng.uniform(-4, 1, channels)
    averaged[rng.random(channels) < 0.1] = 1.0
    live = averaged * np.exp(rng.normal(0, drift, channels))
    mean = rng.normal(0, 1, channels)
    values = ((1 - q) * mean, q + (1 - q) * averaged, mean, live)
    rounded = bfloat16 if dtype == "bfloat16" else DTYPES[dtype]
    return tuple(np.asarray(rounded(value), np.float64) for value in values)


@given(
    st.floats(0.12, 0.999),
    st.lists(st.integers(1, 64), min_size=3, max_size=12),
    st.floats(0, 0.05),
    st.sampled_from(["float32", "float16", "float64", "bfloat16"]),
    st.integers(0, 2**31),
)
def test_the_initial_weight_is_found_whatever_the_layers_are(q, widths, drift, dtype, seed):
    rng = np.random.default_rng(seed)
    pairs = [layer_pair(rng, width, q, drift, dtype) for width in widths]
    if sum((abs(1 - pair[3]) >= 0.1).sum() for pair in pairs) < 12:
        return
    least = min(pair[1].min() for pair in pairs)
    assert initial_weight(pairs, least) == pytest.approx(q, rel=0.15)


@given(
    st.floats(0.2, 0.95),
    st.integers(16, 200),
    st.floats(0, 0.35),
    st.integers(0, 2**31),
)
def test_layers_that_are_no_such_mixture_do_not_hide_the_weight(q, channels, share, seed):
    """A third of the channels may have moved since, or have died in the live model."""
    rng = np.random.default_rng(seed)
    mean, var, live_mean, live = layer_pair(rng, channels, q, 0.02, "float32")
    moved = rng.random(channels) < share
    live[moved] *= 0.1
    estimate = initial_weight([(mean, var, live_mean, live)], var.min())
    assert estimate is None or estimate == pytest.approx(q, rel=0.3)
    if not moved.any() and (abs(1 - live) >= 0.1).sum() >= 12:
        assert estimate is not None


@given(
    st.lists(st.integers(8, 64), min_size=1, max_size=8),
    st.sampled_from(["same", "grown", "other", "lagging"]),
    st.floats(0.3, 3),
    st.integers(0, 2**31),
)
def test_no_initial_value_is_seen_in_a_copy_that_has_none(widths, kind, factor, seed):
    rng = np.random.default_rng(seed)
    pairs = []
    for width in widths:
        live = 10 ** rng.uniform(-3, 3, width)
        var = {
            "same": live * np.exp(rng.normal(0, 0.02, width)),
            "grown": live * factor,
            "other": 10 ** rng.uniform(-3, 3, width),
            "lagging": live * np.exp(rng.normal(np.log(factor), 0.3, width)),
        }[kind]
        pairs.append((np.zeros(width), var, np.zeros(width), live))
    assert initial_weight(pairs, min(pair[1].min() for pair in pairs)) is None


def test_channels_at_1_tell_nothing():
    ones = np.ones(64)
    assert initial_weight([(ones, ones * 0.99, ones, ones)], 0.99) is None
    assert initial_weight([(ones[:4], ones[:4] * 0.9, ones[:4], ones[:4] * 0.1)], 0.9) is None
    nan = np.full(64, np.nan)
    assert initial_weight([(nan, nan, nan, nan)], -np.inf) is None
    assert statistics_apart(nan, nan, nan, nan) is None


def test_the_distance_of_statistics_is_that_of_the_outputs():
    rng = np.random.default_rng(1)
    x = rng.normal(3, 2, 200_000)
    apart = statistics_apart(*(np.array([v]) for v in (1.0, 1.0, x.mean(), x.var())))
    output, should = (x - 1.0) / 1.0, (x - x.mean()) / x.std()
    assert apart == pytest.approx(np.sqrt(np.mean((output - should) ** 2)), rel=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ("ema.module.layer1.bn", "model.layer1.bn", ("ema.module", "model")),
        ("ema.layer1.bn", "layer1.bn", ("ema", "")),
        ("q_net_target.q_net.1", "q_net.q_net.1", ("q_net_target", "q_net")),
        ("a/ema/bn", "a/model/bn", ("a/ema", "a/model")),
    ],
)
def test_roots_are_what_two_names_do_not_share(ours, theirs, expected):
    assert roots_of(ours, theirs) == expected


def test_variances_near_1_beside_means_of_their_own_are_no_initial_ones():
    rng = np.random.default_rng(5)
    mean, live_mean = rng.normal(0, 1, (2, 32))
    var, live_var = np.exp(rng.normal(0, 0.02, 32)), 10 ** rng.normal(0, 0.5, 32)
    assert initial_weight([(mean, var, live_mean, live_var)], var.min()) is None
    mixed = (0.01 * live_mean, 0.99 + 0.01 * live_var, live_mean, live_var)
    assert initial_weight([mixed], mixed[1].min()) == pytest.approx(0.99)


@pytest.mark.parametrize("shape", [(70,), (300, 5), (128, 64, 3, 3), (7, 100_000), (2, 3, 5000)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_sample_is_spread_over_the_tensor_however_it_is_stored(folder, shape, save):
    values = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    save("x.npz", w=values)
    found = sample(open_file(Path("x.npz")).tensors["w"], 4096)
    assert found.ndim == len(shape)
    assert found.size <= 4096
    assert found.size == values.size or found.size >= 1000
    steps = [-(-size // count) for size, count in zip(shape, found.shape, strict=True)]
    assert np.array_equal(found, values[tuple(slice(None, None, step) for step in steps)])
