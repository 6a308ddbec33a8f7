"""Many steps of the update against single ones, and against PyTorch's modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.running_stats.recursion import BLOCK, Buffers, Steps, advance


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 30),
    st.floats(0.001, 1),
    st.sets(st.integers(0, 399), max_size=60),
    st.integers(0, 2**32),
)
def test_many_steps_at_a_time_are_single_steps(number, batches, new, wanted, seed):
    rng = np.random.default_rng(seed)
    entering = rng.normal(size=(batches, 2, 3)) ** 2
    order = rng.integers(0, batches, number)
    asked = np.array(sorted(step for step in wanted if step < number), np.int64)
    ones = np.ones(number)
    steps = Steps(entering, True, order, new * ones, (1 - new) * ones, "new", asked)
    buffers = Buffers(np.array([[0.0] * 3, [1.0] * 3]))
    seen = advance(buffers, steps, "float64")
    state = np.array([[0.0] * 3, [1.0] * 3])
    for step, batch in enumerate(order):
        state = (1 - new) * state + new * entering[batch]
        if step in wanted:
            row = int(np.searchsorted(asked, step))
            np.testing.assert_allclose(seen[row], state, rtol=1e-12)
    np.testing.assert_allclose(buffers.values, state, rtol=1e-12)


def constant(number, new, entering, wanted=(), weighs="new"):
    """Steps that take the batches in turn, each with the weight `new`."""
    ones = np.ones(number)
    return Steps(
        entering,
        bool(np.isfinite(entering).all()),
        np.arange(number) % len(entering),
        new * ones,
        (1 - new) * ones,
        weighs,
        np.array(wanted, np.int64),
    )


@pytest.mark.parametrize("number", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 1000])
@pytest.mark.parametrize("every", [1, 7, BLOCK, BLOCK + 1, 500])
def test_whichever_steps_are_wanted(number, every):
    """The closed form for one batch: running = 1 - q**L of it, q**L of the initial value."""
    wanted = range(0, number, every)
    entering = np.array([[[2.0], [5.0]]])
    buffers = Buffers(np.array([[8.0], [1.0]]))
    seen = advance(buffers, constant(number, 0.25, entering, wanted), "float64")
    left = 0.75 ** (np.array([*wanted, number - 1]) + 1)
    np.testing.assert_allclose(seen[:, 0, 0], (2 + 6 * left)[:-1], rtol=1e-12)
    np.testing.assert_allclose(seen[:, 1, 0], (5 - 4 * left)[:-1], rtol=1e-12)
    np.testing.assert_allclose(buffers.values[:, 0], [2 + 6 * left[-1], 5 - 4 * left[-1]])
    assert (buffers.steps, buffers.impossible) == (number, None)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("momentum", [0.1, 0.9, 1.0])
def test_the_bits_of_a_module(dtype, momentum):
    """A batch of two values, whose mean and unbiased variance every dtype here holds exactly."""
    kind = getattr(torch, dtype)
    module = torch.nn.BatchNorm1d(1, momentum=momentum).to(kind)
    batches = [(1.0, 3.0), (-2.0, 2.0), (0.5, 0.5)]
    expected = []
    for number in range(30):
        module(torch.tensor(batches[number % 3], dtype=kind)[:, None])
        expected.append([module.running_mean.item(), module.running_var.item()])
    entering = np.array([[[np.mean(pair)], [np.var(pair, ddof=1)]] for pair in batches], np.float32)
    buffers = Buffers(np.array([[0.0], [1.0]], np.float32))
    seen = advance(buffers, constant(30, momentum, entering, range(30)), dtype)
    assert seen[:, :, 0].tolist() == expected
    assert buffers.values[:, 0].tolist() == expected[-1]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("bad", "new"), [(np.inf, 0.5), (np.nan, 0.5), (0.5, 4.0)])
def test_the_step_after_which_a_variance_is_none(dtype, bad, new):
    entering = np.ones((40, 2, 2))
    entering[20, 1, 1] = bad
    wide = np.float64 if dtype == "float64" else np.float32
    buffers = Buffers(np.ones((2, 2), wide), steps=100)
    advance(buffers, constant(40, new, entering.astype(wide)), dtype)
    first = buffers.impossible
    # With a weight of 4, -3 * 1 + 4 * 0.5 is the first that is below 0.
    assert first == 121
    advance(buffers, constant(40, new, np.ones((1, 2, 2), wide)), dtype)
    assert (buffers.impossible, buffers.steps) == (first, 180)


def test_a_weight_of_nothing_is_no_shield():
    entering = np.full((1, 2, 1), np.nan)
    buffers = Buffers(np.ones((2, 1)))
    advance(buffers, constant(3, 0.0, entering), "float64")
    assert np.isnan(buffers.values).all()
    assert buffers.impossible == 1


@pytest.mark.parametrize("weighs", ["new", "old"])
def test_the_weight_that_is_given_is_rounded_first(weighs):
    """1 - 0.9 in float32 is not 0.1 in float32."""
    new = 0.1
    buffers = Buffers(np.zeros((2, 1), np.float32))
    advance(buffers, constant(1, new, np.ones((1, 2, 1), np.float32), weighs=weighs), "float32")
    given = np.float32(0.1) if weighs == "new" else np.float32(1) - np.float32(0.9)
    assert buffers.values[0, 0] == given
    assert np.float32(0.1) != np.float32(1) - np.float32(0.9)
