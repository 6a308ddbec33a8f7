"""Images made by code: smooth pictures with a patterned disc, as devices and users give them.

A picture is three channels in [0, 1], in steps of 1/255 as a decoded file has them. Its label is
the pattern on the disc, its mask where the disc is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

SIZE = 16
PATTERNS = 4
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

TINT = torch.tensor([0.21, 0.15, 0.07]).view(1, 3, 1, 1)

SCANNERS = ((1.0, 0.0), (0.5, 0.3), (1.6, -0.4), (0.8, 0.8))
"""What the devices of four hospitals make of a picture: times the first number, plus the second."""


class Pictures(NamedTuple):
    """`images` (N, 3, SIZE, SIZE), `labels` (N,) int64, `masks` (N, SIZE, SIZE) int64."""

    images: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor


def pictures(n: int, generator: torch.Generator) -> Pictures:
    """Draw n pictures."""
    labels = torch.randint(0, PATTERNS, (n,), generator=generator)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    ground = functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
    light = torch.rand(n, 1, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(float(SIZE)), torch.arange(float(SIZE)), indexing="ij")
    waves = torch.stack(
        [torch.sin(x * 1.5), torch.sin(y * 1.5), torch.sin(x + y), torch.sin(x - y)]
    )
    centre = SIZE * (0.35 + 0.3 * torch.rand(n, 2, generator=generator))
    radius = SIZE * (0.2 + 0.15 * torch.rand(n, generator=generator))
    away = (y - centre[:, :1, None]) ** 2 + (x - centre[:, 1:, None]) ** 2
    masks = (away < radius.view(-1, 1, 1) ** 2).long()
    amplitude = 0.06 + 0.1 * torch.rand(n, 1, 1, generator=generator)
    disc = (masks * amplitude * waves[labels]).unsqueeze(1)
    grain = 0.05 * torch.randn(n, 3, SIZE, SIZE, generator=generator)
    images = TINT + 0.35 * ground + 0.3 * light + disc + grain
    return Pictures((images.clamp(0, 1) * 255).round() / 255, labels, masks)


def scanned(images: torch.Tensor, scanner: torch.Tensor) -> torch.Tensor:
    """As devices give them: `scanner` (N,) says which of SCANNERS took each picture."""
    numbers = torch.tensor(SCANNERS)[scanner]
    return images * numbers[:, 0].view(-1, 1, 1, 1) + numbers[:, 1].view(-1, 1, 1, 1)


def standardised(images: torch.Tensor) -> torch.Tensor:
    """As training takes them: without the mean and the standard deviation of ImageNet."""
    return (images - MEAN) / STD
