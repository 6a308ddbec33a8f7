"""Tensors of other shapes, tensors that could not be read, and counters of several numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.rulebook.shapes import check_shapes
from tests.rulebook.layers import layer

SHAPES = dict.fromkeys(("running_mean", "running_var", "weight", "bias"), (4,))


def shaped(unread=(), dtype="int64", **shapes):
    made = layer()
    every = SHAPES | {"num_batches_tracked": ()} | shapes
    dtypes = dict.fromkeys(SHAPES, "float32") | {"num_batches_tracked": dtype}
    object.__setattr__(made, "shapes", every)
    object.__setattr__(made, "dtypes", dtypes)
    object.__setattr__(made, "unread", unread)
    return check_shapes(made)


def test_shapes_that_agree_are_fine():
    assert shaped() == shaped(num_batches_tracked=(1,)) == shaped(num_batches_tracked=(1, 1)) == []


@pytest.mark.parametrize(
    ("shapes", "apart"),
    [
        ({"weight": (5,)}, ("weight",)),
        ({"running_mean": (5,)}, ("running_mean",)),
        ({"weight": (5,), "bias": (5,)}, ("weight", "bias")),  # as many: the first counts
        (dict.fromkeys(SHAPES, (4, 1)), ()),
        ({"weight": (4, 1)}, ("weight",)),
    ],
)
def test_shapes_that_disagree_say_which_is_the_other(shapes, apart):
    (finding,) = shaped(**shapes)
    assert finding.code == "BN206"
    assert finding.extent == apart
    every = SHAPES | shapes
    assert finding.evidence["shapes"] == [[leaf, *shape] for leaf, shape in every.items()]
    assert all(f"{leaf} {list(shape)}" in finding.detail for leaf, shape in every.items())
    usual = [4, 1] if not apart else [4]
    assert f" {usual}" in finding.message
    assert all(leaf in finding.message for leaf in apart)


def test_shapes_that_differ_are_told_together_where_they_are_the_same():
    (finding,) = shaped(weight=(5,), bias=(5,), running_mean=(4,))
    assert finding.message == "weight and bias have shape [5] instead of [4]"
    (finding,) = shaped(running_var=(5,), bias=(6,))
    assert finding.message == "running_var has shape [5] and bias has shape [6] instead of [4]"
    (finding,) = shaped(**dict.fromkeys(SHAPES, (4, 1)))
    assert finding.message == "the shape is [4, 1], not one axis"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"num_batches_tracked": (3,)}, "has shape [3],"),
        ({"num_batches_tracked": (0,)}, "has shape [0],"),
        ({"dtype": "bool"}, "is bool,"),
        ({"dtype": "complex64"}, "is complex64,"),
    ],
)
def test_a_counter_is_one_number(more, said):
    (finding,) = shaped(**more)
    assert (finding.code, finding.evidence["cause"]) == ("BN304", "not-one-number")
    assert said in finding.message
    assert shaped(dtype="float32") == shaped(dtype="an unknown one") == []


def test_what_was_not_read_was_not_judged():
    made = layer()
    state = replace(made.state, weight=None, running_var=None)
    object.__setattr__(made, "state", state)
    object.__setattr__(made, "unread", ("weight is quantised.", "running_var is on meta."))
    (finding,) = check_shapes(made)
    assert finding.code == "BN207"
    assert finding.message == "running_var and weight were not judged"
    assert finding.detail == "weight is quantised. running_var is on meta."
    assert set(finding.extent) == {"weight", "running_var"}
    (shapes,) = shaped(unread=("weight is quantised.",), weight=(5,))
    assert shapes.code == "BN206"  # which says more
