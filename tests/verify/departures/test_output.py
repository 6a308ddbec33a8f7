"""Mistakes of an output in training, each planted alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncli.model import RunningStats
from bncli.verify.batch_norm_pass import Path
from bncli.verify.comparison import compare_channels
from bncli.verify.departures import departures
from tests.verify.departures.planted import OUTPUT, Planted, case, named


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mistake", OUTPUT)
def test_an_output(mistake, dtype):
    causes, failed = named(mistake, case(dtype=dtype))
    assert "output" in failed
    assert causes["output"] == OUTPUT[mistake]


OUTSIDE = "eps is outside the root"
BY_VAR = "the output is divided by the variance, not by its root"
OTHER_EPS = "eps is 2e-5, not the 1e-5 that was given"
AS_GIVEN = {
    "the output is the input, as it was given",
    "eps is not added",
    "running_var taken for invstd",
    "not divided by the standard deviation",
}


@pytest.mark.parametrize(
    ("mistake", "fitting"),
    [
        ("eps outside", {OUTSIDE, BY_VAR, OTHER_EPS}),
        ("by var", {OUTSIDE, BY_VAR, OTHER_EPS}),
        ("identity", AS_GIVEN),
        ("no eps", AS_GIVEN),
        ("no std", AS_GIVEN),
    ],
)
def test_mistakes_that_are_one_number_with_a_new_layers_statistics(mistake, fitting):
    config = case(training=False)
    new = replace(
        config,
        weight=np.ones(5),
        bias=np.zeros(5),
        running=RunningStats(np.zeros(5), np.ones(5), 0),
        settings=replace(config.settings, eps=1e-5),
    )
    done = new.done()
    compared = compare_channels(done, new.x, Planted(mistake), seed=0, tolerance=None, path=Path())
    cause = departures(done, new.x, compared)["output"]
    assert cause.fitting == fitting
    assert "running statistics" in cause.advice

    causes, _ = named(mistake, config)  # with statistics of its own, there is one
    assert causes["output"] == OUTPUT[mistake]


def test_running_var_that_is_corrected_in_eval_mode():
    class Corrected(Planted):
        def run(self, call):
            n = call.x.size // call.x.shape[1]
            running = replace(call.running, running_var=call.running.running_var * n / (n - 1))
            output = super().run(replace(call, running=running)).quantities["output"]
            run = super().run(call)
            return replace(run, quantities={**run.quantities, "output": output})

    config = case(training=False)
    done = config.done()
    compared = compare_channels(done, config.x, Corrected(), seed=0, tolerance=None, path=Path())
    cause = departures(done, config.x, compared)["output"]
    assert cause.said == "running_var is multiplied by n / (n - 1) in eval mode"
