"""A channel read in pieces: the same values, in the same order, whatever the layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bncli.verify.trace.channel
from bncli.batchnorm import blocks
from bncli.dtypes import decode
from bncli.verify.trace import ChannelView


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(bncli.verify.trace.channel, "blocks", lambda shape: blocks(shape, 7))


def view_of(x, axis=1, channel=0):
    return ChannelView(x, axis, channel, lambda part: part)


LAYOUTS = [
    (np.arange(40.0).reshape(20, 2), 1),
    (np.arange(120.0).reshape(4, 3, 10), 1),
    (np.arange(120.0).reshape(4, 10, 3), -1 % 3),
    (np.arange(120.0).reshape(3, 4, 10), 0),
    (np.asfortranarray(np.arange(240.0).reshape(4, 3, 5, 4)), 1),
    (np.arange(480.0).reshape(4, 6, 5, 4)[:, ::2, :, ::-1], 1),
]


@pytest.mark.parametrize(("x", "axis"), LAYOUTS)
def test_values_come_in_the_tensors_own_order(x, axis):
    for channel in range(x.shape[axis]):
        view = view_of(x, axis, channel)
        expected = np.take(x, channel, axis).reshape(-1)
        pieces = list(view.pieces())
        assert len(pieces) > 1
        np.testing.assert_array_equal(np.concatenate(pieces), expected)
        assert view.count == expected.size
        for position in (0, 7, view.count - 1):
            assert x[view.index(position)] == expected[position]
            place = list(view.index(position))
            del place[axis]
            assert view.position(tuple(place)) == position


@given(st.integers(0, 60), st.integers(0, 60))
def test_any_part(begin, end):
    view = view_of(np.arange(120.0).reshape(5, 2, 12))
    whole = np.concatenate(list(view.pieces()))
    np.testing.assert_array_equal(view.read(begin, end), whole[begin:end])


@given(st.integers(0, 70))
def test_the_ends(most):
    view = view_of(np.arange(120.0).reshape(5, 2, 12))
    whole = np.concatenate(list(view.pieces()))
    first, last = view.ends(most)
    if most >= 60:
        np.testing.assert_array_equal(first, whole)
        assert not last.size
    else:
        assert len(first) + len(last) == most
        assert 0 <= len(first) - len(last) <= 1
        np.testing.assert_array_equal(first, whole[: len(first)])
        np.testing.assert_array_equal(last, whole[60 - len(last) :])


def test_bits_are_decoded():
    bits = np.array([[0x3F80, 0xC000], [0x4000, 0x4040]], np.uint16)
    view = ChannelView(bits, 1, 1, lambda part: decode(part, "bfloat16"))
    np.testing.assert_array_equal(view.read(0, 2), [-2.0, 3.0])
