from __future__ import annotations

import pytest
import torch

from bncli.live.session import Session
from bncli.live.trials import passes_needed, run_trials
from bncli.model.capture import Propagation
from tests.live.small import (
    by_hand,
    data,
    gap_by_hand,
    images,
    made,
    renewed_by_hand,
)

BATCHES = images()
LAYERS = ("bn1", "bn2", "bn3")


def tried(net, tensors, suspects=(), *, input_suspected=False, metric=None, most=5, frozen=()):
    """The session, the capture and the trials."""
    session = Session(net, data(tensors), frozen)
    with session.open():
        capture = session.capture()
        trials = run_trials(
            session,
            capture,
            suspects,
            input_suspected=input_suspected,
            metric=metric,
            most=most,
        )
    return session, capture, trials


def spoilt(layer, by=25.0):
    net = made()
    net.get_submodule(layer).running_var.mul_(by)
    return net


def of_kind(trials, kind):
    return [each for each in trials.trials if each.kind == kind]


@pytest.mark.parametrize("layer", LAYERS)
def test_the_share_that_a_layer_closes_is_that_of_plain_torch(layer):
    net = spoilt(layer)
    _, capture, trials = tried(net, BATCHES, [layer])
    gap, floor = gap_by_hand(net, BATCHES), gap_by_hand(renewed_by_hand(net, BATCHES), BATCHES)
    assert capture.gap(Propagation.EVAL) == pytest.approx(gap, rel=1e-5)
    assert capture.gap_floor == pytest.approx(floor, rel=0.01)  # a tenth of a standard error
    others = [each for each in LAYERS if each != layer]
    (alone,), (rest,), (every,) = (of_kind(trials, kind) for kind in ("one", "all but one", "all"))
    assert (alone.what, alone.layers) == (f"{layer} alone", (layer,))
    assert (rest.what, list(rest.layers)) == (f"all but {layer}", others)
    assert (every.what, every.layers) == ("all 3 layers", LAYERS)
    for trial in (alone, rest, every):
        left = gap_by_hand(renewed_by_hand(net, BATCHES, trial.layers), BATCHES)
        assert capture.closes(trial) == pytest.approx((gap - left) / (gap - floor), abs=0.01)
    assert capture.closes(alone) > 0.9
    assert capture.closes(rest) < 0.5
    assert capture.closes(every) == 1


def test_the_first_layers_that_close_enough_are_found():
    net = spoilt("bn1")
    net.bn2.running_var.mul_(25)
    _, capture, trials = tried(net, BATCHES, ["bn1"])
    (first,) = of_kind(trials, "first")
    assert (first.what, first.layers) == ("the first 2 of 3 layers", ("bn1", "bn2"))
    assert capture.closes(first) >= 0.9 > capture.closes(of_kind(trials, "one")[0])


def test_the_first_layer_alone_is_not_said_twice():
    net = spoilt("bn1")
    assert not of_kind(tried(net, BATCHES, ["bn1"])[2], "first")
    (first,) = of_kind(tried(net, BATCHES, ["bn3"])[2], "first")
    assert (first.what, first.layers) == ("the first layer alone", ("bn1",))


def test_a_healthy_model_has_nothing_to_close():
    _, capture, trials = tried(made(), BATCHES)
    (every,) = trials.trials
    assert every.gap == capture.gap_floor
    assert abs(capture.gap(Propagation.EVAL) / capture.gap_floor - 1) < 0.1


def test_suspects_are_tried_in_their_order_up_to_the_most_and_never_twice():
    net = spoilt("bn2")
    trials = tried(net, BATCHES, ["bn3", "bn2", "bn3", "bn1", "not a layer"], most=2)[2]
    assert [each.layers for each in of_kind(trials, "one")] == [("bn3",), ("bn2",)]
    assert len(of_kind(trials, "all but one")) == 2


def test_a_frozen_layer_is_never_tried():
    trials = tried(spoilt("bn2"), BATCHES, ["bn2", "bn1"], frozen=["bn2"])[2]
    assert [each.layers for each in of_kind(trials, "one")] == [("bn1",)]
    assert all("bn2" not in each.layers for each in trials.trials)


def test_nothing_is_tried_where_that_was_asked():
    _, _, trials = tried(spoilt("bn2"), BATCHES, ["bn2"], input_suspected=True, most=0)
    assert (trials.trials, trials.metrics) == ((), {})


def test_the_metric_is_that_of_plain_torch():
    net = spoilt("bn2")

    def metric(output, batch):
        return (output.softmax(1)[:, 0] * batch.mean((1, 2, 3))).mean()

    _, _, trials = tried(net, BATCHES, ["bn2"], metric=metric)

    def by_hand_of(model, *, training):
        output = by_hand(model, BATCHES, training=training)
        return float(metric(output, torch.cat(BATCHES)))

    renewed = renewed_by_hand(net, BATCHES)
    assert trials.metrics == {
        "training": pytest.approx(by_hand_of(net, training=True), rel=1e-5),
        "eval": pytest.approx(by_hand_of(net, training=False), rel=1e-5),
        "renewed": pytest.approx(by_hand_of(renewed, training=False), rel=1e-2),
    }
    for trial in trials.trials:
        repaired = renewed_by_hand(net, BATCHES, trial.layers)
        assert trial.metric == pytest.approx(by_hand_of(repaired, training=False), rel=1e-2)


def test_the_metric_is_measured_without_trials_and_without_training():
    single = [x[:1, :, :1, :1] for x in BATCHES]
    _, capture, trials = tried(made(), single, ["bn2"], metric=lambda output, _: output.mean())
    assert capture.refused_training
    assert trials.trials == ()
    eval_mean = by_hand(made(), single, training=False).mean()
    assert trials.metrics == {"eval": pytest.approx(float(eval_mean), rel=1e-5)}
    zero = tried(made(), BATCHES, ["bn2"], metric=lambda *_: 3, most=0)[2]
    assert zero.metrics == {"training": 3, "eval": 3, "renewed": 3}


MAPS = {
    "input divided by 255": lambda x: x * 255,
    "input multiplied by 255": lambda x: x / 255,
    "input's channels in reverse order": lambda x: x.flip(1),
    "input scaled and shifted as the first layer's statistics imply": lambda x: 3 * x - 1,
}


@pytest.mark.parametrize("what", MAPS)
def test_the_map_that_closes_the_gap_is_named_with_its_numbers(what):
    spread = torch.tensor([1.0, 2.0, 0.5]).reshape(1, 3, 1, 1)  # the channels differ
    rights = [x * spread for x in BATCHES]
    net = made(tensors=rights)
    wrongs = [MAPS[what](x) for x in rights]
    _, capture, trials = tried(net, wrongs, ["bn1"], input_suspected=True)
    named = trials.input_map
    assert named is not None
    assert named.what == what
    assert capture.closes(named) > 0.85  # of a floor that is lower where eps weighs more
    if "order" in named.numbers:
        assert named.numbers["order"] == [2, 1, 0]
        mapped = [x[:, [2, 1, 0]] for x in wrongs]
    else:
        scale, shift = (
            torch.tensor(named.numbers[key]).reshape(1, 3, 1, 1) for key in ("scale", "shift")
        )
        mapped = [x * scale + shift for x in wrongs]
    # Both propagations see the mapped input.
    assert named.gap == pytest.approx(gap_by_hand(net, mapped), rel=1e-4)


def test_the_passes_are_no_more_than_said():
    net = spoilt("bn3")
    passes = []
    session = Session(net, data(BATCHES))
    with session.open():
        capture = session.capture()
        session.advance = passes.append
        run_trials(session, capture, LAYERS, input_suspected=True, metric=lambda *_: 0.0, most=5)
    most = passes_needed(3, 3, input_suspected=True, metric=True)
    assert sum(passes) <= most * len(BATCHES)
    assert sum(passes) >= (most - 4) * len(BATCHES)  # and the bound is near


def test_the_model_is_as_before():
    net = spoilt("bn2")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    tried(net, BATCHES, ["bn2"], input_suspected=True, metric=lambda *_: 0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not net.training
