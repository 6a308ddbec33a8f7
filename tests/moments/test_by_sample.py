"""The sums by sample against NumPy and `math.fsum`, in every layout, and the algebra of merging."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.dtypes import encode
from bncli.files.file_bytes import FileBytes
from bncli.model import TensorRef
from bncli.model.samples import D1, D2, D2V, D3, D4, DV, V1, V2, power_sums
from bncli.moments import by_sample, channel_stats, fast, layout, merge
from bncli.moments.source import Source

NUMKONG = use.engine if (use := fast.kernels()) else "numkong"


def by_hand(x, channel_axis=1, sample_axis=0):
    """The samples' means and biased variances, (samples, channels)."""
    x = np.moveaxis(np.asarray(x, np.float64), (sample_axis, channel_axis), (0, 1))
    x = x.reshape(*x.shape[:2], -1)
    return x.mean(2), x.var(2)


def exact_sums(mean, var, origin):
    """The eight sums by `math.fsum`."""
    rows = []
    for d, v in zip((mean - origin).T.tolist(), var.T.tolist(), strict=True):
        terms = {
            D1: d,
            D2: [a**2 for a in d],
            D3: [a**3 for a in d],
            D4: [a**4 for a in d],
            V1: v,
            V2: [b**2 for b in v],
            DV: [a * b for a, b in zip(d, v, strict=True)],
            D2V: [a * a * b for a, b in zip(d, v, strict=True)],
        }
        rows.append([math.fsum(terms[row]) for row in range(8)])
    return np.array(rows).T


def check(stats, x, channel_axis=1, sample_axis=0, rtol=1e-9):
    mean, var = by_hand(x, channel_axis, sample_axis)
    found = stats.samples
    assert found.number == len(mean)
    assert found.effective == pytest.approx(len(mean))
    scale = np.sqrt(stats.var + 1e-300)
    powers = np.array([1, 2, 3, 4, 2, 4, 3, 4])[:, np.newaxis]
    wanted = exact_sums(mean, var, stats.mean)
    np.testing.assert_allclose(
        found.sums / scale**powers, wanted / scale**powers, rtol=rtol, atol=rtol * len(mean)
    )
    if len(mean) > 1:
        parts = var + (mean - mean.mean(0)) ** 2
        parts_here = var + (mean - stats.mean) ** 2
        np.testing.assert_allclose(found.mean_variance, mean.var(0, ddof=1), rtol=1e-7)
        near = {"rtol": 1e-6, "atol": 1e-9 * scale.max() ** 4}
        np.testing.assert_allclose(found.inner_variance, var.var(0, ddof=1), **near)
        np.testing.assert_allclose(
            found.square_variance,
            parts_here.var(0, ddof=1),
            rtol=1e-6,
            atol=1e-9 * scale.max() ** 4,
        )
        assert np.allclose(parts, parts_here, rtol=1e-6)


SHAPES = [
    (6, 3),
    (6, 1),
    (2, 5, 4),
    (7, 3, 30),
    (5, 4, 6, 7),
    (3, 1, 8, 8),
    (4, 2, 3, 4, 5),
    (1, 3, 9),
]


def orders(x):
    """The same values in memory as they are, in Fortran's order, channels last and every second."""
    yield x
    yield np.asfortranarray(x)
    if x.ndim > 2:
        yield np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    wide = np.repeat(x, 2, axis=-1)
    yield wide[..., ::2]
    yield x[::-1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0.0, 3.0, 1e4])
def test_every_layout(shape, mean):
    rng = np.random.default_rng(0)
    x = rng.normal(mean, 1, shape) + rng.normal(0, 1, (shape[0], *(1,) * (len(shape) - 1)))
    for each in orders(x):
        check(channel_stats(each, sample_axis=0), each, rtol=1e-9 if mean < 100 else 1e-6)


@pytest.mark.parametrize(("channel", "sample"), [(0, 1), (2, 0), (-1, 0), (1, -3)])
def test_other_axes(channel, sample):
    x = np.random.default_rng(1).normal(2, 1, (5, 6, 7))
    check(channel_stats(x, channel, sample_axis=sample), x, channel, sample)


@pytest.fixture
def small_tasks(monkeypatch):
    """Tasks and tiles so small that every way of cutting a tensor comes about."""

    def set_to(task, tile):
        monkeypatch.setattr(layout, "TASK_VALUES", task)
        monkeypatch.setattr(layout, "TILE_VALUES", tile)

    return set_to


@pytest.mark.parametrize("cut", [(1, 1), (5, 2), (7, 7), (30, 11), (100, 64), (1000, 10)])
@pytest.mark.parametrize("shape", [(6, 3), (5, 4, 6), (4, 3, 5, 6), (3, 2, 2, 3, 4)])
def test_every_cut(small_tasks, cut, shape):
    """Samples that begin in one task and end in another, and tiles that hold parts of some."""
    small_tasks(*cut)
    rng = np.random.default_rng(2)
    x = rng.normal(1, 2, shape) * rng.uniform(0.5, 2, (shape[0], *(1,) * (len(shape) - 1)))
    for each in orders(x):
        one = channel_stats(each, sample_axis=0, threads=1)
        check(one, each)
        three = channel_stats(each, sample_axis=0, threads=3)
        assert (one.samples.sums == three.samples.sums).all()  # bit by bit


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(40, 8, 700), (9, 60_000), (3, 1, 600_000)])
def test_in_a_file(tmp_path, dtype, shape):
    values = np.random.default_rng(3).normal(1, 1, shape)
    stored = encode(values, dtype)
    (tmp_path / "x").write_bytes(stored.tobytes())
    strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    tensor = TensorRef(
        "", tmp_path / "x", shape, dtype, strides, FileBytes(tmp_path / "x", 0, stored.nbytes)
    )
    check(channel_stats(tensor, sample_axis=0), tensor.read())


@pytest.fixture(params=["numpy", "numkong"])
def kernels(request, monkeypatch):
    """The name of what takes the sums, and the shapes of what NumKong took run by run."""
    taken = []
    if request.param == "numpy":
        monkeypatch.setattr(fast, "kernels", lambda: None)
    else:
        pytest.importorskip("numkong")
        real = fast.run_sums

        def seen(use, x, **how):
            taken.append(x.shape)
            return real(use, x, **how)

        monkeypatch.setattr(fast, "run_sums", seen)
        monkeypatch.setattr(Source, "_seems_far", lambda _: False)
    return request.param, taken


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("shape", "channel", "sample"),
    [
        ((6, 3, 1500), 1, 0),
        ((3, 2, 4, 1100), 2, 0),
        ((2, 3, 4, 1100), -2, 1),
        ((3, 2, 70_001), 1, 0),
    ],
)
def test_long_runs(shape, channel, sample, dtype, kernels):
    """Channels near 0 are taken without a copy, those far from it about their mean."""
    name, taken = kernels
    rng = np.random.default_rng(8)
    x = rng.normal(0, 1, shape)
    x += rng.normal(0, 2, [size if axis == sample else 1 for axis, size in enumerate(shape)])
    x = x.astype(dtype)
    check(channel_stats(x, channel, sample_axis=sample), x, channel, sample)
    assert bool(taken) == (name == "numkong")
    np.moveaxis(x, channel, 0)[1] += 50
    both = [channel_stats(x, channel, sample_axis=sample, threads=n) for n in (1, 3)]
    check(both[0], x, channel, sample, rtol=1e-8)
    assert (both[0].samples.sums == both[1].samples.sums).all()
    assert (NUMKONG in both[0].engines) == (name == "numkong")


def test_samples_behind_the_channel_are_summed_without_numkong(kernels):
    x = np.random.default_rng(9).normal(1, 1, (3, 6, 1500)).astype(np.float32)
    check(channel_stats(x, 0, sample_axis=1), x, 0, 1)
    assert not kernels[1]


@pytest.mark.parametrize("task", [5000, 12_000, 40_000, 1 << 20])
@pytest.mark.parametrize("window", [1500, 4500, 40_000])
def test_windows_and_tiles_cut_samples_otherwise(task, window, kernels, monkeypatch):
    """What is taken again about a mean comes in tiles: of a sample that a window has whole, too."""
    monkeypatch.setattr(layout, "TILE_VALUES", 700)
    monkeypatch.setattr(fast, "_VALUES_A_CALL", 0)
    monkeypatch.setattr(fast, "IN_MEMORY", layout.Sizes(task, window))
    x = np.random.default_rng(10).normal(0, 1, (8, 3, 1500)).astype(np.float32)
    x[:, 1] += 30
    x[::2, 2] += 30
    x[5, 0, 3] = np.inf
    stats = channel_stats(x, sample_axis=0)
    assert (NUMKONG in stats.engines) == (kernels[0] == "numkong")
    assert np.isnan(stats.samples.mean_variance[0])
    few = stats.samples.sums[:, 1:]
    mean, var = by_hand(x[:, 1:])
    scale = np.sqrt(stats.var[1:]) ** np.array([1, 2, 3, 4, 2, 4, 3, 4])[:, np.newaxis]
    near = exact_sums(mean, var, stats.mean[1:])
    np.testing.assert_allclose(few / scale, near / scale, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("size", [1500, 4096, 30_000])
def test_variances_of_samples_far_from_their_channel(size, kernels):
    """They are as exact as the channel's variance is: not next to their own."""
    x = np.random.default_rng(11).normal(0, 1, (10, 2, size)).astype(np.float32)
    x[::2] += 100
    x[1::2] -= 100
    stats = channel_stats(x, sample_axis=0)
    assert (NUMKONG in stats.engines) == (kernels[0] == "numkong")
    wide = x.astype(np.longdouble)
    wanted = np.square(wide - wide.mean(2, keepdims=True)).mean(2).sum(0).astype(float)
    assert (abs(stats.samples.sums[V1] - wanted) <= 1e-13 * len(x) * stats.var).all()


def test_what_is_summed_else_is_as_without(small_tasks):
    small_tasks(100, 40)
    x = np.random.default_rng(4).normal(1, 1, (6, 3, 5, 4))
    x[2, 1, 0, 0] = np.nan
    plain, both = channel_stats(x, threads=1), channel_stats(x, sample_axis=0, threads=1)
    for name in ("mean", "var", "min", "max", "nan"):
        np.testing.assert_allclose(getattr(plain, name), getattr(both, name), rtol=1e-14)
    assert plain.first_nonfinite == both.first_nonfinite
    assert np.isnan(both.samples.mean_variance[1])
    assert np.isfinite(both.samples.mean_variance[[0, 2]]).all()


def test_constant_channels_and_constant_samples():
    x = np.full((4, 2, 9), 0.1)
    x[:, 1] += np.arange(4.0)[:, np.newaxis]
    samples = channel_stats(x, sample_axis=0).samples
    assert samples.mean_variance[0] < 1e-30
    assert samples.mean_variance[1] == pytest.approx(np.var([0, 1, 2, 3], ddof=1))
    assert samples.inner_variance.max() < 1e-25


def test_a_layout_with_too_many_samples_begun(monkeypatch):
    """Samples fastest: all are begun before one ends. As many as are allowed, and one more."""
    x = np.asfortranarray(np.random.default_rng(5).normal(size=(50, 4, 6)))
    monkeypatch.setattr(by_sample, "MOST_OPEN", 200)
    check(channel_stats(x, sample_axis=0), x)
    monkeypatch.setattr(by_sample, "MOST_OPEN", 199)
    assert channel_stats(x, sample_axis=0).samples is None
    assert channel_stats(np.ascontiguousarray(x), sample_axis=0).samples is not None


parts_of = st.lists(
    st.tuples(st.integers(1, 6), st.floats(-3, 3), st.floats(0.1, 3)), min_size=1, max_size=5
)


@given(parts_of, st.integers(0, 2**32), st.sampled_from([(), (4,), (3, 2)]))
@settings(max_examples=150, deadline=None)
def test_merging_is_the_whole(parts, seed, rest):
    """The samples of parts, merged in any order and grouping, are those of all values."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(mean, std, (2 * n, 3, *rest)) for n, mean, std in parts]
    whole = np.concatenate(arrays)
    stats = [channel_stats(x, sample_axis=0) for x in arrays]
    merged = merge(stats)
    check(merged, whole, rtol=1e-8)
    other = merge([merge(stats[1:]), stats[0]]) if len(stats) > 1 else merged
    check(other, whole, rtol=1e-8)
    assert (merge(stats).samples.sums == merged.samples.sums).all()


def test_samples_of_different_sizes_count_as_fewer():
    """Of one sample with 9 values and one with 1, the first has nearly all the weight."""
    rng = np.random.default_rng(6)
    few, many = rng.normal(size=(3, 2, 1)), rng.normal(size=(2, 2, 9))
    merged = merge([channel_stats(x, sample_axis=0) for x in (few, many)]).samples
    weights = np.array([1, 1, 1, 9, 9]) / 21
    assert merged.number == 5
    assert merged.effective == pytest.approx(1 / (weights**2).sum())
    means = np.concatenate([few.mean(2), many.mean(2)])
    np.testing.assert_allclose(merged.mean_variance, means.var(0, ddof=1), rtol=1e-12)


def test_parts_without_samples_have_none_together():
    x = np.ones((3, 2, 4))
    assert merge([channel_stats(x, sample_axis=0), channel_stats(x)]).samples is None


def test_powers_chunk_by_chunk(monkeypatch):
    monkeypatch.setattr("bncli.model.samples._CHUNK", 7)
    rng = np.random.default_rng(7)
    d, v = rng.normal(size=(20, 3)), rng.uniform(size=(20, 3))
    np.testing.assert_allclose(power_sums(d, v), exact_sums(d, v, 0.0), rtol=1e-12, atol=1e-12)
    none = power_sums(d, None)
    np.testing.assert_allclose(none, exact_sums(d, np.zeros_like(v), 0.0), rtol=1e-12, atol=1e-12)


def test_windows_where_too_many_samples_would_be_begun(kernels, monkeypatch):
    """The samples are left out, and the kernels sum what is theirs all the same."""
    monkeypatch.setattr(by_sample, "MOST_OPEN", 1)
    x = np.random.default_rng(40).standard_normal((2, 2, 400, 900)).astype(np.float32)
    stats = channel_stats(x, 2, sample_axis=1)
    assert stats.samples is None
    assert (NUMKONG in stats.engines) == (kernels[0] == "numkong")
    wide = x.astype(np.float64)
    np.testing.assert_allclose(stats.var, wide.var((0, 1, 3)), rtol=1e-12)


def test_a_constant_channel_beside_a_far_one(kernels):
    """It has no variance in any sample."""
    x = np.random.default_rng(41).standard_normal((6, 3, 5000)).astype(np.float32)
    x[:, 0] = np.float32(5.1)
    x[:, 1] += 1000
    stats = channel_stats(x, sample_axis=0)
    assert (NUMKONG in stats.engines) == (kernels[0] == "numkong")
    assert stats.var[0] == 0
    assert not stats.samples.sums[:, 0].any()
