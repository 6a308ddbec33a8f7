"""`bncli conventions`: the table, the conversions, and what it refuses."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path

import pytest

from bncli.running_stats.frameworks import CONVENTIONS


def rows(result, key):
    return {next(iter(row.values())): row for row in result.report["tables"][key]}


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


def test_from_keras_to_pytorch(run):
    result = run("conventions", "--from", "keras3", "--to", "pytorch", "-f", "json")
    facts = result.report["facts"]
    assert (facts["momentum_from"], facts["momentum_to"]) == (0.99, 0.01)
    assert (facts["eps_from"], facts["eps_to"]) == (1e-3, 1e-3)
    assert (facts["variance_from"], facts["variance_to"]) == ("biased", "unbiased")
    converted = rows(result, "conversion")
    assert converted["weight"]["from_name"] == "gamma"
    assert converted["running_var"]["to_name"] == "running_var"
    assert converted["eps"]["how"] == "set it: its default is 1e-05"
    assert "keras3's momentum 0.99 is 0.01 in pytorch" in result.report["verdict"]


@pytest.mark.parametrize("count", [2, 8, 100])
def test_the_error_of_the_other_variance(run, count):
    result = run("conventions", "--from", "flax", "--count", count, "-f", "json")
    (row,) = result.report["tables"]["variance"]
    bessel = count / (count - 1)
    assert row["running_var_ratio"] == pytest.approx(bessel, rel=1e-15)
    assert row["running_var_error"] == pytest.approx(bessel - 1, rel=1e-12)
    assert row["output_error"] == pytest.approx(math.sqrt((count - 1) / count) - 1, rel=1e-12)


def test_the_other_side_is_pytorch_unless_said(run):
    for flags in (("--from", "onnx"), ("--from", "onnx", "--to", "pytorch")):
        assert run("conventions", *flags, "-f", "json").report["facts"]["to"] == "pytorch"
    assert run("conventions", "--to", "onnx", "-f", "json").report["facts"]["from"] == "pytorch"


def test_an_eps_that_the_target_raises(run):
    result = run("conventions", "--to", "tf-fused", "-f", "json")
    assert result.report["facts"]["eps_to"] == 1.001e-5


@pytest.mark.parametrize("eps", [1e-6, 1e-3, 0.5])
def test_an_eps_outside_the_root_agrees_at_variance_1(run, eps):
    there = run("conventions", "--to", "darknet", "--eps", eps, "-f", "json").report["facts"]
    assert 1 + there["eps_to"] == pytest.approx(math.sqrt(1 + eps), rel=1e-15)
    back = run("conventions", "--from", "darknet", "--eps", eps, "-f", "json").report["facts"]
    assert math.sqrt(1 + back["eps_to"]) == pytest.approx(1 + eps, rel=1e-12)


@pytest.mark.parametrize("eps", [1e-6, 1e-12, 1e-300])
def test_a_small_eps_outside_the_root_keeps_its_digits(run, eps):
    """sqrt(1 + eps) - 1 is eps/2 - eps**2/8 + ..., and its reverse 2*eps + eps**2."""
    there = run("conventions", "--to", "darknet", "--eps", eps, "-f", "json").report["facts"]
    assert there["eps_to"] == pytest.approx(eps / 2 - eps**2 / 8, rel=1e-14)
    back = run("conventions", "--from", "darknet", "--eps", eps, "-f", "json").report["facts"]
    assert back["eps_to"] == pytest.approx(2 * eps + eps**2, rel=1e-14)


@pytest.mark.parametrize("eps", [1e-3, 0.5, 1.0, 1.5])
def test_keras_2_takes_the_eps_that_is_asked_for(run, eps):
    """Its factor is n/(n - (1 + eps)), which has no root from eps = n - 1 on."""
    flags = ("conventions", "--from", "keras2", "--to", "keras3", "--eps", eps, "-f", "json")
    (row,) = run(*flags, "--count", 2).report["tables"]["variance"]
    if eps >= 1:
        assert row["output_error"] is None
    else:
        assert row["running_var_ratio"] == pytest.approx((1 - eps) / 2, rel=1e-14)
        assert row["output_error"] == pytest.approx((2 / (1 - eps)) ** 0.5 - 1, rel=1e-14)


@pytest.mark.parametrize(("momentum", "blamed"), [("1", False), ("7", True), ("-0.1", True)])
def test_a_momentum_outside_0_to_1_is_remarked(run, momentum, blamed):
    result = run("conventions", "--to", "keras3", f"--momentum={momentum}", "-f", "json")
    assert [item["code"] for item in result.report["findings"]] == ["BN007"] * blamed
    assert result.code == 0


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


REFUSALS = dict(
    re.findall(
        r"^bncli conventions ?(.*)\n    (.+)$",
        Path(__file__).with_name("refusals.txt").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)
"""The arguments, and the sentence that they are refused with."""


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusals(run, arguments):
    code, stdout, stderr = run("conventions", *arguments.split())
    assert (code, stdout, stderr) == (2, "", f"bncli: {REFUSALS[arguments]}\n")
