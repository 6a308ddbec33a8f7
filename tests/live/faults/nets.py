"""Small nets of five architectures, to plant faults in.

Each takes `momentum`, `track` (track_running_stats) and `drop`, the rate of the dropout in front of
one BatchNorm layer. `FIRST`, `INNER` and `DROPPED` name the layers that faults are about.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from tests.live.faults.data import PATTERNS


class Plain(nn.Module):
    """Convolutions one behind the other, a linear layer with BatchNorm1d behind them."""

    FIRST, INNER, DROPPED = "b1", "b3", "b5"

    def __init__(self, momentum=0.1, track=True, drop=0.0):
        super().__init__()
        kinds = {"momentum": momentum, "track_running_stats": track}
        conv = partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)
        self.c1, self.b1 = conv(3, 12), nn.BatchNorm2d(12, **kinds)
        self.c2, self.b2 = conv(12, 16, stride=2), nn.BatchNorm2d(16, **kinds)
        self.c3, self.b3 = conv(16, 24), nn.BatchNorm2d(24, **kinds)
        self.c4, self.b4 = conv(24, 24, stride=2), nn.BatchNorm2d(24, **kinds)
        self.drop = nn.Dropout(drop)
        self.l5, self.b5 = nn.Linear(24, 16, bias=False), nn.BatchNorm1d(16, **kinds)
        self.out = nn.Linear(16, PATTERNS)

    def forward(self, x):
        x = functional.relu(self.b2(self.c2(functional.relu(self.b1(self.c1(x))))))
        x = functional.relu(self.b4(self.c4(functional.relu(self.b3(self.c3(x))))))
        x = self.l5(self.drop(x.mean((2, 3))))
        return self.out(functional.relu(self.b5(x)))


class Block(nn.Module):
    """Two convolutions without bias beside a shortcut, dropout between them (Wide ResNet's)."""

    def __init__(self, channels, out, stride, kinds, drop):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out, **kinds)
        self.drop = nn.Dropout(drop)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out, **kinds)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out, **kinds)
            )

    def forward(self, x):
        y = self.drop(functional.relu(self.bn1(self.conv1(x))))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Residual(nn.Module):
    """A ResNet of three blocks."""

    FIRST, INNER, DROPPED = "bn1", "layer2.bn2", "layer3.bn2"

    def __init__(self, momentum=0.1, track=True, drop=0.0):
        super().__init__()
        kinds = {"momentum": momentum, "track_running_stats": track}
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8, **kinds)
        self.layer1 = Block(8, 8, 1, kinds, 0.0)
        self.layer2 = Block(8, 16, 2, kinds, 0.0)
        self.layer3 = Block(16, 24, 2, kinds, drop)
        self.fc = nn.Linear(24, PATTERNS)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Inverted(nn.Module):
    """MobileNetV2's block: expand, filter each channel by itself, project without activation."""

    def __init__(self, channels, out, stride, kinds, expand=3):
        super().__init__()
        wide = channels * expand
        self.adds = stride == 1 and channels == out
        self.conv = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide, **kinds),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide, **kinds),
            nn.ReLU6(),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out, **kinds),
        )

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class Separable(nn.Module):
    """A MobileNetV2 of three blocks; its head drops in front of the last BatchNorm layer."""

    FIRST, INNER, DROPPED = "stem.1", "blocks.1.conv.4", "head.2"

    def __init__(self, momentum=0.1, track=True, drop=0.0):
        super().__init__()
        kinds = {"momentum": momentum, "track_running_stats": track}
        self.stem = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12, **kinds), nn.ReLU6()
        )
        self.blocks = nn.Sequential(
            Inverted(12, 12, 2, kinds), Inverted(12, 12, 1, kinds), Inverted(12, 16, 2, kinds)
        )
        self.head = nn.Sequential(
            nn.Dropout(drop),
            nn.Conv2d(16, 32, 1, bias=False),
            nn.BatchNorm2d(32, **kinds),
            nn.ReLU6(),
        )
        self.fc = nn.Linear(32, PATTERNS)

    def forward(self, x):
        return self.fc(self.head(self.blocks(self.stem(x))).mean((2, 3)))


def double(channels, out, kinds, drop=0.0):
    """U-Net's pair of convolutions, with bias."""
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, padding=1),
        nn.BatchNorm2d(out, **kinds),
        nn.ReLU(),
        nn.Dropout2d(drop),
        nn.Conv2d(out, out, 3, padding=1),
        nn.BatchNorm2d(out, **kinds),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """A U-Net of two levels that says for each pixel whether it belongs to the disc."""

    FIRST, INNER, DROPPED = "down1.1", "down2.5", "bottom.5"

    def __init__(self, momentum=0.1, track=True, drop=0.0):
        super().__init__()
        kinds = {"momentum": momentum, "track_running_stats": track}
        self.down1 = double(3, 8, kinds)
        self.down2 = double(8, 16, kinds)
        self.bottom = double(16, 24, kinds, drop)
        self.up2 = double(40, 16, kinds)
        self.up1 = double(24, 8, kinds)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        deep = self.bottom(functional.max_pool2d(second, 2))
        deep = self.up2(torch.cat([second, doubled(deep)], 1))
        return self.out(self.up1(torch.cat([first, doubled(deep)], 1)))


def doubled(x):
    """Twice as high and wide."""
    return functional.interpolate(x, scale_factor=2.0)


class Dense(nn.Module):
    """A DenseNet, norms in front of convolutions, the first one on the picture itself."""

    FIRST, INNER, DROPPED = "norm0", "norm4", "norm5"

    def __init__(self, momentum=0.1, track=True, drop=0.0):
        super().__init__()
        kinds = {"momentum": momentum, "track_running_stats": track}
        conv = partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)
        self.norm0, self.conv0 = nn.BatchNorm2d(3, **kinds), conv(3, 12)
        self.norm1, self.conv1 = nn.BatchNorm2d(12, **kinds), conv(12, 8)
        self.norm2, self.conv2 = nn.BatchNorm2d(20, **kinds), conv(20, 8)
        self.norm3, self.conv3 = nn.BatchNorm2d(28, **kinds), conv(28, 16, stride=2)
        self.norm4, self.conv4 = nn.BatchNorm2d(16, **kinds), conv(16, 16)
        self.drop, self.norm5 = nn.Dropout(drop), nn.BatchNorm2d(32, **kinds)
        self.fc = nn.Linear(32, PATTERNS)

    def forward(self, x):
        x = self.conv0(self.norm0(x))
        x = torch.cat([x, self.conv1(functional.relu(self.norm1(x)))], 1)
        x = torch.cat([x, self.conv2(functional.relu(self.norm2(x)))], 1)
        x = self.conv3(functional.relu(self.norm3(x)))
        x = torch.cat([x, self.conv4(functional.relu(self.norm4(x)))], 1)
        return self.fc(functional.relu(self.norm5(self.drop(x))).mean((2, 3)))


ARCHITECTURES = {
    "plain": Plain,
    "residual": Residual,
    "separable": Separable,
    "unet": UNet,
    "dense": Dense,
}
