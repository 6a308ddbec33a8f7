"""Cases that other projects publish, through the command line, within each case's tolerance.

BNCLI_VECTORS names the file; without it, and without one beside the repository, they are skipped.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

VECTORS = Path(
    os.environ.get(
        "BNCLI_VECTORS",
        Path(__file__).resolve().parents[2] / "shared" / "vectors" / "cases.json",
    )
)
CASES = json.loads(VECTORS.read_text("utf-8")) if VECTORS.exists() else []

pytestmark = pytest.mark.skipif(not CASES, reason="the published cases are not here")


@pytest.fixture
def compute(run, tmp_path):
    """Run `bncli compute` on a case and return its exit code, JSON report and saved output."""

    def compute_case(case, mode, state=None):
        state = state or {
            "running_mean": case["running_mean_before"],
            "running_var": case["running_var_before"],
        }
        state |= {"weight": case["weight"], "bias": case["bias"]}
        np.save(tmp_path / "x.npy", np.array(case["input"]["data"], dtype=case["dtype"]))
        argv = ["compute", str(tmp_path / "x.npy"), "-f", "json"]
        argv += ["--channel-axis", str(case["channel_axis"]), f"--{mode}"]
        # One case normalises in training without eps, which PyTorch, and so bncli, refuses.
        eps = case["eps"] or (1e-30 if mode == "training" else 0.0)
        argv += ["--eps", repr(eps), "--save-output", str(tmp_path / "y.npy")]
        if case["momentum_torch_convention"] is not None:
            argv += ["--momentum", repr(case["momentum_torch_convention"])]
        for name, values in state.items():
            if values is not None:
                np.save(tmp_path / f"{name}.npy", np.array(values, dtype=np.float64))
                argv += [f"--{name.replace('_', '-')}", str(tmp_path / f"{name}.npy")]
        code, out, err = run(*argv)
        assert code == 0, err
        return json.loads(out), np.load(tmp_path / "y.npy")

    return compute_case


def column(report, key):
    return [row[key] for row in report["tables"]["channels"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_published(case, compute):
    """Batch statistics, output and running statistics come out as published."""
    assert case["kind"] == "batch_norm"
    tolerance = {"rtol": 0, "atol": case["atol_of_source"]}
    mode = "eval" if case["mode"] == "eval" else "training"
    report, output = compute(case, mode)
    expected = case["expected"]
    if case["mode"] == "train_then_eval":
        state = {key: column(report, key) for key in ("running_mean", "running_var")}
        report, output = compute(case, "eval", state)
    if case["var_used_to_normalize"] == "unbiased":
        # Not PyTorch's BatchNorm: its output is smaller by sqrt((n - 1) / n), which must show.
        count = report["facts"]["count"]
        assert not np.allclose(output, expected["output"], **tolerance)
        output = output * np.sqrt((count - 1) / count)
    np.testing.assert_allclose(output, expected["output"], **tolerance)
    for published, key in (
        ("running_mean_after", "running_mean"),
        ("running_var_after", "running_var"),
        ("batch_mean", "mean"),
        ("batch_var_biased", "var"),
    ):
        if expected[published] is not None:
            np.testing.assert_allclose(column(report, key), expected[published], **tolerance)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_against_torch(case, run, tmp_path):
    """The same inputs in the same layouts pass the comparison against PyTorch."""
    np.save(tmp_path / "x.npy", np.array(case["input"]["data"], dtype=case["dtype"]))
    argv = ["compute", str(tmp_path / "x.npy"), "--channel-axis", str(case["channel_axis"])]
    code, out, err = run(*argv, "--against", "torch")
    assert code == 0, out + err
    assert re.search(r"^PASS  torch \S+ agrees in (\d+) of \1 quantities", out, re.MULTILINE)


UPDATED = [case for case in CASES if case["expected"]["running_mean_after"] is not None]


@pytest.mark.parametrize("case", UPDATED, ids=lambda case: case["id"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_published_running_statistics_through_a_simulation(case, dtype, run, tmp_path):
    """Both projects print PyTorch's numbers; burn's own variance is off by the unbiased factor."""
    np.save(tmp_path / "x.npy", np.array(case["input"]["data"], dtype=case["dtype"]))
    for name in ("running_mean", "running_var"):
        np.save(tmp_path / f"{name}.npy", np.array(case[f"{name}_before"], np.float64))

    def simulated(convention):
        code, out, err = run(
            "simulate-ema", tmp_path / "x.npy", "--channel-axis", case["channel_axis"],
            "--convention", convention, "--momentum", case["momentum_torch_convention"],
            "--running-mean", tmp_path / "running_mean.npy",
            "--running-var", tmp_path / "running_var.npy",
            "--buffer-dtype", dtype, "-f", "json",
        )  # fmt: skip
        assert code == 0, err
        rows = json.loads(out)["tables"]["steps"]
        return [np.array([row[f"running_{name}"] for row in rows]) for name in ("mean", "var")]

    own = case["id"].split("-")[0]
    expected = [np.array(case["expected"][f"running_{name}_after"]) for name in ("mean", "var")]
    for found, published in zip(simulated("pytorch"), expected, strict=True):
        np.testing.assert_allclose(found, published, rtol=0, atol=case["atol_of_source"])
    mean, var = simulated(own)
    np.testing.assert_allclose(mean, expected[0], rtol=0, atol=case["atol_of_source"])
    count = np.size(case["input"]["data"]) // len(var)
    bessel = (count - 1) / count if own == "burn" else 1.0
    before = np.array(case["running_var_before"]) * (1 - case["momentum_torch_convention"])
    np.testing.assert_allclose(
        var - before, (expected[1] - before) * bessel, rtol=0, atol=case["atol_of_source"]
    )


BATCHED = [case for case in CASES if case["expected"]["batch_mean"] is not None]


@pytest.mark.parametrize("case", BATCHED, ids=lambda case: case["id"])
def test_published_batch_statistics_through_a_simulation(case, run, tmp_path):
    np.save(tmp_path / "x.npy", np.array(case["input"]["data"], dtype=case["dtype"]))
    code, out, err = run(
        "simulate-ema", tmp_path / "x.npy", "--channel-axis", case["channel_axis"],
        "--momentum", "none", "-f", "json",
    )  # fmt: skip
    assert code == 0, err
    rows = json.loads(out)["tables"]["steps"]
    expected = case["expected"]
    atol = case["atol_of_source"]
    for key in ("batch_mean", "running_mean"):  # the average of one batch is the batch
        np.testing.assert_allclose([row[key] for row in rows], expected["batch_mean"], atol=atol)
    np.testing.assert_allclose(
        [row["batch_var"] for row in rows], expected["batch_var_biased"], atol=atol
    )
