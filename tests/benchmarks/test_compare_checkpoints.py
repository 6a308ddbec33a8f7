"""Comparing two large checkpoints, against inspecting each of them and against `cmp`."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from .conftest import Row
from .processes import BNCLI, Program, raced

LAYERS = 53
CHANNELS = 512
INPUTS = 64
MOST_LONGER = 1.3
"""How many times as long as the rival bncli may take."""


def network(megabytes, seed=0):
    """53 convolutions, each before a BatchNorm layer; every tensor depends on the seed."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    height = megabytes * 1_000_000 // 4 // LAYERS // CHANNELS // INPUTS // 3
    kernels = torch.randn(CHANNELS, INPUTS, height, 3, generator=generator)
    for layer in range(LAYERS):
        state[f"layer{layer}.conv.weight"] = kernels + layer
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            values = torch.rand(CHANNELS, generator=generator) + 0.1
            state[f"layer{layer}.bn.{leaf}"] = values
        state[f"layer{layer}.bn.num_batches_tracked"] = torch.tensor(1000 + seed)
    return state


def told(rows, case, rival, seconds, times, memory):
    """Note how a comparison fared beside so many `times` the rival."""
    took = {name: min(each) for name, each in seconds.items()}
    ratio = times * took[rival] / took["bncli"]
    shown = f"{ratio:.2f} ({took['bncli']:.2f} s; rival {times * took[rival]:.2f} s)"
    wanted = 1 / MOST_LONGER
    rows.append(Row(case, rival, "", f"{wanted:.2f}", shown, ratio >= wanted))
    shown = f"{memory['bncli']:.0f} MB"
    rows.append(Row(f"{case}, memory", "80 MB", "", "", shown, memory["bncli"] <= 80))


@pytest.mark.parametrize("kind", ["equal", "moved"])
def test_torch_zip(kind, tmp_path, rows):
    a, b = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save(network(2300), a)
    torch.save(network(2300, seed=int(kind == "moved")), b)
    seconds, memory = raced(
        {
            "bncli": (BNCLI, "compare-checkpoints", str(a), str(b), "-f", "json"),
            "two inspections": (BNCLI, "inspect-checkpoint", str(a), "-f", "json"),
        },
        5,
    )
    a.unlink()
    b.unlink()
    case = f"compare-checkpoints, two {kind} .pt of 2.3 GB"
    told(rows, case, "two inspections", seconds, 2, memory)


@pytest.mark.skipif(shutil.which("cmp") is None, reason="there is no cmp")
@pytest.mark.parametrize("kind", ["equal", "moved"])
def test_safetensors(kind, tmp_path, rows):
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    state = network(1200)
    save_file(state, a)
    if kind == "moved":  # in the last element of each tensor
        for tensor in state.values():
            tensor.view(-1)[-1] += 1
    save_file(state, b)
    files = [a, b] if kind == "equal" else [a, a.with_suffix(".copy")]
    shutil.copy(a, a.with_suffix(".copy"))  # cmp ends where the first bytes differ
    seconds, memory = raced(
        {
            "bncli": (BNCLI, "compare-checkpoints", str(a), str(b), "-f", "json"),
            "cmp": Program((shutil.which("cmp"), *map(str, files))),
        },
        5,
    )
    case = f"compare-checkpoints, two {kind} .safetensors of 1.2 GB"
    told(rows, case, "cmp", seconds, 1, memory)
