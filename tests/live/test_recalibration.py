"""New running statistics beside those of plain PyTorch, `math.fsum` and fractions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from bncli.errors import UsageError
from bncli.model.recalibration import Average
from tests.live.recalibrating import (
    BATCHES,
    TRAINING,
    UNEVEN,
    WRONG,
    exact,
    inputs_of_layers,
    norms,
    not_finite,
    of_other_weights,
    one_spoilt,
    recalibration,
    reset,
    scaled,
    summed,
    wish,
    written,
    wrong,
)
from tests.live.small import gap_by_hand, images, made


@pytest.mark.parametrize("how", WRONG, ids=lambda how: how.__name__)
@pytest.mark.parametrize("framework", ["pytorch", "keras3"])
def test_in_training_they_are_the_mean_and_variance_of_all_values(how, framework):
    net = wrong(how, UNEVEN)
    done = recalibration(net, UNEVEN, wish(framework, **TRAINING), check=False)
    seen = inputs_of_layers(net, UNEVEN, training=True)
    assert [layer.name for layer in done.layers] == ["bn1", "bn2", "bn3"]
    assert (done.rounds, done.settled, done.left) == (1, True, {})
    for layer in done.layers:
        count, means, squares = summed(seen[layer.name])
        var = np.array(squares) / (count - 1 if framework == "pytorch" else count)
        std = np.sqrt(var)
        np.testing.assert_allclose(layer.mean / std, np.array(means) / std, rtol=0, atol=1e-12)
        np.testing.assert_allclose(layer.var, var, rtol=2e-12)
        samples = sum(len(x) for x in seen[layer.name])
        assert (layer.values, layer.samples, layer.batches) == (count, samples, len(UNEVEN))


@pytest.mark.parametrize(
    ("framework", "less"),
    [("flax", 0), ("caffe", 1), ("keras2", 1.001), ("darknet", 1), ("detectron2", 0)],
)
def test_the_divisor_is_the_frameworks(framework, less):
    tensors = [x.double() + 1e6 for x in images(3, samples=3, size=4)]  # a mean of 1e6 stds
    net = nn.Sequential(nn.BatchNorm2d(3)).double().eval()
    done = recalibration(net, tensors, wish(framework, **TRAINING), check=False)
    count, means, squares = exact(tensors)
    (layer,) = done.layers
    std = np.sqrt(np.array(squares) / count)
    np.testing.assert_allclose((layer.mean - means) / std, 0, atol=1e-9)  # a float64 of 1e6 ends
    np.testing.assert_allclose(layer.var, np.array(squares) / (count - less), rtol=1e-12)


def test_batches_that_differ_have_a_variance_between_them():
    tensors = [x + 3 * number for number, x in enumerate(BATCHES)]
    (layer,) = recalibration(nn.Sequential(nn.BatchNorm2d(3)).eval(), tensors).layers
    count, _, squares = exact(tensors)
    np.testing.assert_allclose(layer.var, np.array(squares) / (count - 1), rtol=1e-12)
    assert (layer.var > 9).all()
    within = [x.double().var((0, 2, 3)) for x in tensors]
    assert (torch.stack(within).mean(0) < 1).all()


# ---------------------------------------------- in evaluation, all layers suit each other


def of_samples(seen):
    """The error of the mean of a layer's inputs, by how its samples scatter within the batches."""
    samples = [x.double().flatten(2).mean(2) if x.ndim > 2 else x.double() for x in seen]
    inner = sum(len(x) - 1 for x in samples)
    squares = torch.stack([(x - x.mean(0)).square().sum(0) for x in samples]).sum(0)
    return (squares / inner / sum(map(len, samples))).sqrt().numpy()


@pytest.mark.parametrize("how", WRONG, ids=lambda how: how.__name__)
def test_in_evaluation_each_layer_sees_what_it_stores(how):
    net = wrong(how, UNEVEN)
    done = recalibration(net, UNEVEN)
    assert done.settled
    fixed = written(net, done)
    seen = inputs_of_layers(fixed, UNEVEN, training=False)
    for layer in done.layers:
        count, means, squares = summed(seen[layer.name])
        var = np.array(squares) / (count - 1)
        error = of_samples(seen[layer.name])
        assert (np.abs(layer.mean - means) <= 0.1 * error + 1e-6).all()
        np.testing.assert_allclose(np.sqrt(layer.var), np.sqrt(var), rtol=0.01)
        np.testing.assert_allclose(layer.error, error / np.sqrt(var * (1 - 1 / count)), rtol=1e-3)
        if layer.name == "bn1":  # which no statistics stand before
            np.testing.assert_allclose(layer.mean, means, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(layer.var, var, rtol=1e-12)
    assert done.gap_after == pytest.approx(gap_by_hand(fixed, UNEVEN), rel=1e-4)
    assert done.gap_after == pytest.approx(done.gap_floor, rel=1e-6)


def test_the_biased_variance_suits_itself_too():
    net = wrong(reset)
    done = recalibration(net, BATCHES, wish("flax"))
    seen = inputs_of_layers(written(net, done), BATCHES, training=False)
    for layer in done.layers:
        count, _, squares = summed(seen[layer.name])
        np.testing.assert_allclose(layer.var, np.array(squares) / count, rtol=1e-4)


def test_layers_that_are_not_chosen_keep_what_the_others_see():
    net = wrong(scaled)
    done = recalibration(net, BATCHES, wish(layers=["bn2", "*3"]))
    assert [layer.name for layer in done.layers] == ["bn2", "bn3"]
    assert done.left == {"bn1": "not chosen"}
    seen = inputs_of_layers(written(net, done), BATCHES, training=False)
    for layer in done.layers:
        _, means, _ = summed(seen[layer.name])
        np.testing.assert_allclose(layer.mean, means, rtol=1e-4, atol=1e-5)
    assert done.gap_after < done.gap_before


def test_without_a_check_the_numbers_are_the_same():
    net = wrong(one_spoilt)
    for wished in (wish(), wish(**TRAINING), wish(average=Average.BATCHES, **TRAINING)):
        checked = recalibration(net, BATCHES, wished)
        bare = recalibration(net, BATCHES, wished, check=False)
        assert (checked.checked, bare.checked) == (True, False)
        assert (bare.gap_before, bare.gap_after, bare.gap_floor, bare.metrics) == (
            *[None] * 3,
            {},
        )
        for one, other in zip(checked.layers, bare.layers, strict=True):
            np.testing.assert_allclose((one.mean - other.mean) / np.sqrt(other.var), 0, atol=1e-13)
            np.testing.assert_allclose(one.var, other.var, rtol=1e-13)


# ---------------------------------------------- as update_bn


@pytest.mark.parametrize("tensors", [BATCHES, UNEVEN], ids=["alike", "uneven"])
def test_the_average_of_batches_is_that_of_update_bn(tensors):
    net = wrong(of_other_weights, tensors)
    by_torch = copy.deepcopy(net)
    update_bn(tensors, by_torch)
    wished = wish(average=Average.BATCHES, **TRAINING)
    done = recalibration(net, tensors, wished, check=False)
    for layer in done.layers:
        wanted = by_torch.get_submodule(layer.name)
        std = wanted.running_var.sqrt().numpy()
        np.testing.assert_allclose(layer.mean / std, wanted.running_mean.numpy() / std, atol=1e-6)
        np.testing.assert_allclose(layer.var, wanted.running_var, rtol=2e-6)


def test_the_average_of_batches_has_the_frameworks_variance():
    (layer,) = recalibration(
        nn.Sequential(nn.BatchNorm2d(3)).eval(),
        UNEVEN,
        wish("flax", average=Average.BATCHES, **TRAINING),
    ).layers
    wanted = torch.stack([x.double().var((0, 2, 3), correction=0) for x in UNEVEN]).mean(0)
    np.testing.assert_allclose(layer.var, wanted, rtol=1e-12)


# ---------------------------------------------- as training goes on


def gone_on(net, tensors, momentum):
    """A copy of the net after forward passes in training mode."""
    net = copy.deepcopy(net).train()
    for each in norms(net).values():
        each.momentum = momentum
    with torch.no_grad():
        for x in tensors:
            net(x)
    return net


@pytest.mark.parametrize("momentum", [0.1, 0.99, 1.0, None])
def test_ema_is_what_a_loop_in_training_mode_leaves(momentum):
    net = made(tensors=BATCHES, momentum=momentum)  # its counter is at 4
    wanted = gone_on(net, UNEVEN, momentum)
    done = recalibration(net, UNEVEN, wish(average=Average.EMA, **TRAINING))
    for layer in done.layers:
        each = wanted.get_submodule(layer.name)
        np.testing.assert_allclose(layer.mean, each.running_mean, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(layer.var, each.running_var, rtol=2e-5)


@pytest.mark.parametrize(("framework", "momentum"), [("pytorch", 0.3), ("tf-fused", 0.7)])
def test_a_momentum_is_the_weight_that_the_framework_means(framework, momentum):
    net = made(tensors=BATCHES)
    wished = wish(framework, average=Average.EMA, momentum=momentum, **TRAINING)
    wanted = gone_on(net, UNEVEN, 0.3)
    for layer in recalibration(net, UNEVEN, wished).layers:
        each = wanted.get_submodule(layer.name)
        np.testing.assert_allclose(layer.mean, each.running_mean, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(layer.var, each.running_var, rtol=2e-5)


def test_the_last_batch_alone_counts_where_its_weight_is_1():
    net = wrong(not_finite)
    assert gone_on(net, BATCHES, 1.0).bn3.running_var.isnan().all()  # 0 * NaN, by PyTorch
    done = recalibration(net, BATCHES, wish(average=Average.EMA, momentum=1.0, **TRAINING))
    wanted = gone_on(made(tensors=BATCHES), BATCHES, 1.0)
    for layer in done.layers:
        each = wanted.get_submodule(layer.name)
        np.testing.assert_allclose(layer.mean, each.running_mean, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(layer.var, each.running_var, rtol=2e-5)


def test_an_average_cannot_go_on_from_nan():
    with pytest.raises(UsageError, match=r"running statistics of bn1 are not finite \(channel 0\)"):
        recalibration(wrong(not_finite), BATCHES, wish(average=Average.EMA, **TRAINING))


@pytest.mark.parametrize(("momentum", "times"), [(1.0, 4.0), (0.5, None)])
def test_the_error_of_a_running_average_is_that_of_the_batches_that_weigh(momentum, times):
    """Sixteen batches of one size: the last alone has four times the error of all."""
    tensors = images(16, 4)
    whole = recalibration(made(), tensors, wish(**TRAINING))
    last = recalibration(made(), tensors, wish(average=Average.EMA, momentum=momentum, **TRAINING))
    weights = momentum * (1 - momentum) ** np.arange(16)
    wanted = np.sqrt((weights**2).sum() * 16) if times is None else times
    for one, all_ in zip(last.layers, whole.layers, strict=True):
        np.testing.assert_allclose(one.error, wanted * all_.error, rtol=1e-9)
