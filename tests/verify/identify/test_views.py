"""Other ways to look at the tensors: each that was planted is among them, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.verify.identify import views
from bncli.verify.identify.hypotheses import Known
from bncli.verify.identify.pair import ArraySource, View
from bncli.verify.identify.search import Seen
from bncli.verify.identify.views import layouts, other_axes, reordered, roundings

RNG = np.random.default_rng(0)


def source(values, dtype="float32"):
    return ArraySource(values, dtype)


def view_of(x, y, axis=1, dtype="float32"):
    return View(source(x, dtype), source(y, dtype), axis)


def test_an_output_of_the_same_shape_is_seen_as_it_is():
    x = np.zeros((4, 3, 5))
    (plain,) = layouts(source(x), source(x), 1)
    assert (plain.name, plain.channel_axis) == ("", 1)
    assert [way.name for way in layouts(source(np.zeros((4, 3))), source(np.zeros((4, 3))), 1)] == [
        ""
    ]


@pytest.mark.parametrize(("axis", "moved"), [(1, (1, -1)), (2, (-1, 1))])
def test_an_output_with_its_channels_elsewhere(axis, moved):
    x = RNG.normal(size=(4, 3, 5))
    y = np.moveaxis(x, axis, moved[1])
    (found,) = layouts(source(x), source(y), axis)
    assert found.name == ("output channels last" if axis == 1 else "output channels first")
    np.testing.assert_array_equal(found.y.read((slice(None),) * 3), x)
    assert layouts(source(x), source(np.zeros((4, 3, 6))), axis) == []
    square = np.zeros((4, 3, 3))  # which may be either
    names = [way.name for way in layouts(source(square), source(square), axis)]
    assert names == ["", found.name]


@pytest.mark.parametrize(
    ("shape", "axis", "names"),
    [
        ((4, 3, 5), 1, ["axis -1"]),
        ((4, 3, 5), 2, ["axis 1"]),
        ((4, 3), 1, []),
        ((1, 1, 5), 1, []),  # one value a channel there
        ((4, 3, 5), 0, ["axis 1", "axis -1"]),
    ],
)
def test_other_axes(shape, axis, names):
    x = np.zeros(shape)
    view = view_of(x, x, axis)
    if names == [] and shape == (1, 1, 5):
        assert [found.name for found in other_axes(view, Known())] == ["axis -1"]
        return
    found = list(other_axes(view, Known()))
    assert [item.name for item in found] == names
    assert [item.channel_axis for item in found] == [
        1 if item.name == "axis 1" else len(shape) - 1 for item in found
    ]
    assert not list(other_axes(view, Known(weight=np.ones(7))))


def test_roundings_that_the_values_allow():
    coarse = RNG.normal(size=(4, 3)).astype(np.float16).astype(np.float32)
    fine = coarse + np.float32(1e-5)
    assert [found.name for found in roundings(view_of(fine, coarse))] == [
        "output rounded to float16", "input rounded to float16",
        "input and output rounded to float16", "input rounded to bfloat16",
    ]  # fmt: skip
    assert [found.name for found in roundings(view_of(fine, fine))] == [
        "input rounded to float16", "input rounded to bfloat16",
    ]  # fmt: skip
    half = view_of(coarse.astype(np.float16), coarse.astype(np.float16), dtype="float16")
    assert [found.name for found in roundings(half)] == ["input rounded to bfloat16"]


@pytest.mark.parametrize(
    ("order", "how"),
    [([3, 0, 1, 2], "shifted by 1"), ([1, 2, 3, 0], "shifted by 3"), ([1, 0, 3, 2], "permuted")],
)
def test_channels_of_the_output_in_another_order(order, how):
    x = RNG.normal(size=(64, 4)).astype(np.float32)
    known = Known(weight=np.arange(1.0, 5.0))
    y = x[:, order] * 2
    found = {item.view.name: item for item in reordered(Seen.of(view_of(x, y), known))}
    assert {f"output channels {how}", f"input channels {how}"} <= set(found)
    output, given = found[f"output channels {how}"], found[f"input channels {how}"]
    assert list(output.view.channels) == order
    np.testing.assert_array_equal(output.known.weight, known.weight[order])
    np.testing.assert_array_equal(given.known.weight, known.weight)


@pytest.mark.parametrize("mode", ["eval", "training"])
def test_a_state_in_another_order(mode):
    x = (RNG.normal(size=(64, 4)) * [1, 2, 3, 4] + [1, 2, 3, 4]).astype(np.float32)
    weight, bias = np.array([1.0, 3.0, 9.0, 27.0]), np.array([0.0, 5.0, -5.0, 9.0])
    mean, var = np.array([1.0, 7.0, -3.0, 2.0]), np.array([1.0, 4.0, 25.0, 100.0])
    order = [2, 0, 3, 1]
    center, scale = mean[order], 1 / np.sqrt(var[order] + 1e-5)
    if mode == "training":
        center, scale = x.mean(0), 1 / np.sqrt(x.var(0) + 1e-5)
    y = (x - center) * scale * weight[order] + bias[order]
    known = Known(weight, bias, mean, var)
    if mode == "training":
        known = Known(weight, bias)
    found = [item for item in reordered(Seen.of(view_of(x, y), known)) if "state" in item.view.name]
    assert [item.view.name for item in found] == ["state's channels permuted"]
    np.testing.assert_array_equal(found[0].known.weight, weight[order])


def test_no_order_is_found_where_there_is_none(monkeypatch):
    x = RNG.normal(size=(64, 4)).astype(np.float32)
    for y in (x * 2, RNG.normal(size=x.shape)):
        assert list(reordered(Seen.of(view_of(x, y), Known()))) == []
    shifted = Seen.of(view_of(x, x[:, [1, 2, 3, 0]]), Known())
    assert len(list(reordered(shifted))) == 1  # nothing is known that the input's order would move
    monkeypatch.setattr(views, "MOST_CHANNELS", 3)
    assert list(reordered(shifted)) == []
