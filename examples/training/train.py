"""Train a small net, and stop as soon as something is wrong with its BatchNorm layers.

    python examples/training/train.py                         # a healthy run, to its end
    python examples/training/train.py --momentum 0.99         # a momentum copied from Keras
    python examples/training/train.py --validation-scale 255  # validation images of 0 to 255

It exits with 1 if it stopped. README.md beside it shows which lines the checks take.
"""

import argparse
import copy
import sys
from collections import OrderedDict
from itertools import islice

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # as PyTorch calls it

import bncli

STEPS = 300
BEGIN = 100
"""The first step that is checked: before it, much of the initial 0 and 1 is left."""
EVERY = 50
"""Steps between two checks."""


def batches(seed, scale=1.0):
    """Endless batches of 32 noisy images, with values around 0.5, and their classes.

    The stripes of class 0 are horizontal, those of class 1 vertical.
    """
    random = torch.Generator().manual_seed(seed)
    rows = torch.arange(12.0).reshape(1, 1, 12, 1)
    while True:
        y = torch.randint(2, (32,), generator=random)
        phase = torch.rand(32, 1, 1, 1, generator=random) * 6
        stripes = torch.sin(rows + phase).expand(32, 3, 12, 12)
        x = torch.where(y.reshape(-1, 1, 1, 1) == 0, stripes, stripes.transpose(2, 3))
        yield (0.5 + 0.15 * x + 0.1 * torch.randn(x.shape, generator=random)) * scale, y


def net(momentum=0.1):
    """Two convolutions, each with BatchNorm and ReLU, and a linear layer."""
    layers = OrderedDict(
        conv1=nn.Conv2d(3, 8, 3, padding=1, bias=False),
        bn1=nn.BatchNorm2d(8, momentum=momentum),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(8, 16, 3, padding=1, bias=False),
        bn2=nn.BatchNorm2d(16, momentum=momentum),
        relu2=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        head=nn.Linear(16, 2),
    )
    return nn.Sequential(layers)


def check(model, data):
    """Stop with the findings if `bncli diagnose` has any on 16 batches of the data."""
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad(), bncli.capture(model) as stats:
        for x, _ in islice(data, 16):
            model(x)
    model.load_state_dict(before)
    report = stats.diagnose()
    causes = {}
    for each in report.findings:
        if each.severity in {"error", "warning"}:
            causes.setdefault((each.code, each.hint), []).append(each)
    for (code, hint), (first, *others) in causes.items():
        layers = f"{first.subject} and {len(others)} more" if others else first.subject
        print(f"{first.severity.label}[{code}] {layers}: {first.message}\n{hint}")
    if causes:
        sys.exit(1)


def train(model, training, validation):
    """A plain loop, and a check every so many steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step, (x, y) in enumerate(islice(training, STEPS), 1):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= BEGIN and step % EVERY == 0:
            print(f"step {step} of {STEPS}")
            check(model, validation)


def main():
    """Train with what the flags say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--momentum", type=float, default=0.1)
    parser.add_argument("--validation-scale", type=float, default=1.0)
    flags = parser.parse_args()
    torch.manual_seed(0)
    train(net(flags.momentum), batches(0), batches(1, flags.validation_scale))


if __name__ == "__main__":
    main()
