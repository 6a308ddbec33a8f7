"""Groups of flags: a tolerance is whole or not there, and an input is named or typed."""

from __future__ import annotations

import math

import pytest

from bncli.arguments.flags import AgainstFlags, ReadingFlags
from bncli.errors import UsageError


def test_a_tolerance_comes_whole_or_not_at_all():
    assert AgainstFlags().tolerance is None
    assert AgainstFlags("torch", 0.0, 1e-3).tolerance == (0.0, 1e-3)
    assert AgainstFlags(rtol=0.0, atol=1e-3).allowed(compared=True) == (0.0, 1e-3)
    for pair in ((1e-3, None), (None, 0.0)):
        with pytest.raises(UsageError, match="--rtol and --atol go together"):
            AgainstFlags(None, *pair).allowed(compared=True)
    for pair, flag in (
        ((-1.0, 0.0), "--rtol"),
        ((0.0, math.nan), "--atol"),
        ((0.0, -1e-9), "--atol"),
    ):
        with pytest.raises(UsageError, match=f"^{flag} .*: a tolerance must be 0 or more"):
            AgainstFlags(None, *pair).allowed(compared=True)


def test_a_tolerance_without_a_comparison_is_refused():
    with pytest.raises(UsageError, match="are for a comparison: add --against torch"):
        _ = AgainstFlags(rtol=0.0, atol=1e-3).tolerance
    assert AgainstFlags().allowed(compared=False) is None


def test_a_factor_widens_what_follows_from_the_arithmetic():
    assert AgainstFlags("torch", tolerance_factor=4).tolerance == 4.0
    assert AgainstFlags(tolerance_factor=1.0).allowed(compared=True) == 1.0
    for factor in (0.5, -3.0, math.nan, math.inf):
        with pytest.raises(UsageError, match=r"^--tolerance-factor .*: it must be a number from 1"):
            _ = AgainstFlags("torch", tolerance_factor=factor).tolerance
    with pytest.raises(UsageError, match="which --rtol and --atol replace; give one or the other"):
        _ = AgainstFlags("torch", 1e-3, 1e-3, 2.0).tolerance
    with pytest.raises(UsageError, match="is for a comparison: add --against torch"):
        _ = AgainstFlags(tolerance_factor=2.0).tolerance


def test_an_input_is_named_or_typed(save):
    names = [save("x.npy", [[1.0, 2.0]]), save("y.npy", [[3.0, 4.0]])]
    assert [tensor.label for tensor in ReadingFlags().tensors(names)] == names
    assert [tensor.label for tensor in ReadingFlags().tensors([None, names[1]])] == names[1:]
    (typed,) = ReadingFlags(values="[[1, 2], [3, 4]]").tensors([None])
    assert (typed.label, typed.read().tolist()) == ("--values", [[1, 2], [3, 4]])
    assert ReadingFlags(values="[[1], [2]]", channel_axis=0).open([]).num_features == 2


def test_an_input_is_not_both_and_not_neither():
    with pytest.raises(UsageError, match=r"^--values and INPUT \(x\) are both given; leave"):
        ReadingFlags(values="[[1]]").tensors(["x"])
    for nothing in ([], [None]):
        with pytest.raises(UsageError, match=r"^INPUT is missing: name a file, or type numbers"):
            ReadingFlags().open(nothing)
    with pytest.raises(
        UsageError, match=r"^--values and INPUT \(.*\) are both given"
    ):  # an empty text was typed too
        ReadingFlags(values="").tensors(["x"])
