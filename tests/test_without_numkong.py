"""Reports are the same with NumKong and without it, but for the name of what summed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bncli.moments import fast

numkong = pytest.importorskip("numkong")

HIDDEN = """
import sys
sys.modules["numkong"] = None
from bncli.cli import main
sys.exit(main())
"""
NUMPY, NUMKONG = f"numpy {np.__version__}", f"numkong {numkong.__version__}"

CALLS = {
    "compute x.npy": [NUMKONG],
    "compute x.npy wide.npy --per-input": [NUMKONG, NUMPY],
    "trace x.npy": [NUMKONG],
    "diff x.npy": [NUMKONG],
    "identify x.npy y.npy": [NUMKONG],
    "identify wide.npy y.npy": [NUMPY],
    "compare-norms x.npy": [NUMPY],
    "simulate-ema x.npy x.npy": [NUMPY],
}
"""What is called, and what sums where both are there."""


@pytest.fixture(autouse=True)
def inputs(save):
    """Whole numbers, whose sums are exact in any order."""
    x = np.random.default_rng(0).integers(-3, 4, (8, 4, 32, 32)).astype(np.float32)
    save("x.npy", x)
    save("wide.npy", x.astype(np.float64))
    axes = (0, 2, 3)
    mean, var = x.mean(axes, np.float64, keepdims=True), x.var(axes, np.float64, keepdims=True)
    save("y.npy", ((x - mean) / np.sqrt(var + 1e-5)).astype(np.float32))


def facts_apart(report):
    """A report without `engines`, and these."""
    return report["facts"].pop("engines"), report


@pytest.mark.parametrize("call", CALLS)
def test_every_report_is_the_same(run, monkeypatch, call):
    dtype = ["--dtype", "float64"] if "x.npy wide.npy" in call else []
    calls = (*call.split(), *dtype, "-f")
    engines, report = facts_apart(run(*calls, "json").report)
    text = run(*calls, "table", "-v").stdout
    monkeypatch.setattr(fast, "kernels", lambda: None)
    assert facts_apart(run(*calls, "json").report) == ([NUMPY], report)
    assert engines == CALLS[call]
    assert run(*calls, "table", "-v").stdout == text.replace(", ".join(engines), NUMPY)
    assert text.count(NUMKONG) == (NUMKONG in engines)


def test_a_process_works_where_it_is_not_installed(run_process):
    code, stdout, stderr = run_process("compute", "x.npy", "-f", "json", python=["-c", HIDDEN])
    assert (code, stderr) == (0, "")
    without = facts_apart(json.loads(stdout))
    engines, report = facts_apart(run_process("compute", "x.npy", "-f", "json").report)
    assert engines == [NUMKONG]
    assert without == ([NUMPY], report)


def test_the_short_report_names_no_engine(run):
    assert "num" not in run("compute", "x.npy").stdout
