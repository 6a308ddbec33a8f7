"""Layers folded into the convolution before them, each really folded, rightly and not."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from bncli.changes.pair import LayerPair
from bncli.changes.states import explain
from bncli.changes.states.folded import find, gone
from bncli.model.changes import Same, State
from tests.changes.networks import before, files, known_eps, ref, side, trained

MODULES = {
    "plain": (lambda: nn.Conv2d(6, 16, 3, bias=False), 0, nn.BatchNorm2d),
    "bias": (lambda: nn.Conv2d(6, 16, 3), 0, nn.BatchNorm2d),
    "grouped": (lambda: nn.Conv2d(8, 16, 3, groups=4), 0, nn.BatchNorm2d),
    "depthwise": (lambda: nn.Conv2d(16, 16, 3, groups=16), 0, nn.BatchNorm2d),
    "one-by-one": (lambda: nn.Conv2d(6, 16, 1), 0, nn.BatchNorm2d),
    "1d": (lambda: nn.Conv1d(6, 16, 3), 0, nn.BatchNorm1d),
    "3d": (lambda: nn.Conv3d(3, 16, 3), 0, nn.BatchNorm3d),
    "transposed": (lambda: nn.ConvTranspose2d(6, 16, 2), 1, nn.BatchNorm2d),
    "transposed-grouped": (lambda: nn.ConvTranspose2d(8, 16, 2, groups=4), 1, nn.BatchNorm2d),
    "linear": (lambda: nn.Linear(6, 16), 0, nn.BatchNorm1d),
}


def made(kind="bias", eps=1e-5, dtype=torch.float32, **changed):
    """A convolution and the layer behind it."""
    torch.manual_seed(5)
    make, _, norm = MODULES[kind]
    layer = trained(norm(16, eps=eps))
    for leaf, value in changed.items():
        with torch.no_grad():
            getattr(layer, leaf).copy_(value)
    return make().eval().to(dtype), layer.to(dtype)


def scale_of(layer, eps=None):
    return layer.weight.double() / torch.sqrt(
        layer.running_var.double() + (layer.eps if eps is None else eps)
    )


def multiplied(conv, scale, bias, axis=0):
    """The convolution with its channels times `scale` and another bias, computed in float64."""
    shape = [1] * conv.weight.ndim
    shape[axis] = -1
    fused = copy.deepcopy(conv)
    weight = conv.weight.double() * scale.reshape(shape)
    fused.weight = nn.Parameter(weight.to(conv.weight.dtype))
    fused.bias = None if bias is None else nn.Parameter(bias.to(conv.weight.dtype))
    return fused


def right_bias(conv, layer, scale):
    return (conv.bias.double() - layer.running_mean.double()) * scale + layer.bias.double()


def fused_by_torch(conv, layer):
    if isinstance(conv, nn.Linear):
        return fuse_linear_bn_eval(conv, layer)
    transposed = isinstance(conv, nn.modules.conv._ConvTransposeNd)
    if not transposed or conv.groups == 1:
        return fuse_conv_bn_eval(conv, layer, transpose=transposed)
    scale = scale_of(layer)  # PyTorch has no fusion for these
    weight = conv.weight.double().reshape(4, 2, 4, 2, 2) * scale.reshape(4, 1, 4, 1, 1)
    fused = multiplied(conv, torch.ones(1), right_bias(conv, layer, scale))
    fused.weight = nn.Parameter(weight.reshape(conv.weight.shape).float())
    return fused


def look(conv, layer, fused, axis=0, eps=None):
    """What is said of a layer that the second file lacks."""
    held = side(layer, conv, axis=axis)
    if eps is not None:
        held = known_eps(held, eps)
    after = before(fused, "bn_conv", "b", axis)
    return gone(held, after, files([held.refs]))


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_fold_by_torch_is_right(kind, dtype):
    conv, layer = made(kind, dtype=dtype)
    fused = fused_by_torch(conv, layer).to(dtype)
    found = look(conv, layer, fused, MODULES[kind][1])
    assert found.state is State.FOLDED
    assert found.numbers["fault"] is None, found
    assert found.numbers["in"] == "second"
    assert 1e-5 in found.numbers["eps_fits"]


@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
def test_a_fold_in_float32_that_was_rounded_is_right(kept):
    conv, layer = made()
    found = look(conv, layer, fused_by_torch(conv, layer).to(kept))
    assert found.numbers["fault"] is None
    assert found.numbers["dtype"] == str(kept).removeprefix("torch.")


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 1e-6, 2e-5, 1e-4, 1e-2])
def test_the_eps_is_told(eps):
    conv, layer = made(eps=eps)
    found = look(conv, layer, fused_by_torch(conv, layer))
    assert found.numbers["eps"] == eps
    assert found.what == f"folded into bn_conv, eps {eps:g}"
    assert found.numbers["residual"] < 3e-7


def test_an_unusual_eps_is_fitted():
    conv, layer = made(eps=3.7e-4)
    found = look(conv, layer, fused_by_torch(conv, layer))
    assert found.numbers["eps"] == pytest.approx(3.7e-4, rel=1e-2)
    assert found.what.endswith("(fitted)")


def test_large_variances_do_not_tell_eps():
    conv, layer = made(running_var=torch.linspace(900, 4000, 16))
    found = look(conv, layer, fused_by_torch(conv, layer))
    assert found.numbers["eps"] is None
    assert {1e-5, 1e-6} <= set(found.numbers["eps_fits"])
    assert found.what == "folded into bn_conv"
    assert "fit equally" in found.detail


def test_the_layers_own_eps_is_taken():
    conv, layer = made(running_var=torch.linspace(900, 4000, 16), eps=1e-6)
    found = look(conv, layer, fused_by_torch(conv, layer), eps=1e-6)
    assert found.numbers["eps"] == 1e-6


def test_another_eps_than_the_layers_is_a_fault():
    conv, layer = made(eps=1e-3)
    found = look(conv, layer, fused_by_torch(conv, layer), eps=1e-5)
    assert found.numbers["fault"] == "eps"
    assert "with eps 0.001" in found.what


def mistakes():
    conv, layer = made()
    b, s = conv.bias.double(), scale_of(layer)
    mean, beta = layer.running_mean.double(), layer.bias.double()
    std = torch.sqrt(layer.running_var.double() + 1e-5)
    right = (b - mean) * s + beta
    none = scale_of(layer, 0.0)
    bare = 1 / std
    return {
        "bias-not-scaled": (s, b + beta - mean * s),
        "mean": (s, b * s + beta),
        "layer-bias": (s, (b - mean) * s),
        "convolution-bias": (s, beta - mean * s),
        "bias": (s, b),
        "mean-sign": (s, (b + mean) * s + beta),
        "bias-weight": (s, (b - mean) * bare + beta),
        "no-bias": (s, None),
        "other-bias": (s, right + 0.1),
        "eps-left-out": (none, (b - mean) * none + beta),
        "weight": (bare, (b - mean) * bare + beta),
        "root": (s / std, (b - mean) * s / std + beta),
        "multiplied": (s * std * std, (b - mean) * s * std * std + beta),
    }


@pytest.mark.parametrize("fault", mistakes())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_wrong_fold_is_named(fault, dtype):
    conv, layer = made()
    if fault == "eps-left-out" and dtype == torch.float16:
        return  # the rounding hides an eps of 1e-05
    fused = multiplied(conv, *mistakes()[fault]).to(dtype)
    found = look(conv, layer, fused)
    assert found.numbers["fault"] == fault, found
    assert found.numbers["faults"] == [fault]
    assert ", but " in found.what


def test_an_eps_outside_the_root_is_named():
    conv, layer = made(eps=1e-3)
    scale = layer.weight.double() / (torch.sqrt(layer.running_var.double()) + 1e-3)
    found = look(conv, layer, multiplied(conv, scale, right_bias(conv, layer, scale)))
    assert (found.numbers["fault"], found.numbers["eps"]) == ("eps-outside-root", 1e-3)


def test_two_mistakes_are_both_said():
    conv, layer = made()
    bare = 1 / torch.sqrt(layer.running_var.double() + 1e-5)
    found = look(conv, layer, multiplied(conv, bare, conv.bias.double() * bare))
    assert found.numbers["faults"] == ["weight", "other-bias"]


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_the_wrong_axis_is_named(kind):
    conv, layer = nn.Conv2d(16, 16, 3).eval(), trained(nn.BatchNorm2d(16))
    if kind == "linear":
        conv = nn.Linear(16, 16)
    scale = scale_of(layer)
    fused = multiplied(conv, scale, right_bias(conv, layer, scale), axis=1)
    found = look(conv, layer, fused)
    assert found.numbers["fault"] == "axis"
    assert "along axis 1" in found.what


def test_a_square_transposed_convolution_is_not_blamed():
    conv, layer = nn.ConvTranspose2d(16, 16, 2).eval(), trained(nn.BatchNorm2d(16))
    found = look(conv, layer, fuse_conv_bn_eval(conv, layer, transpose=True))
    assert found.numbers["fault"] is None


def test_the_first_file_may_be_the_folded_one():
    conv, layer = made()
    held = side(layer, conv, path="b")
    after = before(fused_by_torch(conv, layer), "conv", "a")
    found = gone(held, after, files([], [held.refs]))
    assert (found.numbers["in"], found.numbers["fault"]) == ("first", None)
    assert "the weight before the layer is that of the second file times" in found.detail


def test_a_bias_that_no_tensor_holds_is_said_not_to_be_compared():
    conv, layer = made("plain")
    held = side(layer, conv)
    fused = before(fused_by_torch(conv, layer))
    of = files([held.refs])
    right, after = fused.bias, replace(fused, bias=None)
    found = gone(held, after, of, [ref(conv.weight[:, 0, 0, 0], "other"), right])
    assert (found.numbers["bias_known"], found.numbers["fault"]) == (True, None)
    found = gone(held, after, of, [ref(conv.weight[:, 0, 0, 0], "other")])
    assert (found.numbers["bias_known"], found.numbers["fault"]) == (False, None)
    assert found.what == "folded into conv, eps 1e-05; its bias was not found"


@pytest.mark.parametrize("var", [1.0, 1 - 1e-5])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_layer_that_is_left_without_effect_is_folded_and_not_reset(var, swapped):
    conv, layer = made()
    left = nn.BatchNorm2d(16)
    left.running_var.fill_(var)
    left.num_batches_tracked.fill_(100)
    a, b = side(layer, conv), side(left, fused_by_torch(conv, layer), path="b")
    both = (b, a) if swapped else (a, b)
    found = explain(LayerPair(*both, Same.MOVED), files())
    assert found.state is State.FOLDED
    assert found.numbers["in"] == ("first" if swapped else "second")
    assert found.numbers["fault"] is None


def test_the_bias_may_be_left_in_the_layer():
    conv, layer = made("plain")
    fused = fused_by_torch(conv, layer)
    left = nn.BatchNorm2d(16)
    with torch.no_grad():
        left.bias.copy_(fused.bias)
    fused.bias = None
    found = find(LayerPair(side(layer, conv), side(left, fused, path="b"), Same.MOVED), files())
    assert found.numbers["fault"] is None


def test_a_layer_that_is_reset_is_not_folded():
    conv, layer = made()
    fresh = nn.BatchNorm2d(16)
    for same in (Same.SAME, Same.MOVED, None):
        pair = LayerPair(side(layer, conv), side(fresh, conv, path="b"), same)
        assert find(pair, files()) is None
        assert explain(pair, files()).state is State.RESET


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_scale_that_is_the_same_everywhere_is_shown_by_the_bias(scale):
    conv, layer = made(running_var=torch.full((16,), 0.25), weight=torch.full((16,), scale / 2))
    right = multiplied(conv, scale_of(layer), right_bias(conv, layer, scale_of(layer)))
    found = look(conv, layer, right.bfloat16())
    assert (found.state, found.numbers["fault"]) == (State.FOLDED, None)
    assert look(conv, layer, multiplied(conv, scale_of(layer), conv.bias).bfloat16()) is None
    assert look(conv, layer, multiplied(conv, scale_of(layer), None)) is None


def test_a_layer_without_trace_is_not_folded():
    conv, layer = made()
    assert look(conv, layer, conv) is None
    moved = copy.deepcopy(conv)
    with torch.no_grad():
        moved.weight += 0.01 * torch.randn(moved.weight.shape)
    assert look(conv, layer, moved) is None
    held = side(layer, conv)
    assert gone(held, None, files([held.refs])) is None
    assert gone(side(layer), before(conv), files()) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_decayed_weight_is_not_folded(dtype):
    conv, layer = made(dtype=dtype)
    for factor in (1 - 5e-4, 0.5, 1 / (1 + 1e-3) ** 0.5, 1 / (1 + 1e-5) ** 0.5):
        for norm in (layer, nn.BatchNorm2d(16).to(dtype)):
            fused = multiplied(conv, torch.full((16,), factor, dtype=torch.float64), conv.bias)
            assert look(conv, norm, fused) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("steps", [1, 20])
def test_a_trained_network_is_not_folded(dtype, steps):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(1))
    first = copy.deepcopy(net)
    optimiser = torch.optim.SGD(net.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        net(torch.randn(4, 3, 6, 6)).square().mean().backward()
        optimiser.step()
    a, b = (
        side(one[1].to(dtype), one[0].to(dtype), path=path)
        for one, path in ((first, "a"), (net, "b"))
    )
    for pair in (LayerPair(a, b, Same.MOVED), LayerPair(b, a, Same.MOVED)):
        assert find(pair, files()) is None
    assert gone(b, a.before, files([], [b.refs])) is None


def test_dead_channels_do_not_hide_a_fold():
    conv, layer = made()
    with torch.no_grad():
        conv.weight[3] = 0
        conv.weight[4, 2] = 0
        layer.weight[5] = 0
        layer.running_var[6] = 0
    found = look(conv, layer, fused_by_torch(conv, layer))
    assert (found.numbers["fault"], found.numbers["eps"]) == (None, 1e-5)
    found = look(conv, layer, multiplied(conv, scale_of(layer), conv.bias))
    assert found.numbers["fault"] == "bias"


@pytest.mark.parametrize("channels", [1, 2])
def test_a_channel_or_two(channels):
    torch.manual_seed(1)
    conv, layer = nn.Conv2d(6, channels, 3).eval(), trained(nn.BatchNorm2d(channels), seed=4)
    fused = fuse_conv_bn_eval(conv, layer)
    assert look(conv, layer, fused).numbers["fault"] is None
    assert look(conv, layer, nn.Conv2d(6, channels, 3)) is None
    with torch.no_grad():
        conv.weight.zero_()
    assert look(conv, layer, conv) is None


def test_values_that_are_not_finite_show_nothing():
    conv, layer = made()
    fused = fused_by_torch(conv, layer)
    with torch.no_grad():
        fused.weight[2, 0, 0, 0] = float("nan")
    assert look(conv, layer, fused) is None
    conv, layer = made(running_var=torch.full((16,), float("nan")))
    assert look(conv, layer, fused) is None


def test_a_layer_without_weight_and_bias_folds():
    conv, layer = nn.Conv2d(6, 16, 3).eval(), trained(nn.BatchNorm2d(16, affine=False))
    scale = 1 / torch.sqrt(layer.running_var.double() + 1e-5)
    fused = multiplied(conv, scale, (conv.bias.double() - layer.running_mean.double()) * scale)
    found = look(conv, layer, fused)
    assert (found.numbers["fault"], found.numbers["eps"]) == (None, 1e-5)


@pytest.mark.parametrize("kind", ["bias", "linear"])
def test_a_fold_in_another_frameworks_layout_is_right(kind):
    conv, layer = made(kind)
    fused = fused_by_torch(conv, layer)
    fused.weight = nn.Parameter(fused.weight.movedim((0, 1), (-1, -2)).contiguous())
    assert look(conv, layer, fused).numbers["fault"] is None


def test_one_number_shows_nothing():
    conv, layer = nn.Conv2d(1, 1, 1, bias=False).eval(), trained(nn.BatchNorm2d(1))
    assert look(conv, layer, fuse_conv_bn_eval(conv, layer)) is None
