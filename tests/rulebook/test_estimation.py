"""Statistics that were never estimated, or are not there."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from bncli.rulebook.estimation import check_initial, check_missing, named_batch_norm
from bncli.rulebook.layers import Bare, Checkpoint, summary
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


@pytest.mark.parametrize(("channels", "said"), [(1, "its one channel"), (3, "all 3 channels")])
def test_the_channels_of_a_layer_in_words(channels, said):
    (found,) = judged(initial(channels=channels), layer("other"))
    assert found.code == "BN101"
    assert f"running_var exactly 1 in {said}, weight" in found.message
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


@pytest.mark.parametrize(("number", "said"), [(1, "1 other layer of the file has"),
                                              (2, "2 other layers of the file have")])  # fmt: skip
def test_the_others_are_counted_in_words(number, said):
    others = [layer(f"other{index}") for index in range(number)]
    (found,) = judged(initial(), *others)
    assert f"{said} statistics of their own" in found.message
    bare = Bare("bn", ("weight", "bias", "num_batches_tracked"))
    (missing,) = judged(*others, check=check_missing, bare=[bare])
    assert f"{said} both." in missing.message


@pytest.mark.parametrize(
    ("name", "leaves", "cause"),
    [
        ("x", ("running_mean", "weight", "num_batches_tracked"), "half-saved"),
        ("x.bn", ("running_var",), "half-saved"),
        ("x", ("running_mean", "weight"), None),  # a norm that divides by something else
        ("x", ("weight", "bias", "num_batches_tracked"), "buffers-not-saved"),
        ("x.bn", ("weight", "bias"), "buffers-not-saved"),
        ("x.bn", ("weight",), None),
        ("x", ("weight", "bias"), None),
    ],
)
def test_what_lacks_statistics_beside_layers_that_have_them(name, leaves, cause):
    findings = judged(layer("other"), check=check_missing, bare=[Bare(name, leaves)])
    assert [(f.code, f.subject, f.evidence["cause"]) for f in findings] == (
        [("BN106", name, cause)] if cause else []
    )
    lacking = [leaf for leaf in ("running_mean", "running_var") if leaf not in leaves]
    assert all(finding.extent == tuple(lacking) for finding in findings)
    alone = judged(check=check_missing, bare=[Bare(name, leaves)])
    assert len(alone) == (cause == "half-saved")  # the others are told by their siblings


def test_a_target_network_without_its_twins_buffers():
    live, target = layer("net.bn"), initial("target.bn")
    more = {"twins": {"target.bn": "net.bn"}}
    (found,) = judged(live, target, **more, followers=["target.bn"])
    assert (found.code, found.subject, found.evidence["live"]) == ("BN101", "target.bn", "net.bn")
    assert "running_mean and running_var of net.bn too" in found.hint
    assert judged(live, target, **more) == []  # an average is not said here
