"""Make the checkpoints that the guide compares: `python make.py` here, with torch installed."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

FOLDER = Path(__file__).parent
BLOCKS = {"stem": 3, "layer1": 8, "layer2": 8, "head": 8}
WIDTH = 8


def network():
    """Four convolutions, each with a BatchNorm layer behind it."""
    blocks = OrderedDict()
    for name, channels in BLOCKS.items():
        conv, bn = nn.Conv2d(channels, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH)
        blocks[name] = nn.Sequential(OrderedDict(conv=conv, bn=bn, act=nn.ReLU()))
    return nn.Sequential(blocks)


def train(net, batches, shift=0.0, outliers=0):
    """Train for some batches; frozen weights stay. Outliers come last, without training steps."""
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.05, momentum=0.9)
    for _ in range(batches):
        x = torch.randn(16, 3, 4, 4) + shift
        wanted = x.mean((2, 3)).repeat(1, 3)[:, :WIDTH]
        loss = (net(x).mean((2, 3)) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for _ in range(outliers):
        net(10 * torch.randn(16, 3, 4, 4))


def save(net, name):
    """Save the state as training scripts do."""
    torch.save(net.state_dict(), FOLDER / name)


def main():
    """A fine-tuning with a wrong freeze, an average with one client's buffers, a spoilt epoch."""
    torch.manual_seed(0)
    net = network()
    train(net, 60)
    save(net, "before.pt")

    tuned = copy.deepcopy(net)
    for name, block in tuned.named_children():
        block.requires_grad_(name not in ("stem", "layer1"))
    tuned.stem.eval()  # and layer1 should be, too
    train(tuned, 40, shift=0.5)
    save(tuned, "after.pt")

    clients = [copy.deepcopy(net) for _ in range(3)]
    for number, client in enumerate(clients):
        train(client, 20, shift=0.3 * number)
        save(client, f"client{number}.pt")
    average = copy.deepcopy(clients[0])  # its buffers stay in the average
    with torch.no_grad():
        for weight, *each in zip(*(each.parameters() for each in (average, *clients)), strict=True):
            weight.copy_(sum(each) / len(each))
    save(average, "global.pt")

    run = copy.deepcopy(net)
    for epoch in range(1, 6):
        train(run, 50, outliers=3 if epoch == 3 else 0)
        save(run, f"epoch{epoch}.pt")


if __name__ == "__main__":
    main()
