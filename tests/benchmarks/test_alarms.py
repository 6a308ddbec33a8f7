"""A thousand healthy configurations: no alarm from a comparison, no blame from an identification.

The tests run fifty of each.
"""

from __future__ import annotations

import pytest

from bncli.backends import BackendName, backend
from bncli.verify.batch_norm_pass import Path
from bncli.verify.comparison import compare_channels
from tests.configurations import configuration
from tests.verify.identify.test_norm_ways import DTYPES, SHAPES, judge, samples
from tests.verify.identify.test_output import healthy

TORCH = backend(BackendName.TORCH)

RUNS = 1000


@pytest.mark.parametrize("threads", [1, 2])
def test_no_comparison_raises_an_alarm(threads):
    alarms = []
    for seed in range(RUNS):
        config = configuration(seed, largest=20_000)
        compared = compare_channels(
            config.done(), config.x, TORCH, seed=seed, tolerance=None, path=Path(threads=threads),
        )  # fmt: skip
        alarms += [(seed, item.whole) for item in compared.quantities if not item.whole.passed]
    assert not alarms


def test_no_identification_blames():
    blamed = []
    for seed in range(RUNS):
        _, found = healthy(seed, largest=20_000)
        if not found.expected:
            blamed.append((seed, found.best))
    assert not blamed


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_norm_of_every_sample_is_recognised(shape, dtype):
    """Of which the tests judge every fourth."""
    assert judge(samples(shape, dtype)) == []
