"""PyTorch's own norms, every dtype, affine or not, any eps: each is recognised, none misnamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import pytest
import torch

from bncli.verify.identify.hypotheses import Known
from bncli.verify.identify.output import Identification, identify_output
from bncli.verify.identify.pair import ArraySource

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
EPS = (1e-5, 3e-4, 0.02)
SHAPES = ((8, 4, 6), (5, 6, 3, 4))


@dataclass(frozen=True)
class Sample:
    """A norm's name and eps, what it made of which input, and what is known of it."""

    name: str
    eps: float
    x: torch.Tensor
    y: torch.Tensor
    known: Known

    def identified(self) -> Identification:
        return identify_output(source(self.x), source(self.y), 1, self.known)


def source(tensor: torch.Tensor) -> ArraySource:
    dtype = str(tensor.dtype).removeprefix("torch.")
    wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return ArraySource(wide.detach().numpy(), dtype)


def samples(shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[Sample]:
    """24 or more of a shape and a dtype: centred or far from 0, parameters in the input's dtype."""
    torch.manual_seed(0)
    channels, spatial = shape[1], len(shape) - 2
    for eps, affine, (far, spread) in product(EPS, (False, True), ((0, 1), (3, 0.2))):
        noise = torch.randn(shape, dtype=torch.float64) * spread
        x = (noise + far * torch.randn(1, channels, *[1] * spatial).double()).to(dtype)
        instance = getattr(torch.nn, f"InstanceNorm{spatial}d")
        norms = [
            instance(channels, eps=eps, affine=affine),
            torch.nn.GroupNorm(2, channels, eps=eps, affine=affine),
            torch.nn.LayerNorm(shape[1:], eps=eps, elementwise_affine=affine),
            torch.nn.LayerNorm(shape[-1:], eps=eps, elementwise_affine=affine),
        ]
        if hasattr(torch.nn, "RMSNorm"):
            norms.append(torch.nn.RMSNorm(shape[1:], eps=eps, elementwise_affine=affine))
        for module in norms:
            module.to(dtype)
            for parameter in module.parameters():
                torch.nn.init.normal_(parameter, 1, 0.3)
            name = type(module).__name__.rstrip("123d")
            held = {
                key: values.detach().double().numpy()
                for key in ("weight", "bias")
                if (values := getattr(module, key, None)) is not None
            }
            if name in ("LayerNorm", "RMSNorm"):
                held = {f"trailing_{key}": values for key, values in held.items()}
            yield Sample(name, eps, x, module(x), Known(**held))


def judge(chosen: Iterable[Sample]) -> list[tuple[str, float, str]]:
    """The samples whose norm is not among what explains them, or that BatchNorm explains."""
    missed = []
    for sample in chosen:
        found = sample.identified()
        modes = {item.hypothesis.mode for item in found.hypotheses if item.explains}
        first = found.hypotheses[0].hypothesis
        wrong = sample.name not in modes or bool(modes & {"training", "eval"})
        if sample.x.dtype in (torch.float32, torch.float64) and first.mode == sample.name:
            wrong |= abs(first.eps - sample.eps) > 0.02 * sample.eps
        if wrong:
            missed.append((sample.name, sample.eps, found.best))
    return missed


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_norm_is_recognised(shape, dtype):
    """A sample of them; the benchmarks judge all."""
    assert judge(islice(samples(shape, dtype), SHAPES.index(shape), None, 4)) == []


def test_a_norm_that_none_of_them_is_stays_unexplained():
    """A GroupNorm whose variance is divided by n - 1, and the square root of an InstanceNorm."""
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, (6, 4, 5))
    whole = x.reshape(6, 2, -1)
    y = (whole - whole.mean(2, keepdims=True)) / whole.std(2, keepdims=True, ddof=1)
    instance = (x - x.mean(2, keepdims=True)) / x.std(2, keepdims=True)
    for made in (y.reshape(x.shape), np.sign(instance) * np.sqrt(np.abs(instance))):
        found = identify_output(ArraySource(x, "float64"), ArraySource(made, "float64"), 1, Known())
        assert not found.explained
        assert found.implied is not None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_one_value_a_channel_is_no_training(dtype, scale):
    """Whatever the tolerance, with a variance of 0 that explodes."""
    x = torch.randn(1, 24, generator=torch.Generator().manual_seed(0)) * scale
    y = x * 0.37 - 3
    x, y = (tensor.to(getattr(torch, dtype)) for tensor in (x, y))
    known = Known(np.ones(24), np.zeros(24), np.full(24, 0.5), np.full(24, 2.0))
    for given in (Known(), known):
        found = identify_output(source(x), source(y), 1, given)
        assert "training" not in {item.hypothesis.mode for item in found.hypotheses}
        assert not found.explained
        assert not found.expected
        assert found.implied.tells_nothing
