"""Small networks, trained for real: what checkpoints are when nothing is wrong with them."""

from __future__ import annotations

import copy
from functools import cache
from itertools import pairwise

import torch
from torch import nn

STEPS = 160
BATCH = 16
CLASSES = 3


class Block(nn.Module):
    """A residual block whose last BatchNorm begins at 0."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.bn2.weight)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.layer1 = nn.Sequential(Block(8, 8), Block(8, 8))
        self.layer2 = nn.Sequential(Block(8, 12))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x):
        return self.head(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


def residual():
    return Residual()


def perceptron():
    """BatchNorm1d, once without weight and bias, and once with the cumulative average."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * 36, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.BatchNorm1d(16, affine=False),
        nn.ReLU(),
        nn.Linear(16, 8),
        nn.BatchNorm1d(8, momentum=None),
        nn.LayerNorm(8),
        nn.Linear(8, CLASSES),
    )


def separable():
    """Depthwise and pointwise convolutions beside a GroupNorm, with ReLU6."""
    layers = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()]
    for inputs, outputs in ((8, 12), (12, 16)):
        layers += [
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs, eps=1e-3, momentum=0.03),
            nn.ReLU6(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
        ]
    layers += [nn.GroupNorm(4, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES)]
    return nn.Sequential(*layers)


def deep():
    """Five layers of one width, with nothing beside them."""
    sizes = [3 * 36] + [24] * 5
    layers = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(24, CLASSES))


class Volumes(nn.Module):
    """BatchNorm3d, one of them with a single channel."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.mask = nn.Conv3d(4, 1, 1)
        self.mask_norm = nn.BatchNorm3d(1)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x.unsqueeze(1))))
        return self.head((y * torch.sigmoid(self.mask_norm(self.mask(y)))).mean((2, 3, 4)))


def volumes():
    return Volumes()


def batch(generator):
    """A batch of images with something to learn, and its classes."""
    y = torch.randint(CLASSES, (BATCH,), generator=generator)
    x = torch.randn(BATCH, 3, 6, 6, generator=generator)
    x[range(BATCH), y] += 1.0
    return x, y


def optimizer_of(model, lr=0.05, weight_decay=1e-4):
    return torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=weight_decay)


def train(model, steps=STEPS, *, mode=None, seed=0, transform=None, step=None, optimizer=None):
    """Train a model; `mode` sets the mode of its layers, `step` is called after each update."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = optimizer or optimizer_of(model)
    model.train()
    if mode is not None:
        mode(model)
    for _ in range(steps):
        x, y = batch(generator)
        loss = nn.functional.cross_entropy(model(x if transform is None else transform(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step is not None:
            step(model)
    return model


def made(architecture):
    torch.manual_seed(1)
    return architecture()


@cache
def _trained(architecture):
    return train(made(architecture))


def trained(architecture=residual):
    """A network after a few hundred steps; a copy that may be spoilt."""
    return copy.deepcopy(_trained(architecture))


def norms(model):
    """Its BatchNorm layers, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
