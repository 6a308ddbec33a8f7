"""Splitting and merging, threads, and what the statistics do when the values are transformed."""

import threading
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bncli.dtypes import encode
from bncli.errors import TensorError
from bncli.files.file_bytes import FileBytes
from bncli.model import TensorRef
from bncli.moments import channel_stats, engine, layout, merge
from bncli.moments.pooling import _Sum
from bncli.moments.worker import Worker

from .exact import check, moments, same_bits

FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
values = st.floats(-1e6, 1e6, width=32) | st.integers(-3, 3).map(float)
tensors = hnp.array_shapes(min_dims=2, max_dims=5, max_side=6).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=values)
)
cuts = st.tuples(st.integers(1, 200), st.integers(1, 60))


@FEW
@given(x=tensors, sizes=cuts, data=st.data())
def test_any_array_any_cut(x, sizes, data, cut):
    cut(max(sizes), min(sizes))
    x = x.transpose(data.draw(st.permutations(range(x.ndim))))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    stats = channel_stats(x, axis, threads=2, kurtosis=True)
    check(stats, x, axis)


@FEW
@given(x=tensors, data=st.data())
def test_merged_parts_are_the_whole(x, data):
    cutting = sorted(data.draw(st.sets(st.integers(1, max(1, len(x) - 1)), max_size=4)))
    parts = [part for part in np.split(x, cutting) if len(part)]
    parts = data.draw(st.permutations(parts))
    merged = merge([channel_stats(part, kurtosis=True) for part in parts])
    check(merged, x)
    whole = channel_stats(x, kurtosis=True)
    scale = np.maximum(np.abs(x).max(), 1.0)
    assert np.allclose(merged.third, whole.third, rtol=1e-9, atol=1e-13 * scale**3)
    assert np.allclose(merged.fourth, whole.fourth, rtol=1e-9, atol=1e-13 * scale**4)


@FEW
@given(x=tensors, seed=st.integers(0, 99))
def test_order_does_not_matter(x, seed):
    rows = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    shuffled = np.random.default_rng(seed).permuted(rows, axis=1)
    check(channel_stats(shuffled, 0), x)


@FEW
@given(x=tensors, power=st.integers(-40, 40), shift=st.integers(-(2**20), 2**20))
def test_shift_and_scale(x, power, shift):
    """Powers of two scale exactly; whole numbers shift whole numbers exactly."""
    plain = channel_stats(x)
    scaled = channel_stats(x * 2.0**power)
    assert np.allclose(scaled.var, plain.var * 4.0**power, rtol=1e-12, atol=0)
    whole = np.rint(x)
    moved = channel_stats(whole + shift)
    still = channel_stats(whole)
    assert np.allclose(moved.var, still.var, rtol=1e-12, atol=0)
    assert np.allclose(
        moved.mean, still.mean + shift, rtol=1e-15, atol=1e-12 * np.sqrt(still.var).max()
    )


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e6])
def test_many_shards(mean):
    x = np.random.default_rng(30).standard_normal((1000, 3)) + mean
    merged = merge([channel_stats(part) for part in np.split(x, 250)])
    check(merged, x)
    twice = merge([merge([channel_stats(p) for p in np.split(h, 125)]) for h in np.split(x, 2)])
    check(twice, x)


def test_a_long_sum_keeps_what_additions_lose():
    total = _Sum(2)
    total.add(slice(None), np.array([1e17, 0.1]))
    for _ in range(3000):
        total.add(slice(None), np.array([1.0, 0.1]))
    total.add(slice(0, 1), np.array([-1e17]))
    assert total.value().tolist() == [3000.0, float(3001 * Fraction(0.1))]


def test_merging_what_is_not_finite():
    x = np.random.default_rng(31).standard_normal((12, 3))
    x[7, 1], x[9, 1], x[11, 2] = np.inf, np.nan, -np.inf
    merged = merge([channel_stats(part) for part in np.split(x, 3)])
    whole = channel_stats(x)
    assert np.array_equal(merged.mean[1:], [np.nan, -np.inf], equal_nan=True)
    assert np.isnan(merged.var[1:]).all()
    assert merged.var[0] == pytest.approx(whole.var[0], rel=1e-12)
    assert merged.nan.tolist() == [0, 1, 0]
    assert merged.posinf.tolist() == [0, 1, 0]
    assert merged.neginf.tolist() == [0, 0, 1]
    assert np.array_equal(merged.min, whole.min)
    assert np.array_equal(merged.max, whole.max)
    assert merged.first_nonfinite == (None, (3, 1), (3, 2))  # each in its own part


def test_merging_huge_values():
    x = np.concatenate([np.full((999, 1), 0.0), np.full((1, 1), 1.5e155)])
    merged = merge([channel_stats(x[:999]), channel_stats(x[999:])])
    assert merged.var[0] == pytest.approx(moments(x)[1], rel=1e-12)
    beyond = channel_stats(np.array([[1e308], [-1e308]]))
    assert merge([beyond, beyond]).var.tolist() == [np.inf]


def test_what_cannot_be_merged():
    with pytest.raises(TensorError, match="no statistics"):
        merge([])
    with pytest.raises(TensorError, match="3 and of 4 channels"):
        merge([channel_stats(np.ones((2, 3))), channel_stats(np.ones((2, 4)))])
    plain = channel_stats(np.ones((2, 3)))
    assert merge([plain, replace(plain, third=plain.var, fourth=plain.var)]).fourth is None


@pytest.mark.parametrize("sizes", [(1 << 21, 1 << 19), (50_000, 9_000)], ids=str)
@pytest.mark.parametrize("shape", [(3_000_000, 2), (40, 16, 60, 61), (5, 2, 300_000)], ids=str)
def test_the_bits_do_not_depend_on_threads(shape, sizes, cut):
    cut(*sizes)
    rng = np.random.default_rng(32)
    x = rng.standard_normal(shape, np.float32)
    x[:, -1] += 500
    x[len(x) // 2 :, 0] += 30  # so that some tasks are taken again and others are not
    one = channel_stats(x, threads=1)
    for threads in (1, 2, 3, 8):
        assert same_bits(channel_stats(x, threads=threads), one)
    x[1, 0] = np.nan
    one = channel_stats(x, threads=1)
    assert same_bits(channel_stats(x, threads=5), one)


def test_a_file_and_an_array_agree(tmp_path, cut):
    cut(20_000, 3_000)
    x = np.random.default_rng(33).standard_normal((50, 4, 300)).astype(np.float32)
    path = tmp_path / "x"
    path.write_bytes(x.tobytes())
    ref = TensorRef("", path, x.shape, "float32", (1200, 300, 1), FileBytes(path, 0, x.nbytes))
    assert same_bits(channel_stats(ref, threads=3), channel_stats(x, threads=2))


def test_the_tensor_is_left_as_it_is(cut):
    cut(2000, 500)
    x = np.random.default_rng(34).standard_normal((50, 4, 30)) + 1e5
    x[3, 2, 1] = np.nan
    before = x.tobytes()
    x.flags.writeable = False
    channel_stats(x, kurtosis=True, threads=2)
    channel_stats(np.where(np.isnan(x), 1e300, x), kurtosis=True, threads=2)
    assert x.tobytes() == before


@pytest.mark.parametrize("small", [True, False])
def test_progress_adds_up(small, cut, monkeypatch):
    if not small:
        cut(2000, 500)
        monkeypatch.setattr(engine, "_ADVANCE_BYTES", 5000)
    x = np.random.default_rng(35).standard_normal((50, 4, 30)).astype(np.float32)
    caller = threading.get_ident()
    seen = []

    def advance(done):
        assert threading.get_ident() == caller
        seen.append(done)

    channel_stats(x, threads=3, advance=advance)
    assert sum(seen) == x.nbytes
    assert len(seen) > 1 or small


def test_an_error_in_a_thread_is_raised_and_the_others_end(cut, monkeypatch):
    cut(100, 100)
    before = threading.active_count()
    original = Worker.__call__

    def failing(self, number):
        if number == 13:
            raise ZeroDivisionError("planted")
        return original(self, number)

    monkeypatch.setattr(Worker, "__call__", failing)
    with pytest.raises(ZeroDivisionError, match="planted"):
        channel_stats(np.ones((5000, 2)), threads=4)
    assert threading.active_count() == before


def test_a_slow_task_holds_the_others_up(cut, monkeypatch):
    """Results wait for their turn, but only so many: memory stays bounded."""
    cut(100, 100)
    original = Worker.__call__
    furthest = []

    def slow(self, number):
        if number == 1:
            time.sleep(0.3)
            furthest.append(max(started))
        started.append(number)
        return original(self, number)

    started = [0]
    monkeypatch.setattr(Worker, "__call__", slow)
    x = np.random.default_rng(36).standard_normal((50_000, 2))
    check(channel_stats(x, threads=4), x)
    assert furthest[0] <= 4 * engine._TASKS_AHEAD + 1


def test_one_thread_is_one_thread():
    """NumPy's BLAS has threads of its own, and none of the calls may wake them."""
    rng = np.random.default_rng(37)
    for shape in [(8, 16, 200, 200), (80_000, 64), (1250, 4096), (3, 1_700_000)]:
        x = rng.standard_normal(shape, np.float32)
        begun, alone = time.process_time(), time.thread_time()
        for _ in range(5):
            channel_stats(x, threads=1)
        alone = time.thread_time() - alone
        assert time.process_time() - begun < 1.25 * alone + 0.01


def test_bfloat16_and_float16_are_what_they_widen_to():
    x = np.random.default_rng(38).standard_normal((300, 70))
    half = encode(x, "float16")
    assert same_bits(channel_stats(half), channel_stats(half.astype(np.float32)))


def test_cut_covers_each_value_once():
    for shape in [(5,), (4, 3), (2, 3, 4, 5), (7, 1, 9)]:
        for limit in (1, 2, 5, 11, 1000):
            strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
            for span in (None, 0, 3, 17):
                box = layout.Box((0,) * len(shape), shape)
                seen = np.zeros(shape, int)
                pieces = layout.Cut(box, strides, limit, span)
                for piece in pieces:
                    seen[piece.slices] += 1
                    size = int(np.prod(piece.shape))
                    assert size <= pieces.values <= limit
                    reach = sum((n - 1) * s for n, s in zip(piece.shape, strides, strict=True))
                    assert reach <= pieces.span
                    assert span is None or reach <= span
                assert (seen == 1).all()


@pytest.mark.parametrize("tile", [7, 11, 19])
def test_no_tile_is_larger_than_the_buffers(tile, cut):
    """A shorter last task may be cut into longer tiles than the others are."""
    cut(30, tile)
    for n in range(1, 120):
        for shape, strides in [((n, 1), (1, 1)), ((n, 3), (3, 1)), ((n, 2, 2), (4, 2, 1))]:
            plan = layout.Layout(shape, strides, 1)
            sizes = [int(np.prod(piece.shape)) for task in plan.tasks for piece in plan.tiles(task)]
            assert sum(sizes) == np.prod(shape)
            assert max(sizes) <= plan.tile_values <= tile


def test_later_tasks_begin_with_a_guess_of_the_mean(cut, monkeypatch):
    """Once a mean is known to lie far from 0, tasks are summed once, not twice."""
    cut(1000, 300)
    goes = []
    original = Worker._sums
    monkeypatch.setattr(Worker, "_sums", lambda *a, **k: goes.append(a) or original(*a, **k))
    x = np.random.default_rng(39).standard_normal((2500, 4)) + 100
    check(channel_stats(x, threads=2), x)
    assert len(goes) == 10 + 1
