"""Findings of one rule are one block, and no place is lost without a word."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.renderers.drawing.blocks import MOST_FIXES, MOST_NAMES, MOST_PLACES, Place, blocks
from bncli.report import Certainty, Severity
from tests.findings import finding, of_layers, report


def only(given_report, **more):
    (block,) = blocks(given_report, every=more.pop("every", False), **more)
    return block


def test_one_place_has_its_own_claim():
    block = only(
        of_layers("a", faulty=["a"], message="running_var is NaN in channel 3.", path="h.pth")
    )
    assert block.claim == "running_var is NaN in channel 3"
    assert block.places == (Place("h.pth::a"),)
    assert block.where == "a"


def test_the_same_of_many_layers_is_said_once():
    layers = [f"layer{n}" for n in range(20)]
    block = only(of_layers(*layers, faulty=layers, message="it is 0 and 1."))
    assert block.claim == "it is 0 and 1: 20 layers"
    assert block.places == (
        Place("net.pt"),
        Place(f"{', '.join(layers[:MOST_NAMES])} and {20 - MOST_NAMES} more", inner=True),
    )
    assert only(of_layers(*layers, faulty=layers), every=True).places[1].where == ", ".join(layers)


def test_different_facts_have_a_line_each_below_the_rules_claim():
    found = [
        finding(subject=f"{n}", message=f"NaN in channel {n}", claim="it is NaN", path="h.pth")
        for n in range(9)
    ]
    block = only(report(*found, names={"h.pth": [f"{n}" for n in range(9)]}))
    assert block.claim == "it is NaN: 9 layers"
    assert block.places == (
        Place("h.pth"),
        *(Place(f"{n}", f"NaN in channel {n}", inner=True) for n in range(MOST_PLACES)),
        Place(f"{9 - MOST_PLACES} more: -v lists them", inner=True),
    )
    assert len(only(report(*found), every=True).places) == 1 + 9


def test_a_finding_that_stands_for_several_places_counts_them():
    one = finding(subject="a", message="it differs.")
    rest = finding(subject="3 more", message="3 more differ.", places=("b", "c", "d"))
    assert only(report(one, rest)).claim.endswith(": 4 places")


def test_files_with_one_place_each_have_a_line_each():
    found = [finding(subject="bn", path=path) for path in ("a.pt", "b.pt")]
    block = only(report(*found, names={"a.pt": ["bn"], "b.pt": ["bn"]}, read=("a.pt", "b.pt")))
    assert block.claim == "a fact: 2 layers of 2 files"
    assert block.places == (Place("a.pt::bn"), Place("b.pt::bn"))


def test_each_place_says_how_sure_it_is_where_they_differ():
    sure = [Certainty.CERTAIN, Certainty.ASSUMED, Certainty.LIKELY]
    found = [finding(subject=each.name, certainty=each, path="a.pt") for each in sure]
    block = only(report(*found))
    assert block.certainty == "certain or likely or depends on an assumption"
    assert [(place.where, place.message) for place in block.places[1:]] == [
        (each.name, f"({each.value})") for each in sure
    ]
    assert only(report(found[0], found[2])).certainty == "certain or likely"
    alike = only(report(found[2], finding(subject="b", certainty=Certainty.LIKELY, path="a.pt")))
    assert alike.certainty == "likely"
    assert [place.message for place in alike.places] == ["", ""]


def test_the_fix_is_told_once_and_different_ones_are_counted():
    same = report(*(finding(subject=f"{n}", hint="Fix it.") for n in range(9)))
    assert only(same).fixes == ("Fix it.",)
    other = report(*(finding(subject=f"{n}", hint=f"Fix {n}.") for n in range(5)))
    assert len(only(other).fixes) == MOST_FIXES + 1
    assert only(other).fixes[-1].startswith(f"{5 - MOST_FIXES} more fixes")
    assert only(other, every=True).fixes == tuple(f"'{n}': Fix {n}." for n in range(5))
    both = report(*(finding(subject=n, hint=f"Fix {n < 'd'}.") for n in "abcd"))
    assert only(both).fixes == ("a, b and 1 more: Fix True.", "d: Fix False.")
    one = report(*(finding(subject=f"{n}", hint=f"Fix {n}.") for n in range(MOST_FIXES + 1)))
    assert only(one).fixes[-1] == f"'{MOST_FIXES}': Fix {MOST_FIXES}."


def test_what_supports_each_place_is_told_where_every_place_is():
    found = [finding(subject=f"{n}", message=f"fact {n}", detail=f"Because {n}.") for n in range(3)]
    assert only(report(*found)).details == ()
    assert all(not place.details for place in only(report(*found)).places)
    told = [place.details for place in only(report(*found), every=True).places if place.message]
    assert told == [(f"Because {n}.",) for n in range(3)]
    assert only(report(found[1])).details == ("Because 1.",)
    two = [place.details for place in only(report(*found[:2])).places if place.message]
    assert two == [("Because 0.",), ("Because 1.",)]


def test_what_supports_one_place_is_never_told_of_several():
    found = [finding(subject=f"{n}", message="alike", detail=f"Because {n}.") for n in range(3)]
    assert all(not place.details for place in only(report(*found)).places)
    whole = [place for place in only(report(*found), every=True).places if place.details]
    assert [(place.where, place.details) for place in whole] == [
        (f"{n}", (f"Because {n}.",)) for n in range(3)
    ]


def test_rules_and_severities_have_blocks_of_their_own_the_worst_first():
    found = [finding(code, severity=one) for code in ("BN1", "BN2") for one in ("info", "error")]
    said = [(block.severity, block.code) for block in blocks(report(*found), every=False)]
    worst, least = Severity.ERROR, Severity.INFO
    assert said == [(worst, "BN1"), (worst, "BN2"), (least, "BN1"), (least, "BN2")]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=40),
    st.booleans(),
)
def test_every_place_is_named_or_counted(places, every):
    """Whatever is the same of which places, in which files."""
    found = [
        finding(subject=f"layer{n}", path=f"{path}.pt", message=f"{message}")
        for n, (path, message) in enumerate(places)
    ]
    block = only(report(*found, read=("a.pt", "b.pt")), every=every)
    said = " ".join(place.where for place in block.places)
    named = len(re.findall(r"layer\d+", said))
    counted = sum(int(number) for number in re.findall(r"(\d+) more", said))
    assert named + counted == len(places)
    assert not (every and counted)


@pytest.mark.parametrize("by_file", [False, True])
def test_a_block_for_each_file_where_it_is_wanted(by_file):
    found = [finding(subject=f"{n}", path=path) for path in ("a.pt", "b.pt") for n in range(3)]
    made = list(blocks(report(*found, read=("a.pt", "b.pt")), every=False, by_file=by_file))
    assert [block.path for block in made] == (["a.pt", "b.pt"] if by_file else ["a.pt"])
