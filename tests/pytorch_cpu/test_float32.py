"""PyTorch's float32 forward pass, repeated bit for bit: every number, over random modules."""

from __future__ import annotations

import platform
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from bncli.pytorch_cpu.float32 import (
    batch_statistics,
    evaluation_invstd,
    fma,
    folded,
    sums_by_rows,
    training_invstd,
    updated,
)

f32 = np.float32


def has_fma() -> bool:
    """Whether PyTorch's kernels use fused multiply-add here, as those for AVX2 do."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


same_machine = pytest.mark.skipif(
    not has_fma(), reason="PyTorch's kernels are compiled for another processor: no AVX2 with FMA"
)


# ---------------------------------------------------------------------------------------- fma


def rounded(value: Fraction) -> np.float32:
    """`value` to the nearest float32, ties to even: by bisecting over the floats' bits."""
    if value < 0:
        return -rounded(-value)
    low, high = 0, 0x7F800000  # 0 and infinity
    while high - low > 1:
        middle = (low + high) // 2
        if Fraction(float(np.uint32(middle).view(f32))) <= value:
            low = middle
        else:
            high = middle
    below, above = (np.uint32(bits).view(f32) for bits in (low, high))
    upper = Fraction(2) ** 128 if np.isinf(above) else Fraction(float(above))
    down, up = value - Fraction(float(below)), upper - value
    if down == up:
        return below if low % 2 == 0 else above
    return below if down < up else above


float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(float32s, float32s, float32s)
# A double rounding: the product is half a place of c, and a little more that float64 drops.
@example(1 + 2.0**-23, 2.0**-24, 1.0)
@example(float(f32(1 + 2.0**-12)), float(f32(1 + 2.0**-12)), 2.0**30)
@example(2.0**-75, 2.0**-75, 2.0**-149)
@example(-(2.0**-75), 2.0**-75, 2.0**-149)
@example(3.4028234663852886e38, 1.0, 2.0**103)
@example(0.0, 1.0, 0.0)
def test_fma_rounds_once(a, b, c):
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    found = fma(*(np.array([value], f32) for value in (a, b, c)))[0]
    assert found == rounded(exact)


def test_rounding_twice_would_be_wrong():
    """Where the fused operation and the twice rounded sum part, and so what the care is for."""
    wrong = 0
    rng = np.random.default_rng(0)
    for _ in range(2000):
        a, c = rng.normal(size=(2, 64)).astype(f32)
        # Products near half a place of c, where the second rounding goes astray.
        b = (np.spacing(c) / 2 / a).astype(f32)
        twice = (a.astype(np.float64) * b + c).astype(f32)
        once = fma(a, b, c)
        for i in np.flatnonzero(twice != once):
            wrong += 1
            exact = Fraction(float(a[i])) * Fraction(float(b[i])) + Fraction(float(c[i]))
            assert once[i] == rounded(exact)
    assert wrong > 0


def test_fma_passes_on_what_is_not_finite():
    a = np.array([np.inf, np.nan, 1, 1, np.inf, 3e38], f32)
    b = np.array([2, 1, np.nan, 1, 1, 3e38], f32)
    c = np.array([1, 1, 1, -np.inf, -np.inf, 1], f32)
    np.testing.assert_array_equal(fma(a, b, c), [np.inf, np.nan, np.nan, -np.inf, np.nan, np.inf])


# ------------------------------------------------------------------------------ the whole pass


def random_module(rng, rank: int, channels: int, *, bias: bool) -> torch.nn.Module:
    kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}
    module = kind.get(rank, torch.nn.BatchNorm3d)(
        channels,
        eps=float(rng.choice([1e-5, 1e-3, 1e-12, 0.3, 1e-38])),
        momentum=[0.1, 0.01, None, 0.9, 1.0, 0.0, 1.5][rng.integers(7)],
        affine=bool(rng.random() < 0.6),
        track_running_stats=bool(rng.random() < 0.8),
    )
    with torch.no_grad():
        if module.affine:
            module.weight.copy_(torch.from_numpy(rng.normal(1, 2, channels)))
            if bias:
                module.bias.copy_(torch.from_numpy(rng.normal(0, 3, channels)))
        if module.track_running_stats:
            module.running_mean.copy_(torch.from_numpy(rng.normal(0, 3, channels)))
            module.running_var.copy_(torch.from_numpy(rng.exponential(2, channels)))
            module.num_batches_tracked.fill_(int(rng.integers(0, 9)))
    return module.train(bool(rng.random() < 0.7))


def random_input(rng, layout: str) -> torch.Tensor:
    rank = {"rows": 2, "contiguous": int(rng.integers(3, 6))}.get(layout, int(rng.integers(4, 6)))
    channels = int(rng.choice([1, 2, 3, 5, 8, 16, 17, 19, 40]))
    spatial = rng.integers(1, 7, rank - 2)
    if layout == "contiguous":
        spatial[-1] = rng.integers(2, 40)
    batch = int(rng.choice([1, 2, 3, 5, 17, 64]))
    batch = max(batch, 2 if np.prod(spatial) == 1 else 1)
    shape = (batch, channels, *map(int, spatial))
    far = rng.choice([0, 0, 1, 10, 1e3, 1e5])
    scale = np.exp(rng.normal(0, 3))
    values = (rng.standard_normal(shape) + far) * scale
    x = torch.from_numpy(values.astype(f32))
    if layout == "channels last":
        memory_format = torch.channels_last if rank == 4 else torch.channels_last_3d
        x = x.contiguous(memory_format=memory_format)
    return x


def own_pass(x: torch.Tensor, module: torch.nn.Module) -> dict[str, np.ndarray]:
    """What the module will compute, computed here; the module is not run."""
    values = x.numpy()
    channels = values.shape[1]
    found = {}
    weight, bias = np.ones(channels, f32), np.zeros(channels, f32)
    if module.affine:
        weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
    if module.training or not module.track_running_stats:
        batch = batch_statistics(values, rows=sums_by_rows(values), threads=torch.get_num_threads())
        mean, invstd = batch.mean, training_invstd(batch.var, module.eps)
        found |= {"mean": mean, "var": batch.var, "invstd": invstd}
        if module.training and module.track_running_stats:
            factor = module.momentum
            if factor is None:
                factor = 1 / (int(module.num_batches_tracked) + 1)
            found["running_mean"], found["running_var"] = updated(
                module.running_mean.numpy(), module.running_var.numpy(), batch, factor
            )
    else:
        mean = module.running_mean.numpy()
        invstd = evaluation_invstd(module.running_var.numpy(), module.eps)
    shape = [1] * values.ndim
    shape[1] = channels
    alpha, beta = (part.reshape(shape) for part in folded(mean, invstd, weight, bias))
    found["output"] = fma(values, alpha, beta)
    return found


def torch_pass(x: torch.Tensor, module: torch.nn.Module) -> dict[str, np.ndarray]:
    found = {}
    if module.training or not module.track_running_stats:
        zeros = torch.zeros(x.shape[1])
        mean, var = torch.batch_norm_update_stats(x, zeros, zeros + 1, 0.0)
        invstd = torch.native_batch_norm(x, None, None, None, None, True, 0.0, module.eps)[2]
        found |= {"mean": mean, "var": var, "invstd": invstd}
    found["output"] = module(x).detach()
    if module.training and module.track_running_stats:
        found |= {"running_mean": module.running_mean, "running_var": module.running_var}
    return {name: tensor.numpy() for name, tensor in found.items()}


@pytest.fixture
def threads():
    """`threads(n)` sets PyTorch's number of threads for this test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@same_machine
@pytest.mark.parametrize("count", [1, 2, 3, 16])
@pytest.mark.parametrize("layout", ["contiguous", "rows", "channels last"])
def test_every_number_is_pytorchs_bit_for_bit(layout, count, threads):
    threads(count)
    for seed in range(40):
        rng = np.random.default_rng([seed, count])
        x = random_input(rng, layout)
        module = random_module(rng, x.ndim, x.shape[1], bias=seed % 3 > 0)
        ours = own_pass(x, module)
        theirs = torch_pass(x, module)
        assert ours.keys() == theirs.keys()
        for name, expected in theirs.items():
            np.testing.assert_array_equal(ours[name], expected, f"{name}, seed {seed}")


@same_machine
@pytest.mark.parametrize("layout", ["contiguous", "rows"])
def test_what_is_not_finite_passes_through(layout):
    rng = np.random.default_rng(0)
    x = random_input(rng, layout)
    x[0, 0], x[-1, -1] = torch.nan, torch.inf
    module = random_module(rng, x.ndim, x.shape[1], bias=True).train()
    ours = own_pass(x, module)
    for name, expected in torch_pass(x, module).items():
        np.testing.assert_array_equal(ours[name], expected, name)


@same_machine
def test_some_channels_of_a_module_are_as_among_all(threads):
    threads(16)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 40)).astype(f32) * 100)
    mean, var = torch.batch_norm_update_stats(x, torch.zeros(40), torch.ones(40), 0.0)
    part = batch_statistics(x.numpy()[:, 5:9], rows=True, threads=16, num_features=40)
    np.testing.assert_array_equal(part.mean, mean[5:9])
    np.testing.assert_array_equal(part.var, var[5:9])
    alone = batch_statistics(x.numpy()[:, 5:9], rows=True, threads=16)
    assert (alone.mean != part.mean).any()  # so that the argument is seen to matter


def test_one_value_has_no_unbiased_variance():
    batch = batch_statistics(np.ones((1, 3), f32), rows=True, threads=1)
    assert np.isnan(batch.unbiased_var).all()
    np.testing.assert_array_equal(batch.var, 0)


@pytest.mark.parametrize(
    ("x", "rows"),
    [
        (np.zeros((4, 3)), True),
        (np.zeros((4, 3, 1)), True),
        (np.zeros((4, 3, 5)), False),
        (np.zeros((4, 3, 5, 2)), False),
        (np.zeros((4, 5, 2, 3)).transpose(0, 3, 1, 2), True),
        (np.zeros((4, 5, 3)).transpose(0, 2, 1), False),  # three axes have no channels last
        (np.zeros((4, 3, 5, 4))[..., ::2], False),
    ],
)
def test_the_layouts_that_are_summed_by_rows(x, rows):
    assert sums_by_rows(x) is rows
