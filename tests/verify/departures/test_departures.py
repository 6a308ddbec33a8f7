"""Every planted mistake is named in the quantity that shows it, and nothing that is right is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bncli.verify.batch_norm_pass import Path
from bncli.verify.comparison import compare_channels
from bncli.verify.departures import departures
from tests.configurations import configuration
from tests.verify.departures.planted import Planted, case, named


def test_what_is_right_is_not_named():
    for seed in range(3000, 3020):
        config = configuration(seed, largest=5_000)
        assert named("", config) == ({}, set())


def test_a_mistake_that_nobody_knows_has_no_name():
    class Odd(Planted):
        def run(self, call):
            run = super().run(call)
            rng = np.random.default_rng(1)
            noise = {
                name: values + rng.normal(size=np.shape(values)).astype(np.float32)
                for name, values in run.quantities.items()
                if name != "num_batches_tracked"
            }
            return replace(run, quantities=noise)

    config = case()
    done = config.done()
    compared = compare_channels(done, config.x, Odd(), seed=0, tolerance=None, path=Path())
    assert departures(done, config.x, compared) == {}
