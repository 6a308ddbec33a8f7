"""A network like MobileNetV2, whose 52 BatchNorm layers see much and compute little."""

import torch
from torch import nn

STAGES = [
    # widening, channels, blocks, stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


def normed(before, after, kernel=1, stride=1, groups=1):
    """A convolution, a BatchNorm layer and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU6(inplace=True),
    )


class Block(nn.Module):
    """Wide, then each channel by itself, then narrow; added to the input where that fits."""

    def __init__(self, before, after, stride, widening):
        super().__init__()
        wide = before * widening
        layers = [normed(before, wide)] if widening > 1 else []
        layers += [normed(wide, wide, 3, stride, wide), *normed(wide, after)[:2]]
        self.layers = nn.Sequential(*layers)
        self.added = stride == 1 and before == after

    def forward(self, x):
        return x + self.layers(x) if self.added else self.layers(x)


def mobilenet(settling=2):
    """The network, with statistics from so many training passes over noise."""
    torch.manual_seed(0)
    layers = [normed(3, 32, 3, 2)]
    before = 32
    for widening, after, blocks, stride in STAGES:
        for number in range(blocks):
            layers.append(Block(before, after, 1 if number else stride, widening))
            before = after
    layers += [normed(before, 1280), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    net = nn.Sequential(*layers).train()
    with torch.no_grad():
        for _ in range(settling):
            net(images(4))
    return net.eval()


def images(number=16):
    return torch.randn(number, 3, 224, 224)
