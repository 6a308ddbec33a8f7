"""Every float32 step gives its numbers' value, rounded as it says, beside the exact one."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bncli.model import BatchNormSettings, RunningStats
from bncli.verify.trace import ChannelView, Element, float32_pass, float32_steps
from tests.configurations import Configuration

NAMES = ("mean", "var_sum", "var", "var_plus_eps", "sqrt", "invstd", "alpha", "beta", "deviation",
         "squared", "output", "unbiased_var", "running_mean", "running_var")  # fmt: skip


def fma(a, b, c):
    """One rounding; exact products and sums of these few digits fit in a long double."""
    return float(np.float32(np.longdouble(a) * np.longdouble(b) + np.longdouble(c)))


def steps_of(*, training, momentum=0.1, followed=True, rows=True, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(5, 2, (4, 2)).astype(np.float32)

    def kept(values):
        return values.astype(np.float32).astype(np.float64)

    given = Configuration(
        x, "float32", 1, BatchNormSettings(1e-3, momentum, training=training),
        kept(rng.normal(size=2)), kept(rng.normal(size=2)),
        RunningStats(kept(rng.normal(size=2)), kept(rng.uniform(1, 2, 2)), 3),
    )  # fmt: skip
    done = given.done()
    view = ChannelView(x, 1, 1, lambda part: part)
    element = Element((2, 1), float(x[2, 1])) if followed else None
    found = float32_pass(done, x[:, [1]], [1], rows=rows, threads=2)
    steps = float32_steps(done, found, 0, view, element)
    return given, {step.quantity: step for step in steps}


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_the_text_computes_the_value(training, momentum, seed):
    _, steps = steps_of(training=training, momentum=momentum, seed=seed)
    written = {name: step for name, step in steps.items() if " = " in step.numbers and name != "x"}
    assert {"invstd", "alpha", "beta", "output", "sqrt", "var_plus_eps"} <= written.keys()
    assert ({"var_sum", "running_mean", "running_var"} <= written.keys()) == training
    for name, step in written.items():
        made_of, value = step.numbers.split(" = ")
        if name == "count" or ", ..." in made_of:
            continue
        scope = {"fma": fma, "sqrt": np.sqrt}
        computed = eval(made_of.replace("^", "**"), scope)
        scale = max(abs(float(n)) for n in re.findall(r"[0-9.]+(?:e[-+]\d+)?", step.numbers))
        assert computed == pytest.approx(step.value, rel=1e-6, abs=1e-6 * scale), step
        assert float(value) == pytest.approx(step.value, rel=1e-8), step


@pytest.mark.parametrize("training", [True, False])
def test_the_exact_values_are_numpys_in_float64(training):
    given, steps = steps_of(training=training)
    x = given.x[:, 1].astype(np.float64)
    running, weight, bias = given.running, given.weight[1], given.bias[1]
    mean, var = x.mean(), x.var()
    if not training:
        mean, var = running.running_mean[1], running.running_var[1]
    alpha = weight / np.sqrt(var + 1e-3)
    expected = {
        "mean": mean, "var": var, "var_plus_eps": var + 1e-3, "sqrt": np.sqrt(var + 1e-3),
        "invstd": 1 / np.sqrt(var + 1e-3), "alpha": alpha, "beta": bias - mean * alpha,
        "output": (x[2] - mean) * alpha + bias,
        "running_mean": running.running_mean[1], "running_var": running.running_var[1],
    }  # fmt: skip
    if training:
        expected |= {
            "var_sum": var * 4, "unbiased_var": x.var(ddof=1), "deviation": x[2] - mean,
            "squared": (x[2] - mean) ** 2,
            "running_mean": 0.9 * running.running_mean[1] + 0.1 * mean,
            "running_var": 0.9 * running.running_var[1] + 0.1 * x.var(ddof=1),
        }  # fmt: skip
    assert {name for name in NAMES if name in steps} == expected.keys()
    for name, value in expected.items():
        assert steps[name].exact == pytest.approx(value, rel=1e-12), name
        assert steps[name].value == pytest.approx(value, rel=1e-5, abs=1e-5), name
    assert steps["num_batches_tracked"].value == 3 + training


def test_words_say_how_it_is_summed():
    assert "row by row in float32 (2 threads), then float64" in (
        steps_of(training=True)[1]["mean"].formula
    )
    assert "one by one in float64" in steps_of(training=True, rows=False)[1]["mean"].formula
    assert "factor" in steps_of(training=True, momentum=None)[1]["running_mean"].formula
    assert "momentum" in steps_of(training=True)[1]["running_mean"].formula
    assert "as before" in steps_of(training=False)[1]["running_mean"].formula


def test_without_an_element_there_is_none():
    assert "output" not in steps_of(training=True, followed=False)[1]
