"""What the captured numbers come to."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from bncli.model.capture import Capture, InputSums, OutputSums, Propagation, WatchedLayer


def sums(**given):
    names = {field.name for field in fields(InputSums)}
    numbers = dict.fromkeys(("values", "samples", "batches", "batches_with_var"), 4)
    return InputSums(**{name: np.zeros(2) for name in names - set(numbers)} | numbers | given)


def test_the_variance_is_within_and_between():
    seen = sums(values=8, within=np.array([4.0, 8.0]), between=np.array([4.0, 0.0]))
    assert seen.var.tolist() == [1.0, 1.0]
    assert seen.unbiased_var.tolist() == pytest.approx([8 / 7, 8 / 7])


def test_one_value_has_no_unbiased_variance():
    assert np.isnan(sums(values=1).unbiased_var).all()


def test_the_gap_is_relative_to_the_spread_of_all_tensors():
    first = OutputSums("0", 4, np.zeros(2), np.array([3.0, 1.0]), {Propagation.EVAL: 1.0})
    second = OutputSums("1", 4, np.zeros(1), np.array([12.0]), {Propagation.EVAL: 3.0})
    capture = Capture((), (first, second))
    assert capture.gap(Propagation.EVAL) == 0.5
    assert capture.gap_floor is None


def test_no_gap_where_nothing_deviates():
    out = OutputSums("0", 4, np.zeros(1), np.zeros(1), {Propagation.EVAL: 1.0})
    assert Capture((), (out,)).gap(Propagation.EVAL) is None
    assert Capture(()).gap(Propagation.EVAL) is None


def test_the_input_is_no_norm():
    first, second = WatchedLayer("input", 0, 3), WatchedLayer("bn", 1, 3, state=object())
    capture = Capture((first, second))
    assert capture.input is first
    assert capture.norms == (second,)
    assert Capture((second,)).input is None
