"""What chance leaves of a predicted error: healthy layers are within it, and it is no more."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.rulebook.live.causes import diagnosis
from bncli.rulebook.live.measures import layer_measure
from bncli.rulebook.live.noise import CHANCE_OF_NOISE, _freedom, averaging
from bncli.running_stats.chance import t_quantile
from tests.rulebook.live.captures import (
    EPS,
    batches_of,
    watched,
)
from tests.rulebook.live.faults import network


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    samples=st.integers(2, 40),
    places=st.sampled_from([(), (3,), (4, 5), (2, 2, 2)]),
    channels=st.integers(1, 24),
    batches=st.integers(2, 24),
    momentum=st.sampled_from([0.01, 0.1, 0.3, None]),
    seed=st.integers(0, 1000),
)
def test_a_healthy_layer_is_not_blamed(samples, places, channels, batches, momentum, seed):
    """Statistics that PyTorch's own module gathered of shuffled samples, images of one brightness.

    The captured batches are others of the same data.
    """
    rng = np.random.default_rng(seed)
    kind = {0: torch.nn.BatchNorm1d, 1: torch.nn.BatchNorm1d, 2: torch.nn.BatchNorm2d}
    module = kind.get(len(places), torch.nn.BatchNorm3d)(channels, momentum=momentum)
    level, spread = rng.normal(0, 3, channels), rng.uniform(0.1, 4, channels)
    ones = (1,) * len(places)

    def batch():
        common = rng.normal(0, 0.5, (samples, channels, *ones)) if places else 0.0
        values = rng.normal(0, 1, (samples, channels, *places)) + common
        shape = (1, channels, *ones)
        return (values * spread.reshape(shape) + level.reshape(shape)).astype(np.float32)

    for _ in range(600 if momentum == 0.01 else 100):
        module(torch.from_numpy(batch()))
    layer = watched(
        "bn",
        [batch() for _ in range(batches)],
        mean=module.running_mean.numpy(),
        var=module.running_var.numpy(),
        momentum=momentum,
        counter=int(module.num_batches_tracked),
        weight=1,
    )
    found = layer_measure(layer)
    # The spread of all values is beyond that within batches where samples differ as a whole.
    # One layer in a thousand is beyond its bound, and a search finds it.
    assert found.right_error <= max(0.1, 1.5 * found.bound)
    assert not found.evaluation.differ


def test_the_noise_is_the_running_average_s_and_the_data_s():
    """Over many draws, chance stays below it, and not far below."""
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(60):
        mean, var = 2.0, 9.0
        for batch in rng.normal(2, 3, (60, 144)):
            mean = 0.9 * mean + 0.1 * batch.mean()
            var = 0.9 * var + 0.1 * batch.var(ddof=1)
        fresh = list(rng.normal(2, 3, (12, 16, 1, 3, 3)))
        found = layer_measure(watched("bn", fresh, mean=mean, var=var, weight=1))
        ratios.append(found.right_error / found.bound)
    assert np.mean(np.array(ratios) > 1) <= 0.04
    assert np.quantile(ratios, 0.9) > 0.4


def test_the_training_batch_size_rescales_the_memory():
    batches = batches_of(samples=32)
    whole = layer_measure(watched("bn", batches, momentum=0.5))
    small = layer_measure(watched("bn", batches, momentum=0.5), train_batch_size=8)
    # Four times the memory, the same data, and fewer degrees of freedom.
    assert 1.5 < small.bound / whole.bound < 2.5
    assert (
        layer_measure(watched("bn", batches), 32).bound
        == layer_measure(watched("bn", batches)).bound
    )


def test_one_batch_has_no_noise_and_is_judged_by_its_samples():
    found = layer_measure(watched("bn", batches_of(1, 64)))
    assert found.noise is None
    assert 0 < found.bound < 1
    assert not found.blamed
    assert layer_measure(watched("bn", batches_of(1, 64), mean=5)).blamed


def test_the_expected_noise_recomputed():
    """m/(2 - m) of the batches' scatter, and the data's by samples; t of both together."""
    rng = np.random.default_rng(11)
    batches = [rng.normal(0, 1, (16, 1, 1, 1)) + rng.normal(0, 1, (16, 1, 4, 4)) for _ in range(6)]
    layer = watched("bn", batches, weight=2.0, mean=0.0, var=1.5, momentum=0.2)
    means = np.array([batch.mean() for batch in batches])
    variances = np.array([batch.var(ddof=1) for batch in batches])
    inner = sum(((b.mean((1, 2, 3)) - b.mean()) ** 2).sum() for b in batches) / (96 - 6)
    of_var = 4 / (1.5 + EPS) * variances.var(ddof=1) / (4 * variances.mean())
    share = 0.2 / 1.8
    memory = share * (4 / (1.5 + EPS) * means.var(ddof=1) + of_var)
    data = (4 / (1.5 + EPS) * inner / 16 + of_var) / 6
    freedom = (memory + data) ** 2 / (memory**2 / 5 + data**2 / 90)
    expected = t_quantile(CHANCE_OF_NOISE, freedom) * math.sqrt(memory + data)
    assert layer_measure(layer).bound == pytest.approx(expected, rel=1e-9)


def test_a_cumulative_average_remembers_its_batches_alike():
    layer = watched("bn", batches_of(), momentum=None, counter=50)
    assert averaging(layer) == 1 / 50
    assert averaging(watched("bn", batches_of(), momentum=0.1)) == pytest.approx(0.1 / 1.9)


def test_noise_is_that_of_shuffled_batches():
    """Where the batches differ, that is no excuse for the running average."""
    rng = np.random.default_rng(13)
    batches = [rng.normal(3 * (i % 4), 1, (16, 4, 3, 3)) for i in range(16)]
    found = layer_measure(watched("bn", batches, momentum=0.99, weight=1))
    assert found.noise == found.chance < found.bound / 3
    mixed = np.concatenate(batches)
    rng.shuffle(mixed)
    alike = layer_measure(watched("bn", np.split(mixed, 16), momentum=0.99, weight=1))
    assert alike.chance < alike.bound  # what a momentum above 0.5 adds is no noise either
    usual = layer_measure(watched("bn", np.split(mixed, 16), momentum=0.1, weight=1))
    assert usual.chance == usual.bound


def test_a_negative_variance_has_no_noise():
    shown = network(middle={"var": -1.0})
    found = diagnosis(shown)
    assert "BN203" in [each.code for each in found.findings]
    assert found.measures[1].noise is None


def test_degrees_of_freedom_of_variances_of_any_size():
    for size in (1e-300, 1.0, 1e300):
        assert _freedom(3 * size, 4, size, 8) == pytest.approx(16 / (9 / 4 + 1 / 8))
    assert _freedom(0, 4, 0, 8) == 8
