"""From a faulty checkpoint to a repaired model: the result is loaded and run by PyTorch alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.commands.recalibrate.conftest import CALL
from tests.live.small import gap_by_hand, renewed_by_hand


@dataclass(frozen=True)
class Container:
    """How a state_dict is written to a file and read again by its own library."""

    suffix: str
    write: Callable[[dict, str], None]
    read: Callable[[str], dict]


read_torch = partial(torch.load, weights_only=True)
CONTAINERS = {
    "zip": Container("pth", torch.save, read_torch),
    "legacy": Container(
        "pth", partial(torch.save, _use_new_zipfile_serialization=False), read_torch
    ),
    "safetensors": Container("safetensors", save_file, load_file),
    "in a larger file": Container(
        "ckpt",
        lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
        lambda path: read_torch(path)["state_dict"],
    ),
}


def reset(model):
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()


def nan(model):
    model.bn2.running_mean[1] = torch.nan
    model.bn3.running_var.fill_(torch.inf)


def one_layer(model):
    model.bn2.running_var.mul_(25)


FAULTS = [reset, nan, one_layer]


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_evaluation_is_repaired(recalibrated, healthy, net, container, spoil):
    model = copy.deepcopy(healthy)
    spoil(model)
    old, new = f"old.{container.suffix}", f"new.{container.suffix}"
    container.write(model.state_dict(), old)
    facts = recalibrated(old, f"--save-checkpoint={new}")["facts"]
    assert (facts["outcome"], facts["output"]) == ("helps", new)

    repaired = copy.deepcopy(model)
    repaired.load_state_dict(container.read(new))
    floor = gap_by_hand(renewed_by_hand(model, net), net)
    gap = gap_by_hand(repaired, net)
    assert gap == pytest.approx(floor, rel=1e-3)
    assert gap == pytest.approx(facts["gap_after"], rel=1e-4)
    if spoil is not nan:
        assert gap_by_hand(model, net) == pytest.approx(facts["gap_before"], rel=1e-4)
        assert gap < 0.6 * gap_by_hand(model, net)
    for name, tensor in container.read(old).items():
        if not name.endswith(("running_mean", "running_var")):
            assert container.read(new)[name].equal(tensor)


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_a_statistics_file_repairs_it_too(run, healthy, net, container):
    """As training would have left it: `update_bn` is run on the same batches."""
    model = copy.deepcopy(healthy)
    reset(model)
    old, new = f"old.{container.suffix}", f"new.{container.suffix}"
    container.write(model.state_dict(), old)
    captured = run("capture", *CALL[1:3], f"--checkpoint={old}", "--save-stats=stats.npz")
    assert captured.code == 0
    flags = ("--stats=stats.npz", f"--checkpoint={old}", f"--save-checkpoint={new}", CALL[3])
    written = run("recalibrate", *flags, "--average=batches", "--counter=batches")
    assert (written.code, written.stderr) == (0, "")

    repaired, by_torch = copy.deepcopy(model), copy.deepcopy(model)
    repaired.load_state_dict(container.read(new))
    torch.optim.swa_utils.update_bn(net, by_torch)
    by_torch.eval()
    for name, tensor in by_torch.state_dict().items():
        torch.testing.assert_close(repaired.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    gap, before = gap_by_hand(repaired, net), gap_by_hand(model, net)
    assert gap == pytest.approx(gap_by_hand(by_torch, net), rel=1e-3)
    assert gap < 0.6 * before
