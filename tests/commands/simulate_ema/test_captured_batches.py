"""`simulate-ema STATS.npz`: the batches that a statistics file keeps, as if they were read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncli.loaders.statistics import write_statistics
from tests.commands.samples import random
from tests.loaders.statistics.captures import EVAL, TRAINING, model_capture, table_of


@pytest.fixture
def saved(run, save):
    """Three batches, and the statistics file that keeps each of them."""
    names = [save(f"b{i}.npy", random(n, 3, 5) + i) for i, n in enumerate((4, 6, 2))]
    run("compute", *names, "--save-stats", "stats.npz", "--per-batch", "-q")
    return names


def test_the_file_gives_what_the_batches_give(run, saved):
    flags = ("--buffer-dtype", "float64", "--momentum", "0.3", "-f", "json")
    found = run("simulate-ema", "stats.npz", *flags).report
    wanted = run("simulate-ema", *saved, *flags).report
    for row, expected in zip(found["tables"]["steps"], wanted["tables"]["steps"], strict=True):
        for key in ("batch_mean", "batch_var", "running_mean", "running_var"):
            assert row[key] == pytest.approx(expected[key], rel=1e-12), key
    assert found["facts"]["source"] == "statistics"
    for row, expected in zip(
        found["tables"]["channels"], wanted["tables"]["channels"], strict=True
    ):
        for key in ("population_mean", "population_var", "between_var", "within_var"):
            assert row[key] == pytest.approx(expected[key], rel=1e-9), key
        assert row["f_ratio"] == pytest.approx(expected["f_ratio"], rel=1e-9)


def test_a_layer_of_a_model_and_its_state(run, folder):
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((4, 3, 2, 2)) for _ in range(3)]
    capture = model_capture(batches)
    write_statistics("model.npz", capture)
    report = run("simulate-ema", "model.npz::stem.bn", "-f", "json").report
    means = [row["batch_mean"] for row in report["tables"]["steps"] if row["channel"] == 0]
    expected = [2 * x[:, 0].mean() for x in batches]
    assert means == pytest.approx(expected, rel=1e-6)
    state = ("--state", "model.npz::stem.bn", "--momentum", "1e-9")
    report = run("simulate-ema", "model.npz::stem.bn", *state, "-f", "json").report
    last = report["tables"]["steps"][-1]
    assert last["running_mean"] == pytest.approx(
        float(capture.layers[1].state.running_mean[2]), rel=1e-5
    )


def test_training_comes_before_evaluation(run, folder):
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((4, 3, 2, 2)) for _ in range(2)]
    capture = model_capture(batches)
    both = {**capture.per_batch, ("stem.bn", EVAL): table_of([x + 5 for x in batches])}
    write_statistics("both.npz", replace(capture, per_batch=both))
    only = {("stem.bn", EVAL): both["stem.bn", EVAL]}
    write_statistics("eval.npz", replace(capture, per_batch=only))
    for name, wanted in (("both", both["stem.bn", TRAINING]), ("eval", both["stem.bn", EVAL])):
        report = run("simulate-ema", f"{name}.npz::stem.bn", "-f", "json").report
        first = report["tables"]["steps"][0]["batch_mean"]
        assert first == pytest.approx(wanted["mean"][0, 0], rel=1e-6)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            "sums.npz",
            "sums.npz: it holds the sums over all batches and not each batch; save it again",
        ),
        ("stats.npz b0.npy", "stats.npz holds statistics of batches: give no other file with it."),
        ("stats.npz --batch-size 2", "--batch-size: stats.npz holds statistics of batches, not"),
        ("stats.npz::neck", "stats.npz: there is no layer 'neck' in it; it has 'input'."),
        ("stats.npz --against torch", "--against: stats.npz holds statistics, and the module"),
    ],
)
def test_refusals(run, saved, call, said):
    run("compute", *saved, "--save-stats", "sums.npz", "-q")
    result = run("simulate-ema", *call.split())
    assert result.code == 2
    assert result.stderr.startswith(f"bncli: {said}")
