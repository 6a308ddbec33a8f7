"""--select and --ignore: codes, their beginnings, and globs of layers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.errors import UsageError
from bncli.gate.selection import parse_patterns, selected
from bncli.rulebook import RULES
from tests.findings import codes, finding, of_layers, report

CODES = [rule.code for rule in RULES]


def chosen(given_report, select=(), ignore=()):
    return selected(
        given_report, parse_patterns(select, "--select"), parse_patterns(ignore, "--ignore")
    )


EVERY = report(*(finding(code) for code in CODES))


@pytest.mark.parametrize(
    ("select", "ignore", "kept"),
    [
        ([], [], CODES),
        (["BN001"], [], ["BN001"]),
        (["BN9"], [], [code for code in CODES if code.startswith("BN9")]),
        (["BN001,BN9"], [], ["BN001", *(code for code in CODES if code.startswith("BN9"))]),
        ([" BN001 , BN002 ", "BN002"], [], ["BN001", "BN002"]),
        (["BN"], [], CODES),
        ([], ["BN"], []),
        ([], ["BN00"], [code for code in CODES if not code.startswith("BN00")]),
        (["BN00"], ["BN002"], [c for c in CODES if c.startswith("BN00") and c != "BN002"]),
        (["BN001"], ["BN0"], []),  # to ignore is stronger
        ([""], [","], CODES),
    ],
)
def test_codes_and_their_beginnings(select, ignore, kept):
    result = chosen(EVERY, select, ignore)
    assert [item.code for item in result.findings] == kept
    assert len(result.findings) + len(result.suppressed) == len(CODES)
    for item in result.suppressed:
        unselected = bool(select) and not any(
            item.finding.code.startswith(code.strip()) for code in ",".join(select).split(",")
        )
        assert item.by == ("select" if unselected else "ignore")


NAMES = ("state_dict.module.bn1", "state_dict.module.layer1.0.bn1", "state_dict.module.head")


@pytest.mark.parametrize(
    ("glob", "ignored"),
    [
        ("state_dict.module.head", ["head"]),
        ("state_dict.head", ["head"]),
        ("head", ["head"]),
        ("bn1", ["bn1"]),  # the stem alone, not every layer that ends so
        ("*bn1", ["bn1", "layer1.0.bn1"]),
        ("layer1.*", ["layer1.0.bn1"]),
        ("layer?.[01].bn1", ["layer1.0.bn1"]),
        ("*", ["bn1", "layer1.0.bn1", "head"]),
        ("HEAD", []),
        ("ead", []),
    ],
)
def test_globs_of_layers(glob, ignored):
    given_report = of_layers(*NAMES, faulty=NAMES)
    result = chosen(given_report, ignore=[f"BN001:{glob}"])
    gone = [item.finding.subject.removeprefix("state_dict.module.") for item in result.suppressed]
    assert gone == ignored
    assert codes(chosen(given_report, ignore=[f"BN002:{glob}"])) == codes(given_report)
    assert len(chosen(given_report, select=[f"BN0:{glob}"]).findings) == len(ignored)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("BN91", "did you mean BN901?"),
        ("X", "no rule's code begins like this; write one such as"),
        ("B", "no rule's code begins like this"),
        ("BN001:stem.bn,bn0", "--ignore bn0: write codes in capitals, such as BN0, and a"),
        ("bn203:head", "--ignore bn203:head: write the code in capitals, BN203:head."),
        ("bn105", "--ignore bn105: write the code in capitals, BN105."),
        ("nan-in-checkpoint", "--ignore nan-in-checkpoint: write the rule's code, BN201."),
        ("BN999", "--ignore BN999: there is no rule BN999; bncli rules lists them."),
        ("BN001,X", "--ignore X: "),
        (":head", "no rule's code begins like this"),
        ("BN001:", "--ignore 'BN001:': no layer follows the colon"),
    ],
)
def test_what_is_no_code_is_refused(text, words):
    with pytest.raises(UsageError) as caught:
        parse_patterns([text], "--ignore")
    assert words in str(caught.value)
    assert str(caught.value).startswith("--ignore ")


subsets = st.lists(st.sampled_from([*CODES, "BN0", "BN9", "BN00"]), max_size=4)


@given(subsets, subsets)
def test_algebra(select, ignore):
    """Nothing is lost, order stays, and doing it twice changes nothing."""
    once = chosen(EVERY, select, ignore)
    twice = chosen(once, select, ignore)
    assert once == twice
    assert [item for item in EVERY.findings if item in once.findings] == list(once.findings)
    both = {item.code for item in once.findings}
    both |= {item.finding.code for item in once.suppressed}
    assert both == set(CODES)
    assert chosen(chosen(EVERY, select), (), ignore).findings == once.findings
