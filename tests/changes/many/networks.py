"""Networks that were really trained, as files: the epochs of one run, and clients of one start."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from bncli.loaders import open_file


def network(seed=0, width=8, depth=2):
    """Convolutions with a BatchNorm layer behind each, which train well on anything."""
    torch.manual_seed(seed)
    layers = []
    for number in range(depth):
        layers += [nn.Conv2d(width if number else 3, width, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))


def trained(net, steps, seed, *, lr=0.05, shift=0.0, batch=4, size=4):
    """Train on, on classes that differ in their mean; the data are the seed's, `shift` away."""
    torch.manual_seed(seed)
    classes = torch.randn(4, 3, 1, 1) + shift
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for _ in range(steps):
        label = torch.randint(4, (batch,))
        loss = nn.functional.cross_entropy(
            net(torch.randn(batch, 3, size, size) + classes[label]), label
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def copied(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


@cache
def epochs(count=6, steps=15, width=8):
    """The state after each epoch of one run."""
    net = network(width=width)
    return [copied(trained(net, steps, seed)) for seed in range(count)]


@cache
def clients(count=3, width=8):
    """What clients make of one start, each with data of its own."""
    return [
        copied(trained(network(width=width), 40, seed, shift=seed / 2, lr=0.1))
        for seed in range(count)
    ]


def weighted(states, weights, dtype=torch.float64):
    """The weighted sum of all tensors, computed in a dtype, in each one's own."""
    return {
        name: sum(w * state[name].to(dtype) for w, state in zip(weights, states, strict=True)).to(
            first.dtype
        )
        for name, first in states[0].items()
    }


def mean(states):
    """The mean, as it is usually computed: counters stay whole numbers."""
    return {
        name: sum(state[name] for state in states) / len(states)
        if first.is_floating_point()
        else sum(state[name] for state in states) // len(states)
        for name, first in states[0].items()
    }


def to(state, dtype):
    return {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in state.items()
    }


def of_buffers(state, other):
    """A state with the buffers of another one."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return {name: other[name] if name.endswith(buffers) else value for name, value in state.items()}


def opened(folder, *states, names=()):
    """The states as files, opened."""
    files = []
    for number, state in enumerate(states):
        path = folder / (names[number] if names else f"{number}.pt")
        torch.save(state, path)
        files.append(open_file(path))
    return files
