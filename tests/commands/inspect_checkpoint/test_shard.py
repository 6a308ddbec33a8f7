"""A task that is one of many: what it writes, and what it does not read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bncli.commands.inspect_checkpoint import looking
from tests.commands.inspect_checkpoint.small import small


@pytest.fixture
def runs(folder):
    """Four checkpoints, and one that is cut short."""
    (folder / "runs").mkdir()
    for i in range(4):
        torch.save(small(i).state_dict(), f"runs/{i}.pt")
    Path("runs/4.pt").write_bytes(Path("runs/0.pt").read_bytes()[:-300])
    return folder


@pytest.fixture
def opened(monkeypatch):
    """The files that were judged."""
    paths = []
    real = looking.open_model

    def open_model(path, models):
        paths.append(str(path))
        return real(path, models)

    monkeypatch.setattr(looking, "open_model", open_model)
    return paths


def shard(run, *flags, k=0, n=2, to="part.json"):
    return run("inspect-checkpoint", "runs/*.pt", f"--shard={k}/{n}", "-o", to, *flags)


def test_a_part_is_not_written_over(run, runs, opened):
    shard(run)
    before = Path("part.json").read_bytes()
    del opened[:]
    result = shard(run)
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith("bncli: part.json: it exists already; add --resume to use")
    assert opened == []
    assert Path("part.json").read_bytes() == before
    # Without --shard, -o replaces what is there, as ever.
    assert run("inspect-checkpoint", "runs/0.pt", "-o", "part.json").code == 0


def test_a_part_that_another_task_wrote_meanwhile_stays(run, runs, monkeypatch):
    real = looking.open_model

    def open_model(path, models):
        Path("part.json").write_text("the other's")
        return real(path, models)

    monkeypatch.setattr(looking, "open_model", open_model)
    result = shard(run, "-f", "json")
    assert result.code == 2
    assert "part.json: it exists already; add --resume to use what it holds" in result.stderr
    assert Path("part.json").read_text() == "the other's"
    assert sorted(path.name for path in runs.iterdir()) == ["part.json", "runs"]


def test_resume_reads_nothing_again(run, runs, opened):
    first = shard(run, "-f", "json", k=1)
    before = Path("part.json").read_bytes()
    assert opened == ["runs/1.pt", "runs/3.pt"]
    del opened[:]
    again = shard(run, "--resume", "-f", "json", k=1)
    assert opened == []
    first, again = (parted(result.report) for result in (first, again))
    assert again == first
    assert parted(json.loads(before)) == parted(json.loads(Path("part.json").read_text()))


def parted(document):
    """A report without the call that made it."""
    del document["facts"]["part"]["call"]
    return document


def test_resume_without_a_part_makes_it(run, runs, opened):
    result = shard(run, "--resume", k=1)
    assert result.code == 0
    assert opened == ["runs/1.pt", "runs/3.pt"]


def test_resume_reads_again_what_could_not_be_read(run, runs, opened):
    assert shard(run).code == 2
    torch.save(small(4).state_dict(), "runs/4.pt")
    del opened[:]
    result = shard(run, "--resume")
    assert opened == ["runs/4.pt"]
    assert result.code == 0, result.stderr


def test_resume_where_nothing_could_be_read(run, runs, opened):
    assert shard(run, k=4, n=5, to="4.json").code == 2
    torch.save(small(4).state_dict(), "runs/4.pt")
    assert shard(run, "--resume", k=4, n=5, to="4.json").code == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--eps=1e-3",), "--eps"),
        (("--layer=body",), "--layer"),
        (("--momentum=none",), "--momentum"),
        (("--expect-layers=3",), "--expect-layers"),
        (("--sort=name",), "--sort"),
        (("--no-checksum",), "--no-checksum"),
        (("--shard=1/3",), "it is shard 1/2, and this call makes shard 1/3"),
    ],
    ids=str,
)
def test_resume_with_other_flags(run, runs, flags, said):
    shard(run, k=1)
    before = Path("part.json").read_bytes()
    argv = ["--shard=1/2", *flags] if "shard" not in flags[0] else flags
    result = run("inspect-checkpoint", "runs/*.pt", "--resume", "-o", "part.json", *argv)
    assert result.code == 2
    assert said in result.stderr
    assert Path("part.json").read_bytes() == before


def test_gate_flags_are_no_reason_not_to_resume(run, runs, opened):
    shard(run, k=1)
    del opened[:]
    assert shard(run, "--resume", "--fail-on=info", "--ignore=BN105", k=1).code in {0, 1}
    assert opened == []


def test_resume_of_a_file_that_changed(run, runs):
    shard(run, k=1)
    torch.save(small(9).state_dict(), "runs/3.pt")
    result = shard(run, "--resume", k=1)
    assert result.code == 2
    assert "runs/3.pt has changed since" in result.stderr


def test_resume_of_a_model_of_which_another_file_changed(run, folder):
    state = small().state_dict()
    (folder / "m").mkdir()
    names = [f"pytorch_model-{i:05d}-of-00002.bin" for i in (1, 2)]
    places = {key: names["running" in key] for key in state}
    for name in names:
        torch.save({key: state[key] for key in state if places[key] == name}, f"m/{name}")
    Path("m/pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    call = ("inspect-checkpoint", "m", "--shard=0/1", "-o", "part.json")
    assert run(*call).code == 0
    assert run(*call, "--resume").code == 0
    whole = run("inspect-checkpoint", "part.json", "-f", "json")
    assert whole == run("inspect-checkpoint", "m", "-f", "json")
    torch.save({key: state[key] + 1 for key in state if places[key] == names[1]}, f"m/{names[1]}")
    for again in ((*call, "--resume"), ("inspect-checkpoint", "part.json")):
        result = run(*again)
        assert result.code == 2
        assert f"m/{names[1]} has changed since" in result.stderr


@pytest.mark.parametrize("which", ["m/pytorch_model-00002-of-00002.bin", "runs/1.pt"])
def test_a_file_that_changes_while_it_is_judged(run, runs, monkeypatch, which):
    """It is replaced when it has been read, by one that could have been there from the start."""
    state = small().state_dict()
    (runs / "m").mkdir()
    shards = [
        {key: state[key] for key in state if ("running" in key) is late} for late in (False, True)
    ]
    for i, shard in enumerate(shards):
        torch.save(shard, f"m/pytorch_model-{i + 1:05d}-of-00002.bin")
    torch.save({k: v + 1 for k, v in (state if "runs" in which else shards[1]).items()}, "new")
    real = looking.judge

    def judge(file, *rest):
        found = real(file, *rest)
        last = file.path.parent.name == "m" if "m/" in which else file.path.name == "1.pt"
        if last and Path("new").exists():
            Path("new").replace(which)
        return found

    monkeypatch.setattr(looking, "judge", judge)
    models = ("m", "runs/0.pt", "runs/1.pt")
    result = run("inspect-checkpoint", *models, "--shard=0/1", "-o", "part.json")
    assert not Path("new").exists()
    assert (result.code, result.stdout) == (2, "")
    assert f"{which}: it was written to or replaced after bncli had read it" in result.stderr
    assert not Path("part.json").exists()


def test_resume_of_what_is_no_part(run, runs):
    for text in ("", "{}", '{"format_version": 1'):
        Path("part.json").write_text(text)
        result = shard(run, "--resume")
        assert result.code == 2
        assert result.stderr.startswith("bncli: part.json: ")
        assert Path("part.json").read_text() == text


def test_resume_needs_a_part(run, runs):
    result = run("inspect-checkpoint", "runs/*.pt", "--shard=0/2", "--resume", "-o", "a.csv")
    assert result.code == 2
    assert "-o FILE.json" in result.stderr
    result = run("inspect-checkpoint", "runs/*.pt", "--resume", "-o", "a.json")
    assert result.code == 2
    assert "--shard K/N" in result.stderr


def test_the_only_file_that_cannot_be_read_is_one_sentence(run, runs):
    result = run("inspect-checkpoint", "runs/4.pt", "--shard=0/1", "-o", "part.json")
    assert (result.code, result.stdout) == (2, "")
    assert not Path("part.json").exists()


def test_standard_input_has_no_shards(run, folder):
    result = run("inspect-checkpoint", "-", "--shard=0/2", "-o", "part.json")
    assert (result.code, result.stdout) == (2, "")
    assert "standard input cannot be cut into shards" in result.stderr


def test_people_see_which_shard_it_is(run, runs):
    result = shard(run, k=1)
    assert result.stdout.startswith("shard 1/2: 2 files of 5")
    verbose = shard(run, "-v", k=1, to="one.json").stdout
    assert "shard 1/2" in verbose.partition("bncli inspect-checkpoint")[2]
    assert "part" not in shard(run, "-v", "-f", "markdown", k=1, to="other.json").stdout
