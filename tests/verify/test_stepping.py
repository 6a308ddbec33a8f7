"""Running statistics step by step: what is compared with what, and how far apart it may be."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.backends import BackendName, backend
from bncli.backends.interface import SteppingCall
from bncli.dtypes import decode, encode
from bncli.model import RunningStats
from bncli.running_stats.batch_table import BatchTable
from bncli.running_stats.frameworks import convention
from bncli.running_stats.simulation import Course, Walk
from bncli.verify.stepping import Allowed, compare_average, compare_steps, derived, exactly
from bncli.verify.tolerance import fixed

TORCH = backend(BackendName.TORCH)
PYTORCH = convention("pytorch")


def some_batches(dtype="float64", number=6, far=3.0, shape=(5, 3, 7)):
    rng = np.random.default_rng(0)
    return [decode(encode(rng.normal(far, 2, shape), dtype), dtype) for _ in range(number)]


def table_of(batches, dtype="float64"):
    axes = (0, *range(2, batches[0].ndim))
    wide = [x.astype(np.float64) for x in batches]
    return BatchTable(
        np.array([x.size // 3 for x in wide]),
        np.array([x.mean(axes) for x in wide]),
        np.array([x.var(axes) for x in wide]),
        dtype,
    )


def walk_over(table, momentum=0.25):
    order = np.arange(len(table.count))
    return Walk(table, PYTORCH, Course(lambda: iter([order]), len(order), momentum))


def by_hand(batches, momentum=0.25):
    """The update written out, a step after the other."""
    mean, var = np.zeros(3), np.ones(3)
    for step, x in enumerate(batches, 1):
        mean = (1 - momentum) * mean + momentum * x.mean((0, 2))
        var = (1 - momentum) * var + momentum * x.var((0, 2), ddof=1)
        yield RunningStats(mean, var, step)


def within(rtol, atol):
    return Allowed(fixed(rtol, atol, 3), fixed(rtol, atol, 3))


def test_every_step_is_compared():
    batches = some_batches()
    found = compare_steps(walk_over(table_of(batches)), by_hand(batches), within(0, 1e-12))
    assert [item.quantity for item in found] == [
        "running_mean", "running_var", "num_batches_tracked",
    ]  # fmt: skip
    assert [item.total for item in found] == [18, 18, 6]
    assert all(item.passed for item in found)


@pytest.mark.parametrize("name", ["running_mean", "running_var", "num_batches_tracked"])
@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_fault_is_told_with_its_step_and_channel(name, step):
    batches = some_batches()
    theirs = list(by_hand(batches))
    wrong = theirs[step - 1]
    values = {field: getattr(wrong, field) for field in ("running_mean", "running_var")}
    values["num_batches_tracked"] = wrong.num_batches_tracked
    if name == "num_batches_tracked":
        values[name] += 1
    else:
        values[name] = values[name] + np.array([0, 1e-3, 0])
    theirs[step - 1] = RunningStats(**values)
    found = compare_steps(walk_over(table_of(batches)), iter(theirs), within(0, 1e-9))
    (failed,) = [item for item in found if not item.passed]
    assert failed.quantity == name
    assert failed.mismatched == 1
    assert failed.index == ((step,) if name == "num_batches_tracked" else (step, 1))


def test_an_average_is_compared_buffer_by_buffer():
    ours = RunningStats(np.arange(3.0), np.arange(3.0), 4)
    theirs = RunningStats(np.arange(3.0), np.array([0.0, 1.5, 2.0]), 4)
    mean, var = compare_average(ours, theirs, within(0, 0.25), "update_bn")
    assert (mean.quantity, var.quantity) == ("update_bn running_mean", "update_bn running_var")
    assert mean.passed
    assert (var.passed, var.index, var.max_abs_diff) == (False, (1,), 0.5)


def test_exactly_allows_nothing():
    allowed = exactly(3)
    for tolerance in (allowed.mean, allowed.var):
        assert not tolerance.rtol.any()
        assert not tolerance.atol.any()
        assert tolerance.atol.shape == (3,)


@pytest.mark.parametrize("momentum", [0.25, None, 1.0, 1.5])
@pytest.mark.parametrize("far", [0.0, 3.0, 300.0])
@pytest.mark.parametrize("shape", [(60, 3), (5, 3, 7)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_pytorchs_roundings_are_within_what_is_derived(dtype, shape, far, momentum):
    if dtype == "float16":
        far = min(far, 30.0)  # beyond, it has no digits left for the spread
    batches = some_batches(dtype, far=far, shape=shape)
    table = table_of(batches, dtype)
    exact = BatchTable(table.count, table.mean, table.var)  # walked in float64
    walk = walk_over(exact, momentum)
    allowed = derived(table, walk.first, momentum, len(batches))
    call = SteppingCall(3, len(shape), dtype, momentum, walk.first, None, 1)
    found = compare_steps(walk, TORCH.step(call, batches), allowed)
    assert [item for item in found if not item.passed] == []
    biased = BatchTable(table.count, table.mean, table.var * 0.8)
    wrong = compare_steps(walk_over(biased, momentum), TORCH.step(call, batches), allowed)
    if dtype in ("float32", "float64"):  # and it is no loose one
        assert [item.quantity for item in wrong if not item.passed] == ["running_var"]


def test_what_is_not_finite_allows_nothing():
    table = BatchTable(np.array([5]), np.array([[np.inf, 1.0]]), np.array([[np.nan, 1.0]]))
    start = RunningStats(np.zeros(2), np.ones(2), 0)
    allowed = derived(table, start, 0.1, 1)
    assert (allowed.mean.atol[0], allowed.var.atol[0]) == (0.0, 0.0)
    assert 0 < allowed.mean.atol[1] < 1e-10
    assert 0 < allowed.var.atol[1] < 1e-10


def test_errors_grow_where_the_update_extrapolates():
    table = table_of(some_batches())
    start = RunningStats(np.zeros(3), np.ones(3), 0)
    within_1, beyond = (derived(table, start, new, 10).mean.atol for new in (0.9, 1.5))
    assert (beyond > 2.0**9 * within_1).all()
    absurd = derived(table, start, 1e200, 10)
    assert not absurd.mean.atol.any()  # a bound beyond float64 says nothing
