"""The JSON reports that a whole is made of: what is none, or of another whole, is one sentence."""

from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path

import pytest
import torch

from bncli.commands.inspect_checkpoint import parts
from bncli.commands.inspect_checkpoint.parts import is_report
from tests.commands.inspect_checkpoint.small import small


@pytest.fixture
def made(run, folder):
    """Five checkpoints in three parts."""
    (folder / "runs").mkdir()
    (folder / "parts").mkdir()
    for i in range(5):
        torch.save(small(i).state_dict(), f"runs/{i}.pt")
    for k in range(3):
        make(run, k)
    return folder


def make(run, k, n=3, *flags, to=None):
    to = to or f"parts/{k}.json"
    result = run("inspect-checkpoint", "runs/*.pt", *flags, f"--shard={k}/{n}", "-o", to, "-q")
    assert result.code == 0, result.stderr
    return to


def refused(run, *argv):
    """The sentence of a call that is refused."""
    result = run("inspect-checkpoint", *argv)
    assert (result.code, result.stdout) == (2, "")
    (sentence,) = result.stderr.splitlines()
    return sentence.removeprefix("bncli: ")


def call_in(sentence):
    """The call that a sentence says makes the part again."""
    call = sentence.partition(" with: bncli ")[2].rstrip(".")
    return shlex.split(call.partition(", ")[0])


def test_a_part_that_is_missing_is_named_with_its_call(run, made):
    whole = run("inspect-checkpoint", "parts/*.json", "-f", "json")
    assert whole.code == 0
    Path("parts/1.json").unlink()
    sentence = refused(run, "parts/*.json")
    assert "shard 1/3 is missing" in sentence
    call = call_in(sentence)
    assert call == ["inspect-checkpoint", "runs/*.pt", "--shard=1/3", "-o", "parts/1.json", "-q"]
    assert run(*call).code == 0
    assert run("inspect-checkpoint", "parts/*.json", "-f", "json") == whole


def test_missing_parts_may_be_allowed(run, made):
    Path("parts/1.json").unlink()
    result = run("inspect-checkpoint", "parts/*.json", "--allow-missing-parts", "-f", "json")
    assert result.code == 0
    (found,) = result.report["findings"]
    assert (found["severity"], found["evidence"]["missing_shards"]) == ("warning", [1])
    assert found["evidence"]["missing_share"] == pytest.approx(2 / 5, abs=0.01)
    assert [row["path"] for row in result.report["tables"]["layers"]][::3] == [
        f"runs/{i}.pt" for i in (0, 2, 3)
    ]
    strict = run(
        "inspect-checkpoint", "parts/*.json", "--allow-missing-parts", "--fail-on=warning", "-q"
    )
    assert strict.code == 1


def test_a_part_that_comes_twice(run, made):
    make(run, 1, to="parts/again.json")
    sentence = refused(run, "parts/*.json")
    assert "it is shard 1/3, and so is parts/" in sentence
    assert "count twice" in sentence


def test_a_part_of_another_number_of_shards(run, made):
    Path("parts/1.json").unlink()
    make(run, 1, 2)
    sentence = refused(run, "parts/*.json")
    assert sentence.startswith("parts/1.json: it was made with --shard 1/2")
    assert call_in(sentence)[2:5] == ["--shard=1/3", "-o", "parts/1.json"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--layer=body",),
        ("--eps=1e-3",),
        ("--momentum=none",),
        ("--expect-layers=3",),
        ("--sort=trouble",),
        ("--no-checksum",),
    ],
    ids=str,
)
def test_a_part_of_other_flags(run, made, flags):
    Path("parts/2.json").unlink()
    make(run, 2, 3, *flags)
    sentence = refused(run, "parts/*.json")
    name = flags[0].partition("=")[0]
    assert f"parts/2.json: it was made with {name}" in sentence
    assert call_in(sentence)[2] == "--shard=2/3"


def test_a_part_of_other_inputs(run, made):
    Path("parts/2.json").unlink()
    torch.save(small(7).state_dict(), "runs/7.pt")
    make(run, 2)
    sentence = refused(run, "parts/*.json")
    assert sentence.startswith("parts/2.json: it was made when there were 6 inputs")


def test_a_file_that_changed_since_it_was_judged(run, made):
    state = small(1).state_dict()
    state["body.running_var"][0] = float("nan")
    torch.save(state, "runs/1.pt")
    sentence = refused(run, "parts/*.json")
    assert sentence.startswith("parts/1.json: its input runs/1.pt has changed")
    assert call_in(sentence)[2] == "--shard=1/3"


def test_a_flag_that_comes_too_late(run, made):
    for flag in ("--layer=body", "--eps=1e-3", "--momentum=none", "--expect-layers=3"):
        sentence = refused(run, "parts/*.json", flag)
        assert sentence.startswith(flag.replace("=", " "))
        assert "make the parts again with it" in sentence
    for k in range(3):
        Path(f"parts/{k}.json").unlink()
        make(run, k, 3, "--eps=1e-3")
    assert run("inspect-checkpoint", "parts/*.json", "--eps=1e-3", "-q").code == 0


def test_parts_and_checkpoints_in_one_call(run, made):
    sentence = refused(run, "parts/*.json", "runs/1.pt")
    assert sentence.startswith("parts/0.json is a report of bncli and runs/1.pt is not")
    assert "leave ::body out" in refused(run, "parts/0.json::body")
    assert "leave ::body out" in refused(run, "parts/1.json", "parts/0.json::body")
    assert "is a part already" in refused(run, "parts/*.json", "--shard", "0/2")
    assert "--shard K/N" in refused(run, "parts/*.json", "--resume", "-o", "x.json")


def test_a_whole_among_its_parts(run, made):
    run("inspect-checkpoint", "runs/*.pt", "--shard=0/1", "-o", "parts/whole.json", "-q")
    assert refused(run, "parts/*.json").startswith("parts/whole.json: it is the whole already")
    run("inspect-checkpoint", "runs/*.pt", "-o", "parts/whole.json", "-q")
    assert "without --shard" in refused(run, "parts/*.json")
    assert "without --shard" in refused(run, "parts/whole.json")


def test_a_report_does_not_overwrite_a_part(run, made):
    before = Path("parts/0.json").read_bytes()
    assert "would overwrite an input" in refused(run, "parts/*.json", "-o", "parts/0.json")
    assert Path("parts/0.json").read_bytes() == before


def test_parts_are_merged_where_the_checkpoints_are_not(run, made):
    one = run("inspect-checkpoint", "runs/*.pt", "-f", "json")
    for path in Path("runs").iterdir():
        path.unlink()
    assert run("inspect-checkpoint", "parts/*.json", "-f", "json") == one


def test_parts_and_checkpoints_elsewhere(run, made):
    """A store's checkpoints in shards, and parts that lie there."""
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.store.clear()
    for path in (*Path("runs").iterdir(), *Path("parts").iterdir()):
        memory.pipe(f"/{path}", path.read_bytes())
    one = run("inspect-checkpoint", "runs/*.pt", "-f", "json")
    assert run("inspect-checkpoint", "memory://parts/*.json", "-f", "json") == one
    one = run("inspect-checkpoint", "memory://runs/*.pt", "-f", "json")
    for k in range(2):
        call = ("inspect-checkpoint", "memory://runs/*.pt", f"--shard={k}/2", "-o", f"m{k}.json")
        assert run(*call, "-q").code == 0
        assert run(*call, "--resume", "-q").code == 0
    assert run("inspect-checkpoint", "m*.json", "-f", "json") == one
    memory.store.clear()


def edited(run, edit):
    """What a call says of a part that was edited."""
    document = json.loads(Path("parts/1.json").read_text("utf-8"))
    document = edit(document) or document
    Path("parts/1.json").write_text(json.dumps(document, indent=2), "utf-8")
    return refused(run, "parts/*.json")


def test_a_part_that_is_cut(run, made):
    whole = Path("parts/1.json").read_bytes()
    for size in (100, 700, len(whole) // 2, len(whole) - 5):
        Path("parts/1.json").write_bytes(whole[:size])
        sentence = refused(run, "parts/*.json")
        assert sentence.startswith("parts/1.json: it is cut short, or is not JSON")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("format_version", 2, "it has format_version 2, and this bncli reads 1"),
        ("format_version", "1", "its format_version is not a version"),
        ("format_version", True, "its format_version is not a version"),
        ("format_version", 10**30, "it has format_version 1e+30"),
        ("command", "compute", "a report of bncli compute, not a part of bncli inspect-checkpoint"),
        ("command", None, "a report of no command"),
        ("facts", [], "its facts are not an object"),
        ("facts", {}, "without --shard"),
        ("facts", {"part": 3}, "its fact part is not an object"),
        ("facts", {"part": {}}, "its fact part is not that of a part"),
    ],
)
def test_a_report_that_is_no_part(run, made, key, value, said):
    sentence = edited(run, lambda document: {**document, key: value})
    assert sentence.startswith("parts/1.json: ")
    assert said in sentence


ODD = (None, True, -1, 10**400, 2.5, "text", [], {}, [[]], {"a": 1}, ["text"])


def test_a_part_with_a_value_of_another_kind(run, made):
    """What is read of it is refused; what is said for people and scripts alone changes nothing."""
    document = json.loads(Path("parts/1.json").read_text("utf-8"))
    whole = run("inspect-checkpoint", "parts/*.json", "-f", "json")
    part = document["facts"]["part"]
    for key in part:
        for odd in ODD:
            if type(odd) is type(part[key]) and odd != -1:
                continue
            changed = copy.deepcopy(document)
            changed["facts"]["part"][key] = odd
            Path("parts/1.json").write_text(json.dumps(changed), "utf-8")
            sentence = refused(run, "parts/*.json")
            assert sentence.startswith("parts/1.json: "), (key, odd)
            assert len(sentence) < 400
    changed = {**document, "tables": 3, "findings": None, "verdict": []}
    Path("parts/1.json").write_text(json.dumps(changed), "utf-8")
    assert run("inspect-checkpoint", "parts/*.json", "-f", "json") == whole


def test_a_record_of_other_files(run, made):
    def edit(document):
        part = document["facts"]["part"]
        entries = json.loads(part["record"])
        part["record"] = json.dumps(entries[:1])

    assert "its record is of other files" in edited(run, edit)


@pytest.mark.parametrize("flags", [{"--eps": "x"}, {"--layer": "'"}, {"--sort": "odd"}])
def test_flags_that_are_none(run, made, flags):
    for k in range(3):
        document = json.loads(Path(f"parts/{k}.json").read_text("utf-8"))
        document["facts"]["part"]["flags"] = flags
        Path(f"parts/{k}.json").write_text(json.dumps(document), "utf-8")
    refused(run, "parts/*.json")


def test_a_part_that_is_too_large(run, made, monkeypatch):
    monkeypatch.setattr(parts, "LARGEST", 1 << 10)
    assert "with a larger N in --shard K/N" in refused(run, "parts/*.json")


def test_a_bomb_is_not_parsed(run, made):
    Path("parts/1.json").write_text('{"format_version": 1, "x": [' + "[]," * 500_000 + "1]}")
    assert "it is cut short, or is not JSON" in refused(run, "parts/*.json")


def test_a_report_is_known_by_its_beginning(folder):
    for text, known in (
        ('{"format_version": 1}', True),
        ('{\n  "format_version": 1', True),
        ('{\n\n\t"charts": {}', True),
        ('{"weight_map": {}}', False),
        ("[1, 2]", False),
        ("", False),
    ):
        Path("a.json").write_text(text)
        assert is_report(Path("a.json")) is known
    Path("a.pt").write_text('{"format_version": 1}')
    assert not is_report(Path("a.pt"))
    Path("b.json").mkdir()
    assert not is_report(Path("b.json"))
    assert not is_report(Path("missing.json"))
