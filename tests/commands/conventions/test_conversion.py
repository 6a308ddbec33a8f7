"""From one convention to another: each quantity, beside what the frameworks do."""

from __future__ import annotations

import math

import pytest

from bncli.running_stats.frameworks import CONVENTIONS
from tests.commands.conventions.samples import rows


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


def said(run, *flags):
    """What a conversion shows at 80 columns, and the same in a line."""
    result = run("conventions", *flags, "--width", 80)
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    return lines, " ".join(result.stdout.split())


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda row: row.name)
def test_a_conversion_begins_with_its_number_and_fits_a_screen(run, convention):
    lines, text = said(run, "--to", convention.name)
    if convention.weighs == "new":
        becomes = "stays: both make it the weight of the new batch"
    else:
        becomes = f"becomes 0.9, in {convention.name} the weight of the old value"
    head = f"PyTorch 2.13 nn.BatchNorm to {convention.framework} momentum 0.1 {becomes} "
    assert text.startswith(head)
    assert len(lines) <= 26
    rows = {line[:14].strip(): line for line in lines[3:] if line[:1] != " "}
    for quantity in ("weight", "bias", "running_mean"):
        assert getattr(convention.names, quantity) in rows[quantity]
        assert rows[quantity].endswith("copy it")


def test_what_is_the_same_or_not_needed_is_left_out(run):
    _, text = said(run, "--from", "keras3", "--to", "flax")
    for quantity in ("channel axis", "variance kept", "mean_0", "debiased", "batches so far"):
        assert quantity not in text
    assert "Training further shifts running_var" not in text
    _, text = said(run, "--from", "pytorch", "--to", "sonnet")
    for quantity in ("channel axis", "variance kept", "mean_0", "debiased", "batches so far"):
        assert quantity in text


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "by +100% at 2 values per channel, +14.3% at 8, +3.23% at 32, +0.392% at 256."),
        (("--count", 8), "Training further shifts running_var by +14.3% at 8 values per channel."),
    ],
)
def test_what_more_training_changes(run, flags, sentence):
    assert sentence in said(run, "--from", "keras3", *flags)[1]


def test_the_notes_of_both_sides_are_told(run):
    _, text = said(run, "--from", "mxnet", "--to", "burn")
    assert "mxnet: fix_gamma=True, the default, means that a stored gamma counts as 1." in text
    assert "burn: Its tests quote PyTorch's numbers" in text


def test_no_number_is_no_conversion_of_the_momentum(run):
    lines, _ = said(run, "--from", "haiku")
    assert lines[1] == "haiku has no default momentum: give one with --momentum"
    lines, _ = said(run, "--to", "pytorch", "--momentum", "none")
    assert lines[1] == "momentum none, the cumulative average, stays"


def test_v_shows_the_whole_tables(run):
    text = run("conventions", "--from", "keras3", "-v", "--width", 120).stdout
    assert "From Keras 3 BatchNormalization to PyTorch 2.13 nn.BatchNorm" in text
    assert "running_var of pytorch over that of keras3, both settled" in text
    for count in (2, 4, 8, 16, 32, 64, 256, 1024, 65536):
        assert f" {count} " in text
