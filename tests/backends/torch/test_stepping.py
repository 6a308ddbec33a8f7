"""A module of PyTorch taken through batches, against the update written out in NumPy."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from bncli.backends import BackendName, backend
from bncli.backends.interface import SteppingCall
from bncli.dtypes import decode, encode
from bncli.model import RunningStats
from tests.backends.calls import ROUNDING

TORCH = backend(BackendName.TORCH)


def stepping(dtype="float64", momentum=0.25, freeze_after=None, **more) -> SteppingCall:
    given = {
        "num_features": 3,
        "ndim": 3,
        "dtype": dtype,
        "momentum": momentum,
        "running": RunningStats(np.zeros(3), np.ones(3), 0),
        "freeze_after": freeze_after,
        "threads": 1,
    }
    return SteppingCall(**(given | more))


def some_batches(number=4, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(1, 2, (6, 3, 5)) for _ in range(number)]


def assert_buffers(found, mean, var, tracked, rounding=1e-10):
    np.testing.assert_allclose(found.running_mean, mean, rtol=rounding, atol=rounding)
    np.testing.assert_allclose(found.running_var, var, rtol=rounding, atol=rounding)
    assert found.num_batches_tracked == tracked


@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_every_step_of_a_module(dtype):
    batches = [decode(encode(x, dtype), dtype) for x in some_batches()]
    found = list(TORCH.step(stepping(dtype), batches))
    mean, var = np.zeros(3), np.ones(3)
    for step, (x, buffers) in enumerate(zip(batches, found, strict=True), 1):
        wide = x.astype(np.float64)
        mean = 0.75 * mean + 0.25 * wide.mean((0, 2))
        var = 0.75 * var + 0.25 * wide.var((0, 2), ddof=1)
        assert_buffers(buffers, mean, var, step, ROUNDING[dtype])


def test_steps_begin_where_they_are_told_and_freeze():
    start = RunningStats(np.full(3, 5.0), np.full(3, 2.0), 7)
    call = stepping(running=start, freeze_after=1)
    first, *rest = TORCH.step(call, some_batches())
    x = some_batches()[0]
    mean, var = 0.75 * 5 + 0.25 * x.mean((0, 2)), 0.75 * 2 + 0.25 * x.var((0, 2), ddof=1)
    assert_buffers(first, mean, var, 8)
    for later in rest:
        assert_buffers(later, first.running_mean, first.running_var, 8, 0)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_threads_asked_for_share_the_batches(threads):
    """Seen from the batches, which are made while the library steps; its own number is kept."""
    seen = []
    before = torch.get_num_threads()

    def batches():
        for x in some_batches():
            seen.append(torch.get_num_threads())
            yield x

    list(TORCH.step(stepping(threads=threads), batches()))
    TORCH.average(stepping(momentum=None, threads=threads), batches())
    assert seen == [threads] * 8
    assert torch.get_num_threads() == before


def test_threads_share_rows_and_so_change_the_last_bits():
    """float32 rows are summed in shares, one a thread: as their own sums in float32 give."""
    x = np.random.default_rng(0).normal(100, 1, (4096, 3)).astype(np.float32)
    for threads in (1, 2):
        call = stepping("float32", momentum=1.0, ndim=2, threads=threads)
        (found,) = TORCH.step(call, [x])
        total = np.zeros(3)
        for share in np.split(x, threads):
            sums = np.zeros(3, np.float32)
            for row in share:
                sums += row
            total += sums
        np.testing.assert_array_equal(found.running_mean, (total / 4096).astype(np.float32))


def test_a_refused_batch_is_counted_alone():
    one = some_batches()[0][:1, :, :1]
    before, after = TORCH.step(stepping(), [some_batches()[0], one])
    assert_buffers(after, before.running_mean, before.running_var, 2, 0)


def test_another_error_is_not_hidden():
    with pytest.raises(Exception, match="4"):
        list(TORCH.step(stepping(), [np.zeros((2, 4, 5))]))


def test_the_library_s_own_average():
    batches = some_batches()
    found = TORCH.average(stepping(momentum=None), batches)
    mean = np.mean([x.mean((0, 2)) for x in batches], 0)
    var = np.mean([x.var((0, 2), ddof=1) for x in batches], 0)
    assert_buffers(found, mean, var, 4)


def test_a_missing_library_is_one_sentence_step_by_step_too(run, save, monkeypatch):
    x = save("x.npy", np.random.default_rng(0).normal(size=(6, 3)))
    monkeypatch.setitem(sys.modules, "torch", None)
    code, stdout, stderr = run("simulate-ema", x, "--against", "torch")
    assert (code, stdout) == (2, "")
    assert "is not installed here, and the comparison needs it: " in stderr
