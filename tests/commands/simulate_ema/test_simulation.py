"""A simulation as a whole: frozen, refused and odd batches."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.commands.samples import finding, random
from tests.commands.simulate_ema.samples import GENERATED, codes, steps, table


def test_frozen_after_some_steps(run):
    flags = (*GENERATED, "--freeze-after", 2, "-f", "json", "--against", "torch")
    result = run(*flags)
    assert result.code == 0
    running = steps(result, "running_mean")
    assert (running[2:] == running[1]).all()
    assert (running[1] != running[0]).all()
    assert result.report["facts"]["updates"] == 2
    assert result.report["facts"]["num_batches_tracked"] == 2


def test_a_reached_momentum_is_in_the_sense_of_the_convention(run):
    result = run(*GENERATED[:-2], "--convention", "keras3", "--reach-steps", 50, "-f", "json")
    plan = {row["quantity"]: row["value"] for row in table(result, "plan")}
    assert plan["momentum for 1% after 50"] ** 50 == pytest.approx(0.01)


def test_a_refused_batch_is_counted_and_leaves_the_buffers(run, save):
    x = random(9, 3)
    result = run(
        "simulate-ema", save("x.npy", x), "--batch-size", 4, "--momentum", "none", "--epochs", 2,
        "--against", "torch", "-f", "json",
    )  # fmt: skip
    assert result.code == 1
    assert codes(result) == {"BN704"}
    assert "9 samples in batches of 4" in finding(result, "BN704")["message"]
    assert all(row["passed"] for row in table(result, "differences"))
    assert result.report["facts"]["num_batches_tracked"] == 6
    assert run("simulate-ema", "x.npy", "--batch-size", 4, "--drop-last", "-q").code == 0


def test_one_step_is_not_drawn(run, bad_inputs, monkeypatch):
    monkeypatch.setattr("bncli.renderers.drawing.plot.check_plot", lambda path: None)
    code, _, stderr = run("simulate-ema", "x.npy", "--plot", "chart.png")
    assert stderr == "bncli: --plot: one step makes no curve; give more batches or --epochs.\n"
    assert (code, (bad_inputs / "chart.png").exists()) == (2, False)


@pytest.mark.parametrize("how", ["nan", "one channel", "many channels", "half", "constant"])
def test_odd_inputs_give_something_sensible(run, save, how):
    x = random(12, 3, 4)
    if how == "nan":
        x[3, 1, 2] = np.nan
    elif how == "one channel":
        x = x[:, :1]
    elif how == "many channels":
        x = random(8, 1500)
    elif how == "half":
        x = x.astype(np.float16)
    else:
        x = np.ones_like(x)
    name = save("x.npy", x)
    result = run("simulate-ema", name, "--batch-size", 4, "--against", "torch", "-f", "json")
    assert result.stderr == ""
    assert result.code == (1 if how == "nan" else 0)
    assert len(table(result)) == x.shape[1] * len(range(0, len(x), 4))
    assert ("BN706" in codes(result)) == (how == "nan")
    json.dumps(result.report, allow_nan=False)
