"""Healthy nets of many kinds, each trained for a moment on data of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, update_bn

from tests.live.faults.data import PATTERNS, standardised
from tests.live.faults.nets import Plain, Residual, Separable, UNet
from tests.live.faults.training import drawn, freeze, one_thread

Pairs = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]
"""Inputs and truths, drawn anew: n of them."""


@dataclass(frozen=True)
class Healthy:
    """`make` builds a net, `draw` its data; `finish` is what is done after training.

    `adam` trains with AdamW at a constant rate, so that the weights move to the end.
    """

    make: Callable[[], nn.Module]
    draw: Pairs
    batch: int = 32
    steps: int = 80
    lr: float = 0.05
    adam: bool = False
    finish: Callable[[nn.Module, Healthy, int], nn.Module] | None = None
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)


def labelled(n, generator, scanners="alike"):
    truth = drawn(n, generator, scanners)
    return standardised(truth.images), truth.labels


def masked(n, generator, scanners="alike"):
    truth = drawn(n, generator, scanners)
    return standardised(truth.images), truth.masks


def vectors(n, generator):
    """Points about four centres; their coordinates have means and scales of their own."""
    labels = torch.randint(0, PATTERNS, (n,), generator=generator)
    centres = torch.randn(PATTERNS, 12, generator=torch.Generator().manual_seed(1))
    x = centres[labels] + torch.randn(n, 12, generator=generator)
    return x * torch.linspace(0.2, 5, 12) + torch.linspace(-3, 3, 12), labels


def signals(n, generator):
    """Sines of four frequencies in noise, two channels with an offset."""
    labels = torch.randint(0, PATTERNS, (n,), generator=generator)
    phase = torch.rand(n, 2, 1, generator=generator) * 6.28
    time = torch.linspace(0, 6.28, 64)
    waves = torch.sin(time * (labels.view(-1, 1, 1) + 2) + phase)
    return waves + 0.5 * torch.randn(n, 2, 64, generator=generator) + 1.5, labels


def volumes(n, generator):
    """Waves along one of three axes, or none, in noise."""
    labels = torch.randint(0, PATTERNS, (n,), generator=generator)
    axes = torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij")
    waves = torch.stack([*(torch.sin(axis * 1.5) for axis in axes), torch.zeros(8, 8, 8)])
    x = waves[labels] + 0.7 * torch.randn(n, 8, 8, 8, generator=generator)
    return x.unsqueeze(1) + torch.rand(n, 1, 1, 1, 1, generator=generator), labels


def perceptron():
    layers = []
    for before, after in ((12, 48), (48, 48), (48, 24)):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(24, PATTERNS))


def normalised_perceptron():
    """BatchNorm on the input, and BatchNorm behind a linear layer that reads it: no mean moves."""
    return nn.Sequential(
        nn.BatchNorm1d(12),
        nn.Linear(12, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, PATTERNS),
    )


def one_dimensional():
    layers = []
    for before, after in ((2, 12), (12, 16), (16, 24)):
        layers += [nn.Conv1d(before, after, 5, 2, 2), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, PATTERNS))


def three_dimensional():
    layers = []
    for before, after in ((1, 8), (8, 12)):
        layers += [nn.Conv3d(before, after, 3, padding=1), nn.BatchNorm3d(after), nn.ReLU()]
        layers += [nn.MaxPool3d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(12, PATTERNS))


class Siamese(nn.Module):
    """One encoder for both halves of a picture: its layers are called twice."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, 2, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.fc = nn.Linear(48, PATTERNS)

    def forward(self, x):
        return self.fc(torch.cat([self.encoder(half) for half in x.chunk(2, 3)], 1))


class Mixed(nn.Module):
    """IBN-Net's layer: InstanceNorm for half of the channels, BatchNorm for the others."""

    def __init__(self, channels):
        super().__init__()
        self.half = channels // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.half)

    def forward(self, x):
        return torch.cat([self.IN(x[:, : self.half]), self.BN(x[:, self.half :])], 1)


class BatchNormAct2d(nn.BatchNorm2d):
    """timm's BatchNorm with its activation."""

    def forward(self, x):
        return functional.silu(super().forward(x))


def stacked(norm, act=nn.ReLU, drop=0.0):
    """Three convolutions with a norm of one's choice, dropout in front of the classifier."""
    layers = []
    for before, after, stride in ((3, 12, 1), (12, 16, 2), (16, 24, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), norm(after), act()]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(drop), nn.Linear(24, PATTERNS)]
    return nn.Sequential(*layers, *end)


def synchronised(net, kind, seed):
    return nn.SyncBatchNorm.convert_sync_batchnorm(net)


def averaged(net, kind, seed):
    """Averaged weights, with statistics estimated anew for them."""
    generator = torch.Generator().manual_seed(seed)
    average = AveragedModel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(20):
        x, truth = kind.draw(kind.batch, generator)
        optimizer.zero_grad()
        functional.cross_entropy(net(x), truth).backward()
        optimizer.step()
        average.update_parameters(net)
    update_bn([kind.draw(kind.batch, generator)[0] for _ in range(50)], average)
    return average.module


def held(net, kind, seed):
    """Frozen, on the data that its statistics are of."""
    freeze(net)
    return net


HEALTHY = {
    "residual": Healthy(Residual, labelled),
    "depthwise": Healthy(Separable, labelled),
    "perceptron": Healthy(perceptron, vectors),
    "one-dimensional": Healthy(one_dimensional, signals),
    "three-dimensional": Healthy(three_dimensional, volumes),
    "shared-layers": Healthy(Siamese, labelled),
    "half-precision": Healthy(Plain, labelled, dtypes=(torch.float16, torch.bfloat16)),
    "batches-of-eight": Healthy(Residual, labelled, batch=8, steps=150, lr=0.03),
    "dropout-at-the-end": Healthy(partial(stacked, nn.BatchNorm2d, drop=0.5), labelled),
    "instance-norm-beside": Healthy(partial(stacked, Mixed), labelled),
    "synchronised": Healthy(partial(stacked, nn.BatchNorm2d), labelled, finish=synchronised),
    "with-activation": Healthy(partial(stacked, BatchNormAct2d, nn.Identity), labelled),
    "unet": Healthy(UNet, masked),
    "scanners-mixed": Healthy(Plain, partial(labelled, scanners="mixed")),
    "averaged-and-updated": Healthy(Residual, labelled, finish=averaged),
    "frozen": Healthy(Plain, labelled, finish=held),
    "constant-rate": Healthy(Residual, labelled, steps=200, lr=1e-3, adam=True),
    "norm-on-the-input": Healthy(normalised_perceptron, vectors, steps=200, lr=3e-3, adam=True),
}
"""The kinds by name; none may get a warning."""


def healthy_net(name: str, seed: int, count: int = 512) -> tuple[nn.Module, list[torch.Tensor]]:
    """A trained net in evaluation mode, and `count` inputs in batches that it has not seen."""
    kind = HEALTHY[name]
    dtype = kind.dtypes[seed % len(kind.dtypes)]
    generator = torch.Generator().manual_seed(1000 * list(HEALTHY).index(name) + seed)
    torch.manual_seed(seed)
    with one_thread():
        net = kind.make().train()
        if kind.adam:
            optimizer = torch.optim.AdamW(net.parameters(), lr=kind.lr)
            schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
        else:
            optimizer = torch.optim.SGD(net.parameters(), lr=kind.lr, momentum=0.9)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, kind.steps)
        for _ in range(kind.steps):
            x, truth = kind.draw(kind.batch, generator)
            optimizer.zero_grad()
            functional.cross_entropy(net(x), truth).backward()
            optimizer.step()
            schedule.step()
        if kind.finish is not None:
            net = kind.finish(net, kind, seed)
    inputs = [kind.draw(kind.batch, generator)[0] for _ in range(count // kind.batch)]
    return net.to(dtype).eval(), [x.to(dtype) for x in inputs]
