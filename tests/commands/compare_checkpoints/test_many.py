"""The report on many files, of those that the guide has and of values made here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from bncli.errors import ExitCode
from tests.conftest import REPOSITORY


@pytest.fixture
def guide(folder):
    """The current folder, with the files of the guide."""
    for path in (REPOSITORY / "examples" / "compare").glob("*.pt"):
        shutil.copy(path, folder)
    return folder


def test_an_average_with_the_buffers_of_one(run, guide):
    report = run("compare-checkpoints", "client*.pt", "--with", "global.pt", "-f", "json").report
    facts = report["facts"]
    assert facts["files"] == ["client0.pt", "client1.pt", "client2.pt"]
    assert (facts["kind"], facts["target"]) == ("target", "global.pt")
    assert (facts["layers"], facts["matched"]) == (4, 4)
    made = {row["group"]: row["made"] for row in report["tables"]["origins"]}
    assert made == {"parameters": "mean", "statistics": "one-file", "counters": "same"}
    assert dict(facts["states"]) == {"mean": 1, "one-file": 1, "same": 1}
    (found,) = report["findings"]
    assert (found["severity"], found["path"], found["subject"]) == (
        "warning",
        "global.pt",
        "statistics",
    )
    assert report["verdict"].endswith(
        "parameters are the mean of these 3 files; statistics are client0.pt's, bit for bit; "
        "counters are the same in all files"
    )


def test_weights_that_rounding_leaves_are_nothing(run, folder):
    torch.manual_seed(0)
    states = [nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64)) for _ in range(4)]
    for at, state in enumerate(states):
        for leaf in (state[1].running_mean, state[1].running_var, state[1].weight.data):
            leaf.uniform_()
        torch.save(state.state_dict(), f"{at}.pt")
    first, second, base, _ = (state.state_dict() for state in states)
    task = {key: first[key] + second[key] - base[key] for key in first}
    torch.save(task, "task.pt")
    text = run("compare-checkpoints", "?.pt", "--with", "task.pt").stdout
    assert "100%, 100%, -100%, 0%" in text


def test_the_weights_of_a_sum_are_shown(run, folder):
    torch.manual_seed(0)
    states = [nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64)) for _ in range(2)]
    for state in states:
        state[1].running_mean.normal_()
        nn.init.uniform_(state[1].weight)
    first, second = (state.state_dict() for state in states)
    torch.save(first, "a.pt")
    torch.save(second, "b.pt")
    total = {key: (0.25 * first[key] + 0.75 * second[key]).to(first[key].dtype) for key in first}
    torch.save(total, "c.pt")
    text = run("compare-checkpoints", "a.pt", "b.pt", "--with", "c.pt").stdout
    assert "25%, 75%" in text
    assert "parameters and statistics are a weighted mean of these 2 files" in " ".join(
        text.split()
    )


def test_a_spoilt_file_of_a_series(run, guide):
    result = run("compare-checkpoints", "epoch*.pt", "-f", "json")
    report = result.report
    assert result.code == ExitCode.OK
    assert report["facts"]["kind"] == "series"
    assert report["facts"]["states"] == [["jump", 1]]
    rows = report["tables"]["files"]
    assert [row["path"] for row in rows] == [f"epoch{at}.pt" for at in range(1, 6)]
    assert [row["counter"] for row in rows] == [110, 160, 213, 263, 313]
    assert [row["what"] for row in rows].count(None) == 4
    (found,) = report["findings"]
    assert (found["path"], found["subject"], found["code"]) == ("epoch3.pt", "stem.bn", "BN618")
    assert report["verdict"] == (
        "WARN  1 warning in 4 BatchNorm layers of 5 files (bncli rules BN618 explains it); the "
        "statistics of epoch3.pt jump and come back"
    )
    text = run("compare-checkpoints", "epoch*.pt", "--width", 80).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "jumps, and comes back" in text


def test_a_file_that_has_none_to_be_compared_with_is_named(run, folder):
    state = nn.BatchNorm1d(4).state_dict()
    for at in range(4):
        changed = {
            "running_mean": torch.arange(4.0) * at,
            "running_var": torch.full((4,), 2.0 if at else 1.0),
            "num_batches_tracked": torch.tensor(10 + at),
            "weight": torch.ones(4),
        }
        torch.save({f"bn.{key}": value for key, value in {**state, **changed}.items()}, f"{at}.pt")
    result = run("compare-checkpoints", "?.pt", "-f", "json").report
    assert [row["z"] is None for row in result["tables"]["files"]] == [True, True, False, False]
    assert "file before; 1.pt could not be compared" in run("compare-checkpoints", "?.pt").stdout
    assert "could not" not in run("compare-checkpoints", "1.pt", "2.pt", "3.pt").stdout


def test_a_baseline_knows_the_jump(run, guide):
    call = ("compare-checkpoints", "epoch*.pt", "--fail-on=warning")
    assert run(*call).code == ExitCode.FINDING
    assert run(*call, "--baseline=known.json", "--update-baseline").code == ExitCode.OK
    assert run(*call, "--baseline=known.json").code == ExitCode.OK
    assert run(*call, "--ignore=BN618").code == ExitCode.OK


def test_files_with_equal_counters(run, guide):
    report = run("compare-checkpoints", "client*.pt", "-f", "json").report
    assert report["facts"]["kind"] == "clients"
    assert report["facts"]["states"] == [["statistics-differ", 4]]
    assert "the statistics differ in 4 of 4 layers, most in stem.bn" in report["verdict"]
    Path("copy.pt").write_bytes(Path("client0.pt").read_bytes())
    Path("copy2.pt").write_bytes(Path("client0.pt").read_bytes())
    same = run("compare-checkpoints", "client0.pt", "copy.pt", "copy2.pt")
    assert same.code == ExitCode.OK
    assert "no file stands out" in same.stdout


def test_many_files_are_20_rows(run, folder):
    state = nn.BatchNorm1d(8).state_dict()
    for at in range(30):
        state["num_batches_tracked"] += 10
        state["running_mean"] += 0.01 * torch.rand(8)
        torch.save(state, f"e{at}.pt")
    text = run("compare-checkpoints", "e*.pt").stdout
    assert len(text.splitlines()) <= 27
    assert "10 more files (-v lists them)" in text
    assert "e29.pt" in run("compare-checkpoints", "e*.pt", "-v").stdout


def test_parts_of_files(run, guide):
    for at in range(3):
        state = torch.load(f"client{at}.pt")
        torch.save({"live": state, "ema": state}, f"both{at}.pt")
    torch.save({"net": torch.load("global.pt")}, "net.pt")
    result = run("compare-checkpoints", "both*.pt::live", "--with", "net.pt::net", "-f", "json")
    assert result.report["facts"]["target"] == "net.pt::net"
    assert result.report["findings"][0]["path"] == "net.pt"
    wrong = run("compare-checkpoints", "both*.pt::lives", "--with", "net.pt")
    assert (wrong.code, wrong.stderr.count("\n")) == (ExitCode.ERROR, 1)
    assert "did you mean live?" in wrong.stderr


def test_nothing_in_common(run, guide):
    torch.save(nn.BatchNorm1d(99).state_dict(), "other.pt")
    result = run("compare-checkpoints", "client*.pt", "other.pt")
    assert result.code == ExitCode.NOTHING
    assert "NOTHING  none of the 4 layers of client0.pt is in other.pt" in result.stdout
    torch.save({"x": torch.ones(3)}, "none.pt")
    result = run("compare-checkpoints", "none.pt", "client*.pt")
    assert result.code == ExitCode.NOTHING
    assert "there is no BatchNorm layer in the first file" in result.stdout


@pytest.mark.parametrize("flag", ["--layer=*", "--expect=frozen:*", "--weights"])
def test_flags_for_two_files(run, guide, flag):
    result = run("compare-checkpoints", "client*.pt", flag)
    assert result.code == ExitCode.ERROR
    name = flag.partition("=")[0]
    assert result.stderr == f"bncli: {name} is for two files; there are 3 here.\n"


def test_a_file_that_cannot_be_read_is_one_sentence(run, guide):
    Path("client1.pt").write_text("no checkpoint")
    result = run("compare-checkpoints", "client*.pt")
    assert (result.code, result.stdout) == (ExitCode.ERROR, "")
    assert result.stderr.startswith("bncli: client1.pt: ")
    assert result.stderr.count("\n") == 1
