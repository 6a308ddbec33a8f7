"""Updates of running statistics, made by torch and by every convention: weight and divisor told."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from bncli.dtypes import decode, encode
from bncli.model import RunningStats
from bncli.moments import channel_stats
from bncli.running_stats.frameworks import CONVENTIONS
from bncli.verify.identify.running import Observed, identify_update


def observed(x, before, after, dtype="float64"):
    return Observed(channel_stats(x, 1), RunningStats(*before, 0), RunningStats(*after, 1), dtype)


def batch(count=20, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(1, 2, (count, channels))
    before = rng.normal(size=channels), np.exp(rng.normal(size=channels))
    return x, before


def updated(x, before, weight, var, mean_weight=None):
    mean_weight = weight if mean_weight is None else mean_weight
    return (
        (1 - mean_weight) * before[0] + mean_weight * x.mean(0),
        (1 - weight) * before[1] + weight * var,
    )


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.3, 0.9, 0.123, None])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch(momentum, dtype):
    torch.manual_seed(0)
    x = (torch.randn(16, 4, 5) * 2 + 1).to(getattr(torch, dtype))
    module = torch.nn.BatchNorm1d(4, momentum=momentum, dtype=x.dtype)
    for _ in range(6):
        module(torch.randn_like(x))
    sides = []
    for _ in range(2):
        sides.append([b.double().numpy().copy() for b in (module.running_mean, module.running_var)])
        module(x)
    found = identify_update(observed(x.numpy(), *sides, dtype))
    best = found.ways[0]
    assert best.explains
    assert best.update.variance == "unbiased"
    assert best.update.weight == pytest.approx(1 / 7 if momentum is None else momentum, rel=1e-4)
    assert found.expected
    if momentum is None:
        assert "the average over 7 batches" in found.best


def rounded(values, dtype):
    return decode(encode(values, dtype), dtype).astype(np.float64)


PLAIN = [row for row in CONVENTIONS if row.momentum is not None and row.debias == "no"]
"""The others keep their statistics in another form, or have no default."""


@pytest.mark.parametrize("convention", PLAIN, ids=lambda row: row.name)
def test_every_convention_is_named(convention):
    """All whose default momentum and variance are the planted ones are named, and only those."""
    x, before = batch()
    weight = convention.new_weight(float(convention.momentum))
    var = x.var(0) * convention.variance_factor(len(x))
    found = identify_update(observed(x, before, updated(x, before, weight, var)))
    best = found.ways[0]
    assert (best.explains, best.update.variance) == (True, convention.variance)
    assert best.update.weight == weight
    if weight < 1:
        assert convention.name in best.update.frameworks
        assert convention.name in found.best
    for name in best.update.frameworks:
        row = next(row for row in CONVENTIONS if row.name == name)
        assert row.variance == convention.variance
        assert row.new_weight(float(row.momentum)) == weight
    assert found.expected == (convention.variance == "unbiased")


@pytest.mark.parametrize(
    ("weight", "variant"),
    [(0.19, "updated twice with momentum 0.1"), (0.1, "the standard deviation taken")],
)
def test_odd_updates(weight, variant):
    x, before = batch()
    var = x.var(0, ddof=1)
    entered = np.sqrt(var) if "deviation" in variant else var
    found = identify_update(observed(x, before, updated(x, before, weight, entered)))
    assert found.ways[0].explains
    assert found.ways[0].update.variant.startswith(variant)
    assert not found.expected


def test_two_momenta():
    x, before = batch()
    after = updated(x, before, 0.2, x.var(0, ddof=1), mean_weight=0.05)
    best = identify_update(observed(x, before, after)).ways[0]
    assert best.explains
    assert best.update.variant == "running_mean with momentum 0.05"
    assert best.update.weight == 0.2


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_nothing_was_updated(dtype):
    x, before = batch()
    before = tuple(rounded(side, dtype) for side in before)
    found = identify_update(observed(x, before, before, dtype))
    assert found.nothing
    assert not found.expected
    best = found.ways[0]
    assert best.explains
    assert (best.update.weight, best.update.ddof, best.update.frameworks) == (0, None, ())
    usual = updated(x, before, 0.1, x.var(0, ddof=1))
    off = max(np.abs(after - old).max() for after, old in zip(usual, before, strict=True))
    assert f"{off:.2g}" in found.best


def test_a_batch_of_the_running_statistics_themselves_moves_nothing():
    """And no more does an update whose steps are lost in the buffers' last place."""
    x, _ = batch()
    before = x.mean(0), x.var(0, ddof=1)
    found = identify_update(observed(x, before, before))
    assert (found.nothing, found.expected, found.confident) == (False, True, False)
    near = tuple(rounded(side, "bfloat16") for side in before)
    kept = tuple(rounded(side, "bfloat16") for side in updated(x, near, 0.1, x.var(0, ddof=1)))
    assert (kept[0] == near[0]).all()
    found = identify_update(observed(x, near, near, "bfloat16"))
    assert (found.nothing, found.expected) == (False, True)


@pytest.mark.parametrize("moved", ["mean", "var"])
def test_one_buffer_alone_was_updated(moved):
    x, before = batch()
    after = updated(x, before, 0.1, x.var(0, ddof=1))
    after = (after[0], before[1]) if moved == "mean" else (before[0], after[1])
    found = identify_update(observed(x, before, after))
    best = found.ways[0].update
    assert (found.nothing, found.expected) == (False, False)
    assert found.ways[0].explains
    assert (best.weight, best.mean_weight) == ((0.0, 0.1) if moved == "mean" else (0.1, 0.0))
    assert "Nothing" not in found.best


def test_the_sentence_says_what_another_divisor_would_leave():
    x, before = batch()
    after = updated(x, before, 0.1, x.var(0))
    found = identify_update(observed(x, before, after))
    other = updated(x, before, 0.1, x.var(0, ddof=1))
    off = np.abs(other[1] - after[1])
    words = f"running_var would be off by {off.max():.2g} in channel {off.argmax()}."
    assert f"with the unbiased variance, {words}" in found.best
    assert not found.expected
    assert found.confident


def test_a_large_batch_hides_the_divisor_and_says_so():
    rng = np.random.default_rng(0)

    def found(count):
        x = rng.normal(size=(count, 3))
        before = np.zeros(3), np.ones(3)
        after = updated(x, before, 0.1, x.var(0))
        held = [side.astype(np.float32).astype(np.float64) for side in after]
        return identify_update(observed(x.astype(np.float32), before, held, "float32"))

    hidden = found(3_000_000)
    assert hidden.expected
    assert not hidden.confident
    fewer = int(re.search(r"at most (\d+) values per channel would decide", hidden.best)[1])
    told = found(fewer // 2)
    assert told.ways[0].update.variance == "biased"
    assert not told.expected


def test_what_nobody_updated_is_not_explained():
    x, before = batch()
    found = identify_update(observed(x, before, (before[0] * 3 + 7, before[1] / 5)))
    assert not found.ways[0].explains
    assert found.best.startswith("None of ")
    assert not found.confident


@pytest.mark.parametrize("seed", [401154885, 264892163, 27463822, 349533703, 889264210, 153253565])
def test_a_correct_update_far_from_zero_is_not_blamed(seed):
    """In float64 a mean of 100 standard deviations costs PyTorch's variance some last places."""
    torch.manual_seed(seed)
    spread = torch.logspace(-1, 1, 8).reshape(1, 8, 1, 1)
    x = (torch.randn(32, 8, 8, 8) * spread + 100 * torch.randn(1, 8, 1, 1)).double()
    layer = torch.nn.BatchNorm2d(8).double()
    before = RunningStats(np.zeros(8), np.ones(8), 0)
    layer(x)
    after = RunningStats(layer.running_mean.numpy(), layer.running_var.numpy(), 1)
    stats = channel_stats(x.numpy(), 1)
    assert identify_update(Observed(stats, before, after, "float64")).expected
