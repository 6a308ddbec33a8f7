"""Statistics found anew, beside those that plain PyTorch finds layer after layer."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bncli.live import renewal
from bncli.live.batch import Statistics
from bncli.live.capture_run import CaptureRun
from bncli.live.renewal import moved, statistics_of
from bncli.live.session import Session
from bncli.model.capture import Propagation
from bncli.moments.batches import BatchSums
from tests.live.small import (
    NORMS,
    by_hand,
    data,
    filled,
    gap_by_hand,
    images,
    made,
    renewed_by_hand,
)

BATCHES = images()


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


# ---------------------------------------------- models of many layers, and of other kinds


def deep(blocks=20):
    """A net of many layers, in which statistics that do not suit each other go far astray."""
    torch.manual_seed(1)

    class Block(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        *(
            Block(
                nn.Conv2d(8, 8, 3, padding=1, groups=8),
                nn.BatchNorm2d(8),
                nn.ReLU6(),
                nn.Conv2d(8, 8, 1),
                nn.BatchNorm2d(8),
            )
            for _ in range(blocks)
        ),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def assert_suits(session, capture, net, batches):
    """What was found is what each layer sees, by plain torch, within its standard error."""
    wanted = renewed_by_hand(net, batches)
    for layer in capture.norms:
        mean, var = session.renewed[layer.name]
        module = wanted.get_submodule(layer.name)
        scale = np.sqrt(module.running_var.numpy())
        np.testing.assert_allclose(mean, module.running_mean.numpy(), atol=0.02 * scale.max())
        np.testing.assert_allclose(np.sqrt(var), scale, rtol=0.03)


def test_all_data_as_one_batch_give_statistics_that_suit_each_other():
    net = filled(deep(), BATCHES)
    session, capture = renewed(net, BATCHES)
    assert (capture.rounds, capture.settled) == (2, True)
    assert_suits(session, capture, net, BATCHES)
    floor = gap_by_hand(renewed_by_hand(net, BATCHES), BATCHES)
    assert capture.gap_floor == pytest.approx(floor, rel=0.01)


def test_layer_after_layer_gives_the_same(monkeypatch):
    net = filled(deep(5), BATCHES)
    at_once = renewed(net, BATCHES)[1]
    monkeypatch.setattr(renewal, "MOST_TOGETHER", 1)
    session, capture = renewed(net, BATCHES)
    assert capture.settled
    assert 2 < capture.rounds <= len(capture.norms) + 2
    assert_suits(session, capture, net, BATCHES)
    assert capture.gap_floor == pytest.approx(at_once.gap_floor, rel=0.01)


def test_a_model_runs_no_further_than_to_the_layer(monkeypatch):
    calls = []
    net = deep(5)
    net.append(nn.Identity())
    net[-1].register_forward_hook(lambda *_: calls.append(1))
    passes = []
    session = Session(net, data(BATCHES))
    session.advance = passes.append
    monkeypatch.setattr(renewal, "MOST_TOGETHER", 1)
    with session.open():
        rounds = session.capture().rounds
    whole = len(calls) / len(BATCHES)
    # Training and evaluation, and the passes before and after those of single layers, which end
    # before the last module.
    assert whole == 2 + 2
    assert sum(passes) == (1 + rounds) * len(BATCHES)


def test_deep_models_on_much_data_are_not_settled_and_say_so(monkeypatch):
    net = filled(deep(), BATCHES)
    at_once = renewed(net, BATCHES)[1]
    monkeypatch.setattr(renewal, "_room", lambda _, samples: samples // 2)
    capture = renewed(net, BATCHES)[1]
    assert (capture.rounds, capture.settled) == (2, False)
    assert capture.gap_floor == pytest.approx(at_once.gap_floor, rel=0.1)
    monkeypatch.setattr(renewal, "_room", lambda *_: 1)  # no batches fit together
    assert renewed(net, BATCHES)[1].rounds == 1


def test_samples_that_depend_on_each_other_are_found_by_the_next_pass():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn1, self.bn2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.bn2(self.bn1(x) / len(x))  # the size of the batch matters

    net = Mixing()
    session, capture = renewed(net, BATCHES)
    assert capture.settled
    assert capture.rounds > 2
    assert_suits(session, capture, net, BATCHES)


def test_a_model_that_takes_no_other_batches_is_renewed_as_well():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn1, self.bn2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            assert len(x) == 8, "batches of 8"
            return self.bn2(self.bn1(x).relu())

    net = Fixed()
    session, capture = renewed(net, BATCHES)
    assert capture.settled
    assert_suits(session, capture, net, BATCHES)


def test_a_layer_that_is_called_twice_comes_to_rest():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.bn, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.bn(self.conv(self.bn(x)))

    session, capture = renewed(Twice(), BATCHES)
    assert capture.settled
    (layer,) = capture.norms
    assert layer.calls == 2
    assert moved(session.renewed["bn"], layer.seen[Propagation.RENEWED]) <= renewal.SETTLED


def test_all_frozen_leaves_the_gap_as_it_is():
    capture = renewed(made(), BATCHES, frozen=["*"])[1]
    assert capture.gap(Propagation.EVAL) == capture.gap_floor == 0
    assert (capture.rounds, capture.settled) == (1, True)


def test_batches_of_different_sizes_of_images_are_renewed():
    batches = [*images(2, size=8), *images(2, size=12)]
    net = made(tensors=batches)
    session, capture = renewed(net, batches)
    assert capture.settled
    assert set(session.renewed) == {"bn1", "bn2", "bn3"}


def test_one_batch_takes_two_passes():
    capture = renewed(made(), BATCHES[:1])[1]
    assert (capture.rounds, capture.settled) == (2, True)


# ---------------------------------------------- how far statistics moved


def sums(*arrays):
    total = BatchSums(arrays[0].shape[1])
    for array in arrays:
        total.add(array)
    return total.result()


def test_statistics_are_the_mean_and_the_unbiased_variance_of_all_values():
    x = np.random.default_rng(0).normal(3, 2, (4, 10, 2, 5))
    mean, var = statistics_of(sums(*x))
    values = np.moveaxis(x, 2, 0).reshape(2, -1)
    np.testing.assert_allclose(mean, values.mean(1), rtol=1e-12)
    np.testing.assert_allclose(var, values.var(1, ddof=1), rtol=1e-12)
    assert statistics_of(sums(np.ones((1, 2)))).var.tolist() == [0, 0]


def test_a_step_counts_in_standard_errors_of_mean_and_variance():
    x = np.random.default_rng(0).normal(0, 2, (8, 50, 2))
    seen = sums(*x)
    now = statistics_of(seen)
    assert moved(now, seen) == 0
    step = np.array([0.0, 1.0])
    error = np.sqrt(np.square(x - x.mean(1, keepdims=True)).sum((0, 1)) / (8 * 49) / 400)
    assert moved(Statistics(now.mean + step * error, now.var), seen) == pytest.approx(1)
    spread = x.var(1, ddof=1).std(0, ddof=1) / np.sqrt(8)
    assert moved(Statistics(now.mean, now.var + 2 * step * spread), seen) == pytest.approx(2)


def test_channels_that_know_no_error_do_not_move():
    seen = sums(np.array([[1.0, np.nan], [1.0, 2.0]]))
    assert moved(Statistics(np.zeros(2), np.zeros(2)), seen) == 0


def test_progress_counts_the_batches_of_every_pass():
    passes = []
    session = Session(made(), data(BATCHES))
    session.advance = passes.append
    with session.open():
        capture = session.capture()
        session.measure({})
    # Those of the pass in which all batches are one count as well.
    assert sum(passes) == len(BATCHES) * (1 + capture.rounds + 1)


def test_deep_models_settle_in_as_many_passes_as_layers_where_the_whole_is_wanted(monkeypatch):
    monkeypatch.setattr(renewal, "_room", lambda *_: 1)  # no batches fit together
    session = Session(filled(deep(), BATCHES), data(BATCHES))
    with session.open():
        run = CaptureRun(session, per_batch=False)
        run.training()
        cut = renewal.renewal_of(session, run)
        whole = renewal.renewal_of(session, run, whole=True)
        seen = run.results(Propagation.RENEWED)
    assert not cut.settled
    assert whole.settled
    assert whole.rounds <= len(run.order) + 2  # training, one for each layer, and the last look
    for name, statistics in whole.statistics.items():
        assert moved(statistics, seen[name]) <= renewal.SETTLED
