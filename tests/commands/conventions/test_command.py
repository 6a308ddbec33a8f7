"""`bncli conventions`: the table, the conversions, and what it refuses."""

from __future__ import annotations

import csv
import io

import pytest

from bncli.running_stats.frameworks import CONVENTIONS
from tests.commands.conftest import refusals
from tests.commands.conventions.samples import rows


def test_every_framework_is_there_with_its_names_and_source(run):
    result = run("conventions", "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    assert result.report["facts"] == {"conventions": len(CONVENTIONS)}
    for key in ("conventions", "names", "sources"):
        assert list(rows(result, key)) == [row.name for row in CONVENTIONS]
    keras = rows(result, "conventions")["keras3"]
    assert (keras["momentum_weighs"], keras["momentum"], keras["eps"]) == ("old", 0.99, 1e-3)
    assert (keras["running_var"], keras["channel_axis"]) == ("biased", "-1")
    assert rows(result, "names")["keras3"]["running_var"] == "moving_variance"
    assert "@3422977a" in rows(result, "sources")["keras3"]["source"]
    assert "fix_gamma" in rows(result, "notes")["mxnet"]["note"]


@pytest.mark.parametrize(
    ("form", "suffix"),
    [("table", ".txt"), ("json", ".json"), ("csv", ".csv"), ("markdown", ".md")],
)
def test_golden(run, golden, form, suffix):
    result = run("conventions", "--from", "keras3", "--momentum", "0.99", "--count", 8, "-f", form)
    assert (result.code, result.stderr) == (0, "")
    golden(f"conventions{suffix}", result.stdout)
    assert "0.01" in result.stdout
    if form == "json":
        assert repr(8 / 7) in result.stdout


def test_the_other_side_is_pytorch_unless_said(run):
    for flags in (("--from", "onnx"), ("--from", "onnx", "--to", "pytorch")):
        assert run("conventions", *flags, "-f", "json").report["facts"]["to"] == "pytorch"
    assert run("conventions", "--to", "onnx", "-f", "json").report["facts"]["from"] == "pytorch"


def test_a_framework_without_a_default(run):
    result = run("conventions", "--from", "haiku", "-f", "json")
    assert result.report["facts"]["momentum_to"] is None
    assert "momentum" not in result.report["verdict"]
    assert "its initial values only fade" in rows(result, "conversion")["debiased"]["how"]


def test_csv_carries_the_table(run):
    text = run("conventions", "-f", "csv").stdout
    assert [row["convention"] for row in csv.DictReader(io.StringIO(text))] == [
        row.name for row in CONVENTIONS
    ]


REFUSALS = refusals("conventions")
"""The arguments, and the sentence that they are refused with."""


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusals(run, arguments):
    code, stdout, stderr = run("conventions", *arguments.split())
    assert (code, stdout, stderr) == (2, "", f"bncli: {REFUSALS[arguments]}\n")
