"""Where running statistics begin, and with which momentum they go on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bncli
from bncli.commands.simulate_ema.running_start import Start
from bncli.model import RunningStats
from tests.commands.samples import random
from tests.commands.simulate_ema.samples import GENERATED, assert_buffers, steps, table
from tests.told_modules import layer, tell, told_module


@pytest.mark.parametrize("momentum", ["0.1", "0.5", "0", "1", "none"])
def test_momentum(run, save, momentum):
    batches = [random(6, 3, seed=seed) for seed in range(4)]
    names = [save(f"{i}.npy", x) for i, x in enumerate(batches)]
    result = run("simulate-ema", *names, "--momentum", momentum, "-f", "json")
    given = None if momentum == "none" else float(momentum)
    assert_buffers(result, batches, momentum=given)
    assert result.report["facts"]["momentum"] == ("none" if given is None else given)


def test_a_start_from_files(run, save):
    mean, var = np.array([5.0, -5.0]), np.array([2.0, 3.0])
    flags = (
        "--running-mean", save("m.npy", mean), "--running-var", save("v.npy", var),
        "--buffer-dtype", "float64", "-f", "json",
    )  # fmt: skip
    result = run(*GENERATED, *flags)
    first = steps(result, "running_mean")[0], steps(result, "running_var")[0]
    x = np.random.default_rng([0, 0]).standard_normal((8, 2, 3), dtype=np.float32).astype(float)
    np.testing.assert_allclose(first[0], 0.75 * mean + 0.25 * x.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(first[1], 0.75 * var + 0.25 * x.var((0, 2), ddof=1), rtol=1e-12)


def test_a_start_from_a_checkpoint_with_its_counter_and_momentum(run, save):
    torch.manual_seed(0)
    module = torch.nn.BatchNorm1d(3, momentum=0.3)
    for _ in range(4):
        module(torch.randn(8, 3) * 2 + 1)
    path = save("net.pt", torch.nn.Sequential(module))
    x = random(8, 3, 2)
    result = run("simulate-ema", save("x.npy", x), "--state", path, "-f", "json")
    module(torch.from_numpy(x))
    np.testing.assert_array_equal(steps(result, "running_mean")[0], module.running_mean.double())
    np.testing.assert_array_equal(steps(result, "running_var")[0], module.running_var.double())
    facts = result.report["facts"]
    assert (facts["momentum"], facts["momentum_source"]) == (0.3, "file")
    assert facts["num_batches_tracked"] == 5
    typed = run("simulate-ema", "x.npy", "--state", path).stdout
    assert "momentum 0.3 (from the file)" in " ".join(typed.split())
    given = " ".join(bncli.simulate_ema(x, state=module).subject)
    assert "momentum 0.3 (from the module)" in given
    flax = run("simulate-ema", "x.npy", "--state", path, "--convention", "flax", "-f", "json")
    assert flax.report["facts"]["momentum"] == 0.7


def test_a_start_from_another_frameworks_layer_goes_on_as_it_does_there(run, save, monkeypatch):
    tell(monkeypatch, told_module("keras3", momentum=0.9, eps=1e-3, channel_axis=-1))
    tensors = layer()
    save("bn.npz", **tensors)
    x = save("x.npy", random(8, 5, 3).astype(np.float64))
    flags = ("--state", "bn.npz::bn", "--buffer-dtype", "float64", "-f", "json")
    result = run("simulate-ema", x, *flags)
    facts = result.report["facts"]
    assert (facts["convention"], facts["momentum"]) == ("keras3", 0.9)
    batch = np.load(x).reshape(-1, 3)
    expected = 0.9 * tensors["bn/moving_variance"].astype(np.float64) + 0.1 * batch.var(0)
    np.testing.assert_allclose(steps(result, "running_var", "keras3")[0], expected, rtol=1e-12)
    asked = run("simulate-ema", x, "--convention", "pytorch", *flags).report["facts"]
    assert (asked["convention"], asked["momentum"]) == ("pytorch", 0.1)


def test_conventions_side_by_side(run):
    names = ("keras3", "pytorch", "caffe", "haiku")
    flags = [argument for name in names for argument in ("--convention", name)]
    result = run(
        "simulate-ema", "--generate", "8,2", "--batches", 5, *flags, "--momentum", "0.9",
        "--buffer-dtype", "float64", "-f", "json",
    )  # fmt: skip
    facts = result.report["facts"]
    assert (facts["convention"], facts["momentum"], facts["momentum_weighs"]) == (
        "keras3", 0.9, "old",
    )  # fmt: skip
    assert facts["conventions"] == list(names)
    keras, pytorch = steps(result, "running_var", "keras3"), steps(result, "running_var")
    q = 0.9 ** np.arange(1, 6)[:, np.newaxis]
    np.testing.assert_allclose((keras - q) * 8 / 7, pytorch - q, rtol=1e-12)
    haiku = steps(result, "running_mean", "haiku")
    np.testing.assert_allclose(haiku * (1 - q), steps(result, "running_mean"), rtol=1e-11)
    np.testing.assert_allclose(
        steps(result, "running_var", "caffe"), steps(result, "running_var", "haiku") * 8 / 7
    )
    ports = {(row["convention"], row["channel"]): row for row in table(result, "conventions")}
    assert ports["keras3", 0]["var_ratio"] == 1
    assert ports["pytorch", 1]["momentum"] == pytest.approx(0.1)
    expected = pytorch[-1, 1] / keras[-1, 1]
    assert ports["pytorch", 1]["var_ratio"] == pytest.approx(expected, rel=1e-12)
    assert ports["pytorch", 1]["output_ratio"] == pytest.approx(expected**-0.5, rel=1e-12)


def test_a_module_that_saw_a_batch_is_trained():
    zeros, ones = np.zeros(2), np.ones(2)
    assert not Start().trained
    assert Start(RunningStats(zeros, ones, 5)).trained is False
    assert Start(RunningStats(np.array([0.0, 0.1]), ones, 5)).trained is True
    assert Start(RunningStats(zeros, np.array([1.0, 0.9]), 5)).trained is True
