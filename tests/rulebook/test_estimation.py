"""Statistics that were never estimated, or are not there."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from bncli.report import Certainty
from bncli.rulebook.estimation import check_initial, check_missing, named_batch_norm
from bncli.rulebook.layers import Bare, Checkpoint
from bncli.rulebook.summaries import summary
from tests.rulebook.layers import found, layer
from tests.rulebook.networks import norms, trained


def test_names_that_say_batchnorm():
    assert named_batch_norm("x.bn1")
    assert named_batch_norm("batchnorm")
    assert not named_batch_norm("bn1.proj")
    assert not named_batch_norm("x.bnb")


@pytest.mark.parametrize(
    ("stored", "momentum", "cause"),
    [(False, 0.1, "momentum-0-or-reset"), (True, 0.1, "reset"), (True, 0.0, "momentum-0")],
)
def test_a_momentum_that_is_known_tells_why_nothing_moved(run, folder, stored, momentum, cause):
    model = copy.deepcopy(trained())
    for module in norms(model).values():
        module.momentum = momentum
        module.running_mean.zero_()
        module.running_var.fill_(1)
    findings = found(run, model if stored else model.state_dict(), code="BN104")
    assert {f["evidence"]["cause"] for f in findings} == {cause}


def initial(name="bn", channels=4, **more):
    """A layer whose statistics are those of a new module."""
    mean, var = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    return layer(name, channels, running_mean=mean, running_var=var, **more)


def judged(*layers, check=check_initial, **more):
    return check(Checkpoint([summary(each) for each in layers], **more))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_said_of_a_layer_that_was_never_estimated(channels):
    (found,) = judged(initial(channels=channels), layer("other"))
    assert found.code == "BN101"
    assert found.message == (
        "the statistics are exactly 0 and 1 in every channel, though weight or bias is trained"
    )
    assert found.evidence["channels_total"] == channels


FRESH = {"weight": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}


@pytest.mark.parametrize(
    ("made", "others", "code", "cause"),
    [
        (initial(counter=0), ["one"], "BN101", "never-in-training-mode-or-reset"),
        (initial(counter=9), ["one"], "BN101", "momentum-0-or-reset"),
        (initial(counter=0), [], "BN102", "never-in-training-mode-or-reset"),
        (initial(counter=9), [], "BN104", "momentum-0-or-reset"),
        (initial(counter=9, **FRESH), ["one"], "BN104", "momentum-0-or-reset"),
        (initial(counter=0, **FRESH), ["one"], "BN103", "untrained"),
        (initial(counter=None, **FRESH), [], "BN103", "untrained"),
    ],
)
def test_which_rule_speaks_of_initial_statistics(made, others, code, cause):
    (found,) = judged(made, *map(layer, others))
    assert (found.code, found.subject, found.evidence["cause"]) == (code, "bn", cause)
    counted = found.evidence["num_batches_tracked"]
    assert counted == made.state.num_batches_tracked
    assert ("num_batches_tracked is 9" in found.message + found.detail) == (counted == 9)
    assert found.certainty == (Certainty.LIKELY if code == "BN102" else Certainty.CERTAIN)


@pytest.mark.parametrize("leaf", ["running_mean", "running_var"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_nan_beside_initial_values_is_no_statistic_from_training(leaf, value):
    values = {"running_mean": np.zeros(4, np.float32), "running_var": np.ones(4, np.float32)}
    values[leaf][1] = value
    spoilt = layer("other", counter=0, **values)
    (found,) = judged(initial(counter=0), spoilt)
    assert found.code == "BN102"
    assert found.detail.startswith("Apart from NaN and Inf, no layer of the file has other stat")
    (found,) = judged(initial(counter=0), spoilt, layer("third"))
    assert found.code == "BN101"
    assert found.detail.startswith("1 other layer of the file has statistics other than 0 and 1. ")


def test_a_layer_of_nan_alone_may_come_from_training():
    nothing = np.full(4, np.nan, np.float32)
    spoilt = layer("other", running_mean=nothing, running_var=nothing)
    (found,) = judged(initial(counter=0), spoilt)
    assert found.code == "BN101"


@pytest.mark.parametrize(("number", "said"), [(1, "1 other layer of the file has"),
                                              (2, "2 other layers of the file have")])  # fmt: skip
def test_the_others_are_counted_in_words(number, said):
    others = [layer(f"other{index}") for index in range(number)]
    (found,) = judged(initial(), *others)
    assert found.detail.startswith(f"{said} statistics other than 0 and 1. ")
    bare = Bare("bn", ("weight", "bias", "num_batches_tracked"))
    (missing,) = judged(*others, check=check_missing, bare=[bare])
    assert missing.detail == f"{said} both."


@pytest.mark.parametrize(
    ("name", "leaves", "cause", "sure"),
    [
        ("x", ("running_mean", "weight", "num_batches_tracked"), "half-saved", "certain"),
        ("x.bn", ("running_var",), "half-saved", "certain"),
        ("x", ("running_mean", "weight"), None, None),  # a norm that divides by something else
        ("x", ("weight", "bias", "num_batches_tracked"), "buffers-not-saved", "certain"),
        ("x.bn", ("weight", "bias"), "buffers-not-saved", "likely"),
        ("x.bn", ("weight",), None, None),
        ("x", ("weight", "bias"), None, None),
    ],
)
def test_what_lacks_statistics_beside_layers_that_have_them(name, leaves, cause, sure):
    findings = judged(layer("other"), check=check_missing, bare=[Bare(name, leaves)])
    assert [(f.code, f.subject, f.evidence["cause"], f.certainty.value) for f in findings] == (
        [("BN106", name, cause, sure)] if cause else []
    )
    lacking = [leaf for leaf in ("running_mean", "running_var") if leaf not in leaves]
    assert all(finding.extent == tuple(lacking) for finding in findings)
    alone = judged(check=check_missing, bare=[Bare(name, leaves)])
    assert len(alone) == (cause == "half-saved")  # the others are told by their siblings
    assert all(finding.detail == "" for finding in alone)


def test_half_of_the_statistics_under_a_neutral_name_is_less_sure():
    """Where another layer has no counter, a layer without one may be a BatchNorm too."""
    other = replace(summary(layer("other")), has_counter=False)
    (found,) = check_missing(Checkpoint([other], [Bare("x", ("running_mean", "weight"))]))
    assert found.message == "running_var is missing, but running_mean is there"
    assert found.certainty == Certainty.LIKELY


def test_a_target_network_without_its_twins_buffers():
    live, target = layer("net.bn"), initial("target.bn")
    more = {"twins": {"target.bn": "net.bn"}}
    (found,) = judged(live, target, **more, followers=["target.bn"])
    assert (found.code, found.subject, found.evidence["live"]) == ("BN101", "target.bn", "net.bn")
    assert found.message.endswith("unlike in net.bn")
    assert "running_mean and running_var of net.bn too" in found.hint
    assert judged(live, target, **more) == []  # an average is not said here
