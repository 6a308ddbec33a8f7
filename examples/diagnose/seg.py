"""A U-Net that finds discs in noisy images of four scanners, and what it was trained on.

    python examples/diagnose/seg.py      trains it twice: unet.pth and mixed.pth beside this file

Two things go wrong in the first. Its momentum is Keras' 0.99, which in PyTorch is the weight of the
newest batch; and every batch of two comes from one scanner, whose images are much brighter or
darker than those of the others. The second was trained on batches of five from any scanners, and
has only the wrong momentum.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # as PyTorch calls it

SCANNERS = ((1.0, 0.0), (8.0, 5.0), (0.2, -1.0), (3.0, 20.0))
"""The scale and the shift of each scanner's values."""


def block(channels, width):
    """Two convolutions, each with BatchNorm and ReLU."""
    layers = []
    for entering in (channels, width):
        layers += [
            nn.Conv2d(entering, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width, momentum=0.99),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Images (N, 1, H, W) become logits of the same shape; H and W are multiples of 4."""

    def __init__(self, width=4):
        super().__init__()
        self.down1 = block(1, width)
        self.down2 = block(width, 2 * width)
        self.middle = block(2 * width, 4 * width)
        self.up2 = block(6 * width, 2 * width)
        self.up1 = block(3 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, image):
        """Down, through the middle and up again, beside what was there on the way down."""
        first = self.down1(image)
        second = self.down2(F.max_pool2d(first, 2))
        deep = self.middle(F.max_pool2d(second, 2))
        second = self.up2(torch.cat([F.interpolate(deep, scale_factor=2.0), second], 1))
        first = self.up1(torch.cat([F.interpolate(second, scale_factor=2.0), first], 1))
        return self.head(first)


def batch(generator, scanners, size=48):
    """A dictionary of images, one from each of the scanners given, and the masks of their discs."""
    images = len(scanners)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    row, column = torch.rand(2, images, 1, 1, generator=generator) * (size - 20) + 10
    radius = torch.rand(images, 1, 1, generator=generator) * 6 + 4
    mask = ((rows - row) ** 2 + (columns - column) ** 2 < radius**2).float().unsqueeze(1)
    noise = torch.randn(2, images, 1, size, size, generator=generator)
    image = F.avg_pool2d(noise[0], 5, 1, 2) + 0.8 * mask + 0.15 * noise[1]
    scale, shift = torch.tensor(SCANNERS)[scanners].T.reshape(2, images, 1, 1, 1)
    return {"image": image * scale + shift, "mask": mask}


def validation():
    """Twelve batches, three of each scanner."""
    generator = torch.Generator().manual_seed(2)
    return [batch(generator, [number % 4] * 2) for number in range(12)]


def mixed_validation():
    """Fifty batches of five, each image of any scanner."""
    generator = torch.Generator().manual_seed(2)
    return [batch(generator, any_scanners(generator)) for _ in range(50)]


def one_scanner(generator):
    """The number of one scanner, twice."""
    return torch.randint(0, 4, (1,), generator=generator).tolist() * 2


def any_scanners(generator):
    """The numbers of five scanners."""
    return torch.randint(0, 4, (5,), generator=generator).tolist()


def dice(output, batch):
    """How well the discs are found: 1 is perfect."""
    found, mask = (output > 0).float(), batch["mask"]
    return 2 * (found * mask).sum() / (found.sum() + mask.sum() + 1e-9)


def train(steps=800, mixed=False):
    """A U-Net after some steps of Adam, each on one scanner or on all of them."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net = UNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * (1 - step / steps)
        scanners = any_scanners(generator) if mixed else one_scanner(generator)
        data = batch(generator, scanners)
        loss = F.binary_cross_entropy_with_logits(net(data["image"]), data["mask"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save(train().state_dict(), Path(__file__).with_name("unet.pth"))
    torch.save(train(mixed=True).state_dict(), Path(__file__).with_name("mixed.pth"))
