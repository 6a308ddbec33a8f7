"""Make a checkpoint with one fault: `python make.py` in this folder, with torch installed."""

from __future__ import annotations

from pathlib import Path

import torch

FOLDER = Path(__file__).parent
WIDTHS = {"stem.bn": 8} | {f"layer{n}.0.bn{k}": 8 * n for n in (1, 2, 3) for k in (1, 2)}


def main() -> None:
    """Estimate the statistics of seven layers over 500 batches, and spoil a single value."""
    torch.manual_seed(0)
    state = {}
    for name, width in WIDTHS.items():
        layer = torch.nn.BatchNorm1d(width)
        torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
        torch.nn.init.normal_(layer.bias, std=0.3)
        scale, mean = 0.2 + torch.rand(width), torch.randn(width) / 2
        for _ in range(500):
            layer(mean + scale * torch.randn(64, width))
        state |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}
    state["layer3.0.bn1.running_var"][3] = float("nan")
    torch.save(state, FOLDER / "nan.pt")


if __name__ == "__main__":
    main()
