"""Nothing that a call has read is overwritten, whichever flag or file named it."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn
from typer.models import OptionInfo

from bncli.cli.flags import flags_of
from bncli.commands import COMMANDS, command
from bncli.errors import CorruptFileError
from bncli.files.reading import guard, open_to_read, reading
from tests.conftest import REPOSITORY

OPENED: list[str] = []
"""The files that Python says were opened since the list was last cleared."""
WATCHING = [False]


def _watch(event, arguments):
    if WATCHING[0] and event == "open" and isinstance(arguments[0], str | os.PathLike):
        OPENED.append(os.path.realpath(arguments[0]))


sys.addaudithook(_watch)  # which no test can remove again, so that it does nothing by itself


WRITTEN = {"--save-output", "--save-stats", "--save-checkpoint", "--plot"}


@pytest.fixture
def files(folder):
    """One of everything that a flag can name, called so that a report may be written to it."""

    def save(name, values):
        with Path(name).open("wb") as file:
            np.save(file, values)

    rng = np.random.default_rng(0)
    save("x.json", rng.normal(size=(6, 3, 4)).astype(np.float32))
    save("y.json", rng.normal(size=(6, 3, 4)).astype(np.float32))
    for name in ("weight", "bias", "running_mean", "running_var"):
        save(f"{name}.json", np.ones(3, np.float32))
    torch.save({"bn": nn.BatchNorm1d(3)}, "state.json")
    torch.save(nn.BatchNorm1d(3).state_dict(), "before.json")
    torch.save(nn.BatchNorm1d(3).state_dict(), "after.json")
    save_file({"x": np.ones((4, 3), np.float32)}, "shard1.txt")
    save_file({"y": np.ones((4, 3), np.float32)}, "shard2.txt")
    weights = {"x": "shard1.txt", "y": "shard2.txt"}
    Path("index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    for name in ("stats.json", "training.json"):
        shutil.copy(REPOSITORY / "examples/diagnose/stats.npz", name)
    Path("table.csv").write_text("batch,channel,mean,var,count\n0,0,1,2,8\n1,0,1.5,2,8\n")
    Path("pyproject.toml").write_text("[tool.bncli]\nfail-on = 'never'\n")
    return folder


LAYER = (
    "--weight=weight.json",
    "--bias=bias.json",
    "--running-mean=running_mean.json",
    "--running-var=running_var.json",
)
CALLS = [
    ("compute", "index.json::x"),
    ("compute", "x.json", "y.json", *LAYER),
    ("compute", "x.json", "--state=state.json::bn"),
    ("trace", "x.json", *LAYER),
    ("trace", "x.json", "--backward", "--grad-output=y.json", "--state=state.json::bn"),
    ("diff", "x.json", "y.json"),
    ("diff", "x.json", *LAYER),
    ("diff", "x.json", "y.json", "--input=x.json", "--state=state.json"),
    ("diff", "index.json", "index.json"),
    ("identify", "x.json", "y.json", *LAYER),
    ("identify", "x.json", "y.json", "--state=state.json"),
    (
        "identify",
        "x.json",
        "--running-mean-before=running_mean.json",
        "--running-var-before=running_var.json",
        "--running-mean-after=before.json::running_mean",
        "--running-var-after=after.json::running_var",
    ),
    ("compare-norms", "x.json"),
    ("simulate-ema", "x.json", "y.json"),
    ("simulate-ema", "x.json", "--state=state.json"),
    ("simulate-ema", "table.csv"),
    ("simulate-ema", "x.json", "--batch-size=2", *LAYER[2:]),
    ("inspect-checkpoint", "state.json", "before.json"),
    ("inspect-checkpoint", "index.json"),
    ("inspect-checkpoint", "state.json", "missing.json"),
    ("compare-checkpoints", "before.json", "state.json"),
    ("compare-checkpoints", "before.json", "state.json", "--with=after.json"),
    ("diagnose", "stats.json", "--reference=training.json"),
    (
        "diagnose",
        "torch.nn:BatchNorm1d",
        "--arg=num_features=3",
        "--data=x.json",
        "--data=index.json::x",
        "--checkpoint=before.json",
        "--metric=operator:is_not",
    ),
    ("recalibrate", "--stats=stats.json", "--max-error=1"),
    (
        "recalibrate",
        "torch.nn:BatchNorm1d",
        "--arg=num_features=3",
        "--data=x.json",
        "--data=index.json::x",
        "--checkpoint=before.json",
        "--metric=operator:is_not",
        "--max-error=1",
    ),
    (
        "capture",
        "torch.nn:BatchNorm1d",
        "--arg=num_features=3",
        "--data=x.json",
        "--data=index.json::x",
        "--checkpoint=before.json",
    ),
]


def named_files(command):
    """The options of a command whose value is a file that is read."""
    for flag in flags_of(command):
        name = flag.name
        for option in getattr(flag.annotation, "__metadata__", ()):
            shown = str(getattr(option, "metavar", ""))
            if isinstance(option, OptionInfo) and ("FILE" in shown or "CKPT" in shown):
                texts = [option.default, *(option.param_decls or ())]
                own = [text for text in texts if str(text).startswith("--")]
                yield next(iter(own), f"--{name.replace('_', '-')}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_that_names_a_file_has_a_call_here(name):
    own = [call for call in CALLS if call[0] == name.replace("_", "-")]
    assert own or not COMMANDS[name].reads
    given = {part.partition("=")[0] for call in own for part in call}
    assert set(named_files(command(name))) - WRITTEN <= given


@pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["some", "all"]
)
@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_no_report_is_written_over_a_file_that_was_read(run, files, call, whole):
    """By any way to write its name: by each in turn, or every file by all of them."""
    OPENED.clear()
    WATCHING[0] = True
    try:
        code = run(*call, "-q").code
    finally:
        WATCHING[0] = False
    assert code in {0, 3} or "missing.json" in call
    here = files.resolve()
    read = {Path(path).name for path in OPENED if Path(path).parent == here}
    named = {part.partition("=")[2] or part for part in call[1:] if not part[2:].isdigit()}
    paths = {part.partition("::")[0] for part in named if "." in part}
    assert {path for path in paths if ":" not in path} - {"missing.json"} <= read  # not code
    for index, name in enumerate(sorted(read - {"pyproject.toml"}), CALLS.index(call)):
        before = (files / name).read_bytes()
        ways = (name, f"./{name}", files / name, "link")
        for path in ways if whole else [ways[index % 4]]:
            if path == "link":
                (files / "link.json").symlink_to(name)
                result = run(*call, "-q", "--baseline=link.json", "--update-baseline")
                (files / "link.json").unlink()
            else:
                result = run(*call, "-q", "-o", path)
                assert f"--output {path}: this would overwrite" in result.stderr
            assert result.code == 2, name
        assert (files / name).read_bytes() == before
    assert run(*call, "-q", "-o", "other.json", "-o", "other.txt").code == code


def test_nothing_is_written_where_one_of_several_reports_would_hit_an_input(run, files):
    result = run("compute", "x.json", "-o", "new.json", "-o", "x.json", "-o", "other.json")
    assert result.code == 2
    assert not Path("new.json").exists()
    assert not Path("other.json").exists()


def test_the_output_tensor_is_saved_over_no_file_that_was_read(run, files):
    save_file({"x": np.ones((4, 3), np.float32)}, "shard1.pt")
    Path("i.json").write_text(json.dumps({"weight_map": {"x": "shard1.pt"}}))
    Path("i.pt").write_bytes(Path("i.json").read_bytes())
    Path("w.npy").write_bytes(Path("weight.json").read_bytes())
    for call, target in (
        (("compute", "i.json::x"), "shard1.pt"),
        (("compute", "i.pt::x"), "i.pt"),
        (("compute", "i.pt::x"), "shard1.pt"),
        (("compute", "x.json", "--weight=w.npy"), "w.npy"),
    ):
        before = Path(target).read_bytes()
        result = run(*call, "--save-output", target)
        assert result.code == 2
        assert "would overwrite" in result.stderr
        assert Path(target).read_bytes() == before


def test_the_file_behind_standard_input_is_no_place_for_a_report(run, files, monkeypatch):
    before = Path("x.json").read_bytes()
    with Path("x.json").open("rb") as stream:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
        result = run("compute", "-", "-o", "x.json")
    assert result.code == 2
    assert "would overwrite" in result.stderr
    assert Path("x.json").read_bytes() == before


def test_a_baseline_is_written_anew_and_no_report_over_it(run, files):
    call = ("compute", "x.json", "--baseline=known.json")
    assert run(*call, "--update-baseline", "-o", "known.json").code == 2
    assert not Path("known.json").exists()
    assert run(*call, "--update-baseline").code == 0
    before = Path("known.json").read_bytes()
    assert run(*call, "-o", "known.json").code == 2
    assert run(*call, "--update-baseline", "-o", "known.json").code == 2
    assert Path("known.json").read_bytes() == before
    assert run(*call, "--update-baseline").code == 0


OPENERS = {"open", "read_text", "read_bytes", "load", "fromfile", "genfromtxt"}
ELSEWHERE = {
    "files/reading.py",  # the one place
    "files/save.py",  # what is written
    "process/streams.py",  # the null device
    "live/users_code.py",  # as there
    "gate/entries.py",  # a baseline, which is written anew, and refused by its name
    "gate/lock.py",
    "commands/schema.py",  # bncli's own
    "renderers/html/__init__.py",  # as there
    "files/remote/web.py",  # a download, which is written
    "live/rank_audit.py",  # what another rank sent
    "running_stats/batch_shares.py",  # as there
}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id if node.func.id in {"open", "mmap"} else "", node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            # `reading.open` is the way of the group of flags to the one place; sessions run models;
            # HDF5's own functions open what is in a file; STATM is how much memory Linux counts.
            own = ast.unparse(node.func).endswith(
                ("reading.open", "session.open", "h5a.open", "h5g.open", "h5o.open")
            )
            own = own or ast.unparse(node.func) == "STATM.read_text"
            yield "" if own else node.func.attr, node.lineno


def test_every_file_is_opened_where_it_is_remembered():
    """A loader that opens a file by itself would not be seen by what writes."""
    package = REPOSITORY / "bncli"
    found = [
        f"{name}:{line} {opener}"
        for path in sorted(package.rglob("*.py"))
        if (name := path.relative_to(package).as_posix()) not in ELSEWHERE
        for opener, line in calls(path)
        if opener in OPENERS - ({"load"} if name.startswith("loaders/") else set())
    ]
    assert not found


def test_what_was_read_is_guarded_after_the_call(folder):
    """Against other bytes, another file of the same name, and none; others are not looked at."""
    path, other = folder / "x.npy", folder / "y.npy"
    for each in (path, other):
        np.save(each, np.zeros(3))
    with reading():
        with open_to_read(path):
            pass
        check = guard([path, other, Path("--values")])
    other.unlink()
    check()
    there = path.stat()
    os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns + 1))
    with pytest.raises(CorruptFileError, match="written to or replaced"):
        check()
    os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns))
    check()
    shutil.copy2(path, folder / "copy.npy")
    (folder / "copy.npy").replace(path)
    with pytest.raises(CorruptFileError, match="written to or replaced"):
        check()
    path.unlink()
    with pytest.raises(CorruptFileError, match="removed or cut short"):
        check()
