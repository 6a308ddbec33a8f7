"""Checksums of a checkpoint's tensors as they are stored, beside those of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bncli.live.fingerprints import fingerprint_of, summed
from bncli.live.weights import fingerprint
from bncli.loaders import open_model


def net() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    made[0].weight = nn.Parameter(made[0].weight.to(memory_format=torch.channels_last))
    return made


def of_file(path) -> dict[str, str]:
    return fingerprint_of(open_model(Path(path)).tensors)


# ------------------------------------------------------------------ as the model's


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_the_sums_of_a_model_in_every_container(save, dtype):
    model = net().to(getattr(torch, dtype))
    state, wanted = model.state_dict(), fingerprint(model)
    assert of_file(save("net.pth", state)) == wanted
    assert of_file(save("whole.pth", model)) == wanted
    torch.save(state, "legacy.pth", _use_new_zipfile_serialization=False)
    assert of_file("legacy.pth") == wanted
    dense = {f"model.{key}": each.contiguous() for key, each in state.items()}
    save_file(dense, "net.safetensors")
    assert of_file("net.safetensors") == wanted
    if dtype != "bfloat16":
        arrays = {key: each.numpy() for key, each in state.items()}
        assert of_file(save("net.npz", **arrays)) == wanted
        np.savez_compressed("packed.npz", **arrays)
        assert of_file("packed.npz") == wanted


def test_a_tensor_under_two_names_counts_under_both(save):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert of_file(save("net.pth", model.state_dict())) == fingerprint(model)


def test_names_with_slashes_are_the_same():
    assert summed({"bn/weight": 1, "bn/running_mean": 2}) == summed(
        {"bn.running_mean": 2, "bn.weight": 1}
    )


def test_running_statistics_are_apart():
    sums = summed({"bn.weight": 1, "bn.running_mean": 2, "bn.num_batches_tracked": 3})
    other = summed({"bn.weight": 1, "bn.running_mean": 2, "bn.num_batches_tracked": 4})
    assert sums["weights"] == other["weights"] == summed({"bn.weight": 1})["weights"]
    assert sums["running_statistics"] != other["running_statistics"]
