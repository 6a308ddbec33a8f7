"""The gradients against autograd in float64; formulas whose numbers give the value beside them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from bncli.model import BatchNormSettings, RunningStats
from bncli.verify.trace import (
    ChannelView,
    Element,
    Writer,
    backward_steps,
    elements,
    gradients,
)
from tests.configurations import Configuration, configuration
from tests.sampling import sampled
from tests.verify.trace.channels import plain, views


def autograd(given, g, channel, at) -> dict[str, float]:
    """The same graph step by step in torch, float64."""
    done = given.done()
    x = torch.from_numpy(np.moveaxis(given.x, given.channel_axis, 1).astype(np.float64).copy())
    up = torch.from_numpy(np.moveaxis(g, given.channel_axis, 1).astype(np.float64).copy())
    x.requires_grad_()
    others = [0, *range(2, x.ndim)]
    shape = [1, -1] + [1] * (x.ndim - 2)
    if given.settings.normalizes_with_batch:
        mean, var = x.mean(others), x.var(others, correction=0)
    else:
        mean = torch.from_numpy(given.running.running_mean.copy()).requires_grad_()
        var = torch.from_numpy(given.running.running_var.copy()).requires_grad_()
    weight = torch.from_numpy(done.norm.weight.copy()).requires_grad_()
    bias = torch.from_numpy(done.norm.bias.copy()).requires_grad_()
    mean.retain_grad()
    var.retain_grad()
    root = torch.sqrt(var + given.settings.eps)
    x_hat = (x - mean.view(shape)) / root.view(shape)
    x_hat.retain_grad()
    (x_hat * weight.view(shape) + bias.view(shape)).backward(up)

    def element(tensor):
        values = np.moveaxis(tensor.numpy(), 1, given.channel_axis)
        return values[views(given, g, channel)[0].index(at)]

    found = {
        "sum_g": bias.grad[channel].item(),
        "sum_g_x_hat": weight.grad[channel].item(),
        "g": element(up),
        "grad_x_hat": element(x_hat.grad),
        "grad_input": element(x.grad),
    }
    if given.settings.affine:
        found |= {"grad_bias": found["sum_g"], "grad_weight": found["sum_g_x_hat"]}
    if given.settings.normalizes_with_batch:
        found |= {"grad_var": var.grad[channel].item(), "grad_mean": mean.grad[channel].item()}
    return found


@pytest.mark.parametrize("seed", sampled(range(40), lambda place: place < 12))
def test_every_step_is_autograds(seed):
    given = configuration(seed + 900, largest=400)
    g = np.random.default_rng(seed).normal(size=given.x.shape)
    channel = seed % given.x.shape[given.channel_axis]
    done = given.done()
    view, upstream = views(given, g, channel)
    at = view.count - 1
    element = Element(view.index(at), float(view.read(at, at + 1)[0]))
    found = gradients(done, view, upstream)
    writer = Writer.of(view, float(done.stats.mean[channel]), float(done.stats.var[channel]))
    steps = backward_steps(done, found, view, upstream, writer, element)
    values = {step.quantity: step.value for step in steps if step.quantity != "upstream"}
    expected = autograd(given, g, channel, at)
    assert values.keys() == expected.keys()
    # torch's own sums and deviations, in float64 as ours, lose digits to a mean far from 0.
    condition = 1 + np.abs(done.stats.mean[channel]) * done.norm.invstd[channel]
    magnitude = view.count * abs(done.norm.invstd[channel]) ** 3 + view.count
    for key, value in expected.items():
        assert values[key] == pytest.approx(value, rel=1e-9, abs=1e-15 * condition * magnitude), key


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("seed", sampled(range(20), lambda place: place < 6))
def test_every_formula_in_numbers_gives_its_value(seed, training):
    """Python computes the text, to the digits that it shows; powers bind as in Python."""
    rng = np.random.default_rng(seed)
    x, g = rng.normal(rng.choice([0, 3, -20]), 2, (2, int(rng.integers(2, 6)), 2))
    layer = BatchNormSettings(training=training)
    running = RunningStats(rng.normal(size=2), rng.uniform(0.5, 2, 2), 3)
    done = Configuration(x, "float64", 1, layer, rng.normal(size=2), np.zeros(2), running).done()
    view, upstream = (ChannelView(values, 1, 1, lambda part: part) for values in (x, g))
    writer = Writer.of(view, float(done.stats.mean[1]), float(done.stats.var[1]))
    element = Element((1, 1), float(x[1, 1]))
    steps = backward_steps(done, gradients(done, view, upstream), view, upstream, writer, element)
    written = {step.quantity: step for step in steps if " = " in step.numbers}
    assert written.keys() >= {"sum_g", "sum_g_x_hat", "grad_x_hat", "grad_input"}
    assert ("grad_var" in written and "grad_mean" in written) == training
    for step in written.values():
        made_of, value = step.numbers.split(" = ")
        scale = max(abs(float(n)) for n in re.findall(r"[0-9.]+(?:e[-+]\d+)?", step.numbers))
        computed = eval(made_of.replace("^", "**"))
        assert computed == pytest.approx(step.value, rel=1e-3, abs=1e-4 * scale), step
        assert float(value) == pytest.approx(step.value, rel=1e-6), step


def test_long_sums_end_in_the_last_values():
    given = plain(np.array([[1.0]] * 20 + [[-1.0]] * 20))
    g = np.arange(40.0).reshape(40, 1)
    done = given.done()
    view, upstream = views(given, g, 0)
    steps = backward_steps(
        done, gradients(done, view, upstream), view, upstream, Writer.of(view, 0.0, 1.0), None
    )
    texts = {step.quantity: step.numbers for step in steps}
    assert texts["upstream"] == "0, 1, 2, ..., 39"
    assert texts["sum_g"] == "0 + 1 + 2 + ... + 39 = 780"
    assert texts["sum_g_x_hat"] == "0 * 1 + 1 * 1 + ... + 39 * -1 = -399.998"


def test_elements_have_the_gradients_of_autograd():
    given = configuration(3, largest=50)
    g = np.random.default_rng(0).normal(size=given.x.shape)
    done = given.done()
    view, upstream = views(given, g, 0)
    shown = elements(done.norm, view, view.count)
    found = gradients(done, view, upstream)
    ours = found.grad_input(elements(done.norm, upstream, view.count).x, shown.x_hat)
    theirs = [autograd(given, g, 0, at)["grad_input"] for at in range(view.count)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
