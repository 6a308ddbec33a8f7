"""What a comparison shows, on closenesses made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bncli.model.closeness import ChannelCloseness, Closeness
from bncli.report import Certainty
from bncli.rulebook.comparison import (
    MOST_FINDINGS,
    MOST_NAMES,
    channels_sentence,
    comparison_findings,
    identification_findings,
    lost_digits_findings,
    not_compared_findings,
    nothing_updated_finding,
    stored_findings,
)


def closeness(quantity="output", used=2.0, mismatched=3, total=10, **more) -> Closeness:
    numbers = {
        "max_abs_diff": 0.5, "max_rel_diff": 0.1, "index": (1,), "actual": 1.5, "expected": 1.0,
        "rtol": 0.0, "atol": 0.25, "passing_atol": 0.5, "max_mismatch": 0.5,
    } | more  # fmt: skip
    return Closeness(quantity=quantity, used=used, mismatched=mismatched, total=total, **numbers)


def codes(findings):
    return [(finding.code, finding.subject) for finding in findings]


def test_a_quantity_that_did_not_pass():
    same, nothing = closeness("same", mismatched=0), closeness("nothing", total=0, mismatched=0)
    (finding,) = comparison_findings([same, closeness(), nothing], "torch 2.3")
    assert (finding.code, finding.subject, finding.extent) == ("BN901", "output", ())
    assert finding.message == (
        "3 of 10 values differ from torch 2.3, by up to 2 times the tolerance"
    )
    assert finding.detail == "The worst, at channel 1, is 1.5 against 1."
    assert finding.evidence == {
        "mismatched": 3, "total": 10, "index": (1,), "actual": 1.5, "expected": 1.0,
        "tolerance_used": 2.0, "max_mismatch": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("index", "said"),
    [((), "its only value"), ((3,), "step 3"), ((0, 2, 5), "[0, 2, 5]")],
)
def test_where_the_worst_is(index, said):
    (finding,) = comparison_findings([closeness(index=index)], "torch", counted="step")
    assert f"The worst, at {said}, is" in finding.detail


def test_one_value_that_differs():
    (finding,) = comparison_findings([closeness(mismatched=1)], "torch")
    assert finding.message == "1 of 10 values differs from torch, by up to 2 times the tolerance"


def test_what_is_beyond_every_tolerance():
    nan = closeness(used=math.inf, max_abs_diff=math.nan)
    (finding,) = comparison_findings([nan], "torch", more={"output": "It is so."})
    assert finding.message == "3 of 10 values differ from torch"
    assert finding.detail == "The worst, at channel 1, is 1.5 against 1. It is so."
    assert [member[0] for member in finding.extent] == ["not finite"]
    (finding,) = comparison_findings([closeness()], "torch", overflow=True)
    assert finding.hint == "Fix BN004 first: the variance overflows."


def test_digits_that_were_lost_within_the_tolerance():
    passed = closeness(mismatched=0, max_abs_diff=2e-3)
    (finding,) = lost_digits_findings(passed, 1.0, "torch")
    assert (finding.code, finding.evidence) == ("BN902", {"max_abs_diff": 2e-3, "scale": 1.0})
    assert finding.message == "torch is off by up to 0.002 from the exact values"
    assert lost_digits_findings(passed, 2.0, "torch") == []  # two thousandths of 2 at most
    assert lost_digits_findings(replace(passed, mismatched=1), 1.0, "torch") == []


def stored(quantity, used=2.0, bad=(), channels=4, **more) -> ChannelCloseness:
    whole = closeness(quantity, used, mismatched=max(len(bad), more.pop("mismatched", 1)), **more)
    each = tuple(
        closeness(quantity, mismatched=int(c in bad), max_abs_diff=more.get("max_abs_diff", 0.0)
                  if c in bad else 0.0)
        for c in range(channels)
    )  # fmt: skip
    return ChannelCloseness(whole, each, (1.0,) * channels)


@pytest.mark.parametrize(
    ("bad", "channels", "said"),
    [
        ((), 4, ""),
        ((0,), 1, ""),
        ((2,), 4, "Of 4 channels, channel 2 mismatches."),
        ((0, 2), 4, "Of 4 channels, channels 0 and 2 mismatch."),
        ((0, 1, 2, 3), 4, "All 4 channels mismatch."),
    ],
)
def test_which_channels_mismatch(bad, channels, said):
    assert channels_sentence(stored("weight", bad=bad, channels=channels)) == said


def test_tensors_that_differ_are_said_with_their_channels():
    same = ChannelCloseness(closeness("same", mismatched=0), (), ())
    slight, bad = stored("slight", 1.5, bad=(1,)), stored("bad", 7.0, bad=(0, 2))
    found = stored_findings([same, slight, bad], "b.pt", "Look at it.")
    assert codes(found) == [("BN901", "bad"), ("BN901", "slight")]
    assert found[0].detail.endswith("Of 4 channels, channels 0 and 2 mismatch. Look at it.")
    assert all(finding.extent == () for finding in found)


def test_nan_on_one_side_has_its_channels_as_extent():
    odd = stored("odd", math.inf, bad=(1, 2), max_abs_diff=math.nan)
    (finding,) = stored_findings([odd], "b.pt", "")
    assert finding.extent == (("not finite", 1, 2),)
    (finding,) = stored_findings([replace(odd, channels=())], "b.pt", "")
    assert [member[0] for member in finding.extent] == ["not finite"]


def test_more_tensors_than_a_screen_share_a_finding():
    many = [stored(f"t{n}", 100.0 - n) for n in range(MOST_FINDINGS + 2)]
    *own, rest = stored_findings(many, "b.pt", "")
    assert [subject for _, subject in codes(own)] == [f"t{n}" for n in range(MOST_FINDINGS)]
    assert (rest.subject, rest.extent) == ("2 more", ())
    assert rest.message == "2 more tensors differ from b.pt"
    assert rest.places == (f"t{MOST_FINDINGS}", f"t{MOST_FINDINGS + 1}")
    nan = [stored(f"n{n}", 99.0 - n, max_abs_diff=math.nan) for n in range(MOST_FINDINGS + 1)]
    *own, odd, rest = stored_findings(many + nan, "b.pt", "")
    assert {subject[0] for _, subject in codes(own)} == {"n"}  # before any that is finite
    assert (odd.subject, odd.places) == ("1 more", (f"n{MOST_FINDINGS}",))
    assert odd.message == "1 more tensor differs from b.pt in NaN or Inf"
    assert rest.subject == f"{MOST_FINDINGS + 2} more"
    assert len(stored_findings(many[:MOST_FINDINGS], "b.pt", "")) == MOST_FINDINGS


def test_counters_that_moved_do_not_hide_the_tensors_that_did():
    counters = [
        stored(f"c{n}", math.inf, atol=0.0, max_abs_diff=40.0) for n in range(MOST_FINDINGS)
    ]
    *own, rest = stored_findings([*counters, stored("weight", 3.0)], "b.pt", "")
    assert own[0].subject == "weight"
    assert rest.subject == "1 more"


def test_what_was_not_compared_is_said_by_its_reason():
    names = [f"t{n}" for n in range(MOST_NAMES + 2)]
    reasons = dict.fromkeys(names, "not in b.pt") | {"alone": "of another shape"}
    many, one = not_compared_findings(reasons, {"not in b.pt": "not in EXPECTED"})
    assert (many.code, many.subject) == ("BN903", f"{MOST_NAMES + 2} tensors")
    assert many.message == f"{MOST_NAMES + 2} tensors are not in b.pt"
    assert many.detail == f"They are {', '.join(names[:MOST_NAMES])} and 2 more."
    assert (many.extent, many.places) == (("not in EXPECTED",), tuple(names))
    assert (one.subject, one.message) == ("alone", "1 tensor is of another shape")
    assert one.extent == ("of another shape",)


def test_what_made_an_output():
    def found(kind=("LayerNorm",), **more):
        return identification_findings("OUTPUT", "LayerNorm", 12, kind=kind, **more)

    assert found(explained=True, expected=True) == found(explained=False, expected=True) == []
    (made,) = found(explained=True, expected=False)
    assert (made.code, made.extent, made.evidence) == (
        "BN904", ("LayerNorm",), {"tried": 12, "best": "LayerNorm"},
    )  # fmt: skip
    assert (made.message, made.certainty) == ("OUTPUT is LayerNorm", Certainty.CERTAIN)
    (doubtful,) = found(kind=(), explained=True, expected=False)
    assert doubtful.certainty == Certainty.LIKELY
    (other,) = found(explained=False, expected=False)
    assert other.message == "none of 12 hypotheses explains OUTPUT; the nearest is LayerNorm"
    assert (other.code, other.evidence) == ("BN905", {"tried": 12, "nearest": "LayerNorm"})


def test_buffers_that_a_batch_left_alone():
    finding = nothing_updated_finding("running_mean", 3, 0.25, 0.1)
    assert finding.code == "BN906"
    assert finding.message == (
        "no buffer moved; momentum 0.1 would have moved running_mean by 0.25 in channel 3"
    )
