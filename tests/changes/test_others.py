"""The weights that belong to no BatchNorm layer, in two files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bncli.changes.others import other_weights
from bncli.loaders import open_model
from bncli.model.changes import OtherWeights


@pytest.fixture
def others(save):
    """A function that compares what is left of two dictionaries of tensors, saved by torch."""

    def compare(a, b, used=(), other_used=()):
        ours, theirs = (open_model(Path(save(f"{i}.pth", each))) for i, each in enumerate((a, b)))
        return other_weights(ours, theirs, used, other_used)

    return compare


def test_each_tensor_counts_once_and_by_what_it_is(others):
    a = {
        "fc.weight": torch.randn(5, 4),
        "fc.bias": torch.randn(5),
        "index": torch.arange(9),
        "scale": torch.tensor(2.5),
        "head.weight": torch.randn(7, 4),
        "gone": torch.zeros(2),
        "bn.weight": torch.ones(4),
    }
    b = {
        **a,
        "fc.bias": a["fc.bias"] + 1,
        "scale": a["scale"].half(),
        "head.weight": torch.randn(9, 4),
        "new": torch.zeros(2),
        "bn.weight": torch.zeros(4),
    }
    del b["gone"]
    assert others(a, b, {"bn.weight"}, {"bn.weight"}) == OtherWeights(
        same=2, rounded=1, moved=("fc.bias", "head.weight"), alone=("gone",), other_alone=("new",)
    )


def test_what_is_used_in_one_file_alone_is_alone_in_the_other(others):
    x = {"conv.bias": torch.ones(2)}
    assert others(x, x, {"conv.bias"}) == OtherWeights(other_alone=("conv.bias",))


@pytest.mark.parametrize("wrapper", ["module.{}", "state_dict.model.{}", "state/{}"])
def test_a_wrapper_and_slashes_do_not_matter(others, wrapper):
    plain = {"layer.0.weight": torch.randn(3), "layer.1.weight": torch.randn(3)}
    wrapped = {wrapper.format(name): each for name, each in plain.items()}
    wrapped = {name.replace("layer.", "layer/"): each for name, each in wrapped.items()}
    assert others(plain, wrapped) == OtherWeights(same=2)
    assert others(wrapped, plain) == OtherWeights(same=2)


def test_weights_beside_the_state_of_an_optimizer(others):
    fc, moment = torch.randn(4, 3), torch.zeros(4, 3)
    training = {"state_dict.module.fc.weight": fc, "optimizer.exp_avg": moment}
    assert others({"fc.weight": fc}, training) == OtherWeights(
        same=1, other_alone=("optimizer.exp_avg",)
    )
    assert others(training, {"module.fc.weight": fc}) == OtherWeights(
        same=1, alone=("optimizer.exp_avg",)
    )


def test_two_that_could_be_it_are_not_guessed(others):
    x = torch.randn(3)
    found = others({"model.fc": x, "net.fc": x, "other": x}, {"fc": x, "rest": x})
    assert found == OtherWeights(alone=("model.fc", "net.fc", "other"), other_alone=("fc", "rest"))


def test_names_that_differ_in_slashes_alone_stay_apart(others):
    a = {"x/y": torch.ones(2), "x.y": torch.zeros(2), "z": torch.ones(1)}
    assert others(a, a) == OtherWeights(same=3)


def test_values_that_cannot_be_had(others):
    sparse = torch.eye(3).to_sparse()
    found = others({"w": sparse, "v": torch.ones(1)}, {"w": torch.eye(3), "v": torch.ones(1)})
    assert found == OtherWeights(same=1, unread=("w",))


def test_a_bar_counts_the_bytes(others, monkeypatch):
    seen = []

    class Bar:
        def __init__(self, description, total):
            seen.append((description, total))

        def __enter__(self):
            return seen.append

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("bncli.changes.others.progress", Bar)
    a = {"a": torch.ones(3), "b": torch.ones(5, dtype=torch.int64), "c": torch.ones(1)}
    others(a, {"a": torch.ones(3), "b": torch.zeros(5, dtype=torch.int64)})
    assert seen == [("other weights", 52), 12, 40]
