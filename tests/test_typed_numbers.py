"""Numbers that are typed give the report of an .npy that holds them, in every command."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest

from tests.conftest import parse_strictly

X = np.random.default_rng(0).normal(1, 2, (8, 3)).astype(np.float32)
OUTPUT = ((X - X.mean(0)) / np.sqrt(X.var(0) + 1e-5)).astype(np.float32)
FORMS = ["csv", "tsv", "json", "- csv", "- json", "- npy", "--values"]
CALLS = [
    ("compute", "--per-input"),
    ("compute", "--against", "torch", "--channel-axis", "0"),
    ("compute", "--dtype", "bfloat16", "--eval"),
    ("trace", "--backward"),
    ("diff",),
    ("compare-norms", "--against", "torch"),
    ("simulate-ema", "--batch-size", "4"),
    ("identify", "output.npy"),
]


def without(name, value):
    """A report in which no text is, or begins with, the name of its input."""
    if isinstance(value, dict):
        return {key: without(name, each) for key, each in value.items()}
    if isinstance(value, list):
        return [without(name, each) for each in value]
    if value == name or str(value).startswith((f"{name} has ", f"{name}:")):
        return value.replace(name, "INPUT", 1)
    return value


@pytest.fixture
def report(run, save, folder, monkeypatch):
    """The JSON of a call on X in a form, with the name of the input taken out."""
    save("x.npy", X)
    save("output.npy", OUTPUT)
    np.savetxt(folder / "x.csv", X, fmt="%.9g", delimiter=",")
    np.savetxt(folder / "x.tsv", X, fmt="%.9g", delimiter="\t", header="a\tb\tc", comments="")
    (folder / "x.json").write_text(json.dumps(X.tolist(), indent=2))

    def report(form, command, *flags):
        given = [f"x.{form}"]
        if form == "--values":
            given = ["--values", json.dumps(X.tolist())]
        elif form.startswith("- "):
            given = ["-"]
            stdin = io.TextIOWrapper(io.BytesIO((folder / f"x.{form[2:]}").read_bytes()))
            monkeypatch.setattr(sys, "stdin", stdin)
        name = given[0]
        behind = [flag for flag in flags if flag.endswith(".npy")]  # OUTPUT comes behind INPUT
        others = [flag for flag in flags if flag not in behind]
        result = run(command, *given, *behind, *others, "-f", "json")
        assert result.stderr == ""
        return result.code, without(name, parse_strictly(result.stdout))

    return report


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_the_report_is_that_of_an_npy(report, form, call):
    assert report(form, *call) == report("npy", *call)


def test_float64_is_that_of_an_npy_of_float64(report, save):
    typed = report("csv", "compute", "--dtype", "float64")
    save("x.npy", np.array([[float(f"{value:.9g}") for value in row] for row in X]))
    assert typed == report("npy", "compute", "--dtype", "float64")


@pytest.mark.parametrize("command", ["compute", "trace", "diff", "compare-norms", "identify"])
def test_both_and_neither_are_one_sentence(run, save, command):
    save("x.npy", X)
    code, stdout, stderr = run(command)
    assert (code, stdout) == (2, "")
    assert stderr.startswith(f"bncli: {command} needs ")
    assert f"; for example bncli {command} " in stderr
    assert stderr.count("\n") == 1
    behind = ["y.npy"] if command == "identify" else []
    code, stdout, stderr = run(command, "x.npy", *behind, "--values", "[[1, 2]]")
    assert (code, stdout) == (2, "")
    assert stderr == "bncli: --values and INPUT (x.npy) are both given; leave one out.\n"


def test_two_stored_tensors_take_no_typed_one(run):
    code, _, stderr = run("diff", "a.npy", "b.npy", "--values", "[[1]]")
    assert code == 2
    assert "--values does not apply to a comparison of two stored tensors" in stderr


def test_simulate_ema_takes_batches_from_one_place(run, save):
    save("x.npy", X)
    typed = ("--values", "[[1, 2], [3, 4]]")
    assert run("simulate-ema", *typed, "--batch-size", 2).code == 0
    for flags, words in (
        ((*typed, "x.npy"), "--values and INPUT (x.npy) are both given; leave one out."),
        (
            (*typed, "--generate", "4,3"),
            "--generate makes the batches: give it or --values, not both.",
        ),
        ((), "simulate-ema needs batches, from files, --values or --generate; for example "),
    ):
        code, _, stderr = run("simulate-ema", *flags)
        assert code == 2
        assert stderr.startswith(f"bncli: {words}")


def test_identify_reads_an_output_that_was_typed(run, save, folder):
    save("x.npy", X)
    np.savetxt(folder / "y.csv", OUTPUT, fmt="%.9g", delimiter=",")
    result = run("identify", "x.npy", "y.csv", "-f", "json")
    assert result.code == 0
    assert result.report["facts"]["confident"] is True
    code, _, stderr = run("identify", "--values", "[[1, 2], [3, 4]]")
    assert code == 2
    assert stderr.startswith("bncli: identify needs either an OUTPUT")


def test_an_update_of_typed_numbers_is_identified(run, folder):
    mean, var = X.mean(0, dtype=np.float64), X.var(0, ddof=1, dtype=np.float64)
    flags = []
    for name, values in (
        ("running-mean-before", np.zeros(3)),
        ("running-var-before", np.ones(3)),
        ("running-mean-after", 0.1 * mean),
        ("running-var-after", 0.9 + 0.1 * var),
    ):
        (folder / f"{name}.json").write_text(json.dumps(values.tolist()))
        flags += [f"--{name}", f"{name}.json"]
    result = run("identify", "--values", json.dumps(X.tolist()), *flags, "-f", "json")
    assert (result.code, result.report["facts"]["confident"]) == (0, True)
    assert result.report["tables"]["hypotheses"][0]["momentum"] == 0.1


def test_a_stored_difference_of_typed_numbers_is_found(run, folder):
    (folder / "a.csv").write_text("1,2\n3,4\n")
    (folder / "b.json").write_text("[[1, 2], [3, 4.5]]")
    assert run("diff", "a.csv", "a.csv").code == 0
    assert run("diff", "a.csv", "b.json").code == 1


@pytest.mark.parametrize(("name", "text"), [("x.csv", "1,2\n3,4\n"), ("x.json", "[[1, 2]]")])
def test_numbers_are_no_checkpoint(run, save, folder, name, text, monkeypatch):
    import torch

    (folder / name).write_text(text)
    code, stdout, stderr = run("inspect-checkpoint", name)
    assert (code, stdout) == (2, "")
    said = "it is an array of numbers in text, not a checkpoint; bncli reads PyTorch, safetensors"
    assert stderr.startswith(f"bncli: {name}: {said}")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert f"-: {said}" in run("inspect-checkpoint", "-").stderr
    save("net.pth", torch.nn.BatchNorm1d(2).state_dict())
    result = run("inspect-checkpoint", "net.pth", name)
    assert (result.code, f"{name}: {said}" in result.stderr) == (2, True)
    assert run("inspect-checkpoint", ".").code == 0  # a table beside a checkpoint changes nothing


def test_a_gate_knows_typed_numbers_by_their_flag(run, folder):
    call = ("compute", "--values", "[[1, nan], [3, 4]]", "--baseline", "known.json")
    assert run(*call, "--update-baseline", "-q").code == 0
    known = json.loads((folder / "known.json").read_text())
    assert {entry["file"] for entry in known["findings"]} == {""}
    assert {tuple(map(tuple, entry["inputs"])) for entry in known["findings"]} == {
        (("", "--values"),)
    }
    assert run(*call, "--fail-on", "info").code == 0
    assert run(*call[:2], "[[nan, 1], [3, 4]]", *call[3:]).code == 1  # another channel
    sarif = run("compute", "--values", "[[1, nan], [3, 4]]", "-f", "sarif")
    assert "artifactLocation" not in sarif.stdout
