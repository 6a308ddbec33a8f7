"""The eps and the momentum of two files, as lines below the table."""

from __future__ import annotations

from bncli.commands.compare_checkpoints.settings import settings
from bncli.model import BatchNormModule
from bncli.model.changes import (
    Comparison,
    Eps,
    Found,
    How,
    LayerVersion,
    Measures,
    Momentum,
    State,
)
from bncli.report import Certainty

KERAS, TORCH, STORED = Eps(1e-3, "keras"), Eps(1e-5, "torch"), Eps(1e-5, "stored")
TENTH, STORED_TENTH = Momentum(0.1, "torch", "0.1"), Momentum(0.1, "stored", "0.1")
NINE_TENTHS = Momentum(0.9, "stored", "0.1 (ONNX: weighs the old value; 0.9 in PyTorch's sense)")
FAR = Measures(var_ratio_min=0.9801, var_ratio_max=0.999)


def layer(name="x", state=State.IDENTICAL, **more):
    return LayerVersion(name, f"{name}2", How.NAME, Certainty.CERTAIN, Found(state), **more)


def said(*layers):
    return list(settings(Comparison("a.npz", "b.pt", "", "", layers)))


def test_frameworks_that_assume_another_eps():
    pair = (KERAS, TORCH)
    (line,) = said(layer(eps=pair, measures=FAR), layer("y", eps=pair))
    assert line == (
        "eps is assumed: 0.001 in a.npz (Keras' default), 1e-05 in b.pt (PyTorch's default). "
        "If so, outputs differ by up to 1%: the second file's layers need eps=0.001"
    )
    # too small to see, equal, and where the statistics moved, too
    assert said(layer(eps=pair, measures=Measures(var_ratio_min=0.99999))) == []
    assert said(layer(eps=(KERAS, KERAS), measures=FAR)) == []
    assert said(layer(state=State.TRAINED, eps=pair, measures=FAR)) == []


def test_only_the_layers_whose_eps_differs_need_another():
    (line,) = said(layer(eps=(KERAS, TORCH), measures=FAR), layer("y", eps=(TORCH, TORCH)))
    assert line.endswith(": x2 of the second file needs eps=0.001")


def test_what_is_equal_and_where_it_is_assumed():
    both = {"eps": (TORCH, STORED), "momentum": (TENTH, STORED_TENTH)}
    assert said(layer(**both)) == ["eps 1e-05 and momentum 0.1 are in both files (a.npz: assumed)"]
    both = {"eps": (STORED, STORED), "momentum": (STORED_TENTH, STORED_TENTH)}
    assert said(layer(**both), layer("y", **both)) == [
        "eps 1e-05 and momentum 0.1 are in both files"
    ]
    assert said(layer(eps=(TORCH, TORCH), momentum=(TENTH, TENTH))) == []  # nothing is known


def test_what_is_equal_in_some_layers():
    one = layer(eps=(STORED, Eps(1e-3, "stored")))
    other = layer("y", eps=(STORED, STORED))
    assert said(one, other) == ["eps 1e-05 (1 of 2 layers) is in both files"]


def test_another_momentum_is_a_line():
    (line,) = said(layer(momentum=(TENTH, NINE_TENTHS)))
    assert line == (
        "the momentum is 0.1 (PyTorch's default, assumed) in a.npz and 0.1 (ONNX: weighs the old "
        "value; 0.9 in PyTorch's sense) in b.pt. It matters if the network is trained on"
    )
    first, second = said(
        layer(momentum=(TENTH, NINE_TENTHS)), layer("y", momentum=(TENTH, STORED_TENTH))
    )
    assert first.startswith("the momentum of x is 0.1")
    assert second == "momentum 0.1 (1 of 2 layers) is in both files (a.npz: assumed)"
    # a framework without a momentum
    assert said(layer(momentum=(None, NINE_TENTHS))) == []


def test_a_momentum_that_a_finding_is_about_is_not_told_again():
    modules = (
        BatchNormModule("BatchNorm", 1e-5, 0.1),
        BatchNormModule("BatchNorm", 1e-5, 0.9, stated_momentum=0.1, convention="onnx"),
    )
    assert said(layer(momentum=(STORED_TENTH, NINE_TENTHS), modules=modules)) == []
