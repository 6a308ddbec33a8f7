"""Whether the weights of two files are those of one network at two times."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from bncli.changes import correlation as module
from bncli.changes.kinship import kinship
from bncli.changes.matching import matched
from bncli.loaders import open_file
from tests.changes.files import made, network, norm

CORPUS = Path(
    os.environ.get("BNCLI_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus"
)


def judged(a, b, parts=("", "")):
    a, b = (made(each) if isinstance(each, dict) else each for each in (a, b))
    return kinship(a, b, matched(a, b, parts))


class Net(nn.Module):
    """A small network with depthwise convolutions, whose kernels have much in common."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.deep = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.deep(self.stem(x)).mean((2, 3)))


def smooth_images(generator, count):
    """Images of four classes of blobs, as smooth as photographs."""
    labels = torch.randint(4, (count,), generator=generator)
    noise = torch.randn(count, 3, 4, 4, generator=generator)
    noise[torch.arange(count), labels % 3] += 1.0 + labels[:, None, None] / 2
    return nn.functional.interpolate(noise, size=12, mode="bilinear"), labels


def train(net, seed, steps, rate=0.05, decay=5e-4):
    generator = torch.Generator().manual_seed(seed)
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=decay)
    for _ in range(steps):
        images, labels = smooth_images(generator, 16)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net


@pytest.fixture(scope="module")
def trained():
    """Networks by what was done with them: trained, for longer, apart from it, on other data."""
    torch.manual_seed(1)
    first = train(Net(), 1, 100)
    torch.manual_seed(2)
    apart = train(Net(), 1, 100)
    longer = train(copy.deepcopy(first), 2, 400)
    other = copy.deepcopy(first)
    other.head.reset_parameters()
    return {
        "first": first,
        "apart": apart,
        "longer": longer,
        "other": train(other, 3, 200, rate=0.1),
        "next": train(copy.deepcopy(first), 4, 1),
    }


def saved(net, folder, name, *, half=False, wrapper=""):
    state = {f"{wrapper}{key}": values for key, values in net.state_dict().items()}
    if half:
        state = {key: v.half() if v.is_floating_point() else v for key, v in state.items()}
    torch.save(state, folder / name)
    return open_file(folder / name)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("wrapper", ["", "state_dict.module."])
def test_networks_that_were_trained(trained, folder, half, wrapper):
    first = saved(trained["first"], folder, "a.pt")
    verdicts = {
        name: judged(first, saved(net, folder, f"{name}.pt", half=half, wrapper=wrapper))
        for name, net in trained.items()
    }
    assert {name: related for name, (_, related) in verdicts.items()} == {
        "first": True,
        "next": True,
        "longer": True,
        "other": True,
        "apart": False,
    }
    assert verdicts["first"][0] == pytest.approx(1, abs=1e-6)
    assert abs(verdicts["apart"][0]) < 0.1
    assert verdicts["longer"][0] < verdicts["next"][0]


def test_that_a_part_was_frozen_is_not_called_another_network(trained, folder):
    fresh = Net()
    fresh.stem.load_state_dict(trained["first"].stem.state_dict())
    correlation, related = judged(
        saved(trained["first"], folder, "a.pt"), saved(fresh, folder, "b.pt")
    )
    assert related is None
    assert abs(correlation) < 0.1


def test_of_a_live_model_and_its_average_only_the_matched_part_counts():
    live, average = network((16, 32, 32), seed=1), network((16, 32, 32), seed=2)
    both = {f"model.{name}": values for name, values in live.items()}
    both |= {f"ema.{name}": values for name, values in average.items()}
    assert judged(live, both, ("", "model")) == (1.0, True)
    assert judged(live, both, ("", "ema"))[1] is False


def test_what_an_optimizer_keeps_does_not_count():
    rng = np.random.default_rng(0)
    weights = network((16, 32, 32), seed=1)
    files = []
    for _ in range(2):
        moments = {
            f"optimizer.state.{at}.exp_avg": rng.normal(0, 1, values.shape)
            for at, values in enumerate(weights.values())
            if values.ndim == 4
        }
        files.append(weights | moments)
    assert judged(*files) == (1.0, True)


def test_names_that_differ_are_paired_by_their_layers():
    a = network((16, 32, 32, 16), seed=1)
    b = {
        name.replace("layer", "z").replace(".bn", "xx.bn").replace(".conv", "xx.conv"): values
        for name, values in a.items()
    }
    assert judged(a, b) == (1.0, True)


def test_kernels_whose_axes_are_in_another_order_are_paired():
    a = network((16, 32, 32, 16), seed=1)
    b = {}
    for name, values in a.items():
        turned = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values
        b[name.replace("conv.weight", "conv/kernel").replace("layer", "z")] = turned
    correlation, related = judged(a, b)
    assert (correlation, related) == (1.0, True)


def test_what_is_sampled_of_a_weight_does_not_depend_on_how_a_file_keeps_it(folder):
    weights = {
        name: np.asarray(values, np.int64 if values.dtype.kind == "i" else np.float32)
        for name, values in network((64, 128, 256), seed=1).items()
    }
    torch.save({name: torch.tensor(values) for name, values in weights.items()}, "a.pt")
    np.savez_compressed("b.npz", **weights)
    np.savez("c.npz", **weights)
    for other in ("b.npz", "c.npz"):
        a, b = open_file(Path("a.pt")), open_file(Path(other))
        assert kinship(a, b, matched(a, b)) == (1.0, True)


@given(st.integers(0, 2**31), st.sampled_from(["float32", "float16"]))
@example(282, "float32")
@example(8310, "float32")
@settings(max_examples=100)
def test_unrelated_weights_are_never_called_related(seed, dtype):
    rng = np.random.default_rng(seed)

    def weights():
        # what kernels have in common: a strong centre, and filters of different sizes
        centre = np.zeros((3, 3))
        centre[1, 1] = 3
        values = network((16, 24, 32))
        for name in values:
            if name.endswith("conv.weight"):
                shape = values[name].shape
                size = np.exp(rng.normal(0, 1, (shape[0], 1, 1, 1)))
                values[name] = ((rng.standard_t(4, shape) + centre) * size).astype(dtype)
        return values

    correlation, related = judged(weights(), weights())
    assert related is not True
    assert abs(correlation) < 0.3


def test_one_network_with_noise_as_large_as_its_weights_is_related():
    rng = np.random.default_rng(0)
    a = network((16, 24, 32), seed=1)
    b = {
        name: values + rng.normal(0, 1, values.shape) if name.endswith("conv.weight") else values
        for name, values in a.items()
    }
    correlation, related = judged(a, b)
    assert related is True
    assert correlation == pytest.approx(0.7, abs=0.05)


def test_what_cannot_be_told():
    assert judged(norm("bn", 8, 1), norm("bn", 8, 2)) == (None, None)  # there are no weights
    constant = network((16, 32), seed=1)
    constant |= {name: np.ones_like(v) for name, v in constant.items() if v.ndim == 4}
    assert judged(constant, constant) == (None, None)
    assert judged(constant, network((16, 32), seed=2)) == (None, None)
    few, other = network((2, 2), seed=1), network((2, 2), seed=2)
    assert judged(few, other)[1] is None  # 90 values
    damaged = network((16, 32), seed=1)
    damaged |= {name: np.full_like(v, np.nan) for name, v in damaged.items() if v.ndim == 4}
    assert judged(damaged, damaged) == (None, None)
    assert kinship(made(few), made(other), []) == (None, None)


def test_few_weights_of_a_large_network_are_read(monkeypatch):
    read = []
    sample = module.sample
    monkeypatch.setattr(module, "sample", lambda ref, most: read.append(ref) or sample(ref, most))
    a = network([8] * 100, seed=1)
    assert judged(a, a) == (1.0, True)
    assert len(read) <= 2 * 16


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no {CORPUS}")
def test_published_face_detectors():
    names = {
        "a": "ultra-light-fd/version-RFB-320.pth",
        "b": "ultra-light-fd/RFB-320-masked_face-v2.pth",
        "0": "ultra-light-fd-series/RFB-Epoch-000.pth",
        "499": "ultra-light-fd-series/RFB-Epoch-499.pth",
    }
    files = {key: open_file(CORPUS / name) for key, name in names.items()}
    for pair in ("ab", "a0", "b0"):
        assert judged(files[pair[0]], files[pair[1]])[1] is False, pair
    assert judged(files["a"], files["499"])[1] is False
    assert judged(files["b"], files["499"])[1] is False
    correlation, related = judged(files["0"], files["499"])
    assert related is True
    assert correlation == pytest.approx(0.307, abs=0.001)
