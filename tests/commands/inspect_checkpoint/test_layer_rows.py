"""A row of the layers: what it says of numbers that are none, and of many channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.commands.inspect_checkpoint import layer_rows
from bncli.commands.inspect_checkpoint.layer_rows import sketch
from tests.commands.inspect_checkpoint.networks import net


def test_not_finite_values_are_counted(run, folder):
    state = net().state_dict()
    state["1.running_var"][2] = float("nan")
    state["1.running_mean"][0] = float("inf")
    torch.save(state, "net.pt")
    row = run("inspect-checkpoint", "net.pt", "-f", "json").report["tables"]["layers"][0]
    assert row["nonfinite"] == 2
    assert row["var_max"] == np.nanmax(state["1.running_var"].numpy())


def test_lengths_that_disagree_are_noted(run, folder):
    state = net().state_dict()
    state["head.weight"] = torch.ones(3)
    torch.save(state, "net.pt")
    row = run("inspect-checkpoint", "net.pt", "-f", "json").report["tables"]["layers"][1]
    assert row["note"]
    assert row["scale_max"] is None


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ([1.0] * 5, "····█···"),
        ([-1.0, 1.0, 2.0, 10.1], "····█·▃·"),
        ([0.0, 0.001, 0.0317, 1e9, np.inf, np.nan], "█▄·····▄"),
        ([np.nan], None),
        ([0.03, 0.1, 0.3, 0.99, 1.01, 3.1, 3.2, 31.0, 33.0], "▄▄▄▄█▄▄▄"),
    ],
)
def test_sketch(scales, expected):
    if expected is None:
        assert sketch(np.array(scales)) is None
    else:
        assert len(sketch(np.array(scales))) == 8
        edges = 10.0 ** np.arange(-1.5, 1.75, 0.5)
        counts = np.bincount(
            np.searchsorted(edges, np.abs([s for s in scales if np.isfinite(s)]), side="right"),
            minlength=8,
        )
        heights = np.ceil(counts * 8 / counts.max()).astype(int)
        assert sketch(np.array(scales)) == "".join("·▁▂▃▄▅▆▇█"[h] for h in heights)


@pytest.mark.parametrize(
    ("values", "least"),
    [
        ([np.nan, -3.0, np.inf, 0.5], 0.5),
        ([-3.0, -0.25], 0.25),
        ([2.0, 0.0], 0.0),
        ([np.nan, np.inf], None),
    ],
)
def test_the_least_size_is_of_what_is_finite(values, least):
    scale = np.array(values)
    assert layer_rows._least_size(scale, layer_rows._Range.of(scale)) == least
