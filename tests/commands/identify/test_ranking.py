"""The ranking of hypotheses: its verdict and its bounds."""

from __future__ import annotations

import re

import numpy as np
import torch


def test_nothing_finite_is_exit_3(run, save):
    save("x.npy", np.full((4, 2), np.nan, np.float32))
    result = run("identify", "x.npy", "x.npy", "-f", "json")
    assert result.code == 3
    assert result.report["tables"]["hypotheses"] == []


def test_a_thousand_channels_and_bounded_rows(run, save):
    x = np.random.default_rng(0).normal(size=(8, 1500)).astype(np.float32)
    save("x.npy", x)
    save("y.npy", torch.nn.BatchNorm1d(1500, eps=1e-3)(torch.from_numpy(x)).detach().numpy())
    result = run("identify", "x.npy", "y.npy", "-f", "json")
    assert result.report["facts"]["confident"] is True
    assert len(result.report["tables"]["hypotheses"]) <= 24


def test_the_three_best_are_shown_and_v_has_all(run, layer):
    lines = run("identify", "x.npy", "y.npy", "--state", "bn.pt", "--width", "80").stdout
    lines = lines.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[:2] == [
        "y.npy from x.npy  float32 (8, 3, 4)", "expected: eps 1e-5 (default), either mode",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "warning[BN904] eps is 1e-3, but 1e-5 was expected (certain)\n  --> y.npy\n" in text
    assert "help: Set eps=1e-3 on the side that has 1e-5." in text
    head = next(n for n, line in enumerate(lines) if line.startswith("hypothesis "))
    assert lines[head + 1].startswith("eval mode, eps 1e-3 ")
    assert lines[-2 if "WARN" in lines[-2] else -1].startswith("WARN  y.npy was computed in eval")
    rows = run("identify", "x.npy", "y.npy", "--state", "bn.pt", "-f", "json").report
    full = run("identify", "x.npy", "y.npy", "--state", "bn.pt", "-v", "--width", "200").stdout
    assert "Hypotheses, the best first" in full
    ranked = re.findall(r"^ *(\d+) +(?:yes|no) ", full, re.MULTILINE)
    assert len(ranked) == len(rows["tables"]["hypotheses"]) > 3


def test_what_was_given_is_expected_and_no_default(run, layer):
    flags = ("--state", "bn.pt", "--eps", "1e-5", "--eval")
    lines = run("identify", "x.npy", "y.npy", *flags).stdout.splitlines()
    assert lines[1] == "expected: eps 1e-5, eval mode"


def test_more_that_explain_it_are_counted(run, save):
    x = (np.random.default_rng(0).normal(size=(64, 4)) * 100).astype(np.float32)
    save("x.npy", x)
    save("y.npy", torch.nn.BatchNorm1d(4)(torch.from_numpy(x)).detach().numpy())
    shown = run("identify", "x.npy", "y.npy").stdout
    rows = run("identify", "x.npy", "y.npy", "-f", "json").report["tables"]["hypotheses"]
    left = sum(row["explains"] for row in rows) - 3
    assert left > 0
    assert f"{left} more explain it too (-v lists them)" in shown
    assert "would decide" in shown


def test_what_nothing_explains_is_said_once(run, save):
    x = np.random.default_rng(0).normal(size=(16, 3))
    save("x.npy", x)
    save("y.npy", np.tanh(x))
    lines = run("identify", "x.npy", "y.npy", "--width", "80").stdout.splitlines()
    assert len(lines) <= 24
    text = " ".join(lines)
    assert "WARN none of" in " ".join(text.split())
    assert text.count("the nearest") == 1
    assert "BatchNorm did not make it from this input" in text


def test_a_simpler_one_may_come_before_a_nearer_one(run, save):
    """float32 does not tell two values of eps apart: the simpler is first, and that is said."""
    x = (np.random.default_rng(0).normal(size=(64, 4)) * 100).astype(np.float32)
    save("x.npy", x)
    y = (x - x.mean(0, dtype="f8")) / np.sqrt(x.var(0, dtype="f8") + 1e-6)
    save("y.npy", y.astype(np.float32))
    rows = run("identify", "x.npy", "y.npy", "-f", "json").report["tables"]["hypotheses"]
    off = [row["max_abs_diff"] for row in rows[:3] if row["explains"]]
    said = (
        "those that explain it are listed by simplicity" in run("identify", "x.npy", "y.npy").stdout
    )
    assert said == (off[0] > min(off))
    assert off[0] > min(off)
