"""Mean and variance against exact rational arithmetic."""

import math
import os
import subprocess
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from bncli.dtypes import decode, encode
from bncli.moments import channel_moments, channel_stats, engine, small, team
from bncli.moments.worker import Worker

from .exact import check, moments, same_bits
from .summed import both, both_by_dtype

SHAPES = [(50, 6), (12, 5, 33), (6, 3, 9, 11), (3, 4, 5, 6, 7)]
CUTS = [(1 << 21, 1 << 19), (400, 100), (64, 64), (30, 7), (1, 1)]


def layouts(x):
    """`x` in every order and view that arrays come in; same shape, same values."""
    yield "C", x
    yield "Fortran", np.asfortranarray(x)
    yield "channels last", np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)
    yield "channels first", np.swapaxes(np.swapaxes(x, 0, 1).copy(), 0, 1)
    big = np.zeros([2 * n + 1 for n in x.shape], x.dtype)
    view = big[tuple(slice(1, None, 2) for _ in x.shape)]
    view[...] = x
    yield "every second", view
    yield "backwards", x[::-1, :, ...].copy()[::-1]
    yield "backwards last", x[..., ::-1].copy()[..., ::-1]
    yield "big-endian", x.astype(x.dtype.newbyteorder(">"))
    yield "big-endian Fortran", np.asfortranarray(x).astype(x.dtype.newbyteorder(">"))
    packed = np.zeros(x.shape, [("flag", "i1"), ("value", x.dtype)])
    packed["value"] = x
    yield "unaligned", packed["value"]


@both_by_dtype("float16", "float32")
@pytest.mark.parametrize("cuts", CUTS[:3], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_layout(dtype, shape, cuts, cut):
    cut(*cuts)
    rng = np.random.default_rng(len(shape))
    mean = rng.uniform(-3, 3, (shape[1], *[1] * (len(shape) - 2)))
    x = (rng.standard_normal(shape) + mean).astype(dtype)
    for name, view in layouts(x):
        assert (view == x).all(), name
        check(channel_stats(view, threads=2), x)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (7, 1, 3), (1, 4, 1, 1), (2, 3, 1, 5)])
def test_axes_of_one(shape, small, cut):
    if not small:
        cut(8, 4)
    x = np.random.default_rng(0).standard_normal(shape)
    check(channel_stats(x), x)


@both
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -4])
@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_any_channel_axis(axis, cuts, cut):
    cut(*cuts)
    x = np.random.default_rng(1).standard_normal((4, 3, 6, 5)).astype(np.float32)
    check(channel_stats(x, axis, kurtosis=True), x, axis, kurtosis=True)


def test_one_axis():
    x = np.array([1.0, 2.0, -3.0])
    stats = channel_stats(x, 0)
    assert stats.count == 1
    assert stats.mean.tolist() == x.tolist()
    assert stats.var.tolist() == [0.0, 0.0, 0.0]


@both
@pytest.mark.parametrize("cuts", [None, (1 << 21, 1 << 19), (20000, 5000)], ids=str)
@pytest.mark.parametrize("away", [1.0, 4.0, 30.0, 1e3, 1e6, 1e9, 1e12])
@pytest.mark.parametrize("shape", [(5000, 4), (40, 4, 200)], ids=str)
def test_mean_far_from_zero(shape, away, cuts, cut):
    if cuts:
        cut(*cuts)
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape) * 0.37 + away * 0.37 * (1 if away > 5 else -1)
    check(channel_stats(x, threads=2, kurtosis=True), x, kurtosis=away <= 1e6 and len(x) < 100)
    check(channel_stats(x, threads=2), x)
    # In float32 the values themselves are coarse, and are what the statistics are of.
    narrow = x.astype(np.float32)
    check(channel_stats(narrow, threads=2), narrow)


@both
def test_a_few_channels_far_from_zero(cut):
    cut(4000, 1000)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((500, 16, 3)).astype(np.float32)
    x[:, 3] += 1000
    x[:, 9] = 7.25
    x[:, 11] *= 1e-20
    check(channel_stats(x, threads=2), x)
    assert channel_moments(x).var[9] == 0.0


def test_a_mean_that_moves(cut):
    """The first task says nothing of what follows: zeros, then values a million away."""
    cut(1000, 250)
    rng = np.random.default_rng(4)
    for tail in (1e6, -1e3):
        x = np.concatenate(
            [np.zeros((300, 5)), rng.standard_normal((4000, 5)) + tail, np.full((9, 5), 3.0)]
        )
        check(channel_stats(x, threads=2), x)
        check(channel_stats(x[::-1], threads=2), x)


@pytest.mark.parametrize("taken", [channel_stats, channel_moments])
@pytest.mark.parametrize("value", [0.1, -1e-3, 255.0, 1 / 3, 1e300, -1e-300, 5e-324, 3.4e38])
@pytest.mark.parametrize("cuts", [None, (3000, 700)], ids=str)
def test_constants_have_no_variance(value, taken, cuts, cut):
    if cuts:
        cut(*cuts)
    for shape in [(777, 3), (5, 3, 401)]:
        stats = taken(np.full(shape, value), kurtosis=True, threads=2)
        assert stats.mean == pytest.approx([value] * 3, rel=1e-14, abs=5e-324)
        assert stats.var.tolist() == stats.third.tolist() == stats.fourth.tolist() == [0.0] * 3


@both
def test_one_step_from_constant(cut):
    cut(3000, 700)
    x = np.full((2000, 2), 0.1)
    x[1234, 1] = np.nextafter(0.1, 1)
    check(channel_stats(x), x)
    narrow = np.full((2000, 2), 1e8, np.float32)
    narrow[77, 0] = np.nextafter(np.float32(1e8), np.float32(0))
    check(channel_stats(narrow), narrow)


@both_by_dtype("float16", "float32")
@pytest.mark.parametrize("cuts", [None, (500, 90)], ids=str)
def test_the_ends_of_a_dtype(dtype, cuts, cut):
    if cuts:
        cut(*cuts)
    info = np.finfo(dtype)
    rng = np.random.default_rng(5)
    sign = rng.choice([-1, 1], (400, 1))
    steps = rng.integers(-40, 40, (400, 1))
    tiny = (steps * float(info.smallest_subnormal)).astype(dtype)
    mixed = np.where(sign > 0, info.max, tiny).astype(dtype)
    x = np.concatenate([sign * info.max, tiny, mixed, np.abs(tiny)], axis=1).astype(dtype)
    if dtype == "float64":  # a variance that float64 holds, though not the sum of squares
        x[:, 0] = sign[:, 0] * 1.3e154
        x[:, 2] = np.where(sign[:, 0] > 0, 1.3e154, 0)
    with np.errstate(all="raise"):
        stats = channel_stats(x, threads=2)
    check(stats, x)


@pytest.mark.parametrize("taken", [channel_stats, channel_moments])
def test_float64_overflow_and_underflow(taken):
    rng = np.random.default_rng(6)
    z = rng.standard_normal((999, 1))
    scales = [1e308 / 8, 1e200, 5e153, 1e-153, 3e-160, 1e-200, 1.0]
    x = np.concatenate([z * s for s in scales], axis=1)
    stats = taken(x)
    for c in range(len(scales)):
        mean, var = moments(x[:, c])
        assert abs(stats.mean[c] - float(mean)) <= 1e-12 * np.abs(x[:, c]).max()
        assert stats.var[c] == pytest.approx(var, rel=1e-12, abs=1e-323)
    assert stats.var[:2].tolist() == [math.inf, math.inf]
    # Far from 0 as well: the sum of the values overflows, and so does that of their squares.
    far = 1.5e308 + z * 1e150
    check(channel_stats(far), far)


def test_fourth_moment_at_the_ends():
    rng = np.random.default_rng(7)
    z = rng.standard_normal((500, 1))
    x = np.concatenate([z * 1e76, z * 1e-78, z, z * 1e-20], axis=1)
    stats = channel_stats(x, kurtosis=True)
    check(stats, x)
    for c in range(4):
        assert stats.fourth[c] == pytest.approx(moments(x[:, c], (4,))[1], rel=1e-10)


@both
@pytest.mark.parametrize("channels", [1, 2, 3, 7, 31, 64, 513, 4096])
@pytest.mark.parametrize("small", [True, False])
def test_channel_counts(channels, small, cut):
    if not small:
        cut(9000, 2000)
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((30000 // channels + 1, channels)).astype(np.float32)
    check(channel_stats(x, threads=2), x)


@both_by_dtype("float16", "float32")
@pytest.mark.parametrize("run", [1, 2, 5, 23, 24, 25, 511, 512, 513, 4095, 4096, 4097, 9001])
def test_lengths_of_runs(run, dtype, monkeypatch):
    """Either side of every length at which the sums go another way."""
    monkeypatch.setattr(small, "_SMALL_VALUES", 0)
    rng = np.random.default_rng(run)
    for before, channels in [(1, 1), (1, 3), (7, 2), (40, 1)]:
        x = (rng.standard_normal((before, channels, run)) + 1).astype(dtype)
        check(channel_stats(x), x)


@pytest.mark.parametrize("shape", [(3_000_000, 1), (1_000_000, 3), (10_000, 300), (3, 1, 999_999)])
def test_sums_whose_terms_round_alike(shape):
    """0.1 in float64 squared rounds the same way each time; long sums must not drift with it."""
    x = np.full(shape, 0.1)
    x[::2] = -0.1
    x[0, :] = 0.0
    stats = channel_stats(x, threads=2)
    n = stats.count
    plus, minus = int((x[:, 0] > 0).sum()), int((x[:, 0] < 0).sum())
    tenth = Fraction(0.1)
    mean = tenth * (plus - minus) / n
    var = tenth**2 * (plus + minus) / n - mean**2
    assert stats.var[0] == pytest.approx(float(var), rel=1e-12)
    assert stats.mean[0] == pytest.approx(float(mean), abs=1e-13)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    "stored", ["int64", "uint8", "bool", "float64", "float32", "float16", ">i2"]
)
def test_cast_first(stored, dtype, cut):
    cut(500, 100)
    rng = np.random.default_rng(8)
    x = (rng.standard_normal((60, 3, 7)) * 90 + 100).clip(0, 255).astype(stored)
    expected = decode(encode(x.astype(x.dtype.newbyteorder("=")), dtype), dtype)
    check(channel_stats(x, dtype=dtype), expected)


@both
@pytest.mark.parametrize(
    ("stored", "dtype"), [("float16", "float16"), ("float16", "float32"), ("float32", "float32")]
)
def test_a_cast_that_changes_no_value(stored, dtype, cut, summed_by):
    cut(500, 100)
    x = np.random.default_rng(12).standard_normal((20, 3, 40)).astype(stored)
    check(channel_stats(x, dtype=dtype), x)
    assert summed_by is None or summed_by.lengths


@both
def test_without_extremes(cut):
    cut(500, 100)
    x = np.random.default_rng(9).standard_normal((20, 3, 40)).astype(np.float32)
    stats = channel_moments(x)
    assert np.isnan(stats.min).all()
    assert np.isnan(stats.max).all()
    assert np.array_equal(stats.var, channel_stats(x).var)


@pytest.mark.parametrize("away", [0.0, 1e6])
def test_a_billion_values_a_channel(away):
    """A million values a thousand times over have the statistics of the million."""
    block = np.random.default_rng(10).standard_normal((1, 1, 1_000_000)) * 3 + 3 * away
    mean, var = moments(block)
    stats = channel_stats(np.broadcast_to(block, (1000, 1, 1_000_000)))
    assert stats.count == 10**9
    assert abs(Fraction(stats.shift[0]) + Fraction(stats.offset[0]) - mean) <= 1e-13 * 3
    assert stats.var[0] == pytest.approx(var, rel=1e-13)


@pytest.mark.parametrize("scale", [1e-153, 1e-155, 3e-158, 4e-161])
def test_underflow_alone(scale):
    """A small array without overflow takes a shorter way."""
    x = np.random.default_rng(11).standard_normal((999, 2)) * scale
    check(channel_stats(x), x)


@both
@pytest.mark.parametrize("sizes", [(1 << 21, 1 << 19), (50_000, 9_000)], ids=str)
@pytest.mark.parametrize("shape", [(2_200_000, 2), (40, 16, 60, 61), (5, 2, 300_000)], ids=str)
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


def test_the_tensor_is_left_as_it_is(cut):
    cut(2000, 500)
    x = np.random.default_rng(34).standard_normal((50, 4, 30)) + 1e5
    x[3, 2, 1] = np.nan
    before = x.tobytes()
    x.flags.writeable = False
    channel_stats(x, kurtosis=True, threads=2)
    channel_stats(np.where(np.isnan(x), 1e300, x), kurtosis=True, threads=2)
    assert x.tobytes() == before


@both
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
    assert furthest[0] <= 4 * team.TASKS_AHEAD + 1


ONE_THREAD = """
import time
import numpy as np
from bncli.moments import channel_stats
rng = np.random.default_rng(37)
for shape in [(8, 16, 200, 200), (80_000, 64), (1250, 4096), (3, 1_700_000)]:
    x = rng.standard_normal(shape, np.float32)
    begun, alone = time.process_time(), time.thread_time()
    for _ in range(5):
        channel_stats(x, threads=1)
    print(time.thread_time() - alone, time.process_time() - begun)
"""


def test_one_thread_is_one_thread():
    """NumPy's BLAS has threads of its own, and none of the calls may wake them.

    In a process of its own, as the tests' has but one.
    """
    done = subprocess.run(
        [sys.executable, "-c", ONE_THREAD],
        env=os.environ | {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        alone, all_of_them = map(float, line.split())
        assert all_of_them < 1.25 * alone + 0.01
    assert len(done.stdout.splitlines()) == 4
