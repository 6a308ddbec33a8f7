"""What `trace` has beside its input: a gradient from a file or a seed, and PyTorch's values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.commands.conftest import random
from tests.commands.samples import codes
from tests.commands.trace.samples import column, rows, steps, values


@pytest.mark.parametrize("mode", ["--training", "--eval"])
def test_gradients_of_a_given_upstream_gradient(run, save, mode):
    x, g = random(4, 3, 5).astype(np.float64), random(4, 3, 5, seed=1).astype(np.float64)
    w = np.array([0.5, -2.0, 3.0])
    result = run(
        "trace", save("x.npy", x), mode, "--backward", "--grad-output", save("g.npy", g),
        "--weight", save("w.npy", w), "--at", "3,2", "-f", "json",
    )  # fmt: skip
    assert result.code == 0
    assert result.report["facts"]["grad_output"] == "g.npy"
    assert "seed" not in result.report["facts"]
    module = torch.nn.BatchNorm1d(3, dtype=torch.float64).train(mode == "--training")
    module.weight.data.copy_(torch.from_numpy(w))
    given = torch.from_numpy(x).requires_grad_()
    module(given).backward(torch.from_numpy(g))
    for channel in range(3):
        found = values(result, channel, "backward")
        assert found["grad_bias"] == pytest.approx(module.bias.grad[channel].item(), rel=1e-12)
        assert found["grad_weight"] == pytest.approx(module.weight.grad[channel].item(), rel=1e-12)
        expected = given.grad[3, channel, 2].item()
        assert found["grad_input"] == pytest.approx(expected, rel=1e-11)
        assert found["g"] == g[3, channel, 2]
        assert ("grad_var" in found) == (mode == "--training")
    assert all(row["holds"] for row in rows(result, "identities"))
    held = len(rows(result, "identities"))
    assert f"{held} of {held} identities of the gradients hold" in result.report["verdict"]


def test_an_upstream_gradient_that_is_not_finite_is_an_error(run, save):
    x, g = random(4, 3, 5), random(4, 3, 5, seed=1)
    g[1, 2, 0] = np.nan
    flags = ("--backward", "--grad-output", save("g.npy", g), "-f", "json")
    result = run("trace", save("x.npy", x), *flags)
    assert (result.code, codes(result)) == (1, ["BN012"])
    assert result.report["findings"][0]["message"].endswith("1 NaN or Inf in channel 2")
    assert {row["holds"] for row in rows(result, "identities", channel=1)} == {True}
    judged = [row["holds"] for row in rows(result, "identities")]
    sentence = (
        f"{judged.count(True)} of {len(judged)} identities of the gradients hold, "
        f"{judged.count(None)} cannot be checked: numbers are not finite"
    )
    assert judged.count(None) > 0
    assert sentence in result.report["verdict"]
    save("g.npy", random(4, 3, 5, seed=1))
    assert run("trace", "x.npy", *flags).code == 0


def test_the_seeded_gradient_is_that_of_compute(run, save):
    x = save("x.npy", random(8, 3, 5))
    ours, theirs = (
        run(name, x, *more, "--against", "torch", "--seed", 7, "-f", "json").report["tables"]
        for name, more in (("trace", ["--backward"]), ("compute", []))
    )
    assert ours["differences"] == theirs["differences"]


def test_torch_stands_beside_every_step(run, save):
    x = random(8, 3, 5)
    flags = ("--against", "torch", "--backward", "--at", "2,3", "-f", "json")
    for mode in ("--training", "--eval"):
        result = run("trace", save("x.npy", x), mode, *flags)
        assert result.code == 0
        assert result.report["facts"]["backend_version"] == torch.__version__
        for channel in range(3):
            for direction in ("forward", "backward"):
                for name, row in steps(result, channel, direction).items():
                    if name in ("values", "count", "factor", "upstream"):
                        assert row["torch"] is None
                        continue
                    assert row["distance"] == abs(row["value"] - row["torch"]), name
                    assert row["torch"] == pytest.approx(row["value"], rel=3e-5, abs=3e-5), name
    module = torch.nn.BatchNorm1d(3)
    y = module(torch.from_numpy(x)).detach()
    found = steps(run("trace", "x.npy", *flags))
    assert found["output"]["torch"] == y[2, 0, 3].item()
    assert found["running_mean"]["torch"] == module.running_mean[0].item()
    assert found["running_var"]["torch"] == module.running_var[0].item()
    table = run("trace", "x.npy", "--against", "torch", "--channel", 1, "-f", "json")
    np.testing.assert_array_equal(column(table, "torch_output"), y[:, 1].reshape(-1))
    last = run("trace", "x.npy", *flags, "--channel", "1-2")
    for channel in (1, 2):  # not at their own places among those shown
        for name, row in steps(last, channel).items():
            if row["torch"] is not None:
                assert row["torch"] == pytest.approx(row["value"], rel=3e-5, abs=3e-5), name
