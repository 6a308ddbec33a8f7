"""The checkpoints of a pipeline's year: `python checkpoints.py` writes them here."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    """Four BatchNorm layers in a stem, a block and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        )
        self.head = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))

    def forward(self, x):
        return self.head(self.block(self.stem(x)).mean((2, 3)))


def train(model: Net, steps: int, *, spoil: bool = False) -> dict[str, torch.Tensor]:
    """Train on random images; with `spoil`, the first batch brings NaN to one channel's mean."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for step in range(steps):
        x = torch.randn(16, 3, 6, 6)
        y = (x.mean((1, 2, 3)) > 0).long()
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if spoil and step == 0:
            model.stem[1].running_mean[3] = float("nan")
    return {name: value.clone() for name, value in model.state_dict().items()}


def extrapolated(state: dict[str, torch.Tensor], layer: str) -> dict[str, torch.Tensor]:
    """The layer's statistics after an update with momentum 2 on a batch of little variance."""
    state = dict(state)
    state[f"{layer}.running_var"] = state[f"{layer}.running_var"] * (1 - 2) + 2 * 1e-3
    return state


def main() -> None:
    """Write a file a month."""
    torch.set_num_threads(1)  # as small as this, more are slower
    torch.manual_seed(0)
    model = Net()
    january = train(model, 60, spoil=True)
    february = train(model, 30)
    torch.save({"model": january, "epoch": 1}, "january.pt")
    torch.save({"model": february, "epoch": 2}, "february.pt")
    torch.save({"model": extrapolated(february, "block.1")}, "march.pt")
    torch.save({"model": extrapolated(february, "block.4")}, "april.pt")
    wrapped = {f"module.{name}": value for name, value in reversed(february.items())}
    torch.save({"state_dict": {"net": wrapped}}, "may.pt")
    Path("june.pt").write_bytes(Path("january.pt").read_bytes()[:-500])
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(5)).state_dict(), "july.pt")
    headless = {name: value for name, value in january.items() if not name.startswith("head")}
    torch.save({"model": headless}, "august.pt")
    torch.manual_seed(1)
    healthy = train(Net(), 60)
    torch.save({"model": healthy}, "september.pt")
    torch.save({"model": train(Net(), 70)}, "december.pt")


if __name__ == "__main__":
    main()
