"""The measures of a layer, recomputed channel by channel."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bncli.model.capture import Capture, Propagation
from bncli.rulebook.live.measures import layer_measure, measures, worst
from tests.rulebook.live.captures import (
    EPS,
    batches_of,
    capture,
    source,
    stored_of,
    watched,
)


def exact(values):
    """Mean and biased variance by exact sums."""
    values = [float(value) for value in values.ravel()]
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) ** 2 for value in values) / len(values)


def test_z_ratio_and_error_are_what_they_say():
    batches = batches_of(mean=1.5, std=3.0)
    mean, var = np.array([0, 1, 1.5, 2, 9.0]), np.array([9, 1, 900, 4.0, 0.5])
    layer = watched("bn", batches, mean=mean, var=var, weight=[1, -2, 0, 0.5, 1])
    found = layer_measure(layer)
    whole = np.concatenate(batches)
    errors = []
    for channel in range(5):
        own_mean, own_var = exact(whole[:, channel])
        stored = float(np.float32(var[channel])) + EPS
        z = (own_mean - mean[channel]) / math.sqrt(stored)
        ratio = (own_var + EPS) / stored
        assert found.z[channel] == pytest.approx(z, rel=1e-12)
        assert found.var_ratio[channel] == pytest.approx(ratio, rel=1e-12)
        weight = abs([1, -2, 0, 0.5, 1][channel])
        errors.append(weight * math.sqrt(z**2 + (math.sqrt(ratio) - 1) ** 2))
    assert found.channel_error.tolist() == pytest.approx(errors, rel=1e-11)
    rms = math.sqrt(math.fsum(error**2 for error in errors) / 5)
    assert found.predicted_error == pytest.approx(rms, rel=1e-12)
    assert found.z_max == max(abs(found.z))
    assert found.z_median == sorted(abs(found.z))[2]
    assert (found.var_ratio_min, found.var_ratio_max) == (
        min(found.var_ratio),
        max(found.var_ratio),
    )
    assert found.worst_channel == 4
    assert found.blamed
    assert found.stored_wrong


def test_what_running_statistics_estimate_is_the_right_number():
    """Batches of two: the variance of all values is another one than that within batches."""
    rng = np.random.default_rng(1)
    bright = [rng.normal(0, 1, (2, 6, 1, 1)) for _ in range(200)]
    batches = [each + rng.normal(0, 0.3, (2, 6, 4, 4)) for each in bright]
    found = layer_measure(watched("bn", batches, weight=1))
    assert found.predicted_error > 0.2
    assert found.right_error < 1e-6
    assert not found.stored_wrong
    mean, var = stored_of(batches)
    whole = np.concatenate(batches)
    off = np.sqrt(whole.var((0, 2, 3)) / var) - 1
    z = (whole.mean((0, 2, 3)) - mean) / np.sqrt(var)
    assert found.predicted_error == pytest.approx(np.sqrt((off**2 + z**2).mean()), rel=1e-4)


def test_the_memory_tells_a_momentum_near_1():
    rng = np.random.default_rng(6)
    batches = [rng.normal(0, 1, (16, 200)) for _ in range(40)]
    last = rng.normal(0, 1, (16, 200))
    found = layer_measure(watched("bn", batches, mean=last.mean(0), var=last.var(0, ddof=1)))
    assert found.memory == pytest.approx(1, abs=0.35)
    assert layer_measure(watched("bn", batches)).memory < 0.02


def test_a_layer_without_statistics_has_no_measure():
    data = batches_of()
    shown = capture(source(data), watched("a", data, track=False), watched("b", data, order=2))
    assert [each.name for each in measures(shown)] == ["b"]
    assert measures(Capture(())) == ()
    assert worst(()) is None


def test_a_layer_that_saw_evaluation_alone_is_judged_there():
    layer = watched("bn", batches_of(), mean=1)
    evaluation = layer.seen[Propagation.EVAL]
    (found,) = measures(capture(replace(layer, seen={Propagation.EVAL: evaluation})))
    assert found.judged_in is Propagation.EVAL
    assert found.z_median == pytest.approx(1, abs=0.1)


def test_not_a_number_is_not_blamed():
    batches = batches_of()
    batches[2][0, 1, 0, 0] = np.nan
    found = layer_measure(watched("bn", batches, mean=0, var=1))
    assert found.predicted_error is None
    assert found.z_max is None
    assert not found.blamed
    assert worst((found,)) is None


def test_instance_norm_is_judged_by_what_it_divides_by():
    """Samples that differ as a whole: the variance of all values is no sample's."""
    rng = np.random.default_rng(8)
    batches = [
        rng.normal(0, 1, (8, 3, 1, 1)) * 5 + rng.normal(0, 1, (8, 3, 6, 6)) for _ in range(20)
    ]
    var = np.mean([b.var((2, 3), ddof=1).mean(0) for b in batches], 0)
    layer = watched("norm", batches, var=var, per_sample=True, weight=1)
    found = layer_measure(layer)
    assert found.batches == 160
    assert found.predicted_error < 0.1
    assert layer_measure(watched("bn", batches, var=var, weight=1)).predicted_error > 2
    assert found.evaluation.f_ratio is None


def test_a_mean_that_never_varies_is_no_distance():
    """Behind BatchNorm and a linear layer, a training pass gives every batch the same mean."""
    rng = np.random.default_rng(12)
    batches = [rng.normal(0, 1, (64, 6)) for _ in range(12)]
    batches = [batch - batch.mean(0) for batch in batches]
    found = layer_measure(watched("bn", batches, mean=0.001, weight=1))
    assert found.memory < 0.5
