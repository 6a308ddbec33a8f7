"""Forward passes in a propagation: what they give, and that the model is as before afterwards."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import ModelError
from bncli.live.batch import Batch, Statistics
from bncli.live.layers import find_layers
from bncli.live.passes import Runner
from bncli.live.random_streams import seed_all
from bncli.live.session import Session
from bncli.model.capture import Propagation
from tests.live.small import Net, by_hand, data, images, made, snapshot

BATCHES = images()


def runner_of(net, frozen=(), **how):
    """A runner of a model and its layers."""
    return Runner(net, find_layers(net, frozen), **how)


def outputs(net, propagation, frozen=(), statistics=None):
    """The outputs of all batches in a propagation."""
    runner = runner_of(net, frozen)
    with runner.kept():
        return torch.cat([
            runner.forward(batch, propagation, statistics, number)
            for number, batch in enumerate(data(BATCHES))
        ])  # fmt: skip


class Careless(Net):
    """A model that writes into buffers of its own, draws random numbers, and may fail."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("ema", torch.tensor([float("nan"), 0.0, -0.0]), persistent=False)
        self.register_buffer("last", torch.zeros(2))
        self.register_buffer("cache", None)

    def forward(self, x):
        self.calls += 1  # in place
        self.ema.mul_(0.9).add_(x.mean())
        self.last = torch.stack([x.min(), x.max()])  # another tensor
        self.cache = x.mean((0, 2, 3))  # where there was none
        self.register_buffer("late", x.new_ones(1))
        self.bn2.running_mean.add_(1)  # of a layer, by the model itself
        self.train(random.random() < 0.5)
        self.bn2.momentum = 0.1 + 0 * np.random.rand() * float(torch.rand(()))  # noqa: NPY002
        if self.error is not None:
            raise self.error
        return super().forward(x)


# ---------------------------------------------- as before afterwards


@pytest.mark.parametrize("propagation", Propagation)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_model_is_as_before_after_a_pass(propagation, training):
    net = made().train(training)
    net.bn3.training = not training
    net.bn1.running_var[0] = float("nan")
    before = snapshot(net)
    outputs(net, propagation)
    assert snapshot(net) == before


@pytest.mark.parametrize(
    ("error", "raised"),
    [(None, None), (ValueError("no"), ModelError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["returns", "raises", "interrupted"],
)
def test_a_model_that_changes_its_own_buffers_is_as_before(error, raised):
    net = Careless(error)
    before = snapshot(net)
    for propagation in Propagation:
        if raised is None:
            outputs(net, propagation)
        else:
            with pytest.raises(raised):
                outputs(net, propagation)
        assert snapshot(net) == before
    assert "cache" not in net.state_dict()


def test_an_error_in_the_middle_of_a_pass_leaves_nothing():
    net = made().train()
    runner, before = runner_of(net), snapshot(net)
    batch = Batch((BATCHES[0][:, :2],), {}, None, 8, "2")
    with pytest.raises(ModelError, match="the model on 2 raised"), runner.kept():
        _ = [runner.forward(each, Propagation.TRAINING) for each in (*data(BATCHES), batch)]
    assert snapshot(net) == before


def test_random_numbers_go_on_as_without():
    runner = runner_of(made())
    seed_all(5)
    wanted = random.random(), np.random.rand(), torch.rand(3).tolist()  # noqa: NPY002
    seed_all(5)
    with runner.kept():
        first = random.random(), np.random.rand(), torch.rand(3).tolist()  # noqa: NPY002
    assert (random.random(), np.random.rand(), torch.rand(3).tolist()) == wanted  # noqa: NPY002
    with runner.kept():
        again = random.random(), np.random.rand(), torch.rand(3).tolist()  # noqa: NPY002
    assert first == again  # the seed's
    assert first != wanted


def test_the_layers_hold_copies_while_the_model_runs():
    net = made()
    own = net.bn1.running_mean
    seen = []
    net.bn1.register_forward_pre_hook(lambda module, _: seen.append(module.running_mean))
    runner = runner_of(net)
    with runner.kept():
        runner.forward(data(BATCHES)[0], Propagation.TRAINING)
        assert net.bn1.running_mean is own
    assert seen[0] is not own
    assert not seen[0].equal(own)  # the pass moved it


# ---------------------------------------------- propagations


@pytest.mark.parametrize("flags", [{}, {"affine": False}, {"momentum": None}], ids=str)
def test_the_propagations_are_those_of_plain_torch(flags):
    net = Net(**flags)
    net.train()(BATCHES[0])
    for came in (net.train(), net.eval()):
        training = by_hand(net, BATCHES, training=True)
        assert outputs(came, Propagation.TRAINING).double().equal(training)
        evaluation = by_hand(net, BATCHES, training=False)
        assert outputs(came, Propagation.EVAL).double().equal(evaluation)
        assert not training.allclose(evaluation, rtol=0.01)


def test_a_layer_without_buffers_normalises_with_the_batch_in_both():
    net = Net(track_running_stats=False)
    assert outputs(net, Propagation.EVAL).equal(outputs(net, Propagation.TRAINING))


def test_frozen_layers_stay_in_evaluation():
    net = made()
    frozen = copy.deepcopy(net).eval()
    frozen.bn1.train()
    with torch.no_grad():
        wanted = torch.cat([frozen(x) for x in BATCHES])
    assert outputs(net, Propagation.TRAINING, ["bn2", "bn3"]).equal(wanted)
    assert outputs(net, Propagation.TRAINING, ["*"]).equal(outputs(net, Propagation.EVAL))


def test_a_layer_left_in_training_is_so_in_evaluation():
    net = made()
    net.bn1.train()
    left = copy.deepcopy(net)
    with torch.no_grad():
        wanted = torch.cat([left(x) for x in BATCHES])
    assert outputs(net, Propagation.EVAL).equal(wanted)
    assert not wanted.allclose(by_hand(net, BATCHES, training=False).float(), rtol=0.01)


def test_dropout_is_on_only_as_trained_and_alike_each_time():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.BatchNorm1d(192), nn.Linear(192, 3))
    results = {each: outputs(model, each) for each in Propagation}
    assert results[Propagation.TRAINING].double().equal(
        torch.cat([model[3](torch.nn.functional.batch_norm(
            x.flatten(1), None, None, model[2].weight, model[2].bias, training=True
        )) for x in BATCHES]).double()
    )  # fmt: skip
    assert not results[Propagation.AS_TRAINED].allclose(results[Propagation.TRAINING], rtol=0.01)
    assert outputs(model, Propagation.AS_TRAINED).equal(results[Propagation.AS_TRAINED])
    other = runner_of(model, seed=1)
    with other.kept():
        got = other.forward(data(BATCHES)[0], Propagation.AS_TRAINED)
    assert not got.equal(results[Propagation.AS_TRAINED][:8])


def test_statistics_take_the_place_of_the_stored_ones():
    net = made()
    mean, var = np.linspace(-1, 1, 6), np.linspace(0.5, 2, 6)
    given = {"bn2": Statistics(mean, var)}
    changed = copy.deepcopy(net)
    changed.bn2.running_mean.copy_(torch.from_numpy(mean))
    changed.bn2.running_var.copy_(torch.from_numpy(var))
    wanted = by_hand(changed, BATCHES, training=False)
    before = snapshot(net)
    assert outputs(net, Propagation.EVAL, statistics=given).double().equal(wanted)
    assert snapshot(net) == before


def test_statistics_have_the_layers_dtype():
    net = nn.Sequential(nn.BatchNorm2d(3)).double()
    statistics = {"0": Statistics(np.full(3, 1 / 3), np.full(3, 2 / 3))}
    runner = runner_of(net)
    with runner.kept():
        got = runner.forward(data([BATCHES[0].double()])[0], Propagation.EVAL, statistics)
    wanted = (BATCHES[0].double() - 1 / 3) / (2 / 3 + 1e-5) ** 0.5
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-13, atol=1e-13)
    assert not got.requires_grad


def test_keywords_and_nested_arguments_reach_the_model():
    class Takes(nn.Module):
        def forward(self, pair, *, extra, flag):
            assert flag is True
            return pair[0] + pair[1]["x"] + extra

    x = BATCHES[0]
    batch = Batch(((x, {"x": x}),), {"extra": x, "flag": True}, None, 8, "1")
    runner = runner_of(Takes())
    with runner.kept():
        assert runner.forward(batch, Propagation.EVAL).equal(x + x + x)


# ---------------------------------------------- models that do what they like


class Busy(nn.Module):
    """A forward pass that draws numbers and writes into its own buffers."""

    def __init__(self, error=None, at=0):
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("passes", torch.zeros(2))
        self.register_buffer("unsaved", torch.full((3,), torch.nan), persistent=False)
        self.register_buffer("replaced", torch.ones(1))
        self.register_buffer("number", torch.tensor(5))
        self.bn.running_mean[1] = torch.nan
        self.error, self.at, self.count = error, at, 0
        self.seen = []

    def forward(self, x):
        self.seen.append((float(self.passes[0]), int(self.number)))
        self.passes += 1
        self.number += 1
        self.unsaved[0] = 3
        self.replaced = torch.zeros(1)
        random.random()
        np.random.random()  # noqa: NPY002
        x = self.dropout(self.bn(x + torch.rand(1)))
        self.count += 1
        if self.error is not None and self.count > self.at:
            raise self.error
        return x


def test_everything_is_as_before_whatever_the_model_does():
    model = Busy()
    model.dropout.eval()
    before = snapshot(model)
    session = Session(model, data(BATCHES))
    with session.open():
        session.capture()
    assert snapshot(model) == before
    # And every pass began alike.
    assert set(model.seen) == {(0.0, 5)}


@pytest.mark.parametrize("at", [0, 5, 14])
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_everything_is_as_before_after_an_error_in_the_middle(error, at):
    model = Busy(error, at).eval()
    before = snapshot(model)
    session = Session(model, data(BATCHES))
    raised = type(error) if isinstance(error, KeyboardInterrupt) else ModelError
    with pytest.raises(raised), session.open():
        session.capture()
    assert snapshot(model) == before


def test_an_error_of_the_data_leaves_everything_too():
    def broken():
        yield from data(BATCHES[:1])
        raise RuntimeError("no more")

    class Data:
        def __iter__(self):
            return broken()

    model = made()
    before = snapshot(model)
    session = Session(model, Data())
    with pytest.raises(RuntimeError, match="no more"), session.open():
        session.capture()
    assert snapshot(model) == before


def test_a_layer_without_statistics_takes_given_ones_in_evaluation():
    norm = nn.BatchNorm2d(3, track_running_stats=False).eval()
    given = Statistics(np.array([1.0, 2, 3]), np.ones(3))
    running = runner_of(norm)
    with running.kept():
        found = running.forward(data(BATCHES)[0], Propagation.EVAL, {"": given})
    with torch.no_grad():
        wanted = nn.functional.batch_norm(
            BATCHES[0], torch.tensor([1.0, 2, 3]), torch.ones(3), norm.weight, norm.bias
        )
    assert torch.equal(found, wanted)
    assert norm.running_mean is None


def test_tensors_that_count_no_versions_are_put_back_too():
    with torch.inference_mode():
        buffer = torch.zeros(2)

    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm2d(3)
            self.register_buffer("buffer", buffer)

        def forward(self, x):
            self.buffer = self.buffer + 1
            return self.bn(x) + self.buffer[0]

    model = Writing()
    running = runner_of(model)
    with running.kept():
        one = running.forward(data(BATCHES)[0], Propagation.EVAL)
        two = running.forward(data(BATCHES)[0], Propagation.EVAL)
    assert torch.equal(one, two)
    assert model.buffer is buffer
