"""A model that is given as an object is as it was after a command, whatever happened in it."""

from __future__ import annotations

import random
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import BncliError
from bncli.live.keeping import kept_whole
from bncli.live.random_streams import RandomStreams
from tests.objects import run

COMMANDS = ("diagnose", "capture", "recalibrate")


class Restless(nn.Module):
    """A model that changes whatever it can while it runs, and fails in the end if it is told to."""

    def __init__(self, fails=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.scale = nn.Parameter(torch.ones(4))
        self.fails = fails
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        draw()
        self.seen += 1
        self.seen = self.seen.clone()
        self.hidden.add_(1)
        self.register_buffer("late", torch.ones(1))
        self.new = nn.Linear(2, 2)
        self.conv.register_forward_hook(lambda *_: None)
        self._forward_hooks.clear()
        self.scale.requires_grad_(False)
        self.drop.train()
        self.bn.eval()
        self.bn.running_mean = self.bn.running_mean + 1
        if self.fails and self.calls > 1:
            raise RuntimeError("no more")
        return self.drop(self.bn(self.conv(x) * self.scale[:, None, None]))


class Writing(Restless):
    """One that moves its own weights, too."""

    def forward(self, x):
        with torch.no_grad():
            self.scale.mul_(1.5)
            self.conv.weight.data = self.conv.weight.data + 1
        self.conv.bias = nn.Parameter(torch.zeros(4))
        return super().forward(x)


class Learning(Restless):
    """One that trains itself as it runs: its gradients grow where they are."""

    def forward(self, x):
        with torch.enable_grad():
            out = self.bn(self.conv(x))
            (out.square().sum() + self.table(torch.tensor([1])).sum()).backward()
        self.bn.eps, self.bn.momentum = 0.5, None
        self.conv.weight.grad.data = self.conv.weight.grad.data.clone()
        return super().forward(x)

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(3, 2, sparse=True)


def picture(model):
    """All of a model that one can see: identities, values, modes and hooks."""
    own = []
    for name, module in model.named_modules():
        tables = {
            key: [(each, id(value)) for each, value in table.items()]
            for key, table in vars(module).items()
            if isinstance(table, dict)
        }
        own.append((name, id(module), module.training, tables))
        own.append(sorted(module._non_persistent_buffers_set))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        own.append((name, tensor.data_ptr(), tensor.requires_grad, id(tensor.grad), tensor.device))
        own.append(tensor.detach().clone().numpy().tobytes())
        if tensor.grad is not None:
            own.append(tensor.grad.to_dense().numpy().tobytes())
            own.append(None if tensor.grad.is_sparse else tensor.grad.data_ptr())
    own.append([(each.eps, each.momentum) for each in model.modules() if hasattr(each, "eps")])
    return own


def draw():
    """A number of each of the process's random numbers."""
    return random.random(), np.random.rand(), float(torch.rand(1))  # noqa: NPY002  # the process's


def draws():
    """What comes next of each of the process's random numbers, which stay as they are."""
    now = RandomStreams.now()
    found = draw()
    now.go_on()
    return found


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", [Restless, lambda: Restless(fails=True), Writing, Learning])
def test_a_model_comes_back_as_it_was_whatever_it_does(command, kind):
    torch.manual_seed(1)
    x = torch.randn(8, 3, 6, 6)
    model = kind().train()
    model.bn.eval()
    model.register_forward_hook(lambda *_: None)
    for each in (model.scale, model.bn.bias, model.conv.weight):
        each.grad = torch.ones_like(each)
    if isinstance(model, Learning):
        model.table(torch.tensor([2])).sum().backward()
    before, numbers = picture(model), draws()
    with suppress(BncliError):
        run(command, model, data=[x], batch_size=2)
    assert picture(model) == before
    assert draws() == numbers
    assert model.calls > 0
    assert torch.is_grad_enabled()


def test_a_checkpoint_is_loaded_for_the_call_alone(tmp_path):
    model, other = Restless(), Restless()
    before = picture(model)
    run("diagnose", model, data=[torch.randn(8, 3, 6, 6)], checkpoint=other.state_dict())
    assert picture(model) == before
    wrong = {**other.state_dict(), "bn.weight": torch.ones(5)}
    with pytest.raises(BncliError, match=r"^<dict>: bn.weight is \[5\] in it"):
        run("diagnose", model, data=[torch.randn(8, 3, 6, 6)], checkpoint=wrong)
    without = {name: x for name, x in other.state_dict().items() if "tracked" not in name}
    run("capture", model, data=[torch.randn(8, 3, 6, 6)], checkpoint=without)
    assert picture(model) == before


def test_a_model_that_cannot_run_is_left_alone():
    model = nn.Sequential(nn.LazyLinear(2), nn.BatchNorm1d(2))
    with pytest.raises(BncliError, match="has no shape before a first batch"):
        run("capture", model, data=[torch.randn(8, 3)])
    assert model.training
    assert type(model[0]) is nn.LazyLinear


def test_a_module_that_is_moved_comes_back_to_where_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = picture(model)
    put_back = kept_whole(model)
    model.double().to("meta")
    model[1].momentum = None
    put_back()
    assert picture(model) == before


def test_weights_without_one_place_in_memory_are_put_back():
    model = nn.Module()
    model.register_buffer("sparse", torch.eye(3).to_sparse())
    with torch.inference_mode():
        model.register_buffer("inference", torch.ones(3))
    model.register_buffer("nan", torch.full((2,), float("nan")))
    put_back = kept_whole(model)
    with torch.inference_mode():
        model.inference.add_(1)
    model.sparse.mul_(2)
    put_back()
    assert model.inference.tolist() == [1, 1, 1]
    assert model.sparse.to_dense().tolist() == torch.eye(3).tolist()
