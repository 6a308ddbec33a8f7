"""How far batches are from each other, recomputed from the arrays."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.rulebook.live.measures import layer_measure
from tests.rulebook.live.captures import (
    watched,
)


def test_the_share_between_batches_and_the_batch_that_would_do():
    rng = np.random.default_rng(2)
    bright = [rng.normal(0, 1, (4, 3, 1, 1)) for _ in range(400)]
    batches = [each + rng.normal(0, 1, (4, 3, 8, 8)) for each in bright]
    found = layer_measure(watched("bn", batches))
    # Half of the variance is that of the samples' means, and a quarter of that is between batches.
    assert found.training.between == pytest.approx(1 / 8, rel=0.1)
    assert found.training.needed in (10, 11)
    assert found.evaluation.f_ratio == pytest.approx(1, abs=0.15)
    assert not found.evaluation.differ


def test_batches_of_one_domain_each_differ_more_than_chance():
    rng = np.random.default_rng(3)
    batches = [rng.normal(0.5 * (i % 2), 1, (32, 4, 2, 2)) for i in range(10)]
    evaluation = layer_measure(watched("bn", batches)).evaluation
    assert evaluation.differ
    whole = np.concatenate(batches)
    means = np.array([batch.mean((0, 2, 3)) for batch in batches])
    inner = [((b.mean((2, 3)) - b.mean((0, 2, 3))) ** 2).sum(0) for b in batches]
    spread = np.maximum(sum(inner) / 310, np.mean([b.var((0, 2, 3)) for b in batches], 0) / 4)
    ratio = 32 * ((means - means.mean(0)) ** 2).sum(0) / 9 / spread
    assert evaluation.f_ratio == pytest.approx(np.median(ratio), rel=1e-9)
    excess = (32 * means.var(0, ddof=1) - spread) / 32 / whole.var((0, 2, 3))
    assert evaluation.apart == pytest.approx(np.sqrt(np.median(excess)), rel=1e-9)


def test_dropout_moves_the_variance_one_way():
    rng = np.random.default_rng(9)
    plain = [rng.normal(0, 1, (64, 8)) for _ in range(8)]
    dropped = [batch * (rng.uniform(size=batch.shape) < 0.5) * 2 for batch in plain]
    found = layer_measure(watched("bn", plain, as_trained=dropped))
    assert found.dropout.ratio == pytest.approx(0.5, abs=0.1)
    assert found.dropout.one_way
    assert layer_measure(watched("bn", plain)).dropout is None
