"""The scales of axes: everything lies on them, and what is written along them is true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bncli.pictures import Axis
from bncli.renderers.drawing.pictures.names import text_width
from bncli.renderers.drawing.pictures.scales import scale_of
from tests.renderers.drawing.pictures.examples import HOSTILE


def scale(values, *, log=False, names=(), length=400.0, longest=20, flat=True, **more):
    axis = Axis("axis", log, names)
    array = np.array(values, dtype=float)
    return scale_of(axis, array, length, longest=longest, flat=flat, **more)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(), max_size=5), st.booleans(), st.booleans(), st.booleans())
@example(values=[5e-324, 1.8e308], log=True, flat=True, zero=False)
@example(values=[-1.8e308, 1.8e308], log=False, flat=True, zero=True)
@example(values=[5e-324], log=True, flat=False, zero=False)
@example(values=[1e16, 1e16 + 2], log=False, flat=False, zero=False)
def test_every_number_is_on_the_axis(values, log, flat, zero):
    made = scale(values, log=log, flat=flat, from_zero=zero)
    assert np.isfinite([made.low, made.high]).all()
    assert made.low < made.high
    finite = np.array([value for value in values if np.isfinite(value)])
    share = made.share(made.placed(finite))
    assert ((share >= 0) & (share <= 1)).all()
    if log:
        assert made.low > 0
        assert (share[finite <= 0] == 0).all()
        assert (share[finite > 0] > 0).all()
    assert len(made.ticks) == len(made.labels)
    assert all(made.low <= tick <= made.high for tick in made.ticks)
    assert len(set(made.labels)) == len(made.labels)


@pytest.mark.parametrize(
    ("values", "log", "labels"),
    [
        ([0, 0.9], False, ["0", "0.2", "0.4", "0.6", "0.8"]),
        ([1, 60], False, ["0", "20", "40", "60"]),
        ([1e-3, 1e3], True, ["0.01", "1", "100"]),
        ([1, 8], True, ["1", "2", "5"]),
        ([3, 500], True, ["10", "100"]),
        ([11, 13], True, ["10", "12", "14"]),
        ([], True, ["0.1", "1", "10"]),
        ([0, 2], False, ["0", "1", "2"]),
        ([7.0, 7.0], False, ["6.8", "7", "7.2"]),
    ],
)
def test_what_is_written_along_it(values, log, labels):
    made = scale(values, log=log, flat=False, length=200)
    assert [float(label) for label in made.labels] == pytest.approx(made.ticks)
    assert list(made.labels) == labels


def test_two_decades_have_ticks_between_them_where_there_is_room():
    assert scale([3, 500], log=True, flat=False, length=400).labels == (
        "5", "10", "20", "50", "100", "200", "500",
    )  # fmt: skip
    assert scale([3, 500], log=True, flat=False, length=220).labels == (
        "3", "10", "30", "100", "300",
    )  # fmt: skip


@pytest.mark.parametrize("length", [60, 100, 180, 240, 700])
@pytest.mark.parametrize("low", [-12, -8, -3, 0])
@pytest.mark.parametrize("decades", [1, 2, 3, 7, 20])
def test_ticks_of_a_log_axis_are_apart(length, low, decades):
    made = scale([3 * 10.0**low, 3 * 10.0 ** (low + decades)], log=True, length=length)
    assert len(made.ticks) >= (2 if length > 100 else 1)
    places = made.share(np.array(made.ticks)) * length
    widths = [text_width(label) for label in made.labels]
    for at in range(len(places) - 1):
        assert places[at + 1] - places[at] > (widths[at] + widths[at + 1]) / 2


def test_labels_have_room():
    for values in ([0, 1e-9], [123456789, 123456999], [-1e300, 1e300], [1.00001, 1.00002]):
        made = scale(values, length=200)
        assert sum(map(text_width, made.labels)) < 200


def test_names_are_thinned_and_turned():
    few = scale(range(3), names=("a", "b", "c"))
    assert (few.turned, few.labels, few.ticks) == (False, ("a", "b", "c"), (0, 1, 2))
    many = scale(range(200), names=[f"layer{n}.bn" for n in range(200)])
    assert many.turned
    assert len(many.ticks) * 13 <= 400
    assert many.labels[1] == f"layer{int(many.ticks[1])}.bn"
    listed = scale(range(200), names=[f"layer{n}.bn" for n in range(200)], flat=False)
    assert not listed.turned
    assert len(listed.ticks) == len(many.ticks)


def test_hostile_names_are_short():
    made = scale(range(len(HOSTILE)), names=HOSTILE)
    assert made.breadth <= 20 * 14
    assert all(label.isprintable() for label in made.labels)


def test_names_on_an_axis_differ_as_the_layers_do():
    names = [f"backbone.stage{at // 4}.{at % 4}.branch_main.4" for at in range(12)]
    for flat in (True, False):
        made = scale(range(12), names=names, flat=flat)
        assert len(set(made.labels)) == len(made.labels) == 12


@pytest.mark.parametrize(
    ("values", "log", "labels"),
    [
        ([0, 1000], False, {"0", "200", "400", "600", "800", "1000"}),
        ([343102, 1905515], False, {"500000", "1000000", "1500000"}),
        ([-20000, 0], False, {"-20000", "-10000", "0"}),
        ([100, 10000], True, {"100", "1000", "10000"}),
        ([0, 5e9], False, {"1e+09", "5e+09"}),
        ([1e-9, 1e9], True, {"1"}),
    ],
)
def test_whole_numbers_are_written_out(values, log, labels):
    found = scale(values, log=log, length=450).labels
    assert labels <= set(found)
    assert ("e+" in "".join(found)) == (max(values) >= 1e7)
