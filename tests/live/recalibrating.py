"""What the tests of new statistics share: how they are found, and what plain PyTorch sees."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import torch

from bncli.live.recalibration import Wish, recalibrated
from bncli.live.session import Session
from bncli.model.capture import Propagation
from bncli.running_stats.frameworks import convention
from tests.live.small import NORMS, data, images, made

BATCHES = images(samples=6)
UNEVEN = [*images(3, samples=8), images(1, samples=3)[0], images(1, samples=5, size=12)[0]]
TRAINING = {"propagation": Propagation.TRAINING}


def wish(framework="pytorch", **given):
    """A wish that any number of samples will do for, unless it says otherwise."""
    return Wish(convention(framework), **given)


def recalibration(net, tensors, wished=None, *, metric=None, hold=None, check=True, frozen=()):
    """The new statistics of a net, from batches of inputs."""
    session = Session(net, data(tensors), frozen)
    with session.open():
        return recalibrated(session, wished or wish(), hold, metric, check=check)


def written(net, done):
    """A copy of the net that holds the new statistics, in evaluation mode."""
    net = copy.deepcopy(net).eval()
    for layer in done.layers:
        module = net.get_submodule(layer.name)
        module.running_mean.copy_(torch.from_numpy(layer.mean))
        module.running_var.copy_(torch.from_numpy(layer.var))
    return net


def inputs_of_layers(net, tensors, *, training):
    """What each layer of a copy of the net sees, call by call; all else is in evaluation mode."""
    net = copy.deepcopy(net).eval()
    seen = {}
    for name, module in net.named_modules():
        if isinstance(module, NORMS):
            module.training = training
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen.setdefault(name, []).append(args[0].clone())
            )
    with torch.no_grad():
        for x in tensors:
            net(x)
    return seen


def exact(seen):
    """Of a layer's inputs: the count, the means and the sums of squared deviations, exactly."""
    values = torch.cat([x.transpose(0, 1).flatten(1) for x in seen], 1)
    means, squares = [], []
    for channel in values.double().tolist():
        numbers = [Fraction(value) for value in channel]
        mean = sum(numbers) / len(numbers)
        means.append(float(mean))
        squares.append(float(sum((number - mean) ** 2 for number in numbers)))
    return values.shape[1], means, squares


def summed(seen):
    """The same by math.fsum, which is quicker."""
    values = torch.cat([x.transpose(0, 1).flatten(1) for x in seen], 1)
    means, squares = [], []
    for channel in values.double().tolist():
        mean = math.fsum(channel) / len(channel)
        means.append(mean)
        squares.append(math.fsum((value - mean) ** 2 for value in channel))
    return values.shape[1], means, squares


# ---------------------------------------------- six ways of being wrong


def norms(net):
    return {name: each for name, each in net.named_modules() if isinstance(each, NORMS)}


def reset(net):
    for each in norms(net).values():
        each.reset_running_stats()


def of_the_last_batch(net):
    for each in norms(net).values():
        each.momentum = 1.0
    with torch.no_grad():
        net.train()(BATCHES[-1])
    for each in norms(net).values():
        each.momentum = 0.1
    net.eval()


def of_other_weights(net):
    state = {key: value for key, value in made(7).state_dict().items() if "running" in key}
    net.load_state_dict(state, strict=False)


def one_spoilt(net):
    net.bn2.running_mean.add_(3)
    net.bn2.running_var.mul_(40)


def scaled(net):
    for each in norms(net).values():
        each.running_var.mul_(2.5)


def not_finite(net):
    net.bn1.running_mean[0] = torch.nan
    net.bn1.running_var[1] = torch.inf
    net.bn3.running_var.fill_(torch.nan)


WRONG = [reset, of_the_last_batch, of_other_weights, one_spoilt, scaled, not_finite]


def wrong(how, tensors=BATCHES):
    net = made(tensors=tensors)
    how(net)
    return net
