"""`bncli simulate-ema`: every source of batches, every flag, every key, every refusal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.commands.conftest import refusals
from tests.commands.simulate_ema.samples import GENERATED

FACTS = ("convention", "momentum", "batches", "half_life", "steps_to_1_percent", "initial_weight")


STEP_KEYS = {
    "convention", "step", "channel", "batch_mean", "batch_var", "running_mean", "running_var",
    "initial_weight",
}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "suffix"),
    [("table", ".txt"), ("json", ".json"), ("csv", ".csv"), ("markdown", ".md")],
)
def test_golden(run, repository, monkeypatch, golden, form, suffix):
    """Two batches of one sample each, 1 2 3 4 and 9 10 11 12 in channel 0."""
    monkeypatch.chdir(repository)
    result = run(
        "simulate-ema", "examples/tutorial/x.npy", "--batch-size", 1, "--momentum", 0.5,
        "--convention", "pytorch", "--convention", "keras3", "--buffer-dtype", "float64",
        "--channel", 0, "-f", form,
    )  # fmt: skip
    assert (result.code, result.stderr) == (0, "")
    golden(f"simulate_ema{suffix}", result.stdout)
    biased = 0.25 + 0.25 * 1.25 + 0.5 * 1.25  # the biased variance of either batch is 1.25
    for after in (biased, 0.25 + 0.75 * 5 / 3):
        assert (repr(after) if form in ("json", "csv") else f"{after:.4g}") in result.stdout


def test_json_keeps_its_promise(run):
    report = run(*GENERATED, "-f", "json", "--against", "torch").report
    assert set(FACTS) <= set(report["facts"])
    assert report["facts"]["convention"] == "pytorch"
    assert report["facts"]["momentum"] == 0.25
    assert report["facts"]["batches"] == 6
    assert report["facts"]["half_life"] == pytest.approx(np.log(0.5) / np.log(0.75))
    assert report["facts"]["steps_to_1_percent"] == 17
    assert report["facts"]["initial_weight"] == pytest.approx(0.75**6)
    assert report["facts"]["backend"] == "torch"
    assert report["facts"]["backend_version"] == torch.__version__
    assert next(iter(report["tables"])) == "steps"
    for row in report["tables"]["steps"]:
        assert set(row) >= STEP_KEYS
    assert [row["step"] for row in report["tables"]["steps"]] == [
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        5,
        5,
        6,
        6,
    ]
    assert {row["quantity"] for row in report["tables"]["differences"]} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    assert set(report["charts"]) == {"running_mean", "running_var", "initial_weight"}


REFUSALS = refusals("simulate-ema")
"""The arguments, and the sentence that they are refused with."""


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusal_is_one_exact_sentence_and_exit_code_2(run, bad_inputs, monkeypatch, arguments):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    before = sorted(path.name for path in bad_inputs.iterdir())
    code, stdout, stderr = run("simulate-ema", *arguments.split())
    assert stderr == f"bncli: {REFUSALS[arguments]}\n"
    assert (stdout, code) == ("", 2)
    assert sorted(path.name for path in bad_inputs.iterdir()) == before


def test_the_good_inputs_among_the_bad_ones_are_good(run, bad_inputs):
    assert run("simulate-ema", "x.npy", "-q").code == 0
    assert run("simulate-ema", "t.csv", "-q").code == 0
