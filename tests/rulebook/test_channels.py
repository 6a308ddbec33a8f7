"""Channels that are dead or amplified: what a sentence over several of them says of each."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bncli.commands.inspect_checkpoint.layer_rows import layer_scale
from bncli.report import Certainty
from bncli.rulebook import RULES
from bncli.rulebook.channels import live_scales, outlier, scales
from bncli.rulebook.checkpoint import layer_findings
from bncli.rulebook.summaries import summary
from tests.rulebook.layers import FLOOR, codes, f4, layer, only


def test_each_channel_lies_in_the_range_that_is_named():
    made = layer(running_var=f4(FLOOR, 2.4e-6, 1, 1), weight=f4(1, 0.6, 1, 1))
    finding = only(made, "BN401")
    assert finding.evidence["channels"] == [0, 1]
    assert finding.message == (
        "running_var is 5.605e-45 to 2.4e-06 in channels 0 and 1 of 4, below eps 1e-05 (assumed)"
    )
    assert finding.detail.endswith("reaches 316.2, in channel 0.")
    assert finding.certainty is Certainty.ASSUMED
    made = layer(running_var=f4(FLOOR, FLOOR, 1, 1), weight=f4(1, 0.6, 1, 1))
    object.__setattr__(made, "eps_assumed", False)
    finding = only(made, "BN401")
    assert finding.message == "running_var is 5.605e-45 in channels 0 and 1 of 4, below eps 1e-05"
    assert finding.certainty is Certainty.CERTAIN


@pytest.mark.parametrize("small", [FLOOR, 2.4e-6])
def test_nothing_is_said_of_scales_whose_weight_could_not_be_read(small):
    made = layer(running_var=f4(small, 1, 1, 1), weight=f4(1, 1, 1, 1), bias=f4(0, 0, 0, 0))
    assert "BN401" in codes(made)
    state = replace(made.state, weight=None)
    made = replace(made, state=state, unread=("weight is quantised.",))
    assert codes(made) == {"BN207"}
    assert np.isnan(scales(made)).all()
    assert layer_scale(made) is None
    assert summary(made).affine == "unknown"


def of(*numbers):
    return st.sampled_from(f4(*numbers).tolist())


sizes = st.one_of(
    st.floats(-1, 2.0**-13, width=32), st.floats(0, 2.0**17, width=32), of(0, FLOOR, 3e-12)
)


weights = st.one_of(st.floats(-2, 2, width=32), of(0, 1e-7, 0.005, 1e-9))


@example(f4(-1, -0.5, 0, 0, 0), f4(-1, -0.5, 0, 0, 0))  # "running_var is negative in channels"
@given(arrays(np.float32, 5, elements=sizes), arrays(np.float32, 5, elements=weights))
def test_a_sentence_over_several_channels_holds_for_each(var, weight):
    """ "running_var is A to B in ...": every channel of the evidence lies there."""
    made = layer(channels=5, running_var=var, weight=weight)
    for finding in layer_findings(made):
        channels = finding.evidence.get("channels", [])
        told = f"{finding.message} {finding.detail}"
        stated = re.search(
            r"running_var (?:is ([-\d]\S*?)(?: to (\S+?))? in |<= (\S+),"
            r"|of (\S+?)(?: to (\S+?))?, )",
            told,
        )
        if stated is None:
            assert finding.code not in {"BN203", "BN204", "BN401", "BN402", "BN406", "BN408"}
            continue
        low, *more = (float(number) for number in stated.groups() if number is not None)
        high, slack = (more or [low])[0], 6e-3 if stated[3] else 6e-4  # 3 digits, or 4
        for channel in channels:
            value = float(var[channel])
            assert value <= high + slack * abs(high)
            assert stated[3] or value >= low - slack * abs(low)


@given(arrays(np.float32, 5, elements=sizes), arrays(np.float32, 5, elements=weights))
def test_a_layer_is_called_constant_only_where_it_is(var, weight):
    """BN404: the output's standard deviation for inputs of these statistics, and the scale."""
    made = layer(channels=5, running_var=var, weight=weight)
    found = {finding.code: finding for finding in layer_findings(made)}
    if "BN404" in found:
        assert (np.abs(weight.astype(np.float64)) < 0.01).all()
        spread = np.maximum(var.astype(float), 0)
        exact = np.abs(weight) * np.sqrt(spread / (spread + 1e-5))
        assert exact.max() <= 1.1e-5
        assert found["BN404"].evidence["output_std"] == pytest.approx(exact.max(), rel=1e-6)
        assert f"is at most {exact.max():.3g}." in found["BN404"].detail
    if "BN408" in found:
        channels = found["BN408"].evidence["channels"]
        scale = np.abs(weight[channels].astype(float)) / np.sqrt(var[channels].astype(float) + 1e-5)
        assert scale.min() >= 3
        assert "BN401" not in found
        assert "BN404" not in found


def test_no_weight_is_no_dead_weight():
    made = layer(running_var=f4(*[FLOOR] * 4))
    state = type(made.state)(
        "bn", running_mean=made.state.running_mean, running_var=made.state.running_var
    )
    assert codes(type(made)(state, {}, {})) == {"BN408"}


def test_the_help_for_a_variance_that_no_units_explain():
    usual = only(layer(running_var=f4(1.47e11, 1, 1, 1)), "BN406")
    assert usual.hint == next(rule for rule in RULES if rule.code == "BN406").hint
    odd = only(layer(running_var=f4(4e18, 1, 1, 1)), "BN406")
    assert odd.hint != usual.hint
    assert "2e+09" in odd.hint
    assert usual.detail == (
        "The input's standard deviation reaches 3.83e+05: it is not scaled, or activations explode."
    )
    assert odd.detail == "The input's standard deviation reaches 2e+09."


def test_dead_channels_and_weights_of_0_say_what_is_put_out():
    dead = {"running_var": f4(FLOOR, 1, FLOOR, 1), "weight": f4(1e-5, 1, -2e-5, 1)}
    finding = only(layer(bias=f4(0.5, 9, -0.25, 9), **dead), "BN402")
    assert finding.message == (
        "channels 0 and 2 of 4 are dead: running_var <= 5.61e-45, |weight| <= 2e-05"
    )
    assert finding.detail == "The output there is the bias, at most 0.5 in size."
    dead = {"running_var": f4(1, 1, FLOOR, 1), "weight": f4(1, 1, 0, 1), "bias": f4(1, 1, 0, 1)}
    one = only(layer(**dead), "BN402")
    assert one.message.startswith("channel 2 of 4 is dead: ")
    assert one.detail == "The output there is 0."
    zero = only(layer(weight=f4(1, 0, 1, 1), running_var=f4(1, 2, 1, 1)), "BN403")
    assert (zero.message, zero.detail) == (
        "weight is exactly 0 in channel 1 of 4",
        "The output there is the bias.",
    )


@pytest.mark.parametrize(
    ("var", "sure", "told"),
    [(1.0, Certainty.CERTAIN, ""), (9e-4, Certainty.ASSUMED, ", with eps 1e-05 (assumed)")],
)
def test_a_scale_that_an_assumed_eps_sets_is_not_certain(var, sure, told):
    made = layer(weight=f4(1, 1, 1, 500), running_var=f4(1, 1, 1, var))
    finding = only(made, "BN405")
    assert finding.message.startswith("channel 3 of 4 has a scale of ")
    assert finding.detail == f"The median over the channels that carry a signal is 1{told}."
    assert finding.certainty is sure
    object.__setattr__(made, "eps_assumed", False)
    assert only(made, "BN405").certainty is Certainty.CERTAIN


def messages(run, code, *arguments):
    result = run(*arguments, "-f", "json")
    return [f["message"] for f in result.report["findings"] if f["code"] == code]


def test_every_rule_names_what_holds_for_each_channel(run, save):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32) * f4(1, 1e-3, 1e-4)
    (said,) = messages(run, "BN003", "compute", save("x.npy", x))
    low, high = np.sort(x.astype(float).var(0))[:2]
    assert f"the variance is {low:.6g} to {high:.6g}, below" in said

    x = np.stack([np.full(16, 2.0), np.full(16, -3.0), np.arange(16.0)], axis=1)
    (said,) = messages(run, "BN009", "compute", save("x.npy", x))
    assert said.endswith("equal: -3 to 2")

    state = save("w.npy", np.array([np.nan, 1, np.inf, np.inf]))
    x = save("x.npy", rng.normal(size=(16, 4)))
    (said,) = messages(run, "BN011", "compute", x, "--weight", state)
    assert said == "weight is NaN in channel 0, inf in channels 2 and 3"

    big = np.float64([[1e25, 1e22, 1.0]] * 8 + [[-1e25, -1e22, 2.0]] * 8).astype(np.float32)
    (said,) = messages(run, "BN004", "compute", save("x.npy", big))
    assert " in channel 0, " in said

    flags = "--running-mean", save("m.npy", np.zeros(4)), "--running-var"
    var = save("v.npy", np.array([-1e9, np.nan, 1.0, -1e8]))
    x = save("x.npy", rng.normal(size=(80, 4)))
    said = messages(run, "BN706", "simulate-ema", x, *flags, var, "--batch-size", "16")
    assert "NaN in channel 1, -6" in said[0] or "NaN in channel 1, -5" in said[0]
    assert said[0].split(" in channels 0 and 3")[0].count(" to ") == 1


@pytest.mark.parametrize(
    ("scales", "channel"),
    [
        ([1, 1, 1, 1, 30], 4),
        ([1, 1, 1, 1, 19], None),  # not 20 times the median
        ([1, 1, 1, 30, 30], None),  # not one that drowns the others
        ([1, 1, np.nan, 1, 1, 30], 5),
        ([1, 1, 1, 30], 3),
        ([1, 1, 30], None),  # too few
    ],
)
def test_which_scale_stands_out(scales, channel):
    assert outlier(np.array(scales, float)) == channel


def test_a_variance_of_exactly_eps_is_not_below_it():
    eps = 2.0**-10  # which float32 holds
    under, over = np.nextafter(np.float32(eps), f4(0, 1))
    made = layer(running_var=np.array([under, eps, over, 1], np.float32), weight=f4(1, 1, 1, 1))
    object.__setattr__(made, "eps", eps)
    assert only(made, "BN401").evidence["channels"] == [0]
    assert np.isnan(live_scales(made, scales(made))).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("vectors", "shown"),
    [
        ({"running_mean": f4(0, 0, 0, 0), "running_var": f4(1, 1, 1, 1)}, False),  # never estimated
        ({"running_mean": f4(0, 0, 0, 0), "running_var": f4(1, 1, 1, 2)}, True),
        ({"running_mean": f4(0, 1, 0, 0), "running_var": f4(1, 1, 1, 1)}, True),
        ({"running_mean": f4(0, 1), "running_var": f4(1, 1, 1, 2)}, False),  # no vectors of a layer
    ],
)
def test_channels_are_judged_where_they_were_estimated(vectors, shown):
    assert ("BN403" in codes(layer(weight=f4(1, 0, 1, 1), **vectors))) == shown
