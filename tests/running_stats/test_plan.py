"""What a momentum means: published figures, the definitions, and simulated noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bncli.running_stats.batch_table import BatchTable
from bncli.running_stats.frameworks import convention
from bncli.running_stats.plan import (
    Memory,
    new_weight_for_noise,
    new_weight_for_steps,
    relative_variance,
    standard_errors,
)
from bncli.running_stats.simulation import Course, simulate

PUBLISHED = {
    0.3: (1.94, 2.33, 5.67, 13, 0.420),
    0.1: (6.58, 9, 19, 44, 0.229),
    0.01: (68.97, 99, 199, 459, 0.0709),
    0.001: (692.8, 999, 1999, 4603, 0.0224),
}
"""By PyTorch's momentum: half-life, mean age, effective batches, steps to 1 %, and by how much the
buffers' standard deviation is smaller than a batch's.
"""


def squares(new, steps):
    """The sum of the squared weights of that many batches."""
    return new / (2 - new) * (1 - (1 - new) ** (2 * steps))


@pytest.mark.parametrize("new", PUBLISHED)
def test_published_figures(new):
    half_life, age, effective, steps, factor = PUBLISHED[new]
    memory = Memory(new)
    assert memory.half_life == pytest.approx(half_life, rel=2e-3)
    assert memory.mean_age == pytest.approx(age, rel=2e-3)
    assert memory.effective_batches == pytest.approx(effective, rel=1e-3)
    assert memory.steps_to_1_percent == steps
    assert math.sqrt(squares(new, 10**7)) == pytest.approx(factor, rel=3e-3)


@pytest.mark.parametrize("new", [0.5, 0.1, 0.03, 0.001, 0.9, 1e-6])
def test_steps_to_1_percent_by_its_definition(new):
    steps = Memory(new).steps_to_1_percent
    assert (1 - new) ** steps <= 0.01 * (1 + 1e-9)
    assert steps == 1 or (1 - new) ** (steps - 1) > 0.01


def test_where_there_is_no_such_figure():
    for new in (0.0, 2.0, 3.0, -0.1):
        memory = Memory(new)
        assert memory.half_life is memory.steps_to_1_percent is None
    assert Memory(1.0).steps_to_1_percent == 1
    assert Memory(None).steps_to_1_percent == 1
    assert Memory(None).half_life is None


@pytest.mark.parametrize("steps", [1, 10, 44, 100, 100_000])
def test_the_momentum_that_reaches_1_percent(steps):
    new = new_weight_for_steps(steps)
    assert (1 - new) ** steps == pytest.approx(0.01, rel=1e-9)
    assert abs(Memory(new).steps_to_1_percent - steps) <= 1


@pytest.mark.parametrize("noise", [0.001, 0.01, 0.1])
@pytest.mark.parametrize(("count", "kurtosis"), [(32, 0.0), (256, 3.0), (100, -1.9)])
def test_the_momentum_that_reaches_a_noise(noise, count, kurtosis):
    new = new_weight_for_noise(noise, count, kurtosis)
    mean, var = standard_errors(np.array([4.0]), np.array([kurtosis]), count, squares(new, 10**9))
    assert max(mean[0] / 2, var[0] / 4) == pytest.approx(noise, rel=1e-9)


def test_a_noise_that_any_momentum_reaches():
    assert new_weight_for_noise(10.0, 32, 0.0) == 1.0


@pytest.mark.parametrize("kind", ["normal", "exponential", "uniform"])
@pytest.mark.parametrize("new", [0.1, 0.4])
def test_standard_errors_by_simulation(kind, new):
    """2000 runs of 80 batches of 16 values, their buffers' scatter beside the formula."""
    rng = np.random.default_rng(0)
    runs, batches, count = 2000, 80, 16
    draw, kurtosis, var = {
        "normal": (rng.standard_normal, 0.0, 1.0),
        "exponential": (rng.standard_exponential, 6.0, 1.0),
        "uniform": (rng.random, -1.2, 1 / 12),
    }[kind]
    x = draw((batches, count, runs))
    table = BatchTable(np.full(batches, count), x.mean(1), x.var(1))
    order = np.arange(batches)
    found = simulate(
        table, convention("pytorch"), Course(lambda: iter([order]), batches, new),
        np.array([batches]), [0],
    )  # fmt: skip
    mean, spread = standard_errors(
        np.array([var]), np.array([kurtosis]), count, squares(new, batches)
    )
    assert found.final.running_mean.std() == pytest.approx(mean[0], rel=0.06)
    assert found.final.running_var.std() == pytest.approx(spread[0], rel=0.08)


@pytest.mark.parametrize("sizes", [(2, 3), (4, 16), (32, 32, 1, 2)])
def test_standard_errors_of_batches_of_different_sizes(sizes):
    """5000 runs of a cumulative average; a batch of one value has no part in it."""
    rng = np.random.default_rng(1)
    several = [n for n in sizes if n > 1]
    x = [rng.standard_normal((n, 5000)) for n in several * 10]
    squared = 1 / len(x)
    counts = np.array(several)
    mean, spread = standard_errors(np.ones(1), np.zeros(1), counts, squared)
    assert np.mean([b.mean(0) for b in x], 0).std() == pytest.approx(mean[0], rel=0.04)
    assert np.mean([b.var(0, ddof=1) for b in x], 0).std() == pytest.approx(spread[0], rel=0.04)
    with_ones = relative_variance(np.array(sizes), 0.0)
    assert with_ones == relative_variance(counts, 0.0)


def test_relative_variance_of_a_variance():
    assert relative_variance(1, 0.0) == math.inf
    assert relative_variance(9, 0.0) == 0.25
    assert relative_variance(2, -100.0) == 0.0
