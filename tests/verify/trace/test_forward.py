"""The forward steps: exact values, and formulas whose numbers give the value beside them."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.model import BatchNormLayer, BatchNormSettings, RunningStats
from bncli.moments import channel_stats
from bncli.verify.batch_norm_pass import batch_norm_pass
from bncli.verify.trace import ChannelView, Element, Writer, forward_steps
from tests.configurations import configuration
from tests.sampling import sampled


def traced(done, x, channel, at=None):
    view = ChannelView(x, done.channel_axis, channel, lambda part: part)
    writer = Writer.of(view, float(done.stats.mean[channel]), float(done.stats.var[channel]))
    element = None
    if at is not None:
        element = Element(view.index(at), float(view.read(at, at + 1)[0]))
    return forward_steps(done, view, writer, element)


def pass_over(x, layer=None, running=None, weight=None, bias=None):
    layer = layer or BatchNormSettings()
    channels = x.shape[1]
    running = running or RunningStats(np.zeros(channels), np.ones(channels), 0)
    stats = channel_stats(x)
    made = BatchNormLayer(layer, "float64", weight, bias, running)
    return batch_norm_pass(made, stats, dtype="float64", channel_axis=1)


def by_quantity(steps):
    found = {step.quantity: step for step in steps}
    assert len(found) == len(steps)  # a name is said once
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=24), st.data())
def test_every_value_is_the_rational_one(values, data):
    x = np.array(values, np.float64).reshape(-1, 1)
    at = data.draw(st.integers(0, len(values) - 1))
    momentum = data.draw(st.sampled_from([0.125, 0.5, None]))
    tracked = data.draw(st.integers(0, 5))
    done = pass_over(
        x,
        BatchNormSettings(eps=0.5, momentum=momentum),
        RunningStats(np.array([0.75]), np.array([1.5]), tracked),
        np.array([2.0]),
        np.array([-0.25]),
    )
    found = {key: step.value for key, step in by_quantity(traced(done, x, 0, at)).items()}

    n = len(values)
    mean = Fraction(sum(values), n)
    squares = sum((value - mean) ** 2 for value in values)
    shifted = squares / n + Fraction(1, 2)
    root = math.sqrt(shifted)
    deviation = values[at] - mean
    factor = Fraction(momentum) if momentum is not None else Fraction(1, tracked + 1)
    expected = {
        "values": None,
        "count": n,
        "mean": mean,
        "var": squares / n,
        "unbiased_var": squares / (n - 1),
        "var_plus_eps": shifted,
        "sqrt": root,
        "invstd": 1 / root,
        "weight": 2,
        "bias": -0.25,
        "x": values[at],
        "deviation": deviation,
        "squared": deviation**2,
        "x_hat": float(deviation) / root,
        "scaled": 2 * float(deviation) / root,
        "output": 2 * float(deviation) / root - 0.25,
        "factor": factor,
        "running_mean": (1 - factor) * Fraction(3, 4) + factor * mean,
        "running_var": (1 - factor) * Fraction(3, 2) + factor * squares / (n - 1),
        "num_batches_tracked": tracked + 1,
    }
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if value is not None:
            assert found[key] == pytest.approx(float(value), rel=1e-13, abs=1e-12), key


EVALUATED = re.compile(
    r"^(?P<made_of>[-+*/^() 0-9.e]+|sqrt\([^)]+\)|1 / [0-9.e+-]+) = (?P<value>\S+)$"
)


@pytest.mark.parametrize("seed", sampled(range(60), lambda place: place < 20))
def test_every_formula_in_numbers_gives_its_value(seed):
    """Where a sum is written out in full: Python computes the text, to the digits that it shows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(rng.choice([0, 3, -200]), 2, (int(rng.integers(2, 6)), 2))
    layer = BatchNormSettings(
        momentum=[0.1, None][int(rng.integers(2))], training=bool(rng.random() < 0.7)
    )
    done = pass_over(
        x,
        layer,
        RunningStats(rng.normal(size=2), rng.uniform(0.5, 2, 2), 3),
        rng.normal(size=2),
        rng.normal(size=2),
    )
    judged = 0
    for step in traced(done, x, 1, at=1):
        match = EVALUATED.match(step.numbers)
        if match is None:
            assert "=" not in step.numbers or step.quantity == "x", step
            continue
        judged += 1
        computed = eval(match["made_of"].replace("^", "**"), {"sqrt": math.sqrt})
        scale = max(abs(float(n)) for n in re.findall(r"[0-9.]+(?:e[-+]\d+)?", step.numbers))
        # Numbers have six digits and terms five; a quotient or product may lose one more.
        assert computed == pytest.approx(step.value, rel=2e-4, abs=5e-5 * scale), step
        assert float(match["value"]) == pytest.approx(step.value, rel=1e-6), step
    assert judged >= (8 if not layer.training else 12)


@pytest.mark.parametrize("seed", sampled(range(40), lambda place: place < 12))
def test_pytorchs_module_has_the_same_values(seed):
    """Every mode and option, against torch in float64."""
    given = configuration(seed + 500, largest=300)
    if given.dtype != "float64":
        given = replace(given, dtype="float64", x=given.x.astype(np.float64))
    done = given.done()
    channel = seed % given.x.shape[given.channel_axis]
    found = {
        key: step.value for key, step in by_quantity(traced(done, given.x, channel, at=1)).items()
    }
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(given.x, given.channel_axis, 1)))
    kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}
    layer = given.settings
    module = kind.get(x.ndim, torch.nn.BatchNorm3d)(
        x.shape[1], layer.eps, layer.momentum, layer.affine, layer.track_running_stats,
        dtype=torch.float64,
    )  # fmt: skip
    state = {}
    if layer.affine:
        state |= {"weight": torch.from_numpy(given.weight), "bias": torch.from_numpy(given.bias)}
    if layer.track_running_stats:
        state |= {
            "running_mean": torch.from_numpy(given.running.running_mean),
            "running_var": torch.from_numpy(given.running.running_var),
            "num_batches_tracked": torch.tensor(given.running.num_batches_tracked),
        }
    module.load_state_dict(state)
    output = module.train(layer.training)(x).detach().numpy()
    view = ChannelView(given.x, given.channel_axis, channel, lambda part: part)
    expected = {"output": np.moveaxis(output, 1, given.channel_axis)[view.index(1)]}
    if layer.track_running_stats:
        expected |= {
            name: getattr(module, name)[channel].item() for name in ("running_mean", "running_var")
        }
        expected["num_batches_tracked"] = module.num_batches_tracked.item()
    scale = 1 + abs(found["mean"]) * abs(found["invstd"])
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-11, abs=1e-11 * scale), key


def test_evaluation_says_what_training_would_have():
    x = np.array([[1.0], [2.0], [6.0]])
    running = RunningStats(np.array([0.5]), np.array([4.0]), 7)
    steps = by_quantity(traced(pass_over(x, BatchNormSettings(training=False), running), x, 0, 0))
    trained = by_quantity(traced(pass_over(x, BatchNormSettings(), running), x, 0, 0))
    assert steps["mean"].value == 0.5
    assert steps["mean"].apart == -2.5
    for key, step in steps.items():
        assert step.training == trained[key].value, key
    assert steps["running_mean"].value == 0.5
    assert steps["running_mean"].training == pytest.approx(0.9 * 0.5 + 0.1 * 3, rel=1e-15)
    assert all(step.training is None for step in trained.values())


def test_one_value_a_channel_cannot_train():
    x = np.array([[3.0]])
    steps = traced(pass_over(x, BatchNormSettings(training=False)), x, 0, 0)
    assert all(step.training is None for step in steps)
    assert by_quantity(steps)["output"].value == pytest.approx(3 / math.sqrt(1 + 1e-5), rel=1e-15)
