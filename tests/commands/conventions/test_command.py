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


def shown(run, *flags, width=80):
    """What a terminal of this width shows of `bncli conventions`, line by line."""
    result = run("conventions", *flags, "--width", width)
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= width
    return lines


def test_every_convention_is_a_line_of_one_table_that_fits(run):
    lines = shown(run)
    at = {line.split()[0]: line.split() for line in lines[1:31]}
    assert list(at) == [row.name for row in CONVENTIONS]
    assert at["keras3"] == ["keras3", "0.99", "old", "0.001", "biased", "0,", "1", "0"]
    assert at["haiku"][1] == "-"
    assert at["caffe"][5:7] == ["0,", "0"]
    assert " ".join(lines[-2:]) == (
        "30 conventions: the momentum is the weight of the old value in 21 and of the new batch in "
        "9; 16 keep the biased variance"
    )


def test_a_wide_terminal_shows_more_columns_of_it(run):
    narrow, wide = shown(run)[0].split(), shown(run, width=140)[0].split()
    assert [word for word in wide if word not in narrow] == ["channel", "axis", "debiased"]
    names = shown(run, width=300)
    assert names[0].endswith("framework")
    assert names[2].endswith("Keras 3 BatchNormalization")


def test_v_shows_the_names_the_sources_and_the_notes(run):
    text = run("conventions", "-v").stdout
    for row in CONVENTIONS:
        for value in (row.framework, row.source, row.note, row.names.running_var):
            assert value in text


def test_the_other_side_is_pytorch_unless_said(run):
    for flags in (("--from", "onnx"), ("--from", "onnx", "--to", "pytorch")):
        assert run("conventions", *flags, "-f", "json").report["facts"]["to"] == "pytorch"
    assert run("conventions", "--to", "onnx", "-f", "json").report["facts"]["from"] == "pytorch"


def test_a_framework_without_a_default(run):
    result = run("conventions", "--from", "haiku", "-f", "json")
    assert result.report["facts"]["momentum_to"] is None
    assert result.report["verdict"] == "For inference copy the four tensors and set eps to 1e-05"
    assert "nothing; the initial values fade" in rows(result, "conversion")["debiased"]["how"]


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
