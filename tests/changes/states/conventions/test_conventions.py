"""One layer under another convention is named with its number, and nothing else is called one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncli.changes.states import explain
from bncli.changes.states.conventions import find
from bncli.model.changes import State
from bncli.report import Certainty
from tests.changes.pairs import NO_FILES, pair, random_layer, side
from tests.changes.states.conventions.layers import DTYPES, made


def scale(layer, eps=1e-3):
    return layer["weight"] / np.sqrt(layer["running_var"] + eps)


def shift(layer, eps=1e-3):
    return layer["bias"] - layer["running_mean"] * scale(layer, eps)


CHANGES = {
    "unbiased": lambda layer: {"running_var": layer["running_var"] * 32 / 31},
    "factor": lambda layer: {"running_var": layer["running_var"] * 7.5},
    "inverse-std": lambda layer: {"running_var": (layer["running_var"] + 1e-3) ** -0.5},
    "std": lambda layer: {"running_var": (layer["running_var"] + 1e-3) ** 0.5},
    "inverse-variance": lambda layer: {"running_var": 1 / (layer["running_var"] + 1e-3)},
    "mean-of-squares": lambda layer: {
        "running_var": layer["running_var"] + layer["running_mean"] ** 2
    },
    "mean-negated": lambda layer: {"running_mean": -layer["running_mean"]},
    "mean-scaled": lambda layer: {"running_mean": 2.5 * layer["running_mean"]},
    "mean-normalised": lambda layer: {
        "running_mean": layer["running_mean"] / np.sqrt(layer["running_var"] + 1e-3)
    },
    "scale-factor": lambda layer: {
        leaf: 999.98 * layer[leaf] for leaf in ("running_mean", "running_var")
    },
    "input-scaled": lambda layer: {
        "running_mean": 100 * layer["running_mean"],
        "running_var": 1e4 * layer["running_var"],
    },
    "weight-minus-one": lambda layer: {"weight": layer["weight"] - 1},
    "weight-premultiplied": lambda layer: {"weight": scale(layer)},
    "bias-shifted": lambda layer: {"bias": shift(layer)},
    "scale-and-shift": lambda layer: {"weight": scale(layer), "bias": shift(layer)},
    "affine-only": lambda layer: {
        "weight": scale(layer),
        "bias": shift(layer),
        "running_mean": np.zeros_like(layer["weight"]),
        "running_var": np.ones_like(layer["weight"]),
    },
    "swapped": lambda layer: {
        "running_mean": layer["running_var"],
        "running_var": layer["running_mean"],
    },
}
"""How each is really made, by its cause; those with an eps have 1e-3."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cause", CHANGES)
@pytest.mark.parametrize("forward", [True, False])
def test_each_convention_is_named_from_either_side(cause, dtype, forward):
    found = explain(made(CHANGES[cause], dtype, forward=forward), NO_FILES)
    assert found.state is State.CONVENTION
    assert found.numbers["cause"] == cause
    assert len(found.what) <= 80
    if "odd_file" in found.numbers and cause not in ("inverse-variance", "scale-factor"):
        assert found.numbers["odd_file"] == ("second" if forward else "first")


@given(
    st.sampled_from(sorted(CHANGES)),
    st.sampled_from(DTYPES),
    st.integers(3, 40),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_no_convention_is_taken_for_another(cause, dtype, channels, seed, forward):
    found = find(made(CHANGES[cause], dtype, channels, seed, forward=forward), NO_FILES)
    if found is None:
        return
    if found.certainty is Certainty.CERTAIN or channels >= 8:
        assert found.numbers["cause"] == cause
    if cause == "unbiased":
        assert found.numbers["n_min"] <= 32 <= found.numbers["n_max"]
    eps = found.numbers.get("eps")
    if eps is not None and cause in ("inverse-std", "std", "weight-premultiplied", "bias-shifted"):
        assert eps == pytest.approx(1e-3, rel=0.02)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("cause", sorted(set(CHANGES) - {"swapped"}))
def test_what_one_number_always_fits_is_not_claimed(cause, channels):
    assert find(made(CHANGES[cause], channels=channels), NO_FILES) is None


def test_channels_that_are_all_equal_show_nothing():
    layer = {leaf: np.full(16, 0.75) for leaf in random_layer()}
    for change in CHANGES.values():
        assert find(pair(layer, {**layer, **change(layer)}), NO_FILES) is None


def test_two_values_show_a_swap_and_one_does_not():
    layer = random_layer(2)
    found = find(pair(layer, {**layer, **CHANGES["swapped"](layer)}), NO_FILES)
    assert found.what == "running_mean and running_var are swapped"
    layer = random_layer(1)
    assert find(pair(layer, {**layer, **CHANGES["swapped"](layer)}), NO_FILES) is None


def test_three_tensors_change_places():
    layer = random_layer()
    other = {
        "weight": layer["weight"],
        "bias": layer["running_mean"],
        "running_mean": layer["running_var"],
        "running_var": layer["bias"],
    }
    found = find(pair(layer, other), NO_FILES)
    assert found.what == "running_mean, running_var and bias have changed places"
    assert found.numbers["holds"] == ("running_var", "bias", "running_mean")
    assert "running_var holds bias" in found.detail


def test_a_variance_that_was_copied_from_the_mean_is_said():
    layer = random_layer()
    found = find(pair(layer, {**layer, "running_var": layer["running_mean"]}), NO_FILES)
    assert found.what == "running_var is the first file's running_mean"


def test_reset_weights_and_statistics_are_not_taken_for_each_other():
    layer = random_layer()
    fresh = {
        "weight": np.ones(8),
        "bias": np.zeros(8),
        "running_mean": np.zeros(8),
        "running_var": np.ones(8),
    }
    assert find(pair(layer, fresh), NO_FILES) is None
    assert find(pair({**fresh, "running_mean": layer["running_mean"]}, fresh), NO_FILES) is None


def test_a_layer_that_was_fed_zeros_is_not_taken_for_a_scale_factor():
    layer = random_layer()
    kept = {leaf: layer[leaf] * 0.9**20 for leaf in ("running_mean", "running_var")}
    assert find(pair(side(layer, 100), side({**layer, **kept}, 120)), NO_FILES) is None


def test_a_counter_that_rounds_to_the_other_is_no_other_moment():
    layer = random_layer()
    swapped = {**layer, **CHANGES["swapped"](layer)}
    assert find(pair(side(layer, 2049, "float16"), side(swapped, 2048, "float16")), NO_FILES)


def test_statistics_without_a_mean_are_folded_too():
    layer = {**random_layer(), "running_mean": np.zeros(8)}
    other = {**layer, "weight": scale(layer), "running_var": np.ones(8)}
    found = explain(pair(layer, other), NO_FILES)
    assert found.numbers["cause"] == "affine-only"


@pytest.mark.parametrize("n", [500, 1568, 5000])
def test_a_difference_of_a_few_roundings_is_not_called_movement(n):
    layer = random_layer(32)
    other = {**layer, "running_var": layer["running_var"] * n / (n - 1)}
    found = explain(pair(*(side(each, dtype="float16") for each in (layer, other))), NO_FILES)
    assert found.state is State.CONVENTION
    assert found.certainty is Certainty.LIKELY
    if found.numbers["cause"] != "unbiased":
        assert found.what == "the variance is larger by a few roundings of float16"


def test_two_conventions_that_both_fit_make_it_likely_alone():
    layer = {**random_layer(), "running_var": 1 + np.arange(8) * 2e-5}
    found = find(pair(layer, {**layer, "running_var": layer["running_var"] + 1e-3}), NO_FILES)
    assert found.certainty is Certainty.LIKELY
    layer["running_var"] *= np.arange(1, 9)
    found = find(pair(layer, {**layer, "running_var": layer["running_var"] + 1e-3}), NO_FILES)
    assert found.certainty is Certainty.CERTAIN


def test_a_mean_of_zeros_does_not_show_that_the_batches_were_the_same():
    layer = {**random_layer(32), "running_mean": np.zeros(32)}
    other = {**layer, "running_var": layer["running_var"] * 1001 / 1000}
    assert find(pair(*(side(each, dtype="float16") for each in (layer, other))), NO_FILES) is None


def test_roundings_of_both_signs_are_no_convention():
    layer = random_layer(32)
    signs = np.where(np.arange(32) % 2, 1, -1)
    other = {**layer, "running_var": layer["running_var"] * (1 + signs * 2.0**-9)}
    assert find(pair(*(side(each, dtype="float16") for each in (layer, other))), NO_FILES) is None


def test_a_convention_is_seen_through_another_dtype():
    layer = random_layer(32)
    other = {**layer, "running_var": layer["running_var"] * 12 / 11}
    found = find(pair(side(layer), side(other, dtype="float16")), NO_FILES)
    assert found.numbers["n"] == 12


@pytest.mark.parametrize("seed", range(20))
def test_training_is_no_convention(seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    states = []
    for batches in (20, 10):
        for _ in range(batches):
            optimiser.zero_grad()
            loss = (
                module(torch.randn(2, 3, 6, 6) + 1).square().mul(torch.arange(8.0).view(-1, 1, 1))
            )
            loss.mean().backward()
            optimiser.step()
        states.append({leaf: values.numpy().copy() for leaf, values in vectors(module[1])})
    assert find(pair(side(states[0], 50), side(states[1], 60)), NO_FILES) is None
    assert find(pair(side(states[0]), side(states[1])), NO_FILES) is None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frozen_weights_under_other_data_are_no_convention(seed, dtype):
    torch.manual_seed(seed)
    module = nn.BatchNorm1d(6).to(getattr(torch, dtype))
    states = []
    for spread in (1.0, 1.02):
        for _ in range(50):
            module((torch.randn(64, 6) * spread + 0.1).to(module.weight.dtype))
        states.append({leaf: values.float().numpy() for leaf, values in vectors(module)})
    assert find(pair(*(side(each, None, dtype) for each in states)), NO_FILES) is None


def vectors(module):
    """The tensors of a module with one value a channel."""
    return [(leaf, values) for leaf, values in module.state_dict().items() if values.ndim]
