"""The sums of long runs by NumKong: as exact as all others, on any processor."""

import math
import sys
import types
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bncli.dtypes import decode, encode
from bncli.moments import channel_moments, channel_stats, fast, layout, merge
from bncli.moments.worker import Worker

from .exact import check, rounded, same_bits
from .summed import TWO_LANES, take_all
from .test_engine import layouts
from .test_source import c_strides, stored_tensor
from .test_worker import check_dirty

try:
    import numkong
except ImportError:
    numkong = None
    ENABLED = []
else:
    ENABLED = [name for name, on in numkong.get_capabilities().items() if on and name != "serial"]

HERE = fast.kernels() or TWO_LANES
LARGEST = np.finfo(np.float32).max
LEAST = "the least exact"
EACH = {LEAST: 0, "serial": 0, **{name: i for i, name in enumerate(ENABLED, 1)}}


@pytest.fixture(params=EACH)
def kernels(request):
    """Those of this processor, those of each that has less, and two sums side by side by NumPy."""
    if request.param == LEAST:
        yield TWO_LANES
        return
    if numkong is None:
        pytest.skip("NumKong is not installed")
    off = ENABLED[EACH[request.param] :]
    try:
        for name in off:
            numkong.disable_capability(name)
        assert not any(numkong.get_capabilities()[name] for name in off)
        yield fast.kernels()
    finally:
        for name in off:
            numkong.enable_capability(name)


@pytest.fixture
def taken(kernels, monkeypatch):
    """What the `kernels` take, which is all that they can."""
    return take_all(monkeypatch, kernels)


def by_counts(row):
    """The exact mean and variance of a row of few different values."""
    values, counts = np.unique(row, return_counts=True)
    pairs = [(Fraction(float(v)), int(n)) for v, n in zip(values, counts, strict=True)]
    mean = sum(v * n for v, n in pairs) / row.size
    return mean, sum((v - mean) ** 2 * n for v, n in pairs) / row.size


def check_few(stats, rows):
    """Assert that `stats` are those of the channels `rows`, each of few different values."""
    for c, row in enumerate(rows):
        mean, var = by_counts(row)
        spread = math.sqrt(var)
        got = Fraction(float(stats.shift[c])) + Fraction(float(stats.offset[c]))
        assert abs(got - mean) <= 1e-12 * spread + 2.0**-51 * abs(float(mean)), c
        assert abs(stats.var[c] - rounded(var)) <= 1e-12 * float(var), (c, stats.var[c] / var - 1)
        assert (stats.min[c], stats.max[c]) == (row.min(), row.max())


def hard_channels(n, scale):
    """Channels (channels, n) whose sums round as badly as few different values can make them."""
    rng = np.random.default_rng(n)
    at = np.arange(n)
    channels = []
    for a in np.array([0.1, 1 / 3, 0.7, 0.9999999], np.float32) * np.float32(scale):
        channels.append(np.where(at % 2, -a, a))  # each square the same, in each lane
        channels.append(np.where(at // 16 % 2, -a, a))
        few = rng.permutation(n) < n // 8 + 2  # the mean square just below 8 variances
        channels.append(np.where(few, np.float32(0), a))
        channels.append(np.where(few, a * np.float32(2**-35), a))
        channels.append(np.where(at < n // 8 + 2, a * np.float32(-(2**-32)), a))
        channels.append(np.where(at == n // 2, a, np.float32(0)))
    return np.array(channels, np.float32)


@pytest.mark.parametrize("scale", [1.0, 3.4e38, 1e-30, 2e-40])
def test_sums_that_round_alike(scale, kernels, monkeypatch):
    taken = take_all(monkeypatch, kernels)
    rows = hard_channels(300_007 if scale == 1.0 else 20_011, scale)
    check_few(channel_stats(rows, 0, threads=1), rows)
    assert taken.lengths
    x = np.ascontiguousarray(rows[:, :19_200].reshape(len(rows), 100, 192).swapaxes(0, 1))
    check_few(channel_stats(x, threads=1), rows[:, :19_200])


def test_channels_as_different_as_they_come(taken):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 14, 5003)).astype(np.float32)
    x[:, 0] *= np.float32(1e-30)
    x[:, 1] *= np.float32(1e-43)  # denormal
    x[:, 2] *= np.float32(5e37)
    x[:, 3] += np.linspace(-50, 50, 5003, dtype=np.float32)  # a mean that drifts
    x[2, 4] += 1000
    x[:, 5] += 1e6
    x[:, 6] = 7.25
    x[:, 7] = -0.0
    x[:, 8] = LARGEST
    x[:, 9] = -LARGEST
    x[:, 10] = np.where(x[:, 10] > 0, 0.0, -0.0)
    x[0, 11], x[1:, 11] = LARGEST, 0
    x[:, 12] = np.float32(2**-149)
    x[1, 13, 4095] = 1e20
    stats = channel_stats(x, threads=1)
    check(stats, x)
    assert stats.var[[6, 7, 8, 9, 10, 12]].tolist() == [0] * 6
    assert taken.lengths
    check(channel_stats(x[:, 5:9], threads=1), x[:, 5:9])


def test_one_channel_in_64_far_from_zero(taken, monkeypatch):
    """The others are not taken again; a window is one call a channel, though tiles are small."""
    monkeypatch.setattr(layout, "TILE_VALUES", 20_000)
    x = np.random.default_rng(2).standard_normal((4, 64, 300)).astype(np.float32)
    x[:, 17] += 300
    check(channel_stats(x, threads=1), x)
    assert len(taken.lengths) == 64


@pytest.mark.parametrize(("ones", "goes"), [(7 / 8 - 0.002, 1), (7 / 8 + 0.002, 2)])
def test_sums_about_zero_are_good_enough_up_to_a_mean_square_of_8_variances(
    ones, goes, taken, monkeypatch
):
    sums = Worker._sums
    gone = []
    monkeypatch.setattr(Worker, "_sums", lambda *a, **k: gone.append(a) or sums(*a, **k))
    x = (np.random.default_rng(9).permutation(20_000) < ones * 20_000).astype(np.float32)
    check_few(channel_stats(x.reshape(2, 1, -1), threads=1), [x])
    assert len(gone) == goes
    assert taken.lengths


LENGTHS = [1, 2, 3, 41, 4095, 4096, 4097, 4099, 8191, 8192, 8193, 12289]
LONG = [65521, 65535, 65536, 65537, 69632, 69633, 131071, 131072, 131073]


@pytest.mark.parametrize("extremes", [True, False])
def test_lengths_of_runs(extremes, kernels):
    """No value is left out or taken twice, on either side of each length where the way changes."""
    rng = np.random.default_rng(3)
    few = rng.standard_normal(16).astype(np.float32)
    for s in LENGTHS + LONG:
        for k, c in [(1, 1), (1, 3), (3, 1), (5, 2)] if s in LENGTHS else [(2, 2)]:
            x = few[rng.integers(0, 16, (k, c, s))]
            x[-1, :, -1] = 3 + np.arange(c)
            x[0, :, 0] = -3
            found = fast.sums(kernels, x, extremes=extremes)
            for channel in range(c):
                row = x[:, channel].astype(np.float64).ravel()
                size = np.abs(row).sum()
                assert abs(found[0][channel] - math.fsum(row)) <= 1e-13 * size, (s, k, c)
                square = math.fsum(np.square(row))
                assert abs(found[1][channel] - square) <= 1e-13 * square, (s, k, c)
                ends = (row.min(), row.max()) if extremes else (np.inf, -np.inf)
                assert (found[2][channel], found[3][channel]) == ends, (s, k, c)


def test_pieces_are_added_up_each_for_itself(kernels):
    """What a kernel makes of pieces is, to the last bit, the sum of what it makes of each."""
    a = np.random.default_rng(4).standard_normal((2, 3, 4 * 4096 + 5)).astype(np.float32)
    cut, rest = fast._in_pieces(a)
    assert cut.shape[:3] == (3, 2, 5)
    assert sum(part.size for part in rest) + cut.size == a.size
    for channel in cut:
        assert kernels.moments(channel) == tuple(np.add.accumulate(
            [kernels.moments(piece) for run in channel for piece in run])[-1])  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    "shape", [(2, 3, 300_000), (1, 1, 270_001), (1, 4, 65_536), (30, 3, 4097), (3, 1, 9000),
              (2000, 4, 50), (5, 2, 4096)], ids=str,
)  # fmt: skip
def test_no_run_is_longer_than_it_may_be(shape, dtype, monkeypatch):
    """The bound on the rounding errors counts on it."""
    taken = take_all(monkeypatch, TWO_LANES)
    x = np.random.default_rng(5).standard_normal(shape, np.float32).astype(dtype)
    channel_moments(x, threads=1)
    assert 0 < max(taken.lengths) <= 4096


def test_neither_is_one_of_an_only_channel(monkeypatch):
    """Its runs follow one another without a gap."""
    taken = take_all(monkeypatch, TWO_LANES)
    x = np.random.default_rng(10).standard_normal((30, 1, 4000), np.float32)
    fast.sums(taken.kernels, x, extremes=True)
    assert max(taken.lengths) <= 4096


def test_extremes_leave_nans_out(kernels):
    x = np.full((2, 3, 70), np.nan, np.float32)
    x[:, 0, ::2], x[0, 1, 5] = LARGEST, -1
    low, high = fast.sums(kernels, x, extremes=True)[2:]
    assert low.tolist() == [LARGEST, -1, np.inf]
    assert high.tolist() == [LARGEST, -1, -np.inf]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_values_at_the_ends_of_pieces(value, taken):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 9, 70_001)).astype(np.float32)
    length = 65536 // 16
    for c, place in enumerate([0, length - 1, length, 65535, 65536, 69_999, 70_000]):
        x[c % 2, c, place] = value
    x[1, 7] = value
    x[0, 8, ::2], x[1, 8] = value, LARGEST
    check_dirty(channel_stats(x, threads=1), x)
    assert taken.lengths


@pytest.mark.parametrize("kernels", [name for name in EACH if name != LEAST], indirect=True)
def test_every_half(kernels):
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every.flags.writeable = False
    out = np.empty((256, 256), np.float32)
    kernels.astype(every.reshape(256, 256), "float32", out=out)
    with np.errstate(invalid="ignore"):
        expected = every.astype(np.float32)
    nan = np.isnan(expected)
    assert (np.isnan(out.ravel()) == nan).all()
    assert (out.ravel().view(np.uint32) == expected.view(np.uint32))[~nan].all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_which_arrays_the_kernels_take(dtype, cut, monkeypatch):
    """Those without gaps, in their own byte order and aligned; NumPy sums the others."""
    cut(4000, 1000)
    taken = take_all(monkeypatch, HERE)
    x = (np.random.default_rng(7).standard_normal((20, 5, 90)) + 1).astype(dtype)
    # In Fortran order and with channels last, channels have no runs.
    plain = {"C", "Fortran", "channels last", "channels first"}
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(dtype).reshape(x.shape)
    raw[...] = x
    for name, view in [*layouts(x), ("unaligned", raw)]:
        taken.lengths.clear()
        view.flags.writeable = False
        check(channel_stats(view, threads=2), x)
        assert bool(taken.lengths) == (name in plain), name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_file_and_an_array_have_the_same_bits_where_they_are_cut_alike(
    dtype, monkeypatch, tmp_path
):
    taken = take_all(monkeypatch, HERE)
    sizes = layout.Sizes(70_000, 15_000)
    monkeypatch.setattr(fast, "IN_MEMORY", sizes)
    monkeypatch.setattr(fast, "IN_FILE", sizes)
    shape = (7, 3, 9001)
    x = np.random.default_rng(8).standard_normal(shape, np.float32)
    x[:, 2] += 200
    x[3:, 1] += 20
    bits = encode(x, dtype)
    where = stored_tensor(tmp_path / "x", bits, dtype, shape, c_strides(shape))
    one = channel_stats(where, threads=1)
    check(one, decode(bits, dtype))
    here = where if dtype == "bfloat16" else bits.view(dtype).reshape(shape)
    assert same_bits(channel_stats(where, threads=3), one)
    assert same_bits(channel_stats(here, threads=2), one)
    assert taken.lengths
    big = stored_tensor(tmp_path / "b", bits, dtype, shape, c_strides(shape), "big")
    check(channel_stats(big, threads=2), decode(bits, dtype))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(2, 9), st.integers(1, 5), st.integers(1, 60)),
    splits=st.sets(st.integers(1, 8)),
    sizes=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    away=st.sampled_from([0, 1, 100]),
    seed=st.integers(0, 99),
)
def test_parts_merged_are_the_whole(shape, splits, sizes, away, seed, monkeypatch, cut):
    cut(max(sizes), min(sizes))
    taken = take_all(monkeypatch, HERE)
    x = (np.random.default_rng(seed).standard_normal(shape) + away).astype(np.float32)
    check(channel_stats(x, threads=2), x)
    parts = np.split(x, sorted(at for at in splits if at < len(x)))
    assert sum(len(part) for part in parts) == len(x)
    check(merge([channel_stats(part, threads=1) for part in parts]), x)
    assert taken.lengths


NUMPY, NUMKONG = f"numpy {np.__version__}", HERE.engine
needed = pytest.mark.skipif(numkong is None, reason="NumKong is not installed")
IMAGES = np.random.default_rng(1).standard_normal((16, 4, 64, 64), np.float32)
ONE_FAR = np.concatenate([IMAGES, IMAGES, IMAGES[:, :1] + np.float32(100)], axis=1)


@needed
@pytest.mark.parametrize(
    ("x", "asked", "engines"),
    [
        pytest.param(IMAGES, {}, (NUMKONG,), id="images"),
        pytest.param(IMAGES.astype(np.float16), {}, (NUMKONG,), id="halves"),
        pytest.param(IMAGES.astype(np.float64), {}, (NUMPY,), id="float64"),
        pytest.param(IMAGES.reshape(-1, 4), {}, (NUMPY,), id="rows"),
        pytest.param(
            np.moveaxis(np.moveaxis(IMAGES, 1, -1).copy(), -1, 1), {}, (NUMPY,), id="channels_last"
        ),
        pytest.param(IMAGES[:1, :, :8, :8], {}, (NUMPY,), id="few"),
        pytest.param(IMAGES, {"dtype": "float16"}, (NUMPY,), id="cast"),
        pytest.param(IMAGES, {"sample_axis": 0}, (NUMKONG,), id="samples"),
        pytest.param(
            IMAGES, {"channel_axis": 0, "sample_axis": 1}, (NUMPY,), id="samples_behind_channels"
        ),
        pytest.param(IMAGES, {"kurtosis": True}, (NUMPY,), id="kurtosis"),
        pytest.param(ONE_FAR, {}, (NUMKONG, NUMPY), id="one_far_channel"),
        pytest.param(IMAGES + np.float32(100), {}, (NUMPY,), id="all_far"),
    ],
)
def test_the_statistics_name_what_summed(x, asked, engines):
    assert channel_stats(x, **asked).engines == engines
    assert channel_stats(x, **asked, threads=1).engines == engines
    if not asked:
        assert channel_moments(x).engines == engines


@needed
def test_a_constant_border_is_not_taken_for_a_mean():
    """The values that are looked at lie all over an image, not in one column."""
    x = np.random.default_rng(3).standard_normal((8, 9, 80, 80), np.float32)
    x[..., :8] = x[..., -8:] = 1
    assert channel_stats(x).engines == (NUMKONG,)


@needed
def test_merged_statistics_name_what_summed_any_of_them():
    parts = [channel_stats(IMAGES), channel_stats(IMAGES.astype(np.float64))]
    assert merge(parts).engines == (NUMKONG, NUMPY)
    assert merge(parts[:1]).engines == (NUMKONG,)


def installed(**names):
    """A module `numkong` that has `names`."""
    module = types.ModuleType("numkong")
    vars(module).update({"moments": sum, "minmax": min, "astype": int} | names)
    return module


@pytest.mark.parametrize(
    "found",
    [
        None,  # makes `import` raise ImportError
        installed(__version__="7.8.5"),
        installed(__version__="8.0.0"),
        installed(__version__="unknown"),
        installed(),
        types.ModuleType("numkong"),
        installed(__version__="7.8.6"),
        installed(__version__="7.8.6", **HERE._replace(moments=lambda _: (0.0, 0.0))._asdict()),
    ],
    ids=["none", "older", "newer", "odd", "no version", "broken", "failing", "wrong"],
)
def test_without_what_is_needed_numpy_sums(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "numkong", found)
    assert fast.kernels.__wrapped__() is None


@pytest.mark.parametrize("error", ["OSError('cannot open shared object file')", "SystemExit(3)"])
def test_an_installation_that_cannot_be_loaded_is_left_alone(error, tmp_path, monkeypatch):
    (tmp_path / "numkong.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numkong", raising=False)
    assert fast.kernels.__wrapped__() is None
    whole = installed(__version__="7.8.6", **HERE._asdict())
    monkeypatch.setitem(sys.modules, "numkong", whole)
    assert fast.kernels.__wrapped__().engine == "numkong 7.8.6"
