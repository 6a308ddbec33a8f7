"""A baseline of version 1 is read by its own rule, until it is written anew."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.gate.baseline import known_removed, update_baseline
from bncli.gate.entries import read_baseline
from bncli.gate.former import FOR_ALL, former_fingerprint, former_place
from bncli.rulebook import RULES
from tests.findings import codes, finding, of_layers, report

LAYERS = ("stem.bn", "layer1.0.bn1", "layer1.0.bn2", "head.1")


@pytest.fixture
def former(folder):
    """Write entries as version 1 did: `former(("BN001", "net.pt", "model", "head.1"))`."""

    def former(*entries, command="hand-made"):
        findings = [
            {"command": command, "file": file, "code": code, "prefix": prefix, "place": place}
            for code, file, prefix, place in entries
        ]
        document = {"format_version": 1, "findings": findings}
        (folder / "b.json").write_text(json.dumps(document))
        return read_baseline("b.json")

    return former


def left(given_report, baseline):
    return codes(known_removed(given_report, baseline, "b.json")[0])


def test_its_own_rule_stays(former):
    """Another file of the call's, a renamed prefix, numbers: known then, and known now."""
    baseline = former(
        ("BN001", "epoch-1.pt", "model", "head.1"), ("BN002", "x.npy", "", "channels")
    )
    for prefix in ("", "model.", "encoder."):
        names = [prefix + name for name in LAYERS]
        after = of_layers(*names, faulty=[f"{prefix}head.1"], path="epoch-2.pt")
        assert left(after, baseline) == []
        assert len(left(of_layers(*names, faulty=[f"{prefix}stem.bn"]), baseline)) == 1
    one = finding("BN002", "channels 0 and 7", places=("channels",))
    assert left(report(one, read=("x.npy",)), baseline) == []
    unread = of_layers(*LAYERS, faulty=["head.1"], path="epoch-1.pt")
    assert known_removed(unread, baseline, "b.json")[1] == 0
    assert known_removed(of_layers(*LAYERS, path="epoch-1.pt"), baseline, "b.json")[1] == 1


HEIRS = [(rule.code, old) for rule in RULES for old in rule.formerly]


@pytest.mark.parametrize(("code", "old"), HEIRS)
def test_what_a_newer_rule_took_over_is_known(former, code, old):
    one = of_layers(*LAYERS, faulty=["head.1"], code=code)
    assert left(one, former((old, "net.pt", "", "head.1"))) == []
    elsewhere = [] if old in FOR_ALL else [(code, "head.1")]
    assert left(one, former((old, "net.pt", "", "stem.bn"))) == elsewhere
    whole = report(finding(code, "layers", path="net.pt"), checked={"net.pt": LAYERS})
    assert left(whole, former((old, "net.pt", "", "stem.bn"))) == []


def test_an_update_renews_what_it_sees_and_keeps_the_rest(former, folder):
    for name in ("a.pt", "b.pt"):
        (folder / name).touch()
    entries = [("BN001", name, "", "head.1") for name in ("a.pt", "b.pt", "gone.pt")]
    former(*entries)
    faulty = {name: of_layers(*LAYERS, faulty=["head.1"], path=name) for name in ("a.pt", "b.pt")}
    update_baseline("b.json", faulty["a.pt"])
    half = read_baseline("b.json")
    assert [entry.file for entry in half.entries] == ["a.pt"]
    assert [entry.file for entry in half.former] == ["b.pt"]
    for name in ("a.pt", "b.pt"):
        assert left(faulty[name], half) == []
    update_baseline("b.json", faulty["b.pt"])
    whole = read_baseline("b.json")
    assert ([entry.file for entry in whole.entries], whole.former) == (["a.pt", "b.pt"], ())
    assert "version_1" not in (folder / "b.json").read_text("utf-8")


def test_layers_that_were_not_looked_at_keep_their_old_entries(former):
    former(*(("BN001", "net.pt", "", layer) for layer in ("stem.bn", "head.1")))
    part = of_layers("stem.bn", faulty=["stem.bn"], partial=True, names={"net.pt": LAYERS})
    update_baseline("b.json", part)
    half = read_baseline("b.json")
    assert [entry.place for entry in half.entries] == ["stem.bn"]
    assert [entry.place for entry in half.former] == ["head.1"]
    assert left(of_layers(*LAYERS, faulty=["stem.bn", "head.1"]), half) == []


def test_no_gate_turns_red_and_a_note_says_so(run, save, former, folder):
    """The very text that version 1 wrote, for channels that have moved since."""
    x = np.zeros((4, 3), np.float32)
    x[:, 2] = np.arange(4)
    save("x.npy", x)
    former(
        ("BN005", "x.npy", "", "every channel"),
        ("BN006", "x.npy", "", "channels"),
        *((rule.code, "x.npy", "", place) for rule in RULES if rule.code.startswith("BN0")
          for place in ("channels", "every channel")),
        command="compute",
    )  # fmt: skip
    result = run("compute", "x.npy", "--fail-on", "info", "--baseline", "b.json", "-f", "json")
    assert result.code == 0
    assert "format 1" in result.report["verdict"]
    assert run("compute", "x.npy", "--baseline", "b.json", "--update-baseline", "-q").code == 0
    assert json.loads((folder / "b.json").read_text("utf-8"))["format_version"] == 2
    result = run("compute", "x.npy", "--fail-on", "info", "--baseline", "b.json", "-f", "json")
    assert result.code == 0
    assert "format 1" not in result.report["verdict"]


@pytest.mark.parametrize(("code", "old"), HEIRS)
def test_what_was_told_apart_when_it_was_written_is_not_covered(folder, code, old):
    """An entry of today's knows that the newer rule was there; one of an older bncli does not."""
    update_baseline("b.json", of_layers(*LAYERS, faulty=["head.1"], code=old))
    one = of_layers(*LAYERS, faulty=["head.1"], code=code)
    assert left(one, read_baseline("b.json")) == [(code, "head.1")]
    document = json.loads((folder / "b.json").read_text("utf-8"))
    for entry in document["findings"]:
        del entry["apart_from"]
    (folder / "b.json").write_text(json.dumps(document))
    assert left(one, read_baseline("b.json")) == []


def test_an_entry_is_no_heirloom_of_two_layers(former):
    """Layers named by digits had one place; the rule of then knew one finding by one entry."""
    code, old = next(pair for pair in HEIRS if pair[1] not in FOR_ALL)
    baseline = former((old, "net.pt", "", "N"))
    assert left(of_layers("1", "3", "x", faulty=["3"], code=code), baseline) == []
    both = of_layers("1", "3", "x", faulty=["1", "3"], code=code)
    assert left(both, baseline) == [(code, "3")]


def test_what_stands_for_several_findings_needs_all_of_their_entries(former):
    one = finding("BN209", "head.1", path="net.pt", instead_of=("BN203", "BN408", "BN503"))
    now = report(one, checked={"net.pt": LAYERS})
    known = [(code, "net.pt", "", "head.1") for code in ("BN203", "BN404")]
    assert left(now, former(*known)) == []
    for entry in known:
        assert left(now, former(entry)) == [("BN209", "head.1")]
    alone = replace(one, instead_of=())
    assert left(report(alone, checked={"net.pt": LAYERS}), former(*known)) != []


@pytest.mark.parametrize("old", sorted(FOR_ALL))
def test_what_was_said_for_all_layers_was_said_of_one_file(former, old):
    code = next(code for code, before in HEIRS if before == old)
    baseline = former((old, "other.pt", "", "stem.bn"))
    now = of_layers(*LAYERS, faulty=["head.1"], code=code)
    assert left(now, baseline) == [(code, "head.1")]
    assert left(now, former((old, "net.pt", "", "stem.bn"))) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("channel 3", "channel 4"),
        ("channel 3", "channels 0, 1, 2 and 61 more"),
        ("channels 0 and 7", "channels 0, 1, 2 and 3"),
        ("batch 3", "batch 17"),
        ("layer1.bn channel 3", "layer1.bn channels 3 and 4"),
    ],
)
def test_numbers_that_training_changes_are_no_part_of_a_place(one, other):
    given = report(finding(subject=one), finding(subject=other))
    first, second = (former_place(item, given) for item in given.findings)
    assert first == second


@pytest.mark.parametrize(("one", "other"), [("layer1.bn", "layer2.bn"), ("bn.1", "bn.2")])
def test_numbers_in_a_name_are(one, other):
    given = report(finding(subject=one), finding(subject=other))
    first, second = (former_place(item, given) for item in given.findings)
    assert first != second


prefixes = st.sampled_from(["", "module.", "_orig_mod.module.", "model.", "state_dict.module.net."])


@given(prefixes, prefixes, st.permutations(LAYERS), st.sampled_from(LAYERS), st.floats())
def test_a_fingerprint_survives(one, other, order, layer, number):
    """Another prefix, another order, other numbers; and another rule or layer is told apart."""
    before = of_layers(*(one + name for name in LAYERS), faulty=[one + layer])
    after = of_layers(
        *(other + name for name in order), faulty=[other + layer], message=f"it is {number}."
    )

    def printed(given):
        return [former_fingerprint(item, given) for item in given.findings]

    assert printed(before) == printed(after)
    assert len(printed(before)[0]) == 16
    every = of_layers(*LAYERS, faulty=LAYERS), of_layers(*LAYERS, faulty=LAYERS, code="BN002")
    assert len({mark for given in every for mark in printed(given)}) == 2 * len(LAYERS)
