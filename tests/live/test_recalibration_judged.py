"""New statistics of trained nets, judged: what they repair, what they cannot, and healthy nets."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from bncli.model.recalibration import Goal
from bncli.rulebook.live.causes import diagnosis
from bncli.rulebook.live.repair import Outcome, judged
from tests.live.faults.healthy import healthy_net
from tests.live.faults.planting import FAULTS, Bench
from tests.live.faults.training import Store, loss_of, one_thread
from tests.live.recalibrating import recalibration, wish, written


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The nets of one architecture, which are trained when they are first asked for."""
    return Bench("plain", 0, Store(tmp_path_factory.mktemp("nets")))


def judgement(model, inputs, **given):
    with one_thread():
        done = recalibration(model, inputs, **given)
    return done, judged(done, Goal.TRAINING, diagnosis(done.capture))


def loss_on(case):
    """The loss of a batch that is known by its inputs."""
    truth = {
        id(batch.args[0]): truth for batch, truth in zip(case.batches, case.truth, strict=True)
    }
    return lambda output, batch: float(loss_of(output, truth[id(batch)]))


def plain_loss(model, case):
    with torch.no_grad(), one_thread():
        losses = [
            float(loss_of(model.eval()(batch.args[0]), truth))
            for batch, truth in zip(case.batches, case.truth, strict=True)
        ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("fault", ["all-layers-reset", "one-layer-spoilt"])
def test_a_fault_of_the_statistics_is_repaired(bench, fault):
    case = FAULTS[fault].make(bench)
    inputs = [batch.args[0] for batch in case.batches]
    done, found = judgement(case.model, inputs)
    assert (found.outcome, found.finding, found.others) == (Outcome.HELPS, None, ())
    assert done.gap_before > 2 * done.gap_floor
    assert done.gap_after == pytest.approx(done.gap_floor, rel=1e-3)
    right = bench.net()
    before, after = plain_loss(case.model, case), plain_loss(written(case.model, done), case)
    assert after < 1.2 * plain_loss(right, case) < before / 5
    again, found = judgement(written(case.model, done), inputs)
    assert found.outcome is Outcome.NOTHING
    assert again.gap_before == pytest.approx(done.gap_after, rel=1e-3)


@pytest.mark.exhaustive
def test_batches_of_one_device_are_no_fault_of_the_statistics(bench):
    case = FAULTS["one-scanner-a-batch"].make(bench)
    inputs = [batch.args[0] for batch in case.batches]
    done, found = judgement(case.model, inputs)
    assert "BN806" in [each.code for each in found.others]
    assert done.gap_after > 0.25  # of nets trained on one device it is 0.2
    found = judgement(written(case.model, done), inputs)[1]
    assert found.outcome in {Outcome.NO_HELP, Outcome.NOTHING}
    named = [each.code for each in found.others]
    if found.finding is not None:
        named.append(found.finding.evidence["cause"])
    assert "BN806" in named


@pytest.mark.exhaustive
@pytest.mark.parametrize("architecture", ["plain", "residual", "separable"])
@pytest.mark.parametrize("known", [True, False], ids=["frozen", "as if trained"])
def test_a_frozen_fine_tune_is_not_made_worse_where_a_metric_is_given(bench, architecture, known):
    """Whether the model still says that its layers are frozen, or was loaded without that."""
    case = FAULTS["frozen-and-fine-tuned"].make(Bench(architecture, 0, bench.store))
    for parameter in case.model.parameters():
        parameter.requires_grad_(parameter.requires_grad or not known)
    inputs = [batch.args[0] for batch in case.batches]
    judge = partial(judgement, case.model, inputs, metric=loss_on(case))
    named, found = judge(wished=wish(layers=["*"]))
    assert found.outcome is (Outcome.NOTHING if known else Outcome.NO_HELP)
    assert named.metrics["after"] > named.metrics["before"]
    assert plain_loss(written(case.model, named), case) > plain_loss(case.model, case)
    if known:
        done, found = judge()
        assert (found.outcome, done.layers) == (Outcome.NOTHING, ())


KINDS = {
    "perceptron": (),
    "norm-on-the-input": (),
    "shared-layers": pytest.mark.exhaustive,
    "frozen": pytest.mark.exhaustive,
    "half-precision": pytest.mark.exhaustive,
    "one-dimensional": pytest.mark.exhaustive,
    "scanners-mixed": pytest.mark.exhaustive,
}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=marks) for kind, marks in KINDS.items()])
def test_a_healthy_net_has_nothing_to_repair(kind):
    net, inputs = healthy_net(kind, 0)
    for number in (len(inputs), 4):
        done, found = judgement(net, inputs[:number])
        assert (found.outcome, found.finding) == (Outcome.NOTHING, None), number
        assert done.checked
