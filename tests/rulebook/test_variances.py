"""Why a variance is negative: only the causes that the file's own numbers allow."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.report import Certainty
from bncli.rulebook import RULES
from bncli.rulebook.checkpoint import layer_findings
from tests.rulebook.layers import codes, f4, layer, only

HINT = {rule.code: rule.hint for rule in RULES}


@pytest.mark.parametrize(
    ("mean", "var", "cause", "half"),
    [
        (1.0, -1e-7, "cancellation", None),
        (1.0, -0.01, "not-a-variance", True),
        (1.0, -0.2, "not-a-variance", False),
        (0.0, -1e-4, "not-a-variance", False),
        (0.0, -1e-5, "eps-subtracted", None),
        (300.0, -0.1, "cancellation", None),
    ],
)
@pytest.mark.parametrize("eps", [1e-5, 1e-8])
def test_a_cause_that_the_numbers_exclude_is_not_named(mean, var, cause, half, eps):
    made = layer(running_mean=f4(2, mean, mean, 1), running_var=f4(1, var, 2 * var, 1))
    if cause == "eps-subtracted":
        made = layer(running_mean=f4(2, mean, mean, 1), running_var=f4(1, var, var, 1))
    object.__setattr__(made, "eps", eps)
    (finding,) = [f for f in layer_findings(made) if f.code in ("BN203", "BN204")]
    assert finding.evidence["cause"] == cause
    assert finding.hint != HINT[finding.code]
    if half is not None:
        assert ("E[x^2]" in finding.detail) == half
        for other in (
            "an optimiser",
            "an average with weights outside 0 to 1",
            "a faulty conversion",
        ):
            assert other in finding.detail


def test_the_range_of_the_negative_ones_alone_is_named():
    made = layer(running_mean=f4(0, 0, 0, 0), running_var=f4(-0.25, 7, -0.5, 3))
    finding = only(made, "BN203")
    assert finding.message == (
        "running_var is -0.5 to -0.25 in channels 0 and 2 of 4, too low for eps 1e-05"
    )


@pytest.mark.parametrize(
    ("var", "code", "said", "sure"),
    [
        ([1, -0.011, 1, -2], "BN203", "too low for", Certainty.CERTAIN),  # for any usual eps
        ([1, -0.009, 1, -2], "BN203", "too low for", Certainty.ASSUMED),
        ([1, -9e-6, 1, 1], "BN204", "kept positive by", Certainty.ASSUMED),
    ],
)
def test_a_negative_variance_is_as_sure_as_eps(var, code, said, sure):
    finding = only(layer(running_var=f4(*var)), code)
    rests = " (assumed)" if sure is Certainty.ASSUMED else ""
    assert finding.message.endswith(f", {said} eps 1e-05{rests}")
    assert (finding.certainty, finding.evidence["eps_assumed"]) == (sure, True)
    given = layer(running_var=f4(*var))
    object.__setattr__(given, "eps_assumed", False)
    assert only(given, code).message.endswith(f", {said} eps 1e-05")
    assert only(given, code).certainty is Certainty.CERTAIN


def test_means_have_both_signs_before_they_are_called_swapped():
    """An optimiser that stepped below 0 in every channel is no swap, if the means are positive."""
    rng = np.random.default_rng(2)
    mean = rng.uniform(0.2, 1, 16).astype(np.float32)
    below = rng.uniform(-0.11, -0.09, 16).astype(np.float32)
    assert codes(layer(channels=16, running_mean=mean, running_var=below)) == {"BN203"}
    both = np.where(np.arange(16) % 2, below, -below).astype(np.float32)
    swapped = layer(channels=16, running_mean=mean, running_var=both)
    assert codes(swapped) == {"BN205"}
    finding = only(swapped, "BN205")
    assert finding.message == (
        "running_var is negative in 8 of 16 channels (1, 3, 5, ...), running_mean in none"
    )
    assert finding.detail.startswith("The negative variances are -0.1")
    assert finding.certainty is Certainty.LIKELY


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_negative_variance(value):
    assert not codes(layer(running_var=f4(1, value, 1, 1))) & {"BN203", "BN204", "BN205"}
