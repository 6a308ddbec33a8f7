"""The tolerances of norms against PyTorch: no false alarm, and tight."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest
import torch

from bncli.backends.interface import NORM_QUANTITIES
from bncli.moments import channel_stats
from bncli.norms import BATCH, GROUP, INSTANCE, LAYER, RMS, describe
from bncli.verify.norms import compare_norms
from tests.sampling import some
from tests.verify.norm_cases import TORCH, compared

NAMES = (BATCH, LAYER, INSTANCE, GROUP, RMS)


@pytest.mark.parametrize(
    "seeds", [range(120), pytest.param(range(400), marks=pytest.mark.exhaustive)], ids=str
)
def test_no_false_alarm_and_tight(seeds):
    """Every healthy run passes; the median run uses at least 1 % of each tolerance."""
    used: dict[str, list[float]] = {}
    alarms = []
    for seed in seeds:
        for item in compared(seed):
            used.setdefault(item.quantity, []).append(item.used)
            if not item.passed:
                alarms.append((seed, item))
    assert not alarms
    assert set(used) == {
        f"{name} {quantity}"
        for name in NAMES
        for quantity in NORM_QUANTITIES
        if (name, quantity) != (RMS, "mean")
    }
    for quantity, shares in used.items():
        assert len(shares) > 0.375 * len(seeds), quantity
        assert median(shares) >= 0.01, quantity


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("seeds", some(range(1000, 1120), 30), ids=str)
def test_no_false_alarm_at_any_number_of_threads(threads, seeds):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for seed in seeds:
            assert [item for item in compared(seed) if not item.passed] == [], seed
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("seeds", some(range(2000, 2012), 3), ids=str)
def test_no_false_alarm_in_long_rows(seeds):
    """Hundreds of thousands of values in a statistic."""
    for seed in seeds:
        found = compared(seed, largest=400_000)
        assert [item for item in found if not item.passed] == [], seed


@pytest.mark.parametrize("order", ["sorted", "one outlier", "alternating", "two clusters"])
def test_no_false_alarm_where_the_order_is_no_accident(order):
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 1.0, 24_000)
    if order == "sorted":
        values.sort()
    elif order == "one outlier":
        values[0] = 1e6
    elif order == "alternating":
        values[::2] += 1000.0
    else:
        values[12_000:] += 1000.0
    x = values.reshape(4, 6, 1000).astype(np.float32)
    norms = describe(x.shape, 1, groups=2, normalized=2, eps=None, rms_eps=2.0**-23)
    found = compare_norms(norms, x, "float32", channel_stats(x), TORCH).compared
    assert [item for item in found if not item.passed] == []
