"""What a recalibration refuses, leaves as it was, and measures."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.errors import ModelError, UsageError
from bncli.live.batch import Statistics
from bncli.live.recalibration import recalibrated
from bncli.live.session import Session
from bncli.model.recalibration import Average, Goal
from bncli.rulebook.live.causes import Diagnosis
from bncli.rulebook.live.repair import judged
from tests.live.recalibrating import (
    BATCHES,
    TRAINING,
    UNEVEN,
    inputs_of_layers,
    one_spoilt,
    recalibration,
    wish,
    written,
    wrong,
)
from tests.live.small import Net, data, gap_by_hand, images, made, snapshot

# ---------------------------------------------- refused


def short(tensors, most):
    """The finding for too few samples; None where they suffice."""
    done = recalibration(made(), tensors, wish(**TRAINING), check=False)
    return judged(done, Goal.TRAINING, Diagnosis((), ()), most).finding


def test_as_many_samples_as_are_asked_for_suffice():
    found = short(images(4, 8), 0.05)
    assert (found.code, found.evidence["samples"]) == ("BN821", 32)
    needed = found.evidence["samples_needed"]
    assert 100 < needed < 2000
    enough = [*torch.cat(images(-(-needed // 16), 16, seed=11))[:needed].split(16)]
    assert short(enough, 0.05) is None
    assert short(enough[: len(enough) // 2], 0.05).code == "BN821"
    accepted = float(re.search(r"--max-error ([\d.]+)\.$", found.hint)[1])
    assert short(images(4, 8), accepted) is None


def test_data_that_are_not_finite_are_refused():
    tensors = [x.clone() for x in BATCHES]
    tensors[2][0, 0, 0, 0] = torch.nan
    for wished in (wish(), wish(**TRAINING), wish(average=Average.EMA, **TRAINING)):
        with pytest.raises(ModelError, match=r"the data's statistics in bn1 are not finite"):
            recalibration(made(), tensors, wished)


def test_batches_of_one_value_a_channel_are_refused():
    singles = [*torch.cat(BATCHES[:2]).split(1)]
    for check in (True, False):
        with pytest.raises(ModelError, match=r"more than one value; give larger batches"):
            recalibration(made(), singles, check=check)


# ---------------------------------------------- as before afterwards


class Fails(Net):
    """A model that draws random numbers, and fails at a pass of one's choice."""

    def __init__(self, at):
        super().__init__()
        self.at, self.passes = at, 0

    def forward(self, x):
        self.passes += 1
        torch.rand(3)
        if self.passes == self.at:
            raise ValueError("no")
        return super().forward(x)


@pytest.mark.parametrize("at", [None, 1, 3, 10, 14, 18, 22])
def test_a_model_is_as_before(at):
    net = Fails(at).train()
    net.bn2.eval()
    before = snapshot(net)
    for wished in (wish(), wish(average=Average.EMA, layers=["*"], **TRAINING)):
        net.passes = 0
        try:
            recalibration(net, BATCHES, wished, metric=lambda y, _: float(y.mean()))
        except ModelError:
            assert at is not None
        assert snapshot(net) == before
        assert net.passes == at or net.passes > 15
    assert not any(each._forward_pre_hooks for each in net.modules())


def test_what_cannot_be_held_is_raised_and_nothing_changes():
    net = made()
    before = snapshot(net)

    def hold(*_):
        raise UsageError("no room")

    with pytest.raises(UsageError, match="no room"):
        recalibration(net, BATCHES, hold=hold)
    assert snapshot(net) == before


# ---------------------------------------------- what is measured


def test_it_is_measured_with_the_numbers_that_the_buffers_will_hold():
    net, asked = wrong(one_spoilt), []

    def coarse(name, given):
        asked.append(name)
        return Statistics(*(np.round(2 * each) / 2 + 0.5 for each in given))

    done = recalibration(net, BATCHES, hold=coarse, metric=lambda y, _: float(y.abs().mean()))
    assert asked == ["bn1", "bn2", "bn3"]
    rounded = replace(
        done,
        layers=tuple(
            replace(layer, mean=new.mean, var=new.var)
            for layer in done.layers
            for new in [coarse(layer.name, (layer.mean, layer.var))]
        ),
    )
    assert done.gap_after == pytest.approx(gap_by_hand(written(net, rounded), BATCHES), rel=1e-5)
    assert done.gap_before == pytest.approx(gap_by_hand(net, BATCHES), rel=1e-5)
    with torch.no_grad():
        after = torch.cat([written(net, rounded)(x) for x in BATCHES]).abs().mean()
        before = torch.cat([net(x) for x in BATCHES]).abs().mean()
    assert done.metrics["after"] == pytest.approx(float(after), rel=1e-5)
    assert done.metrics["before"] == pytest.approx(float(before), rel=1e-5)
    training = inputs_of_layers(net, BATCHES, training=True)["bn3"]
    assert len(training) == len(BATCHES)
    assert set(done.metrics) >= {"training", "before", "after"}


def test_a_metric_of_wrong_pairs_is_beside_the_right_ones():
    net = wrong(one_spoilt, UNEVEN)
    truth = [net.train()(x).detach() for x in UNEVEN]
    net = wrong(one_spoilt, UNEVEN)
    batches = [
        replace(each, whole=wanted) for each, wanted in zip(data(UNEVEN), truth, strict=True)
    ]
    session = Session(net, batches)
    with session.open():
        done = recalibrated(
            session, wish(), None, lambda y, wanted: float((y - wanted).square().mean())
        )
    assert done.metrics["training"] == pytest.approx(0, abs=1e-10)
    assert done.metrics["chance"] > 2 * done.metrics["right"]
    assert done.metrics["after"] < done.metrics["before"]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_in_training_is_refused(number):
    with pytest.raises(ModelError, match=r"^the metric is (NaN|infinite) already for the outputs"):
        recalibration(made(), BATCHES, wish(), metric=lambda *_: number)
