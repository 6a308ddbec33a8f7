"""What a part holds of its checkpoints: nothing is lost on the way, and nothing odd comes in."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import pytest

from bncli.commands.inspect_checkpoint.judged_file import Judged, judge
from bncli.commands.inspect_checkpoint.layer_settings import LayerSettings
from bncli.commands.inspect_checkpoint.record import (
    FINDING,
    JUDGED,
    ROW,
    Entry,
    entries_of,
    text_of,
)
from bncli.loaders import open_model
from bncli.model.part import PartInput
from bncli.report import Finding, Severity, Unread
from tests.commands.inspect_checkpoint.many import write_many


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """The checkpoints of every kind, judged."""
    folder = tmp_path_factory.mktemp("record") / "runs"
    folder.mkdir()
    settings = LayerSettings.parsed(["stem=1e-3"], None)
    made = [Entry(0, "a", "a", unread=Unread("a", "it is\ngone."), notes=("one.", "two."))]
    for at, spec in enumerate(write_many(folder), 1):
        path = folder.parent / spec
        if "cut" in spec or "::" in spec or not path.exists():
            continue
        judged = judge(open_model(path), "", [], settings, 2)
        made.append(Entry(at, spec, str(path), (PartInput("x", 3, "0a"),), judged))
    return made


def same(one: Judged, other: Judged) -> bool:
    """Whether they are equal, where NaN is."""
    return repr([getattr(one, each.name) for each in fields(one)]) == repr(
        [getattr(other, each.name) for each in fields(other)]
    )


def test_what_goes_in_comes_out(entries):
    text = text_of(entries)
    assert text.isascii()
    again = entries_of(text)
    assert [replace(entry, judged=None) for entry in again] == [
        replace(entry, judged=None) for entry in entries
    ]
    for entry, back in zip(entries, again, strict=True):
        if entry.judged is None:
            assert back.judged is None
            continue
        assert list(back.judged.names.items()) == list(entry.judged.names.items())
        for each in fields(Judged):
            before, after = (getattr(one.judged, each.name) for one in (entry, back))
            if each.name in {"rows", "findings"}:
                before, after = map(plain, before), map(plain, after)
                assert list(before) == list(after), each.name
            else:
                assert before == after, each.name
    assert text_of(again) == text
    assert any(
        row["num_batches_tracked"] != row["num_batches_tracked"]
        for e in again
        if e.judged
        for row in e.judged.rows
    )


def plain(value):
    """A row or a finding as text: NaN equals itself, and a tuple the list that JSON makes of it."""
    if isinstance(value, Finding):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
        assert all(isinstance(value[key], tuple) for key in ("extent", "places"))
    return json.dumps(value, default=str)


def test_a_name_that_is_not_unicode_comes_back():
    name = b"a\xff".decode(errors="surrogateescape")
    (back,) = entries_of(text_of([Entry(0, name, name, unread=Unread(name, "."))]))
    assert back.path == name


def test_the_lists_of_keys_are_those_of_the_code(entries):
    """A field that is new in one of these would be lost in parts."""
    assert list(JUDGED) == [each.name for each in fields(Judged)]
    assert list(FINDING) == [each.name for each in fields(Finding)]
    rows = [row for entry in entries if entry.judged for row in entry.judged.rows]
    assert all(set(row) == set(ROW) for row in rows)


def leaves(value, path=()):
    """The path of everything inside of a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)) and inner:
            yield from leaves(inner, (*path, key))


ODD = (None, True, -1, 10**400, 2.5, "text", [], {}, [[]], {"a": 1}, ["text"])


def test_a_value_of_another_kind_is_refused(entries):
    """A value of every kind at every place: refused with a sentence, or fit to be read."""
    text = text_of([entry for entry in entries if entry.spec.endswith(("nan.pt", "a", "two.tar"))])
    places = list(leaves(json.loads(text)))
    assert len(places) > 400
    tried = {
        tuple("*" if isinstance(step, int) else step for step in path): path for path in places
    }
    for path in tried.values():
        for odd in ODD:
            document = json.loads(text)
            inner = document
            for step in path[:-1]:
                inner = inner[step]
            was = inner[path[-1]]
            inner[path[-1]] = odd
            sentence = refusal(json.dumps(document))
            if sentence is None:
                fits = type(odd) is type(was) or {"evidence", "extent"} & {*path}
                fits = fits or (isinstance(was, float | int) and isinstance(odd, float | int))
                assert fits or odd is None or was in (None, []), (path, was, odd)
            else:
                assert sentence.startswith("record"), (path, odd, sentence)
                assert "\n" not in sentence
                assert len(sentence) < 250


def refusal(text):
    """Why a record is refused; None where it is not."""
    try:
        entries_of(text)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "text",
    [None, 5, [], {}, "", "[", "{}", "[1]", "[[]]", "nul", "[" * 100_000, "é", "[" + "[]," * 10**6],
    ids=lambda text: str(text)[:6],
)
def test_what_is_no_record_is_refused(text):
    with pytest.raises(ValueError, match="record") as refused:
        entries_of(text)
    assert len(str(refused.value)) < 200


def test_columns_of_different_lengths_are_refused(entries):
    document = json.loads(text_of(entries[1:2]))
    document[0]["judged"]["rows"]["eps"].pop()
    with pytest.raises(ValueError, match="different lengths"):
        entries_of(json.dumps(document))


@pytest.mark.parametrize(
    ("key", "value"),
    [("severity", "fatal"), ("certainty", "perhaps"), ("extent", [["a", 1]])],
)
def test_a_finding_that_no_rule_makes_is_refused(key, value):
    judged = Judged(findings=[Finding("BN001", Severity.ERROR, "x", "m")])
    document = json.loads(text_of([Entry(0, "a", "a", judged=judged)]))
    document[0]["judged"]["rows"] = {name: [] for name in ROW}
    entries_of(json.dumps(document))
    document[0]["judged"]["findings"][0][key] = value
    with pytest.raises(ValueError, match=key):
        entries_of(json.dumps(document))


def test_infinity_and_none_are_kept():
    evidence = {"a": math.inf, "b": None, "c": [1, [2.0, "x"]], "d": True}
    finding = Finding(
        "BN001", Severity.INFO, "x", "m", evidence, extent=(("c", 0, 3), "d"), instead_of=("BN002",)
    )
    (back,) = entries_of(text_of([Entry(0, "a", "a", judged=Judged(findings=[finding]))]))
    assert back.judged.findings == [finding]
