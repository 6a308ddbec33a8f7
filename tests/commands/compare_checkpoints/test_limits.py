"""What a comparison of two files leaves open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.commands.compare_checkpoints.limits import limits
from bncli.model.changes import (
    Comparison,
    Found,
    How,
    LayerVersion,
    Same,
    State,
)
from bncli.report import Certainty


def layer(name="x", how=How.NAME, state=State.IDENTICAL, before=Same.SAME, **more):
    return LayerVersion(
        name, f"{name}2", how, Certainty.CERTAIN, Found(state), before=before, **more
    )


def said(*layers, other_path="b.pt"):
    return list(limits(Comparison("a.npz", other_path, "", "", layers)))


def test_a_plain_comparison_leaves_nothing_open():
    assert said(layer(), layer("y", How.NAMING)) == []
    assert said(layer(state=State.TRAINED)) == []


def test_layers_matched_by_values():
    pairs = [layer(name, How.VALUES) for name in "xyz"]
    assert said(*pairs) == ["matched by equal values: x with x2 and 2 more"]
    crossed = [layer(name, How.VALUES, out_of_order=True) for name in "xy"]
    (line,) = said(*crossed, layer("z", How.VALUES))
    assert "2 of them out of order: x with x2 and y with y2" in line


@pytest.mark.parametrize(
    ("unknown", "line"),
    [
        ("x", "the convolution before x was not found with equal shapes in both files, and "),
        ("xy", "the convolutions before x and y were not found with equal shapes in both files, "),
        ("xyz", "the convolutions before the layers were not found with equal shapes in both "),
    ],
)
def test_convolutions_that_were_not_found(unknown, line):
    layers = [layer(name, before=None if name in unknown else Same.SAME) for name in "xyz"]
    (found,) = said(*layers)
    assert found.startswith(line)
    assert ("only the BatchNorm layers were compared" in found) is (unknown == "xyz")


def test_layers_of_other_sizes_have_other_convolutions():
    other = Found(State.DIFFERENT, numbers={"cause": "size"})
    assert said(replace(layer(before=None), found=other)) == []


def test_two_networks_of_one_file():
    (line,) = said(layer(state=State.TRAINED), other_path="a.npz")
    assert line.startswith("bncli inspect-checkpoint a.npz says whether")
    assert said(layer(), other_path="a.npz") == []


def test_tensors_that_do_nothing_and_that_one_file_alone_has():
    found = Found(State.IDENTICAL, numbers={"neutral_in_second": ["weight"]})
    (line,) = said(replace(layer(), found=found), layer("y"))
    assert line == (
        "x has no weight in a.npz, and in b.pt it is 1 throughout: both compute the same"
    )
    found = Found(State.IDENTICAL, numbers={"neutral_in_first": ["weight", "bias"]})
    (line,) = said(*[replace(layer(name), found=found) for name in "xyz"])
    assert line == (
        "x, y and 1 more have no weight and bias in b.pt, and in a.npz they are 1 and 0 "
        "throughout: both compute the same"
    )
