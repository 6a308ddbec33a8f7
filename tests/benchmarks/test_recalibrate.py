"""A pass that finds new running statistics, against torch.optim.swa_utils.update_bn."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from bncli.live.capture_run import CaptureRun
from bncli.live.data_source import open_data
from bncli.live.session import Session

from .conftest import Row
from .processes import raced

WANTED = 1 / 1.3
MEGABYTES = 60
ROOT = str(Path(__file__).parents[2])

PASSES = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from tests.benchmarks.test_recalibrate import NETS, training_pass
torch.set_num_threads(1)
net = NETS[sys.argv[3]]()
if sys.argv[4] == "update_bn":
    torch.optim.swa_utils.update_bn(map(torch.load, sys.argv[2:3] * 2), net)
else:
    training_pass(net, sys.argv[2:3] * 2)()
"""


class Residual(nn.Module):
    """Two convolutions beside what they are added to."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.beside = nn.Identity()
        if stride > 1:
            conv = nn.Conv2d(before, after, 1, stride, bias=False)
            self.beside = nn.Sequential(conv, nn.BatchNorm2d(after))

    def forward(self, x):
        return (self.beside(x) + self.layers(x)).relu_()


def resnet():
    """A network like ResNet-18."""
    stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    layers = [stem, nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    before = 64
    for after in (64, 128, 256, 512):
        layers += [Residual(before, after, 1 + (after > before)), Residual(after, after, 1)]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def twice(before, after):
    """Two convolutions, each with BatchNorm and ReLU."""
    return nn.Sequential(
        *(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()),
        *(nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()),
    )


class UNet(nn.Module):
    """A small U-Net."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([twice(3, 16), twice(16, 32), twice(32, 64)])
        ups = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.up = nn.ModuleList(ups)
        self.after = nn.ModuleList([twice(64, 32), twice(32, 16)])
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        first = self.down[0](x)
        second = self.down[1](nn.functional.max_pool2d(first, 2))
        x = self.down[2](nn.functional.max_pool2d(second, 2))
        x = self.after[0](torch.cat([self.up[0](x), second], 1))
        return self.out(self.after[1](torch.cat([self.up[1](x), first], 1)))


NETS = {"ResNet-18-like": resnet, "small U-Net": UNet}
SIZE = 112


def training_pass(net, files):
    """A function that runs all batches through the net once and takes the layers' moments."""
    session = Session(net, open_data([str(file) for file in files]))

    def run():
        with session.open():
            capture = CaptureRun(session, per_batch=False)
            capture.training()
        assert capture.samples > 0

    return run


@pytest.fixture
def batches(tmp_path):
    """A function that writes two batches of so many images."""

    def written(samples):
        files = [tmp_path / f"{number}.pt" for number in range(2)]
        torch.manual_seed(0)
        for file in files:
            torch.save(torch.randn(samples, 3, SIZE, SIZE), file)
        return files

    return written


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("samples", [8, 32])
@pytest.mark.parametrize("kind", NETS)
def test_training_pass(kind, samples, threads, batches, race):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    files = batches(samples)
    net = NETS[kind]()
    race(
        f"{kind}, batches of {samples}, one pass for new statistics",
        threads,
        training_pass(net, files),
        {"update_bn": (lambda: update_bn(map(torch.load, files), net), WANTED)},
        values=2 * samples * 3 * SIZE * SIZE,
        rounds=7,
    )
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", NETS)
def test_memory(kind, batches, rows):
    file = str(batches(32)[0])
    arguments = {name: (PASSES, ROOT, file, kind, name) for name in ("update_bn", "bncli")}
    _, memory = raced(arguments, 2)
    told = f"{memory['bncli']:.0f} MB; update_bn {memory['update_bn']:.0f} MB"
    rows.append(
        Row(
            f"{kind}, batches of 32, memory",
            f"{MEGABYTES} MB above update_bn",
            "1",
            "",
            told,
            memory["bncli"] - memory["update_bn"] <= MEGABYTES,
        )
    )
