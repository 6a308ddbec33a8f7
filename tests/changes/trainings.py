"""A small network with every kind of BatchNorm layer, and how it is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

CLASSES = 4
TRAINED = 60
"""Batches that the network of `trained` has seen."""
MORE = 40
"""Batches of a version that was trained on."""

Optimizer = Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer]


class Block(nn.Module):
    """Two convolutions and what is added to them, as in a ResNet."""

    def __init__(self, into: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride > 1 or into != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)) + shortcut)


class Net(nn.Module):
    """Eleven BatchNorm layers: with and without a convolution's bias, without affine, of one axis.

    Its input has shape (N, 3, 8, 8).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(Block(8, 8))
        self.layer2 = nn.Sequential(Block(8, 16, 2))
        self.layer3 = nn.Sequential(Block(16, 16))
        self.neck = nn.Sequential(
            nn.Conv2d(16, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 10, 3, padding=1),
            nn.BatchNorm2d(10, affine=False),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Linear(10, 14), nn.BatchNorm1d(14), nn.ReLU())
        self.fc = nn.Linear(14, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.neck(self.layer3(self.layer2(self.layer1(x))))
        result: torch.Tensor = self.fc(self.head(x.mean((2, 3))))
        return result


LAYERS = (
    "bn1",
    "layer1.0.bn1",
    "layer1.0.bn2",
    "layer2.0.bn1",
    "layer2.0.bn2",
    "layer2.0.downsample.1",
    "layer3.0.bn1",
    "layer3.0.bn2",
    "neck.1",
    "neck.4",
    "head.1",
)
"""The BatchNorm layers of `Net`, in the order of its state_dict."""
BEFORE = {
    "bn1": "conv1",
    "layer1.0.bn1": "layer1.0.conv1",
    "layer1.0.bn2": "layer1.0.conv2",
    "layer2.0.bn1": "layer2.0.conv1",
    "layer2.0.bn2": "layer2.0.conv2",
    "layer2.0.downsample.1": "layer2.0.downsample.0",
    "layer3.0.bn1": "layer3.0.conv1",
    "layer3.0.bn2": "layer3.0.conv2",
    "neck.1": "neck.0",
    "neck.4": "neck.3",
    "head.1": "head.0",
}
"""What stands in front of each."""


def batches(count: int, size: int = 16, seed: int = 0) -> Iterable[tuple[torch.Tensor, Any]]:
    """Batches of images whose class is their pattern, and the classes."""
    patterns = torch.randn(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(1000 + seed)
    for _ in range(count):
        labels = torch.randint(0, CLASSES, (size,), generator=generator)
        noise = torch.randn(size, 3, 8, 8, generator=generator)
        yield 0.5 + 0.7 * patterns[labels] + noise, labels


def sgd(lr: float = 0.05, momentum: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    return lambda parameters: torch.optim.SGD(
        parameters, lr, momentum=momentum, weight_decay=weight_decay
    )


def train(
    model: nn.Module,
    count: int = MORE,
    *,
    optimizer: Optimizer | None = None,
    size: int = 16,
    seed: int = 1,
    every: int = 1,
    each: Callable[[int], None] | None = None,
    schedule: Callable[[int], float] | None = None,
) -> torch.optim.Optimizer | None:
    """Train what requires a gradient, each module in the mode that it is in.

    The optimiser makes a step after `every` batches; `each` is called after a batch.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    using = (optimizer or sgd())(parameters) if parameters else None
    rate = None
    if using is not None and schedule is not None:
        rate = torch.optim.lr_scheduler.LambdaLR(using, schedule)
    for number, (x, labels) in enumerate(batches(count, size, seed)):
        loss = functional.cross_entropy(model(x), labels)
        if using is not None:
            loss.backward()
            if number % every == every - 1:
                using.step()
                using.zero_grad()
            if rate is not None:
                rate.step()
        if each is not None:
            each(number)
    return using


def fresh(seed: int = 0) -> Net:
    """A network as it is initialised."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net()


@cache
def _trained(seed: int, count: int) -> Net:
    model = fresh(seed)
    train(model, count, seed=100 + seed)
    return model


def trained(seed: int = 0, count: int = TRAINED) -> Net:
    """A network of its own, trained for some batches: networks of two seeds are trained apart."""
    return copy.deepcopy(_trained(seed, count))


def freeze(*modules: nn.Module) -> None:
    """No gradient, and evaluation mode."""
    for module in modules:
        module.requires_grad_(requires_grad=False).eval()


@cache
def _trained_on() -> Net:
    model = trained()
    train(model)
    return model


def trained_on() -> Net:
    """`trained`, trained on for `MORE` batches."""
    return copy.deepcopy(_trained_on())


def trained_but(*layers: str) -> Net:
    """`trained_on`, with some layers and what is in front of them as they were before."""
    model, before = trained_on(), trained()
    for layer in layers:
        for name in (layer, BEFORE[layer]):
            model.get_submodule(name).load_state_dict(before.get_submodule(name).state_dict())
    return model


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a state_dict, whose tensors are no others'."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def halved(state: dict[str, Any]) -> dict[str, Any]:
    """A state_dict as `model.half()` makes it: counters stay."""
    return {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    }
