"""The factors that lead from one weight's channels to another's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncli.changes.states.folded.factors import BLOCK, FIRST, factors
from bncli.errors import TensorError
from tests.changes.networks import ref

LAYOUTS = {
    "torch": ((6, 4, 3, 3), 0),
    "keras": ((3, 3, 4, 6), 3),
    "transposed": ((4, 6, 2, 2), 1),
    "grouped transposed": ((4, 3, 2, 2), 1),
    "depthwise": ((3, 3, 3, 2), 2),
    "depthwise, last": ((3, 3, 3, 2), 3),
    "depthwise of one": ((3, 3, 6, 1), 2),
    "linear": ((6, 4), 0),
}


def spread(factor, name):
    """Six factors in the shape in which they multiply a weight."""
    shape, axis = LAYOUTS[name]
    if name == "grouped transposed":  # groups of two inputs and three outputs
        return np.repeat(factor.reshape(2, 1, 3), 2, axis=1).reshape(4, 3, 1, 1)
    if name.startswith("depthwise"):
        return factor.reshape(shape[2:])
    return np.moveaxis(factor.reshape(6, *[1] * (len(shape) - 1)), 0, axis)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_factors_are_found_in_every_layout(name, dtype):
    shape, axis = LAYOUTS[name]
    rng = np.random.default_rng(1)
    old, factor = rng.normal(size=shape), rng.uniform(0.1, 3, 6) * [1, -1, 1, 1, 1, 1]
    a = torch.from_numpy(old).to(dtype)
    b = torch.from_numpy(a.double().numpy() * spread(factor, name)).to(dtype)
    found = factors(ref(a, "a"), ref(b, "b"), axis, 6, str(dtype).removeprefix("torch."))
    assert found.include(factor)
    digits = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}[dtype]
    assert not found.include(factor * (1 + 20 * 2.0**-digits))
    assert not found.include(np.roll(factor, 1))
    assert found.moved.all()
    assert not found.one_for_all
    assert found.elements == old.size


def test_other_shapes_and_axes_have_no_factors():
    a = ref(torch.randn(6, 4, 3, 3), "a")
    assert factors(a, a, 0, 5, "float32") is None
    assert factors(a, a, 4, 6, "float32") is None
    assert factors(a, ref(torch.randn(4, 6, 3, 3), "b"), 0, 6, "float32") is None


def test_blocks_are_put_together_and_the_first_is_enough_to_see_training():
    torch.manual_seed(0)
    weight = torch.randn(64, (FIRST + BLOCK) // 32)
    new = weight * torch.linspace(0.5, 2, 64)[:, None]
    read = []

    def watched(tensor, name):
        """A tensor that notes which blocks are read."""
        of = ref(tensor, name)
        storage = of.storage

        class Watched(type(of)):
            __slots__ = ()

            def block_reader(self, stack):
                reader = super().block_reader(stack)
                return lambda block: (read.append(block), reader(block))[1]

        return Watched(name, of.path, of.shape, of.dtype, of.strides, storage)

    found = factors(watched(weight, "a"), watched(new, "b"), 0, 64, "float32")
    assert found.include(np.linspace(0.5, 2, 64), 1e-7)
    assert len(read) > 4
    read.clear()
    assert factors(watched(weight, "a"), watched(new + 0.01, "b"), 0, 64, "float32") is None
    assert len(read) == 2
    new[63, -1] *= 1.001
    assert factors(watched(weight, "a"), watched(new, "b"), 0, 64, "float32") is None


def test_dead_channels_take_every_factor():
    weight = torch.randn(3, 4)
    weight[1] = 0
    found = factors(ref(weight, "a"), ref(weight * 2, "b"), 0, 3, "float32")
    assert found.live.tolist() == [True, False, True]
    assert found.include(np.array([2, 99, 2.0]))
    assert found.include(np.array([2, np.nan, 2.0]))
    assert found.one_for_all
    revived = weight * 2
    revived[1] = 1
    assert factors(ref(weight, "a"), ref(revived, "b"), 0, 3, "float32") is None


def test_a_channel_that_became_0_has_not_moved_by_a_factor_that_shows_something():
    weight = torch.randn(3, 4)
    found = factors(
        ref(weight, "a"), ref(weight * torch.tensor([[0.0], [1], [2]]), "b"), 0, 3, "float32"
    )
    assert found.moved.tolist() == [False, False, True]


@given(st.integers(0, 1000), st.floats(1e-6, 1e3))
def test_values_that_underflow_in_float16_stay_explained(seed, size):
    torch.manual_seed(seed)
    weight = torch.randn(5, 8) * size
    factor = torch.rand(5, 1) + 0.01
    kept, new = weight.half(), (weight * factor).half()
    if torch.isinf(kept).any() or torch.isinf(new).any():
        return
    found = factors(ref(kept, "a"), ref(new, "b"), 0, 5, "float16")
    assert found is not None
    assert found.include(factor.double().numpy().ravel())


def test_values_that_are_not_there_raise():
    a = ref(torch.randn(3, 4), "a")
    with pytest.raises(TensorError):
        factors(a, replace(a, storage=None, unreadable="quantised"), 0, 3, "float32")


@pytest.mark.parametrize("at", [0, -1])
def test_every_block_counts_where_all_have_all_channels(at):
    torch.manual_seed(0)
    weight, factor = torch.randn((FIRST + BLOCK) // 8, 16), torch.linspace(0.5, 2, 16)
    new = weight * factor
    assert factors(ref(weight, "a"), ref(new, "b"), 1, 16, "float32").include(
        factor.double().numpy()
    )
    new[at, 3] *= 1.001
    assert factors(ref(weight, "a"), ref(new, "b"), 1, 16, "float32") is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_have_no_factor(value):
    weight = torch.randn(3, 4)
    new = weight * 2
    new[1, 1] = value
    assert factors(ref(weight, "a"), ref(new, "b"), 0, 3, "float32") is None
    assert factors(ref(new, "a"), ref(weight, "b"), 0, 3, "float32") is None
