"""From one convention to another: each quantity, beside what the frameworks do."""

from __future__ import annotations

import math

import pytest

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
