"""Small models and batches for the tests of passes, and their numbers by plain PyTorch."""

from __future__ import annotations

import copy
import random

import numpy as np
import torch
from torch import nn

from bncli.live.batch import Batch

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Net(nn.Module):
    """Three BatchNorm layers: behind a convolution, another, and a linear layer."""

    def __init__(self, channels=3, **flags):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8, **flags)
        self.conv2 = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(6, **flags)
        self.linear = nn.Linear(6, 5)
        self.bn3 = nn.BatchNorm1d(5, **flags)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.out(self.bn3(self.linear(x.mean((2, 3)))).relu())


def images(batches=4, samples=8, channels=3, size=8, seed=3):
    """Batches of smooth images with a mean and a scale of their own."""
    generator = torch.Generator().manual_seed(seed)

    def draw():
        coarse = torch.randn(samples, channels, size // 4, size // 4, generator=generator)
        fine = torch.randn(samples, channels, size, size, generator=generator)
        smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        return 0.5 + 0.4 * smooth + 0.1 * fine

    return [draw() for _ in range(batches)]


def data(tensors):
    """Batches as the data source gives them."""
    return [Batch((x,), {}, x, len(x), str(i)) for i, x in enumerate(tensors)]


def filled(net, tensors):
    """The net in evaluation mode, its statistics those of these batches in training."""
    norms = [module for module in net.modules() if isinstance(module, NORMS)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.momentum = None  # the plain average
        module.reset_running_stats()
    net.train()
    with torch.no_grad():
        for x in tensors:
            net(x)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
    return net.eval()


def made(seed=0, tensors=None, **flags):
    """A net of random weights whose statistics fit the batches."""
    torch.manual_seed(seed)
    net = Net(**flags)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, NORMS):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return filled(net, images() if tensors is None else tensors)


# ---------------------------------------------- the same by hand


def by_hand(net, tensors, *, training):
    """The outputs of a copy of the net whose BatchNorm layers alone are in training, or not."""
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if training and isinstance(module, NORMS):
            module.train()
    with torch.no_grad():
        return torch.cat([net(x) for x in tensors]).double()


def gap_by_hand(net, tensors):
    """How far evaluation is from training: relative, in root mean square, about the channels."""
    wanted = by_hand(net, tensors, training=True)
    apart = (by_hand(net, tensors, training=False) - wanted).square().sum()
    return float((apart / (wanted - wanted.mean(0)).square().sum()).sqrt())


def renewed_by_hand(net, tensors, names=None):
    """A copy with the statistics of all values, layer after layer in evaluation mode.

    Only those of `names` are in the copy that comes back.
    """
    whole = copy.deepcopy(net).eval()
    layers = {name: each for name, each in whole.named_modules() if isinstance(each, NORMS)}
    for layer in layers.values():
        seen = []
        handle = layer.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            for x in tensors:
                whole(x)
        handle.remove()
        values = torch.cat(seen).double().transpose(0, 1).flatten(1)
        layer.running_mean.copy_(values.mean(1))
        layer.running_var.copy_(values.var(1))
    result = copy.deepcopy(net).eval()
    for name, layer in layers.items():
        if names is None or name in names:
            result.get_submodule(name).running_mean.copy_(layer.running_mean)
            result.get_submodule(name).running_var.copy_(layer.running_var)
    return result


# ---------------------------------------------- what a model was before


def snapshot(model):
    """All that a pass must leave as it was: every tensor's bytes, modes, hooks, random numbers."""
    tensors = dict(model.state_dict(keep_vars=True))
    tensors |= {
        f"{name}.{key}": buffer  # those that are not saved, and those that are None, too
        for name, module in model.named_modules()
        for key, buffer in module._buffers.items()
    }
    values = {
        key: None
        if tensor is None
        else (id(tensor), str(tensor.dtype), tuple(tensor.shape), _bytes(tensor))
        for key, tensor in tensors.items()
    }
    modules = [
        (name, module.training, len(module._forward_pre_hooks), len(module._forward_hooks))
        for name, module in model.named_modules()
    ]
    streams = (
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],  # noqa: NPY002
        _bytes(torch.get_rng_state()),
    )
    return values, modules, streams


def _bytes(tensor):
    """A tensor's bytes in the order of its elements."""
    return tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
