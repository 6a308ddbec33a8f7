"""The tables of `bncli diff INPUT`: quantities, channels, and where a difference comes from."""

from __future__ import annotations

import numpy as np

from bncli.backends.torch.tensors import repeats
from tests.commands.samples import random, table


def test_every_quantity_and_channel_on_request(run, save):
    save("x.npy", random(6, 3, 5))
    result = run("diff", "x.npy", "--per-quantity", "--training", "-f", "json")
    rows = table(result, "quantities")
    with_channels = {row["quantity"] for row in table(result, "differences")} - {
        "num_batches_tracked"
    }
    assert {(row["quantity"], row["channel"]) for row in rows} == {
        (quantity, channel) for quantity in with_channels for channel in range(3)
    }
    assert "quantities" not in run("diff", "x.npy", "-f", "json").report["tables"]


def test_the_budget_names_pytorchs_lost_digits(run, save):
    """Many rows with a mean far from 0: exact here, lost there, and repeated bit for bit."""
    rng = np.random.default_rng(0)
    save("x.npy", (rng.normal(size=(4000, 2)) + np.array([0.0, 3000.0])).astype(np.float32))
    result = run("diff", "x.npy", "--training", "--torch-threads", 1, "-f", "json")
    lines = {row["quantity"]: row for row in table(result, "budget")}
    assert lines["output"]["torch_ulp"] > 50
    assert lines["output"]["bncli_ulp"] < 0.001
    if repeats():
        assert lines["output"]["repeated_ulp"] == 0
        assert "forward pass is float32 rounding" in result.report["verdict"]
    conditions = {row["channel"]: row["condition"] for row in table(result, "channels")}
    assert conditions[1] > 1000
    assert conditions[0] < 1
    save("y.npy", rng.normal(size=(40, 2)))
    assert "budget" not in run("diff", "y.npy", "-f", "json").report["tables"]
