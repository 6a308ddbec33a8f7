"""An extent may shrink, and not grow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.gate.entries import Entry
from bncli.gate.extent import covers, size
from bncli.gate.places import names_of


def entry(*extent, prefix="", literal=False) -> Entry:
    place = ("inspect-checkpoint", "net.pt", "BN201", "bn")
    return Entry(*place, prefix=prefix, literal=literal, extent=extent)


def test_the_size_of_an_extent():
    assert size(()) == 0
    assert size(("running_var", ("NaN", 3, 3), ("NaN", 5, 9))) == 1 + 1 + 5


runs = st.lists(st.tuples(st.sampled_from(["NaN", "Inf"]), st.integers(0, 9), st.integers(0, 4)))


@given(runs, runs)
def test_runs_cover_what_lies_in_them(known, found):
    def members(chosen):
        return tuple((what, first, first + more) for what, first, more in chosen)

    def channels(chosen):
        return {(w, c) for w, first, last in members(chosen) for c in range(first, last + 1)}

    covered = covers(entry(*members(known)), members(found), names_of(()))
    assert covered == (channels(found) <= channels(known))


@pytest.mark.parametrize(
    ("known", "found", "covered"),
    [
        (("a", "b"), ("a",), True),
        (("a",), ("a", "b"), False),
        (("module.a",), ("a",), True),
        ((), (), True),
        ((), ("a",), False),
    ],
)
def test_names_are_known_with_and_without_the_wrapper(known, found, covered):
    names = names_of(("a", "b"))
    assert covers(entry(*known, prefix="module."), found, names) is covered


def test_names_that_wrapping_would_make_one_are_literal():
    names = names_of(("bn", "module.bn"))
    assert not covers(entry("bn"), ("module.bn",), names)
    assert covers(entry("bn", "module.bn", literal=True), ("module.bn",), names)
    # A layer that is still there under the name of the entry is itself, and no other.
    assert not covers(entry("module.a", prefix="module."), ("a",), names_of(("a", "module.a")))
