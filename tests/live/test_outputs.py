"""The floating-point tensors of an output, and how far two propagations are apart."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from bncli.live import outputs
from bncli.live.outputs import OutputPool, by_channel, floating_tensors, squared_difference
from bncli.model.capture import Capture, Propagation

X = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2)
IDS = torch.arange(3)


@dataclass
class Made:
    logits: Any
    loss: Any = None


class Pair(NamedTuple):
    out: torch.Tensor
    aux: torch.Tensor


NESTED = {
    "tensor": (X, [""]),
    "tuple": ((X, IDS, X + 1), ["0", "2"]),
    "list in a dict": ({"out": [X, X], "ids": IDS}, ["out.0", "out.1"]),
    "ordered dict": (OrderedDict(out=X, aux=X), ["out", "aux"]),
    "named tuple": (Pair(X, X), ["0", "1"]),
    "dataclass": (Made(X, {"a": X.half()}), ["logits", "loss.a"]),
    "dataclass in a tuple": ((Made(X), "text"), ["0.logits"]),
    "half precision": ((X.bfloat16(), X.double()), ["0", "1"]),
    "without floating-point": ((IDS, {"mask": IDS > 1}, None, 3.0, "text"), []),
    "empty": (torch.ones(0, 3), []),
    "complex": ((X.to(torch.complex64), IDS), ["0"]),
    "a class": (Made, []),
}


@pytest.mark.parametrize("kind", NESTED)
def test_the_tensors_of_an_output(kind):
    output, names = NESTED[kind]
    found = floating_tensors(output)
    assert list(found) == names
    assert all(tensor.is_floating_point() for tensor in found.values())


def test_complex_numbers_are_two_real_ones():
    x = torch.complex(X, -X)
    (found,) = floating_tensors(x.conj()).values()
    assert found.equal(torch.stack([X, X], -1))


def test_copied_tensors_stay_as_they_are():
    x = X.clone()
    (held,) = floating_tensors(x).values()
    (copied,) = floating_tensors(x, copied=True).values()
    x.zero_()
    assert not held.any()
    assert copied.equal(X)


def test_the_tensors_are_the_outputs_own_without_their_gradient():
    leaf = X.clone().requires_grad_()
    (found,) = floating_tensors([leaf]).values()
    assert found.data_ptr() == leaf.data_ptr()
    assert not found.requires_grad


def test_what_holds_itself_ends():
    endless: list[Any] = [X]
    endless.append(endless)
    found = floating_tensors(endless)
    assert 1 < len(found) < 20
    assert all(tensor.equal(X) for tensor in found.values())


@pytest.mark.parametrize(
    ("shape", "rows"), [((2, 3, 4, 5), 3), ((2, 3), 3), ((7,), 1), ((), 1)], ids=str
)
def test_channels_are_those_of_axis_one(shape, rows):
    x = torch.randn(shape)
    values = by_channel(x.bfloat16())
    assert values.dtype == np.float64
    assert values.shape == (rows, x.numel() // rows)
    if len(shape) > 1:
        for channel in range(rows):
            expected = x.bfloat16().double()[:, channel].flatten()
            assert sorted(values[channel]) == sorted(expected.tolist())


def test_differences_are_added_up_in_float64():
    a, b = torch.full((4,), 1e30), torch.zeros(4)  # whose squares are Inf in float32
    assert squared_difference(a, b) == pytest.approx(4e60, rel=1e-6)
    a = torch.full((1000,), 256.0).bfloat16()
    assert squared_difference(a, torch.full((1000,), 255.0).bfloat16()) == 1000.0


def pooled(batches, others):
    """A pool with the training outputs and another propagation's."""
    pool = OutputPool()
    for training, other in zip(batches, others, strict=True):
        pool.add_training(floating_tensors(training))
        pool.add(Propagation.EVAL, floating_tensors(other), floating_tensors(training))
    return pool


def test_the_gap_is_that_of_plain_torch_over_all_tensors():
    generator = torch.Generator().manual_seed(0)

    def draw(n, scale):
        return {
            "map": scale * torch.randn(n, 3, 4, 4, generator=generator) + 100,
            "scores": torch.randn(n, 5, generator=generator),
        }

    sizes = (8, 8, 3)  # the last batch is smaller, and the maps too
    training = [draw(n, 2.0) for n in sizes]
    other = [{key: x + 0.1 * torch.randn(x.shape, generator=generator) for key, x in each.items()}
             for each in training]  # fmt: skip
    training[1]["map"], other[1]["map"] = training[1]["map"][..., :2], other[1]["map"][..., :2]
    sums = pooled(training, other).sums()
    apart = spread = 0.0
    for key in ("map", "scores"):
        rows = [x[key].double().transpose(0, 1).flatten(1) for x in training]
        wanted = torch.cat(rows, 1)
        got = torch.cat([x[key].double().transpose(0, 1).flatten(1) for x in other], 1)
        apart += float((got - wanted).square().sum())
        spread += float((wanted - wanted.mean(1, keepdim=True)).square().sum())
        (of,) = (each for each in sums if each.name == key)
        assert of.count == wanted.shape[1]
        np.testing.assert_allclose(of.mean, wanted.mean(1).numpy(), rtol=1e-13)
    gap = Capture((), sums).gap(Propagation.EVAL)
    assert gap == pytest.approx((apart / spread) ** 0.5, rel=1e-12)
    assert Capture((), sums).gap_floor is None


def test_a_propagation_that_was_forgotten_begins_anew():
    pool = pooled([X], [X + 1])
    pool.forget(Propagation.EVAL)
    assert pool.sums()[0].apart == {}
    pool.add(Propagation.EVAL, {"": X + 2}, {"": X})
    assert pool.sums()[0].apart == {Propagation.EVAL: 4.0 * 24}
    pool.forget(Propagation.TRAINING)
    assert pool.sums()[0].count == 8


@pytest.mark.parametrize(
    ("training", "other", "problem"),
    [
        ([IDS], [IDS], "the output holds no floating-point tensor"),
        ([X, X[:, :2]], [X, X[:, :2]], "the outputs of two batches differ in shape"),
        ([X], [X[:1]], "the outputs in eval and in training differ in shape"),
        ([X], [{"out": X}], "the outputs in eval and in training differ in shape"),
        ([X, IDS, X], [X, X, X], "the output holds no floating-point tensor"),
    ],
    ids=["no tensor", "channels", "samples", "names", "one batch without"],
)
def test_what_cannot_be_compared_is_said(training, other, problem):
    pool = pooled(training, other)
    assert pool.problem == problem
    assert pool.sums() == ()


def test_large_outputs_are_taken_in_in_parts(monkeypatch):
    monkeypatch.setattr(outputs, "MOST_VALUES", 10)
    widened = []
    by_channel = outputs.by_channel
    monkeypatch.setattr(
        outputs, "by_channel", lambda x: (widened.append(x.numel()), by_channel(x))[1]
    )
    x = torch.arange(60.0).reshape(10, 2, 3)
    found = Capture((), pooled([x], [x + 1]).sums()).gap(Propagation.EVAL)
    assert max(widened) <= 10
    assert found == pytest.approx(
        float((60 / (x - x.mean((0, 2), keepdim=True)).square().sum()) ** 0.5)
    )


@pytest.mark.parametrize(
    ("training", "other", "why"),
    [
        (IDS, IDS, "the output holds no floating-point tensor"),
        (X, X[:1], "the outputs in eval and in training differ in shape"),
        (X, X * torch.nan, "the outputs hold NaN or Inf"),
        (X / 0, X, "the outputs hold NaN or Inf"),
        (X * 0, X, "the outputs do not vary"),
        (X, X, ""),
    ],
    ids=["no tensor", "shape", "nan", "inf", "constant", "none"],
)
def test_why_there_is_no_gap(training, other, why):
    pool = pooled([training], [other])
    assert pool.why_no_gap == why
    assert (Capture((), pool.sums()).gap(Propagation.EVAL) is None) == bool(why)


def test_nothing_is_said_of_outputs_that_did_not_come():
    assert OutputPool().why_no_gap == ""
