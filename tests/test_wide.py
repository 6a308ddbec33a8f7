"""Very many channels: memory stays bounded, tables are cut, and what is cut is counted."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest

from bncli import report as report_module
from bncli.errors import ExitCode
from bncli.renderers.interface import RenderContext
from bncli.renderers.table import render as render_table
from bncli.report import MOST_ROWS, Column, Report, Table

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is told in other units")
CHANNELS = 2_000_000
MOST_BYTES = 300

PEAK = """
import resource, subprocess, sys
code = subprocess.call([sys.executable, "-m", "bncli", *sys.argv[1:]])
assert code in (0, 1), code
print(1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(*arguments: str) -> int:
    """The peak of memory of a run, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.fixture
def few_rows(monkeypatch):
    """As if a table had room for 10 rows."""
    for name, module in list(sys.modules.items()):
        if name.startswith("bncli.") and getattr(module, "MOST_ROWS", None) == MOST_ROWS:
            monkeypatch.setattr(module, "MOST_ROWS", 10)
    assert report_module.MOST_ROWS == 10


@LINUX
@pytest.mark.parametrize("kind", ["normal", "small", "constant", "nan"])
def test_a_channel_takes_a_few_hundred_bytes(save, kind):
    """Two sizes, so that what does not grow with the channels cancels."""
    x = np.random.default_rng(0).standard_normal((4, CHANNELS), dtype=np.float32)
    x *= {"small": 1e-4, "constant": 0, "nan": np.nan}.get(kind, 1)
    save("x.npy", x)
    save("half.npy", x[:, : CHANNELS // 2])
    taken = peak("compute", "x.npy", "-q") - peak("compute", "half.npy", "-q")
    assert taken / (CHANNELS // 2) < MOST_BYTES


def test_a_table_of_more_rows_is_cut(run, save, folder):
    save("x.npy", np.random.default_rng(0).standard_normal((2, MOST_ROWS + 50), dtype=np.float32))
    result = run("compute", "x.npy", "-f", "csv", "-o", "r.json")
    assert result.code == 0
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert (len(rows), rows[-1]["channel"]) == (MOST_ROWS, str(MOST_ROWS - 1))
    assert "100000 of 100050 rows" in result.stderr
    document = json.loads((folder / "r.json").read_text("utf-8"))
    assert document["left_out"] == {"channels": 50, "output": 50}
    assert len(document["tables"]["channels"]) == MOST_ROWS
    assert document["facts"]["num_features"] == MOST_ROWS + 50
    assert "100000 of 100050 rows" in document["verdict"]
    for finding in document["findings"]:
        assert len(finding["evidence"].get("channels", [])) <= 1024
    last = run("compute", "x.npy", "--channel", MOST_ROWS + 49, "-f", "json").report
    assert [row["channel"] for row in last["tables"]["channels"]] == [MOST_ROWS + 49]
    assert "left_out" not in last


def test_people_are_told_how_many_rows_are_left_out(run, save, folder, few_rows):
    save("x.npy", np.random.default_rng(0).standard_normal((2, 60), dtype=np.float32))
    assert run("compute", "x.npy", "-v", "-o", "r.txt", "-o", "r.md").code == 0
    assert "50 more rows" in (folder / "r.txt").read_text("utf-8")
    assert "50 rows" in (folder / "r.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("command", "left_out"),
    [
        ("compute x.npy", {"channels": 15, "output": 15}),
        ("compute x.npy --channel 0-11", {"channels": 2, "output": 2}),
        ("compute x.npy x.npy --per-input",
         {"channels": 15, "output": 15, "spread": 15, "inputs": 40}),
        ("diff x.npy", {"channels": 40}),
        ("diff x.npy x.npy", {"channels": 15}),
        ("compare-norms x.npy", {"noise": 15}),
        ("trace x.npy --channel 0-24", {"elements": 90}),
        ("inspect-checkpoint net.npz", {"layers": 2}),
    ],
)  # fmt: skip
def test_every_command_cuts_its_tables(run, save, few_rows, command, left_out):
    save("x.npy", np.random.default_rng(0).standard_normal((4, 25), dtype=np.float32))
    leaves = {"weight": np.ones(3), "running_mean": np.ones(3), "running_var": np.full(3, 0.5)}
    save("net.npz", **{f"bn{i}.{leaf}": v for i in range(12) for leaf, v in leaves.items()})
    report = run(*command.split(), "-f", "json").report
    for name, number in left_out.items():
        assert len(report["tables"][name]) == 10, name
        assert report["left_out"][name] == number, name
    assert all(len(rows) <= 10 for rows in report["tables"].values())


def test_channels_of_a_trace_have_a_bound_of_their_own(run, save, monkeypatch):
    monkeypatch.setattr("bncli.commands.trace.choice.MOST_CHANNELS", 4)
    save("x.npy", np.random.default_rng(0).standard_normal((4, 25), dtype=np.float32))
    report = run("trace", "x.npy", "--channel", "0-9", "-f", "json").report
    steps = report["tables"]["steps"]
    assert {row["channel"] for row in steps} == {0, 1, 2, 3}
    assert report["left_out"]["steps"] == len(steps) // 4 * 6


def test_a_shortened_table_keeps_its_first_rows(few_rows):
    table = Table("t", "T", (Column("n", "n"),), [{"n": n} for n in range(13)], left_out=4)
    assert [row["n"] for row in table.shortened().rows] == list(range(10))
    assert table.shortened().left_out == 7
    assert table.shortened().shortened() == table.shortened()


def test_a_cut_table_shows_none_of_the_rows_that_are_gone() -> None:
    rows = [{"x": index} for index in range(MOST_ROWS + 5)]
    table = Table("steps", "Steps", (Column("x", "x"),), rows).shortened()
    assert table.left_out == 5
    report = Report("simulate-ema", {}, (table,))
    lines = render_table(report, RenderContext(ExitCode.OK, verbose=True)).splitlines()
    last = lines.index("... 5 more rows: choose some on the command line.")
    assert int(lines[last - 1]) == MOST_ROWS - 1
