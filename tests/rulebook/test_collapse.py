"""Networks of which most is dead, and layers whose input was constant."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bncli.rulebook.checkpoint import file_findings
from bncli.rulebook.layers import Checkpoint
from bncli.rulebook.summaries import summary
from tests.rulebook.layers import FLOOR, codes, f4, layer, only


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_variances_of_0_amplify_under_live_weights(eps):
    """PyTorch's own layer: not constant, but 1/sqrt(eps) times the input."""
    bn = torch.nn.BatchNorm1d(4, eps=eps).eval()
    bn.running_var.zero_()
    bn.running_mean.fill_(0.25)
    output = bn(torch.tensor([[0.25] * 4, [1.25] * 4]))
    made = layer(
        running_mean=bn.running_mean.numpy(),
        running_var=bn.running_var.numpy(),
        weight=np.ones(4, np.float32),
        bias=np.zeros(4, np.float32),
    )
    object.__setattr__(made, "eps", eps)
    assert codes(made) == {"BN408"}
    scale = only(made, "BN408").evidence["scale"]
    assert (output[1] - output[0]).tolist() == pytest.approx(scale, rel=1e-5)
    assert scale == pytest.approx([1 / math.sqrt(eps)] * 4)


@pytest.mark.parametrize(
    ("var", "dtype", "cause"),
    [
        ([0, 0, 0, 0], "float32", "constant-input-or-never-written"),
        ([0, 0, 0, 0], "float16", None),  # which may have rounded it to 0
        ([FLOOR] * 4, "float32", "input-hardly-varies"),
        ([0, FLOOR, 0, 0], "float32", "input-hardly-varies"),
        ([0, 0, 0, 1], "float32", None),  # one channel varies
    ],
)
def test_what_a_layer_without_variances_is_blamed_on(var, dtype, cause):
    made = layer(running_var=f4(*var), weight=f4(1, 1, 1, 1), dtype=dtype)
    assert ("BN408" in codes(made)) == (cause is not None)
    if cause:
        finding = only(made, "BN408")
        assert finding.evidence["cause"] == cause
        assert ("or running_var was never written." in finding.detail) == (not any(var))
        assert finding.message.endswith(" in all 4 channels, so eps alone sets the scale")
        assert "With eps 1e-05 (assumed) the scale is 316.2, the largest in" in finding.detail


@pytest.mark.parametrize("dead", [[], [2], [0, 3]])
def test_dead_weights_beside_live_ones_are_said_to_be_dead(dead):
    weight = np.ones(4, np.float32)
    weight[dead] = 1e-7
    finding = only(layer(running_var=f4(*[FLOOR] * 4), weight=weight), "BN408")
    assert finding.evidence["channels"] == [c for c in range(4) if c not in dead]
    assert ("The weights of the other channels are close to 0." in finding.detail) == bool(dead)


def network(*shares, channels=100, kind="dead"):
    """Layers of which these shares of channels are dead, after one that lives."""
    layers = []
    for number, share in enumerate(shares):
        gone = np.arange(channels) < share * channels
        vectors = {
            "running_var": np.where(gone, FLOOR, 1.0).astype(np.float32),
            "weight": np.where(gone, 1e-4, 1.0).astype(np.float32),
            "bias": np.full(channels, 0.5, np.float32),
        }
        if kind == "weightless":
            vectors["running_var"] = np.ones(channels, np.float32)
            vectors["weight"] = np.where(gone, 1e-7, 1.0).astype(np.float32)
        elif kind == "masked":
            vectors["weight"] = np.where(gone, 0.0, 1.0).astype(np.float32)
            vectors["bias"] = np.where(gone, 0.0, 0.5).astype(np.float32)
        elif kind == "initialised to 0":
            vectors["running_var"] = np.ones(channels, np.float32)
            vectors["weight"] = np.where(gone, 0.0, 1.0).astype(np.float32)
        elif kind == "live":
            vectors["weight"] = np.ones(channels, np.float32)
        layers.append(summary(layer(f"bn{number}", channels=channels, **vectors)))
    return [f for f in file_findings(Checkpoint(layers)) if f.code == "BN407"]


@pytest.mark.parametrize(
    ("shares", "blamed"),
    [
        ((0.92, 0.92, 0.92, 0.92), True),
        ((0.0, 0.6, 0.6), True),
        ((0.0, 0.6, 0.6, 0.0), True),  # half of the layers
        ((0.0, 0.6, 0.6, 0.0, 0.0), False),
        ((*[0.0] * 8, *[0.92] * 4), True),  # four in a row
        ((*[0.0] * 8, *[0.92] * 3, 0.5, 0.92), False),
        ((0.5, 0.5, 0.5), False),  # not more than half
        ((0.92,), False),  # one layer is no network
        ((0.3, 0.4, 0.2, 0.1), False),
        ((), False),
    ],
)
def test_which_networks_have_collapsed(shares, blamed):
    for kind in ("dead", "weightless"):
        found = network(*shares, kind=kind)
        assert bool(found) == blamed
        if blamed:
            (finding,) = found
            mostly = [f"bn{n}" for n, share in enumerate(shares) if share > 0.5]
            assert finding.evidence["layers"] == mostly
            assert finding.evidence["dead"] == round(100 * sum(shares))
            assert finding.evidence["channels"] == 100 * len(shares)
            worst = max(shares)
            assert finding.detail == (
                f"The worst layer is bn{shares.index(worst)}, with {round(100 * worst)} of 100 "
                "channels dead."
            )


def test_the_worst_layer_is_that_of_the_largest_dead_share():
    layers = []
    for name, channels, gone in (("wide", 100, 60), ("narrow", 4, 4)):
        var, weight = np.ones((2, channels), np.float32)
        var[:gone], weight[:gone] = FLOOR, 1e-4
        layers.append(summary(layer(name, channels, running_var=var, weight=weight)))
    (finding,) = [f for f in file_findings(Checkpoint(layers)) if f.code == "BN407"]
    assert finding.message.endswith("2 of 2 layers have lost more than half")
    assert finding.detail == "The worst layer is narrow, with 4 of 4 channels dead."


@pytest.mark.parametrize("kind", ["masked", "initialised to 0", "live"])
def test_what_was_meant_or_is_amplified_has_not_collapsed(kind):
    assert network(0.9, 0.9, 0.9, 0.9, kind=kind) == []


def test_a_copy_does_not_make_a_network_collapse():
    dead = {"running_var": f4(*[FLOOR] * 4), "weight": f4(*[1e-4] * 4)}
    layers = [summary(layer("bn1")), summary(layer("bn2")), summary(layer("bn3"))]
    copies = [summary(layer(f"ema.bn{n}", **dead)) for n in (1, 2, 3)]
    twins = {f"ema.bn{n}": f"bn{n}" for n in (1, 2, 3)}
    found = file_findings(Checkpoint([*layers, *copies], twins=twins))
    assert "BN407" not in {finding.code for finding in found}
