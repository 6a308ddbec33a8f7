"""Statistics found anew, beside those that plain PyTorch finds layer after layer."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from bncli.live import renewal
from bncli.live.renewal import moved, statistics_of
from bncli.live.session import Session
from bncli.model.capture import Propagation
from tests.live.small import NORMS, by_hand, data, images, made, renewed_by_hand


def renewed(net, tensors, **flags):
    session = Session(net, data(tensors), **flags)
    with session.open():
        capture = session.capture()
    return session, capture


def spoilt():
    net = made()
    with torch.no_grad():
        net.bn1.running_var *= 9
        net.bn2.running_mean += 1
    return net


@pytest.mark.parametrize("room", [renewal.MOST_TOGETHER, 1])
def test_they_are_those_of_the_data_layer_after_layer(room, monkeypatch):
    monkeypatch.setattr(renewal, "MOST_TOGETHER", room)
    net, tensors = spoilt(), images(batches=5, samples=6)
    session, capture = renewed(net, tensors)
    wanted = renewed_by_hand(net, tensors)
    for name, statistics in session.renewed.items():
        layer = wanted.get_submodule(name)
        np.testing.assert_allclose(statistics.mean, layer.running_mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(statistics.var, layer.running_var, rtol=1e-5)
    assert capture.settled
    assert capture.rounds >= 1


def test_the_floor_is_the_gap_with_them():
    net, tensors = spoilt(), images(batches=5, samples=6)
    _, capture = renewed(net, tensors)
    training = by_hand(net, tensors, training=True)
    apart = by_hand(renewed_by_hand(net, tensors), tensors, training=False) - training
    wanted = float((apart.square().sum() / (training - training.mean(0)).square().sum()).sqrt())
    assert capture.gap_floor == pytest.approx(wanted, rel=1e-4)
    assert capture.gap(Propagation.EVAL) > 2 * capture.gap_floor


def test_the_model_keeps_its_own():
    net = spoilt()
    before = copy.deepcopy(net.state_dict())
    renewed(net, images())
    for name, tensor in net.state_dict().items():
        assert tensor.numpy().tobytes() == before[name].numpy().tobytes()


def test_frozen_layers_are_left_alone():
    session, capture = renewed(spoilt(), images(), frozen=["bn1"])
    assert set(session.renewed) == {"bn2", "bn3"}
    assert [layer.frozen for layer in capture.norms] == [True, False, False]


def test_nothing_is_renewed_unless_it_is_asked_for():
    session = Session(made(), data(images()))
    with session.open():
        capture = session.capture(renew=False)
    assert capture.gap_floor is None
    assert capture.rounds is None
    assert session.renewed == {}


def test_the_step_is_in_standard_errors_of_the_mean():
    _, capture = renewed(made(), images(batches=6))
    sums = capture.norms[0].seen[Propagation.EVAL]
    now = statistics_of(sums)
    assert moved(now, sums) == 0
    inner = sums.sample_squares / (sums.samples - sums.batches)
    error = np.sqrt(inner / sums.samples)
    assert moved(now._replace(mean=now.mean + 3 * error), sums) == pytest.approx(3, rel=1e-9)


def test_every_layer_has_one():
    net = made()
    session, _ = renewed(net, images())
    assert list(session.renewed) == [
        name for name, each in net.named_modules() if isinstance(each, NORMS)
    ]
