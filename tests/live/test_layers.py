"""Which modules are BatchNorm layers, which of them stay as they are, and what state they have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import ModelError, UsageError
from bncli.live.layers import (
    active_dropout,
    find_layers,
    in_training_now,
    model_to_run,
    still_training,
)
from tests.live.small import Net, made


class WithActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def forward(self, x):
        return super().forward(x).relu()


class FrozenBatchNorm2d(nn.Module):
    """As detectron2's and torchvision's: all of it buffers."""

    def __init__(self, n=4):
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            self.register_buffer(name, torch.full((n,), value))
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))


class KeptInEval(Net):
    """A model that keeps one layer in evaluation mode while it trains."""

    def train(self, mode=True):  # PyTorch's signature
        super().train(mode)
        self.bn2.eval()
        return self


class Stubborn(nn.BatchNorm2d):
    """A layer that does not follow eval()."""

    def train(self, mode=True):  # PyTorch's signature
        return super().train(mode=True)


def only(module, **how):
    """The layers found in a model that holds one module."""
    return find_layers(nn.Sequential(nn.Conv2d(4, 4, 1), module), **how)


def names(layers, flag):
    """The names of the layers that have a flag."""
    return [layer.name for layer in layers if getattr(layer, flag)]


KINDS = {
    "1d": (nn.BatchNorm1d(4), set()),
    "2d": (nn.BatchNorm2d(4), set()),
    "3d": (nn.BatchNorm3d(4), set()),
    "sync": (nn.SyncBatchNorm(4), set()),
    "subclass": (WithActivation(4), set()),
    "not affine": (nn.BatchNorm2d(4, affine=False), set()),
    "cumulative": (nn.BatchNorm2d(4, momentum=None), set()),
    "no buffers": (nn.BatchNorm2d(4, track_running_stats=False), set()),
    "instance norm": (nn.InstanceNorm2d(4, track_running_stats=True), {"per_sample"}),
    "by its buffers": (FrozenBatchNorm2d(), {"frozen"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_a_layer(kind):
    module, flags = KINDS[kind]
    (layer,) = only(module)
    assert (layer.name, layer.module) == ("1", module)
    assert {flag for flag in ("frozen", "per_sample", "in_training") if getattr(layer, flag)} == (
        flags
    )


@pytest.mark.parametrize(
    "module",
    [nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.Dropout()],
    ids=lambda module: type(module).__name__,
)
def test_what_is_no_layer(module):
    assert only(module) == []


def test_a_layer_under_two_names_is_one():
    shared = nn.BatchNorm2d(4)
    (layer,) = find_layers(nn.Sequential(shared, nn.ReLU(), shared))
    assert layer.name == "0"


def test_the_layers_are_in_the_order_of_the_modules_and_modes_stay():
    model = nn.Sequential(Net(), Net()).train()
    model[0].bn1.eval()
    before = [module.training for module in model.modules()]
    layers = find_layers(model)
    assert [layer.name for layer in layers] == [f"{i}.bn{j}" for i in (0, 1) for j in (1, 2, 3)]
    assert [module.training for module in model.modules()] == before


# ---------------------------------------------- frozen layers


def test_a_layer_without_gradient_is_frozen_where_others_take_one():
    net = Net()
    net.bn2.requires_grad_(requires_grad=False)
    assert names(find_layers(net), "frozen") == ["bn2"]
    net.bn2.bias.requires_grad_()
    assert names(find_layers(net), "frozen") == []


def test_a_model_without_any_gradient_is_not_frozen():
    assert names(find_layers(Net().requires_grad_(requires_grad=False)), "frozen") == []


def test_a_layer_that_the_model_keeps_in_evaluation_is_frozen():
    net = KeptInEval()
    assert names(find_layers(net), "frozen") == ["bn2"]
    assert names(find_layers(net), "in_training") == []
    net.bn2.training = False
    assert names(find_layers(net, switching=False), "frozen") == []  # the model was not asked


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["*"], ["0.bn1", "0.bn2", "0.bn3", "1.bn1", "1.bn2", "1.bn3"]),
        (["0.*"], ["0.bn1", "0.bn2", "0.bn3"]),
        (["bn2"], ["0.bn2", "1.bn2"]),  # a dotted end
        (["1.bn[13]", "0.bn2"], ["0.bn2", "1.bn1", "1.bn3"]),
    ],
)
def test_patterns_freeze(patterns, frozen):
    assert names(find_layers(nn.Sequential(Net(), Net()), patterns), "frozen") == frozen


def test_a_pattern_that_fits_no_layer():
    with pytest.raises(UsageError, match=r"--frozen conv\*: .* no such layer; it has bn1, bn2"):
        find_layers(Net(), ["bn1", "conv*"])
    with pytest.raises(UsageError, match="it has no BatchNorm layer"):
        find_layers(nn.Sequential(nn.Linear(2, 2)), ["bn"])


# ---------------------------------------------- left in training


def test_a_layer_left_in_training_by_the_model_that_came_in_evaluation():
    net = Net().eval()
    net.bn2.train()
    assert names(find_layers(net), "in_training") == ["bn2"]
    assert names(find_layers(net.train()), "in_training") == []


def test_a_layer_that_does_not_follow_eval():
    for net in (Net(), Net().eval()):
        net.bn1 = Stubborn(8)
        assert names(find_layers(net), "in_training") == ["bn1"]


def test_a_layer_that_the_models_own_eval_leaves_in_training():
    class Leaves(Net):
        def eval(self):
            super().eval()
            self.bn3.train()
            return self

    net = Leaves().train()
    assert names(find_layers(net), "in_training") == ["bn3"]
    assert all(module.training for module in net.modules())


def test_other_modules_in_training_are_named_by_the_innermost():
    model = nn.Sequential(Net(), nn.Sequential(nn.Dropout(0.5), nn.ReLU())).eval()
    assert still_training(model) == []
    model[1].training = model[1][0].training = model[0].bn1.training = True
    assert still_training(model) == ["1.0"]
    assert in_training_now(model) == ["1.0"]
    assert in_training_now(nn.Dropout()) == ["the model"]
    assert still_training(Net().train()) == []


def test_dropout_is_active_above_zero():
    class DropPath(nn.Module):
        drop_prob = 0.1

    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.0), nn.AlphaDropout(0.1), DropPath())
    assert [name for name, _ in active_dropout(model)] == ["0", "2", "3"]


# ---------------------------------------------- state


def test_the_state_is_a_copy_of_the_modules():
    net = made(momentum=0.25, eps=1e-3)
    layer = next(layer for layer in find_layers(net) if layer.name == "bn2")
    state = layer.state()
    for name in ("weight", "bias", "running_mean", "running_var"):
        array, tensor = getattr(state, name), getattr(net.bn2, name)
        assert array.dtype == np.float32
        assert array.tolist() == tensor.tolist()
    assert (state.name, state.num_batches_tracked, state.dtype) == ("bn2", 4, "float32")
    module = state.module
    assert (module.class_name, module.eps, module.momentum) == ("BatchNorm2d", 1e-3, 0.25)
    assert (module.affine, module.track_running_stats, module.training) == (True, True, False)
    net.bn2.running_mean.add_(1)
    assert state.running_mean.tolist() != net.bn2.running_mean.tolist()


def test_the_state_of_what_a_layer_lacks():
    (layer,) = only(nn.BatchNorm2d(4, affine=False, momentum=None))
    state = layer.state()
    assert (state.weight, state.bias) == (None, None)
    assert (state.module.affine, state.module.momentum, state.module.has_momentum) == (
        False, None, True,
    )  # fmt: skip
    (layer,) = only(nn.BatchNorm2d(4, track_running_stats=False))
    state = layer.state()
    assert layer.stored is None
    assert (state.running_mean, state.num_batches_tracked) == (None, None)
    assert state.module.track_running_stats is False
    (layer,) = only(FrozenBatchNorm2d())
    state = layer.state()
    assert (state.module.has_momentum, state.module.eps) == (False, None)
    assert state.module.track_running_stats is True
    assert [each.tolist() for each in layer.stored] == [[0.0] * 4, [1.0] * 4]


def test_bfloat16_is_held_as_float32():
    (layer,) = only(nn.BatchNorm2d(4).bfloat16())
    state = layer.state()
    assert (state.dtype, state.weight.dtype) == ("bfloat16", np.float32)


# ---------------------------------------------- the input of a layer


def test_the_input_of_a_layer_has_its_channels_on_the_second_axis():
    (layer,) = find_layers(nn.BatchNorm1d(3))
    x = torch.rand(5, 3, 4)
    assert layer.input_of(x) is x
    last = layer.input_of(torch.rand(5, 4, 3))
    assert last.shape == (5, 3, 4)
    assert layer.input_of(torch.rand(5, 4, 6)) is None
    for nothing in (None, "text", torch.rand(3), torch.rand(0, 3), torch.tensor(1.0)):
        assert layer.input_of(nothing) is None


def test_a_sample_without_a_batch_axis_is_one_of_an_instance_norm():
    (layer,) = find_layers(nn.InstanceNorm2d(3, track_running_stats=True))
    assert layer.input_of(torch.rand(3, 4, 4)).shape == (1, 3, 4, 4)
    assert layer.input_of(torch.rand(2, 3, 4, 4)).shape == (2, 3, 4, 4)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_values_are_what_they_stand_for():
    (layer,) = find_layers(nn.BatchNorm2d(3))
    x = torch.quantize_per_tensor(torch.rand(2, 3, 4, 4), 0.1, 0, torch.quint8)
    assert torch.equal(layer.input_of(x), x.dequantize())


# ---------------------------------------------- models to run


def test_a_model_comes_out_of_its_wrappers():
    model = nn.Sequential(nn.BatchNorm2d(3))
    assert model_to_run(nn.DataParallel(model)) is model
    compiled = torch.compile(model, backend="eager")
    assert model_to_run(nn.DataParallel(compiled)) is model
    assert model_to_run(model) is model


def test_layers_without_a_shape_are_told():
    with pytest.raises(
        ModelError, match=r"1 \(LazyBatchNorm2d\) has no shape before a first batch"
    ):
        model_to_run(nn.Sequential(nn.Conv2d(3, 3, 1), nn.LazyBatchNorm2d()))
    with pytest.raises(ModelError, match=r"the model \(LazyBatchNorm2d\)"):
        model_to_run(nn.LazyBatchNorm2d())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_layers_are_told_and_other_scripts_run():
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    with pytest.raises(ModelError, match=r"^1 is a TorchScript program, which takes no hooks"):
        model_to_run(nn.Sequential(nn.BatchNorm2d(3), scripted))
    harmless = nn.Sequential(torch.jit.script(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3))
    assert [layer.name for layer in find_layers(model_to_run(harmless))] == ["1"]


def test_a_mode_that_cannot_be_switched_is_told():
    class Broken(nn.Sequential):
        def train(self, mode=True):
            raise RuntimeError("no mode")

    with pytest.raises(ModelError, match="switching the model's mode raised RuntimeError: no mode"):
        find_layers(Broken(nn.BatchNorm2d(3)))


@pytest.mark.parametrize(("count", "frozen"), [(40, False), (20, True), (0, True)])
def test_without_gradient_a_layer_that_counted_on_is_not_frozen(count, frozen):
    """requires_grad=False alone leaves the running statistics moving."""
    net = made()
    net.bn1.requires_grad_(False)
    for layer, number in ((net.bn1, count), (net.bn2, 40), (net.bn3, 40)):
        layer.num_batches_tracked.fill_(number)
    assert [each.frozen for each in find_layers(net)] == [frozen, False, False]
