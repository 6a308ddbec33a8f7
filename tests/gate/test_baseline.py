"""A baseline knows findings again, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.baseline import known_removed, read_baseline, write_baseline
from bncli.errors import FileError
from bncli.report import Suppressed, Unread

from .findings import codes, finding, of_layers, report

LAYERS = ("stem.bn", "layer1.0.bn1", "layer1.0.bn2", "head.1")


@pytest.fixture
def known(tmp_path):
    """Write a report's findings as known, and give back what is new in another one."""
    path = str(tmp_path / "b.json")

    def known(before, after):
        write_baseline(path, before, ())
        return known_removed(after, read_baseline(path))

    return known


def test_what_is_known_is_out_and_what_is_new_is_not(known):
    before = of_layers(*LAYERS, faulty=["stem.bn"])
    after, gone = known(before, of_layers(*LAYERS, faulty=["stem.bn", "head.1"]))
    assert codes(after) == [("BN001", "head.1")]
    assert [(item.finding.subject, item.by) for item in after.suppressed] == [
        ("stem.bn", "baseline")
    ]
    assert gone == 0
    after, _ = known(before, of_layers(*LAYERS, faulty=["stem.bn"], code="BN002"))
    assert codes(after) == [("BN002", "stem.bn")]


def test_what_was_mended_is_counted_and_comes_back_as_new_after_an_update(known):
    healthy = of_layers(*LAYERS)
    before = of_layers(*LAYERS, faulty=["stem.bn", "head.1"])
    assert known(before, healthy) == (healthy, 2)
    after, gone = known(healthy, before)
    assert (len(after.findings), gone) == (2, 0)


@pytest.mark.parametrize("old", ["", "module.", "model.backbone.", "state_dict.module."])
@pytest.mark.parametrize("new", ["", "_orig_mod.", "encoder.", "state_dict."])
def test_a_renamed_prefix_makes_nothing_new(known, old, new):
    before = of_layers(*(old + name for name in LAYERS), faulty=[f"{old}layer1.0.bn1"])
    names = [new + name for name in reversed(LAYERS)]
    after, gone = known(before, of_layers(*names, faulty=[f"{new}layer1.0.bn1"], message="7."))
    assert (codes(after), gone) == ([], 0)
    after, gone = known(before, of_layers(*names, faulty=[f"{new}layer1.0.bn2"]))
    assert (len(after.findings), gone) == (1, 1)


def test_a_layer_of_another_place_is_new_although_its_name_ends_so(known):
    layers = ("bn1", "layer1.0.bn1")
    before = of_layers(*layers, faulty=["bn1"])
    after, gone = known(before, of_layers(*layers, faulty=["layer1.0.bn1"]))
    assert (len(after.findings), gone) == (1, 1)


def test_another_layer_changes_the_common_prefix_but_not_the_name(known):
    before = of_layers("model.a.bn", "model.b.bn", faulty=["model.a.bn"])
    layers = ("model.a.bn", "model.b.bn", "ema.a.bn", "ema.b.bn")
    after, gone = known(before, of_layers(*layers, faulty=["model.a.bn"]))
    assert (codes(after), gone) == ([], 0)
    after, gone = known(before, of_layers(*layers, faulty=["ema.a.bn"]))
    assert (len(after.findings), gone) == (1, 1)


def test_a_file_that_was_renamed_is_known_and_a_second_one_is_not(known):
    before = of_layers(*LAYERS, faulty=["head.1"], path="epoch-1.pt")
    after, _ = known(before, of_layers(*LAYERS, faulty=["head.1"], path="./epoch-2.pt"))
    assert codes(after) == []
    after, _ = known(before, of_layers(*LAYERS, faulty=["head.1"], path="./epoch-1.pt"))
    assert codes(after) == []
    faults = [finding(subject="head.1", path=path) for path in ("epoch-1.pt", "epoch-2.pt")]
    for both, kept in ((faults, ["epoch-2.pt"]), (faults[1:], ["epoch-2.pt"])):
        # The first one is mended, or still faulty: the second one's fault is its own.
        two = report(
            *both,
            read=("epoch-1.pt", "epoch-2.pt"),
            checked={"epoch-1.pt": LAYERS, "epoch-2.pt": LAYERS},
        )
        after, _ = known(before, two)
        assert [item.path for item in after.findings] == kept


def test_an_unread_file_keeps_its_entries_to_itself(known):
    before = of_layers(*LAYERS, faulty=["head.1"], path="a.pt")
    after = of_layers(*LAYERS, faulty=["head.1"], path="b.pt", unread=(Unread("a.pt", "gone."),))
    assert len(known(before, after)[0].findings) == 1


def test_as_many_as_are_known_and_no_more(known):
    twice = report(finding(subject="channel 1"), finding(subject="channel 2"))
    once = report(finding(subject="channel 3"))
    assert len(known(once, twice)[0].findings) == 1
    assert known(twice, once) == (known(twice, once)[0], 1)


def test_other_files_keep_their_entries_while_they_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pt").touch()
    reports = {
        name: of_layers(*LAYERS, faulty=["head.1"], path=name) for name in ("a.pt", "b.pt", "c.pt")
    }
    for given_report in reports.values():
        try:
            old = read_baseline("b.json")
        except FileError:
            old = ()
        write_baseline("b.json", given_report, old)
    assert [entry.file for entry in read_baseline("b.json")] == ["a.pt", "c.pt"]
    healthy = of_layers(*LAYERS, path="c.pt")
    assert known_removed(healthy, read_baseline("b.json")) == (healthy, 1)  # c's, not a's


def test_what_the_user_did_not_want_to_hear_is_not_gone_and_stays_written(tmp_path):
    path = str(tmp_path / "b.json")
    write_baseline(path, of_layers(*LAYERS, faulty=["stem.bn", "head.1"]), ())
    old = read_baseline(path)
    quiet = Suppressed(finding(subject="head.1", path="net.pt"), "ignore")
    heard = of_layers(*LAYERS, faulty=["stem.bn"], suppressed=(quiet,))
    after, gone = known_removed(heard, old)
    assert (codes(after), gone) == ([], 0)
    assert [(item.finding.subject, item.by) for item in after.suppressed] == [
        ("head.1", "ignore"), ("stem.bn", "baseline"),
    ]  # fmt: skip
    write_baseline(path, heard, old)
    assert read_baseline(path) == old
    mended = of_layers(*LAYERS, suppressed=(quiet,))
    assert known_removed(mended, old)[1] == 1
    write_baseline(path, mended, old)
    assert [entry.place for entry in read_baseline(path)] == ["head.1"]


def test_what_was_not_looked_at_is_not_gone_and_stays_written(tmp_path):
    path = str(tmp_path / "b.json")
    write_baseline(path, of_layers(*LAYERS, faulty=["stem.bn", "head.1"]), ())
    old = read_baseline(path)
    part = of_layers("stem.bn", faulty=["stem.bn"], partial=True)
    after, gone = known_removed(part, old)
    assert (codes(after), gone) == ([], 0)
    write_baseline(path, part, old)
    assert read_baseline(path) == old
    write_baseline(path, of_layers("stem.bn", faulty=["stem.bn"]), old)
    assert [entry.place for entry in read_baseline(path)] == ["stem.bn"]


def test_other_commands_keep_their_entries(tmp_path):
    path = str(tmp_path / "b.json")
    one = report(finding(), command="compute")
    other = report(finding("BN002"), command="inspect-checkpoint")
    write_baseline(path, one, ())
    write_baseline(path, other, read_baseline(path))
    for given_report in (one, other):
        assert known_removed(given_report, read_baseline(path)) == (
            known_removed(given_report, read_baseline(path))[0], 0,
        )  # fmt: skip
        assert codes(known_removed(given_report, read_baseline(path))[0]) == []


def test_the_file_reads_well(tmp_path):
    path = tmp_path / "b.json"
    names = [f"model.{name}" for name in LAYERS]
    write_baseline(str(path), of_layers(*names, faulty=reversed(names)), ())
    assert path.read_text() == (
        '{\n  "format_version": 1,\n  "findings": [\n'
        + ",\n".join(
            f'    {{"command": "hand-made", "file": "net.pt", "code": "BN001", "prefix": "model", '
            f'"place": "{name}"}}'
            for name in sorted(LAYERS)
        )
        + "\n  ]\n}\n"
    )
    assert json.loads(path.read_text())["format_version"] == 1
    write_baseline(str(path), of_layers(*LAYERS), ())
    assert path.read_text() == '{\n  "format_version": 1,\n  "findings": []\n}\n'
    assert read_baseline(str(path)) == ()
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.json"]


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["BN001", "BN002"]), names), max_size=6), st.randoms())
def test_algebra(tmp_path_factory, pairs, random):
    """What was written is known, in any order; what is left is what was not written."""
    path = str(tmp_path_factory.mktemp("b") / "b.json")
    findings = [finding(code, name) for code, name in pairs]
    write_baseline(path, report(*findings), ())
    shuffled = findings[:]
    random.shuffle(shuffled)
    after, gone = known_removed(report(*shuffled), read_baseline(path))
    assert (after.findings, gone) == ((), 0)
    new = finding("BN009", "new")
    after, gone = known_removed(report(*shuffled[1:], new), read_baseline(path))
    assert (after.findings, gone) == ((new,), min(len(findings), 1))
