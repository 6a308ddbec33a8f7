"""`bncli trace`: every flag, every key that scripts rely on, every refusal."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.commands.conftest import random, refusals
from tests.commands.samples import codes
from tests.commands.trace.samples import TUTORIAL, column, steps, values
from tests.rulebook.test_interface import COMMAND_OF, PLANTED

STEP_KEYS = {"channel", "pass", "step", "quantity", "formula", "numbers", "value"}


ELEMENT_KEYS = {"channel", "index", "x", "deviation", "squared", "x_hat", "output"}


def test_tutorial_has_the_published_numbers(run, tutorial):
    result = run("trace", tutorial, "-f", "json")
    assert (result.code, result.stderr, codes(result)) == (0, "", [])
    found = steps(result, 0)
    assert found["mean"]["numbers"] == "(1 + 2 + 3 + ... + 12) / 8 = 6.5"
    assert found["running_mean"]["numbers"] == "(1 - 0.1) * 0 + 0.1 * 6.5 = 0.65"
    assert found["running_var"]["numbers"] == "(1 - 0.1) * 1 + 0.1 * 19.71429 = 2.871429"
    exact = {
        "count": 8, "mean": 6.5, "var": 17.25, "unbiased_var": 138 / 7, "var_plus_eps": 17.25001,
        "sqrt": math.sqrt(17.25001), "invstd": 1 / math.sqrt(17.25001), "weight": 1, "bias": 0,
        "factor": 0.1, "running_mean": 0.65, "running_var": 0.9 + 13.8 / 7,
        "num_batches_tracked": 1,
    }  # fmt: skip
    assert values(result).keys() == {"values", *exact}
    for name, value in exact.items():
        assert found[name]["value"] == pytest.approx(value, rel=1e-15), name
    x_hat = [-1.324244, -1.083472, -0.842701, -0.601929]
    np.testing.assert_allclose(
        column(result, "x_hat", channel=0), x_hat + [-x for x in x_hat[::-1]], atol=5e-7
    )
    assert values(result, 1)["mean"] == 10.5


@pytest.mark.parametrize(
    ("form", "suffix", "mean", "unbiased"),
    [
        ("table", ".txt", " / 8  ", "19.71429"),
        ("table -v", "-v.txt", " / 8 = 6.5 ", "19.714285714285715"),
        ("json", ".json", " / 8 = 6.5", repr(138 / 7)),
        ("csv", ".csv", " / 8 = 6.5,", repr(138 / 7)),
        ("markdown", ".md", " / 8 | 6.5 |", "19.71429"),
    ],
)
def test_golden(run, repository, monkeypatch, golden, form, suffix, mean, unbiased):
    monkeypatch.chdir(repository)
    result = run("trace", TUTORIAL, "-f", *form.split())
    assert (result.code, result.stderr) == (0, "")
    golden(f"trace{suffix}", result.stdout)
    assert mean in result.stdout
    assert unbiased in result.stdout


def test_json_keeps_its_promise(run, tutorial):
    report = run("trace", tutorial, "-f", "json").report
    compute = run("compute", tutorial, "-f", "json").report
    assert report["command"] == "trace"
    for key, value in compute["facts"].items():
        if key != "inputs":  # of which a trace has one
            assert report["facts"][key] == value
    assert [*report["tables"]] == ["steps", "elements"]
    for row in report["tables"]["steps"]:
        assert set(row) == STEP_KEYS
    for row in report["tables"]["elements"]:
        assert set(row) == ELEMENT_KEYS
    assert len(report["tables"]["elements"]) == 16


def test_the_findings_are_those_of_compute(run, save):
    """For every planted fault of a batch or a state; several inputs, and parts, are not traced."""
    for code, plant in PLANTED.items():
        path, _, *more = plant(save)
        if code in {"BN010", "BN907"} or code in COMMAND_OF:
            continue
        ours, theirs = (run(name, path, *more, "-f", "json") for name in ("trace", "compute"))
        assert ours.report["findings"] == theirs.report["findings"]
        assert ours.code == theirs.code
        assert code in codes(ours)


def test_a_fault_planted_in_torch_is_found_and_shown(run, save, monkeypatch):
    original = torch.nn.BatchNorm1d.forward

    def forward(self, x):
        self.eps = 1e-1
        return original(self, x)

    x = save("x.npy", random(8, 3, 5))
    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", forward)
    result = run("trace", x, "--at", "0,0", "-f", "json", "--against", "torch")
    assert result.code == 1
    assert set(codes(result)) == {"BN901"}
    found = steps(result)
    assert found["output"]["distance"] > 1e-4
    assert found["mean"]["distance"] < 1e-6
    assert "torch" in result.report["verdict"]
    assert "differs in" in result.report["verdict"]


def test_rtol_and_atol_judge_the_ends(run, save):
    x = save("x.npy", random(8, 3, 5))
    assert run("trace", x, "--against", "torch", "--rtol", 0, "--atol", 0).code == 1
    assert run("trace", x, "--against", "torch", "--rtol", 0, "--atol", 1).code == 0


@pytest.mark.parametrize(
    ("flags", "most"),
    [
        ((), 16),
        (("--against", "torch"), 17),
        (("--arithmetic", "float32"), 19),
        (("--backward",), 24),
        (("--eval",), 21),
    ],
    ids=str,
)
def test_the_answer_fits_a_screen(run, tutorial, monkeypatch, flags, most):
    monkeypatch.chdir(tutorial.parent)
    lines = run("trace", tutorial.name, *flags, "--width", 80).stdout.splitlines()
    assert len(lines) <= most
    assert max(map(len, lines)) <= 80


def test_the_last_line_is_what_becomes_of_a_value_or_a_judgement(run, tutorial):
    def last(*flags):
        return run("trace", tutorial, *flags).stdout.splitlines()[-1]

    assert last() == "x[0, 0, 0, 0] = 1 becomes -1.324244"
    assert last("--at", "0,1,1") == "x[0, 0, 1, 1] = 4 becomes -0.6019291"
    assert last("--backward") == "PASS  10 of 10 identities of the gradients hold"
    against = last("--against", "torch")
    assert against.startswith("PASS  torch ")
    assert "agrees in 10 of 10 quantities; running_mean comes closest to its tolerance" in against
    assert last("--eval").startswith("WARN  1 warning in 2 channels of 8 values")


REFUSALS = refusals("trace")


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusal_is_one_exact_sentence_and_exit_code_2(run, bad_inputs, arguments):
    code, stdout, stderr = run("trace", *arguments.split())
    assert stderr == f"bncli: {REFUSALS[arguments]}\n"
    assert stdout == ""
    assert code == 2
