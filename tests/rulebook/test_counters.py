"""What num_batches_tracked says, in one layer and across all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncli.report import Certainty
from bncli.rulebook.counters import check_counter, check_multiples, counter_groups, is_count
from bncli.rulebook.layers import Checkpoint
from bncli.rulebook.summaries import summary
from tests.rulebook.layers import found, layer
from tests.rulebook.networks import norms, trained


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1))
def test_counter_groups_count_every_layer(counters):
    said = counter_groups(counters)
    numbers = [int(part.split()[0]) for part in said.split(", ") if "values from" not in part]
    if "values from" not in said:
        assert sum(numbers) == len(counters)


@pytest.mark.parametrize(
    ("small", "large", "blamed"),
    [
        (10, 20, True),
        (10, 40, True),
        (9, 18, False),  # a few steps
        (10, 50, False),  # one count in five is a multiple by accident
        (100, 800, True),
        (100, 900, False),  # phases of training share an epoch's batches
        (100, 201, False),
    ],
)
def test_which_multiples_of_a_counter_are_remarked(small, large, blamed):
    layers = [summary(layer(f"bn{n}", counter=n)) for n in (small, large)]
    assert [f.subject for f in check_multiples(Checkpoint(layers))] == [f"bn{large}"] * blamed


def test_a_counter_that_is_no_number_of_batches_is_short():
    assert counter_groups([1e300, 1e300]) == "2 layers at 1e+300"


def test_what_a_multiple_says():
    layers = [summary(layer(f"bn{n}", counter=n)) for n in (160, 320)]
    (finding,) = check_multiples(Checkpoint(layers))
    assert finding.message == (
        "updated 2 times a step: num_batches_tracked is 320, and 160 in 1 other layer"
    )
    assert finding.detail.endswith(
        " With checkpointing, the effective momentum is 0.19 instead of 0.1 (assumed); set 0.05132 "
        "to restore 0.1."
    )
    assert finding.certainty is Certainty.LIKELY
    twice = [summary(layer(name, counter=320)) for name in ("a", "b")]
    (first, second) = check_multiples(Checkpoint([layers[0], *twice], shared={"b": "a"}))
    for shared in (first, second):
        assert shared.detail.startswith("It stands under 2 names and runs once for each. The eff")
        assert shared.hint == "No fix is needed if the layer is meant to be shared."


def test_a_counter_that_would_wipe_the_statistics():
    made = summary(layer(counter=0, momentum=None))
    (finding,) = check_counter(Checkpoint([made]))
    assert finding.code == "BN306"
    assert finding.message == (
        "num_batches_tracked is 0 and momentum none: the first batch would replace all statistics"
    )


@pytest.mark.parametrize(
    ("counter", "detail"),
    [
        (2.5, "It was averaged with the weights, or overwritten."),
        (-3, "Averages of counts are finite and 0 or more: this was overwritten or never written."),
        (
            np.inf,
            "Averages of counts are finite and 0 or more: this was overwritten or never written.",
        ),
    ],
)
def test_only_what_an_average_leaves_is_called_one(counter, detail):
    (finding,) = check_counter(Checkpoint([summary(layer(counter=counter))]))
    assert (finding.code, finding.detail) == ("BN304", detail)
    assert finding.message == f"num_batches_tracked is {counter}, not a count"
    assert ("averages" in finding.hint) == ("averaged" in detail)


def test_counter_groups():
    assert counter_groups([7, 7, 7, 3]) == "3 layers at 7, 1 at 3"
    assert counter_groups([7]) == "1 layer at 7"
    assert counter_groups([None, None]) == "2 without a count"
    assert counter_groups([7.0, None]) == "1 layer at 7, 1 without a count"
    assert counter_groups([0.5]) == "1 layer at 0.5"
    assert counter_groups([0.0, 1000.0, 1, 2, 3, 4]) == "6 values from 0 to 1000"
    assert counter_groups(list(range(9))) == "9 values from 0 to 8"
    assert counter_groups([]) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, True), (7.0, True), (-1, False), (0.5, False), (np.nan, False), (np.inf, False),
     (None, False)],
)  # fmt: skip
def test_is_count(value, expected):
    assert is_count(value) is expected


# A counter that is too small: the causes that the file leaves.


def too_small(run, saved, *flags):
    return {
        f["subject"]: f["evidence"] | {key: f[key] for key in ("message", "detail", "certainty")}
        for f in found(run, saved, *flags, code="BN305")
    }


def counted(counter, model=None):
    model = model or trained()
    for module in norms(model).values():
        module.num_batches_tracked.fill_(counter)
    return model


def test_an_assumed_momentum_may_be_another_and_is_told_from_which_on(run, folder):
    evidence = too_small(run, counted(3).state_dict())["layer1.0.bn1"]
    assert "other-momentum" in evidence["causes"]
    least = 1 - evidence["least_var"] ** (1 / 3)
    assert f"another momentum (none, or {least:.3g} and more)." in evidence["detail"]
    assert evidence["detail"].startswith(
        "With momentum 0.1 (assumed), 3 batches leave every variance at 0.729 or more. "
    )
    low = f"{evidence['least_var']:.4g}"
    assert evidence["message"] == f"num_batches_tracked is 3, but running_var is as low as {low}"
    assert evidence["certainty"] == "depends on an assumption"
    assert "instance-norm" not in evidence["causes"]


@pytest.mark.parametrize("flags", [(), ("--momentum", "0.1")])
def test_a_momentum_that_is_known_is_no_other(run, folder, flags):
    saved = counted(3).state_dict() if flags else counted(3)
    evidence = too_small(run, saved, *flags)["layer1.0.bn1"]
    assert evidence["causes"] == ["averaged-copy", "converted", "old-weights", "recalibrated"]
    assert "another momentum" not in evidence["detail"]
    assert evidence["certainty"] == "certain"


def test_a_stored_batch_norm_is_no_instance_norm(run, folder):
    assert "instance-norm" in too_small(run, counted(0).state_dict())["stem.1"]["causes"]
    assert "instance-norm" not in too_small(run, counted(0))["stem.1"]["causes"]


@pytest.mark.parametrize("counter", [0, 3])
def test_means_that_are_all_0_are_said_and_leave_fewer_causes(run, folder, counter):
    model = counted(counter)
    model.layer1[0].bn1.running_mean.zero_()
    evidence = too_small(run, model.state_dict())
    assert evidence["layer1.0.bn1"]["mean_zero"] is True
    assert evidence["layer1.0.bn1"]["causes"] == ["converted", "edited"]
    assert "exactly 0" in evidence["layer1.0.bn1"]["detail"]
    assert evidence["layer1.0.bn2"]["mean_zero"] is False


def test_what_no_batch_made_is_not_called_an_average(run, folder):
    """NaN is BN201's; the counter of 0 beside it is no sign of a copy."""
    model = counted(0)
    model.stem[1].running_var.fill_(torch.nan)
    assert "stem.1" not in too_small(run, model.state_dict())


# Counters that count nothing.


@pytest.mark.parametrize(
    ("counter", "code", "cause"),
    [
        (10**9, None, None),
        (10**9 + 1, "BN307", "not-a-count-of-batches"),
        (2**62, "BN307", "not-a-count-of-batches"),
        (-(2**40), "BN304", "overwritten"),
    ],
)
def test_a_counter_is_believed_up_to_a_thousand_million(run, folder, counter, code, cause):
    model = trained()
    model.stem[1].num_batches_tracked.fill_(counter)
    findings = [f for f in found(run, model.state_dict()) if f["code"] in ("BN304", "BN307")]
    assert [f["code"] for f in findings] == ([code] if code else [])
    for finding in findings:
        assert finding["severity"] == "warning"
        assert finding["evidence"]["cause"] == cause
        assert finding["evidence"]["num_batches_tracked"] == counter
        assert counter < 0 or str(counter) in finding["message"]


def test_an_unbelievable_counter_is_no_group_and_no_multiple(run, folder):
    model = trained()
    model.stem[1].num_batches_tracked.fill_(160 * 10**8)
    assert {f["code"] for f in found(run, model.state_dict())} == {"BN307"}
