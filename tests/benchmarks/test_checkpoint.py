"""Reading every BatchNorm buffer of a large checkpoint, against torch.load at its best."""

import pytest
import torch

from .conftest import Row
from .processes import BNCLI, raced

TORCH = """
import sys, torch
state = torch.load(sys.argv[1], weights_only=True, mmap=True)
for name, tensor in state.items():
    if name.endswith(("running_mean", "running_var")):
        print(name, tensor.min().item(), tensor.max().item())
"""
LAYERS = 53
CHANNELS = 512


def checkpoint(path, megabytes):
    """53 BatchNorm layers, 106 buffers of statistics, beside a convolution each."""
    state = {}
    values = megabytes * 1_000_000 // 4 // LAYERS
    for layer in range(LAYERS):
        state[f"layer{layer}.conv.weight"] = torch.zeros(values)
        state[f"layer{layer}.bn.weight"] = torch.ones(CHANNELS)
        state[f"layer{layer}.bn.bias"] = torch.zeros(CHANNELS)
        state[f"layer{layer}.bn.running_mean"] = torch.randn(CHANNELS)
        state[f"layer{layer}.bn.running_var"] = torch.rand(CHANNELS)
        state[f"layer{layer}.bn.num_batches_tracked"] = torch.tensor(1000)
    torch.save(state, path)


@pytest.mark.parametrize("megabytes", [125, 2300])
def test_inspect_checkpoint(megabytes, tmp_path, rows):
    path = tmp_path / "net.pt"
    checkpoint(path, megabytes)
    seconds, memory = raced(
        {
            "bncli": (BNCLI, "inspect-checkpoint", str(path), "-f", "json"),
            "torch script": (TORCH, str(path)),
        },
        5,
    )
    path.unlink()
    took = {name: min(times) for name, times in seconds.items()}
    ratio = took["torch script"] / took["bncli"]
    case = f"inspect-checkpoint, {megabytes} MB"
    told = f"{ratio:.1f} ({took['bncli']:.2f} s; rival {took['torch script']:.2f} s)"
    rows.append(Row(case, "torch.load script", "", "5.00", told, ratio >= 5))
    told = f"{memory['bncli']:.0f} MB; torch.load script {memory['torch script']:.0f} MB"
    rows.append(Row(f"{case}, memory", "80 MB", "", "", told, memory["bncli"] <= 80))
