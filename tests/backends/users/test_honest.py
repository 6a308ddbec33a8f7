"""Honest implementations pass under the derived tolerances, and one pass in few digits does not."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.model import BatchNormSettings, RunningStats
from bncli.verify.batch_norm_pass import Path
from bncli.verify.comparison import compare_channels, compare_pass
from bncli.verify.departures import departures
from tests.backends.users.code import backend
from tests.backends.users.honest import (
    batch_norm_by,
    blocked,
    one_pass,
    one_pass_in_double,
    two_pass,
    welford,
)
from tests.configurations import Configuration, configuration

HONEST = (two_pass, welford, blocked, one_pass_in_double)


def around(mean, dtype, count=200):
    x = (np.random.default_rng(0).normal(size=(count, 3)) + mean).astype(dtype)
    kept = RunningStats(np.zeros(3), np.ones(3), 0)
    return Configuration(x, dtype, 1, BatchNormSettings(), np.ones(3), np.zeros(3), kept)


@pytest.mark.parametrize("statistics", HONEST)
def test_no_honest_one_is_blamed(statistics):
    for seed in range(5000, 5030):
        config = configuration(seed, largest=4000)
        if config.dtype == "float64" and statistics is one_pass_in_double:
            continue  # in float64 that is one pass in the input's own digits
        with np.errstate(all="ignore"):
            compared, _ = compare_pass(
                config.done(), config.x, backend(batch_norm_by(statistics)), seed=seed
            )
        assert [item for item in compared if not item.passed] == [], seed


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("statistics", HONEST)
def test_hard_data_is_no_fault_of_theirs(statistics, dtype):
    for mean in (10.0, 1e3, 1e3 if dtype == "float16" else 1e5):
        if dtype == "float64" and statistics is one_pass_in_double:
            continue
        config = around(mean, dtype)
        compared, _ = compare_pass(config.done(), config.x, backend(batch_norm_by(statistics)))
        assert [item for item in compared if not item.passed] == [], mean


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_one_pass_fails_at_hard_data_and_is_named(dtype):
    config = around(1e3, dtype)
    done = config.done()
    one = backend(batch_norm_by(one_pass))
    compared = compare_channels(done, config.x, one, seed=0, tolerance=None, path=Path())
    failed = {item.whole.quantity for item in compared.quantities if not item.whole.passed}
    assert "output" in failed
    assert departures(done, config.x, compared)["output"].words.startswith("one-pass variance")
    easy = around(0.0, dtype)
    compared, _ = compare_pass(easy.done(), easy.x, one)
    assert all(item.passed for item in compared)
