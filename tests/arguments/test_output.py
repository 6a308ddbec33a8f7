"""Where a report goes."""

from __future__ import annotations

import csv
import io
import json
import os
import stat

import numpy as np

from tests.commands.samples import random


def test_output_files_take_the_format_of_their_suffix(run, save, folder):
    save("x.npy", random(4, 3))
    outputs = [f"r{suffix}" for suffix in (".json", ".csv", ".md", ".txt")]
    flags = [argument for name in outputs for argument in ("-o", name)]
    result = run("compute", "x.npy", *flags)
    assert result.code == 0
    for name, form in zip(outputs, ("json", "csv", "markdown", "table"), strict=True):
        assert (folder / name).read_text("utf-8") == run("compute", "x.npy", "-f", form).stdout
    assert result.stdout == (folder / "r.txt").read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO((folder / "r.csv").read_text("utf-8"))))
    assert [float(row["mean"]) for row in rows] == [
        row["mean"]
        for row in json.loads((folder / "r.json").read_text("utf-8"))["tables"]["channels"]
    ]


def test_output_files_are_written_when_quiet_and_at_exit_1(run, save, folder):
    save("x.npy", np.full((4, 2), np.nan, np.float32))
    result = run("compute", "x.npy", "-q", "-o", "r.json")
    assert tuple(result) == (1, "", "")
    assert json.loads((folder / "r.json").read_text("utf-8"))["exit_code"] == 1


def test_an_output_file_gets_the_usual_permissions_and_no_input_is_overwritten(run, save, folder):
    x = save("x.npy", random(4, 3))
    os.rename(x, "x.json")  # noqa: PTH104  # a loader goes by content
    assert run("compute", "x.json", "-o", "x.json").code == 2
    assert run("compute", "x.json", "-q", "-o", "r.md").code == 0
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((folder / "r.md").stat().st_mode) == 0o666 & ~umask


def test_a_failing_report_file_leaves_the_old_one_whole(run, save, folder, monkeypatch):
    x = save("x.npy", random(4, 3))
    run("compute", x, "-q", "-o", "r.json")
    before = (folder / "r.json").read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = run("compute", x, "--eps", 1, "-q", "-o", "r.json")
    assert result.stderr == "bncli: r.json: cannot be written (No space left on device).\n"
    assert result.code == 2
    assert (folder / "r.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["r.json", "x.npy"]
