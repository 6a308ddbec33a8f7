"""The measures of a layer, recomputed channel by channel."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.model.capture import Capture, Propagation
from bncli.rulebook.live.measures import layer_measure, measures, worst
from tests.rulebook.live.captures import EPS, capture, source, stored_of, watched


def batches_of(number=8, samples=16, channels=5, places=(4, 4), seed=0, mean=0.0, std=1.0):
    rng = np.random.default_rng(seed)
    return [
        rng.normal(mean, std, (samples, channels, *places)).astype(np.float32)
        for _ in range(number)
    ]


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


@settings(max_examples=25, deadline=None)
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
    assert found.right_error <= max(0.1, found.bound)
    assert not found.stored_wrong
    assert not found.evaluation.differ


def test_the_noise_is_the_running_average_s_and_the_data_s():
    """Over many draws, the error without the factor for chance is what was expected."""
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(300):
        history = [rng.normal(2, 3, (16, 1, 3, 3)) for _ in range(120)]
        mean, var = 2.0, 9.0
        for batch in history:
            mean = 0.9 * mean + 0.1 * batch.mean()
            var = 0.9 * var + 0.1 * batch.var(ddof=1)
        layer = watched("bn", history[-20:], mean=mean, var=var, weight=1)
        fresh = watched(
            "bn", [rng.normal(2, 3, (16, 1, 3, 3)) for _ in range(20)], mean=mean, var=var, weight=1
        )
        assert layer.num_features == 1
        found = layer_measure(fresh)
        ratios.append(found.right_error / found.bound)
    assert np.mean(np.array(ratios) > 1) <= 0.03
    assert np.quantile(ratios, 0.95) > 0.5  # and not so far away that nothing would be seen


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


def test_the_memory_tells_a_momentum_near_1():
    rng = np.random.default_rng(6)
    batches = [rng.normal(0, 1, (16, 200)) for _ in range(40)]
    last = rng.normal(0, 1, (16, 200))
    found = layer_measure(watched("bn", batches, mean=last.mean(0), var=last.var(0, ddof=1)))
    assert found.memory == pytest.approx(1, abs=0.35)
    assert layer_measure(watched("bn", batches)).memory < 0.02


def test_the_training_data_follow_from_the_first_layer():
    from tests.rulebook.live.captures import convolved

    rng = np.random.default_rng(7)
    data = [rng.uniform(0, 1, (16, 3, 6, 6)) * [[[0.5]], [[1]], [[2]]] for _ in range(8)]
    kernel, bias = rng.normal(size=(16, 3)), rng.normal(size=16)
    inside, read = convolved(data, kernel, bias)
    mean, var = stored_of(inside)
    shown = [255 * batch for batch in data]
    outside, _ = convolved(shown, kernel, bias)
    layer = watched("bn", outside, mean=mean, var=var, kernel=read)
    (found,) = measures(capture(source(shown), layer))
    assert found.origin.residual < 1e-6
    assert found.origin.means.tolist() == pytest.approx(
        np.mean([batch.mean((0, 2, 3)) for batch in data], 0).tolist(), rel=1e-6
    )
    whole = np.concatenate(shown)
    apart = (whole.mean((0, 2, 3)) - found.origin.means) / whole.std((0, 2, 3))
    assert found.origin.apart == pytest.approx(np.sqrt((apart**2).mean()))
    (wrong,) = measures(
        capture(source(shown), replace(layer, kernel=replace(read, sums=rng.normal(size=(16, 3)))))
    )
    assert wrong.origin.residual > 0.3


@pytest.mark.parametrize("outputs", [3, 4])
def test_few_output_channels_tell_nothing_of_the_training_data(outputs):
    from tests.rulebook.live.captures import convolved

    data = batches_of(channels=3)
    made, read = convolved(data, np.random.default_rng(0).normal(size=(outputs, 3)))
    (found,) = measures(capture(source(data), watched("bn", made, kernel=read)))
    assert found.origin is None


def test_a_layer_that_reads_the_input_stores_its_means():
    data = batches_of(mean=1.0)
    layer = watched("bn", data, mean=[1, 1, 1, 1, 3])
    (found,) = measures(capture(source(data), layer))
    assert found.origin.means.tolist() == [1, 1, 1, 1, 3]
    assert found.origin.residual == 0
    assert found.origin.apart == pytest.approx(2 / np.sqrt(5), abs=0.03)


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


def test_dropout_moves_the_variance_one_way():
    rng = np.random.default_rng(9)
    plain = [rng.normal(0, 1, (64, 8)) for _ in range(8)]
    dropped = [batch * (rng.uniform(size=batch.shape) < 0.5) * 2 for batch in plain]
    found = layer_measure(watched("bn", plain, as_trained=dropped))
    assert found.dropout.ratio == pytest.approx(0.5, abs=0.1)
    assert found.dropout.one_way
    assert layer_measure(watched("bn", plain)).dropout is None
