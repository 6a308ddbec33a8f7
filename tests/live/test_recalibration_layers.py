"""Which layers get new statistics, and layers of every kind."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from bncli.errors import UsageError
from bncli.live.recalibration import recalibrated_from
from bncli.live.session import Session
from bncli.model.capture import Propagation
from bncli.model.recalibration import Average
from tests.live.recalibrating import (
    BATCHES,
    TRAINING,
    UNEVEN,
    inputs_of_layers,
    recalibration,
    summed,
    wish,
    written,
)
from tests.live.small import Net, data, images, made


def names_of(done):
    return [layer.name for layer in done.layers]


def population_of(seen):
    count, means, squares = summed(seen)
    return means, np.array(squares) / (count - 1)


# ---------------------------------------------- patterns


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (None, ["bn1", "bn2", "bn3"]),
        (["*"], ["bn1", "bn2", "bn3"]),
        (["bn[13]"], ["bn1", "bn3"]),
        (["bn2", "*1"], ["bn1", "bn2"]),
    ],
)
def test_patterns_choose_layers_in_the_order_of_execution(patterns, chosen):
    for wished in (wish(layers=patterns), wish(layers=patterns, **TRAINING)):
        done = recalibration(made(), BATCHES, wished)
        assert names_of(done) == chosen
        rest = {"bn1", "bn2", "bn3"} - set(chosen)
        assert done.left == dict.fromkeys(rest, "not chosen")


def test_a_pattern_that_fits_nothing_is_refused():
    with pytest.raises(UsageError, match=r"--layer bn9: .* it has bn1, bn2 and bn3\."):
        recalibration(made(), BATCHES, wish(layers=["bn1", "bn9"]))


# ---------------------------------------------- frozen


class Held(Net):
    """A model that keeps its first layer in evaluation mode."""

    def train(self, mode=True):
        super().train(mode)
        self.bn1.eval()
        return self


def by_mode():
    net = Held()
    net.load_state_dict(made().state_dict())
    return net.eval(), ()


def by_gradient():
    net = made()
    net.bn1.requires_grad_(False)
    net.bn1.num_batches_tracked.zero_()
    return net, ()


def by_flag():
    return made(), ("bn1",)


class FrozenBatchNorm2d(nn.Module):
    """torchvision's: all four tensors are buffers, and no mode changes what it does."""

    def __init__(self, num_features):
        super().__init__()
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            self.register_buffer(name, torch.full((num_features,), float(value)))

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def by_class():
    net = made()
    frozen = FrozenBatchNorm2d(8)
    frozen.load_state_dict(net.bn1.state_dict(), strict=False)
    net.bn1 = frozen
    return net, ()


FROZEN = [by_mode, by_gradient, by_flag, by_class]


def spoilt(make):
    net, flags = make()
    net.bn1.running_mean.add_(2)
    net.bn1.running_var.mul_(9)
    return net, flags


@pytest.mark.parametrize("make", FROZEN, ids=lambda make: make.__name__)
@pytest.mark.parametrize("how", [{}, TRAINING], ids=["eval", "training"])
def test_frozen_layers_are_left_alone(make, how):
    net, frozen = spoilt(make)
    done = recalibration(net, BATCHES, wish(**how), frozen=frozen)
    assert names_of(done) == ["bn2", "bn3"]
    assert done.left == {"bn1": "frozen"}
    if not how:  # and the others suit it as it is
        seen = []
        fixed = written(net, done)
        fixed.bn2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        with torch.no_grad():
            for x in BATCHES:
                fixed(x)
        mean, var = population_of(seen)
        np.testing.assert_allclose(done.layers[0].mean, mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(done.layers[0].var, var, rtol=1e-5)


@pytest.mark.parametrize("make", FROZEN, ids=lambda make: make.__name__)
def test_frozen_layers_that_are_named_change_in_evaluation(make):
    net, frozen = spoilt(make)
    done = recalibration(net, BATCHES, wish(layers=["*"]), frozen=frozen)
    plain = recalibration(made(), BATCHES)
    assert names_of(done) == names_of(plain)
    for one, other in zip(done.layers, plain.layers, strict=True):
        np.testing.assert_allclose(one.mean, other.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.var, other.var, rtol=1e-5)


def size(output, _):
    return float(output.square().mean())


@pytest.mark.parametrize("make", FROZEN[:3], ids=lambda make: make.__name__)
@pytest.mark.parametrize("average", Average)
def test_what_layers_behind_a_named_frozen_one_see_is_what_they_would_see(make, average):
    net, frozen = spoilt(make)
    wished = wish(average=average, layers=["*"], momentum=1.0, **TRAINING)
    done = recalibration(net, BATCHES, wished, frozen=frozen)
    plain = recalibration(made(), BATCHES, replace(wished, layers=None))
    for one, other in zip(done.layers, plain.layers, strict=True):
        np.testing.assert_allclose((one.mean - other.mean) / np.sqrt(other.var), 0, atol=1e-13)
        np.testing.assert_allclose(one.var, other.var, rtol=1e-13)
    # They are measured beside the model as it was trained: with that layer as it stood.
    still = recalibration(net, BATCHES, frozen=frozen, metric=size)
    done = recalibration(net, BATCHES, wished, frozen=frozen, metric=size)
    assert done.gap_before == still.gap_before
    assert done.metrics["training"] == still.metrics["training"]


def test_a_class_that_never_normalises_with_the_batch_is_refused_in_training():
    net, _ = spoilt(by_class)
    with pytest.raises(UsageError, match=r"bn1 is frozen, .* bn2 behind it .*--propagate eval"):
        recalibration(net, BATCHES, wish(layers=["*"], **TRAINING))
    done = recalibration(net, BATCHES, wish(layers=["bn1"], **TRAINING))
    mean, var = population_of(inputs_of_layers(made(), BATCHES, training=True)["bn1"])
    np.testing.assert_allclose(done.layers[0].mean, mean, rtol=1e-12)
    np.testing.assert_allclose(done.layers[0].var, var, rtol=1e-12)


def captured(net, frozen=(), **how):
    session = Session(net, data(BATCHES), frozen)
    with session.open():
        return session.capture(renew=False, **how)


def test_a_file_gives_none_for_layers_behind_a_named_frozen_one():
    net, frozen = spoilt(by_flag)
    capture = captured(net, frozen)
    with pytest.raises(UsageError, match="bn1 is frozen"):
        recalibrated_from(capture, wish(layers=["*"]))
    assert names_of(recalibrated_from(capture, wish(layers=["bn1"]))) == ["bn1"]
    assert names_of(recalibrated_from(capture, wish())) == ["bn2", "bn3"]


def test_a_layer_without_momentum_is_given_one():
    net, _ = by_class()
    wished = wish(average=Average.EMA, layers=["bn1"], **TRAINING)
    with pytest.raises(UsageError, match=r"bn1 does not have; .*--momentum"):
        recalibration(net, BATCHES, wished)
    assert names_of(recalibration(net, BATCHES, replace(wished, momentum=0.5))) == ["bn1"]


# ---------------------------------------------- other kinds


def test_instance_norm_is_left_alone_unless_it_is_named():
    net = nn.Sequential(
        nn.InstanceNorm2d(3, track_running_stats=True), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    ).eval()
    done = recalibration(net, BATCHES)
    assert (names_of(done), done.left) == (["2"], {"0": "InstanceNorm"})
    named = recalibration(net, BATCHES, wish(layers=["0"], average=Average.BATCHES, **TRAINING))
    samples = torch.cat(BATCHES).double()
    np.testing.assert_allclose(named.layers[0].mean, samples.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(named.layers[0].var, samples.var((2, 3)).mean(0), rtol=1e-12)
    with pytest.raises(UsageError, match="0 is an InstanceNorm, which takes each sample by itself"):
        recalibration(net, BATCHES, wish(layers=["0"], average=Average.EMA, **TRAINING))


def test_layers_without_running_statistics_are_left_and_said():
    net = made()
    net.bn2 = nn.BatchNorm2d(6, track_running_stats=False)
    for wished in (wish(), wish(layers=["*"]), wish(**TRAINING)):
        done = recalibration(net, BATCHES, wished)
        assert (names_of(done), done.left) == (["bn1", "bn3"], {"bn2": "no running statistics"})
    assert names_of(recalibrated_from(captured(net), wish())) == ["bn1", "bn3"]


def test_layers_that_no_batch_reaches_are_left_and_said():
    net = made()
    net.head = nn.BatchNorm1d(4)
    for wished in (wish(), wish(layers=["*"]), wish(**TRAINING)):
        done = recalibration(net, BATCHES, wished)
        assert (names_of(done), done.left) == (
            ["bn1", "bn2", "bn3"],
            {"head": "no batch reaches it"},
        )
    assert recalibrated_from(captured(net), wish()).left == {"head": "no batch reaches it"}


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.bn, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.bn(self.conv(self.bn(x)))


def test_a_layer_that_is_called_twice_has_the_statistics_of_both_calls():
    net = Twice().eval()
    done = recalibration(net, BATCHES, wish(**TRAINING))
    mean, var = population_of(inputs_of_layers(net, BATCHES, training=True)["bn"])
    (layer,) = done.layers
    np.testing.assert_allclose(layer.mean, mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(layer.var, var, rtol=1e-12)
    assert layer.batches == 2 * len(BATCHES)


def test_a_layer_that_is_called_twice_rests_in_evaluation():
    net = Twice().eval()
    done = recalibration(net, BATCHES)
    assert done.settled
    (layer,) = done.layers
    mean, var = population_of(inputs_of_layers(written(net, done), BATCHES, training=False)["bn"])
    assert (np.abs(layer.mean - mean) < 0.1 * layer.error * np.sqrt(var)).all()
    np.testing.assert_allclose(layer.var, var, rtol=0.03)


@pytest.mark.parametrize("average", [Average.BATCHES, Average.EMA])
def test_a_layer_that_is_called_twice_averages_as_pytorch_does(average):
    net, by_torch = Twice().eval(), Twice()
    if average is Average.BATCHES:
        update_bn(UNEVEN, by_torch)
    else:
        with torch.no_grad():
            for x in UNEVEN:
                by_torch.train()(x)
    (layer,) = recalibration(net, UNEVEN, wish(average=average, **TRAINING)).layers
    np.testing.assert_allclose(layer.mean, by_torch.bn.running_mean, atol=2e-6)
    np.testing.assert_allclose(layer.var, by_torch.bn.running_var, rtol=5e-6)


def test_vectors_batches_of_one_sample_and_a_single_batch():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)).eval()
    x = torch.randn(37, 6)
    seen = net[0](x).detach()
    wanted = population_of([seen])
    for batches in ([x], [*x.split(8)]):
        for how in ({}, TRAINING):
            (layer,) = recalibration(net, batches, wish(**how)).layers
            np.testing.assert_allclose(layer.mean, wanted[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(layer.var, wanted[1], rtol=1e-5)
    # A batch of one vector is refused by training, and left out of all passes.
    (layer,) = recalibration(net, [x[:20], x[20:21], x[21:]]).layers
    assert (layer.samples, layer.batches) == (36, 2)
    mean, _ = population_of([seen[:20], seen[21:]])
    np.testing.assert_allclose(layer.mean, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", [{}, TRAINING], ids=["eval", "training"])
def test_batches_of_one_picture(how):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    singles = [*torch.cat(BATCHES).split(1)]
    (layer,) = recalibration(net, singles, wish(**how)).layers
    mean, var = population_of([net[0](x).detach() for x in singles])
    np.testing.assert_allclose(layer.mean, mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.var, var, rtol=1e-4)
    by_sample = torch.cat([net[0](x).detach().double().mean((2, 3)) for x in singles])
    error = by_sample.var(0).numpy() / len(singles)
    np.testing.assert_allclose(np.square(layer.error) * var, error, rtol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    net, tensors = made().to(dtype), [x.to(dtype) for x in BATCHES]
    done = recalibration(net, tensors, wish(**TRAINING))
    seen = inputs_of_layers(net, tensors, training=True)
    for layer in done.layers:
        mean, var = population_of(seen[layer.name])
        np.testing.assert_allclose(layer.mean, mean, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(layer.var, var, rtol=1e-12)


def test_dropout_stays_off_and_the_model_in_evaluation():
    net = made()
    net.linear = nn.Sequential(nn.Dropout(0.5), net.linear)
    without = recalibration(made(), BATCHES, wish(average=Average.BATCHES, **TRAINING))
    done = recalibration(net, BATCHES, wish(average=Average.BATCHES, **TRAINING))
    for one, other in zip(done.layers, without.layers, strict=True):
        assert one.mean.tobytes() == other.mean.tobytes()


def test_the_layers_of_a_copy_do_not_change():
    net = made()
    before = copy.deepcopy(net.state_dict())
    recalibration(net, images(seed=9))
    assert all(tensor.equal(before[key]) for key, tensor in net.state_dict().items())


def test_a_model_without_layers_has_nothing_to_change():
    for how in ({}, TRAINING):
        done = recalibration(nn.Sequential(nn.Conv2d(3, 2, 3)).eval(), BATCHES, wish(**how))
        assert (done.layers, done.left) == ((), {})
    assert (
        Propagation.RENEWED not in recalibrated_from(captured(made()), wish()).capture.norms[0].seen
    )


def test_samples_of_an_instance_norm_are_not_pooled():
    net = nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True))
    for wished in (wish(layers=["0"]), wish(layers=["0"], **TRAINING)):
        with pytest.raises(UsageError, match="0 is an InstanceNorm, whose variance is that"):
            recalibration(net, BATCHES, wished)
