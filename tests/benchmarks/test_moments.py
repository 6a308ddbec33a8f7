"""The statistics engine, with NumKong and without it, against NumPy and PyTorch, in memory."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bncli.dtypes import encode
from bncli.model import TensorRef
from bncli.moments import channel_moments, channel_stats, fast

THREADS = [1, 2]
EVERYTHING = [False, True]
NUMPY = (f"numpy {np.__version__}",)
"""The engines where NumPy sums alone, even where NumKong is installed."""
UPDATE = {
    ("fast", "images"): {1: 4.5, 2: 2.5},
    ("fast", "signals"): {1: 4.0, 2: 2.2},
    ("numpy", "images"): {1: 1.3, 2: 1.3},
    ("numpy", "signals"): {1: 1.3, 2: 1.3},
}
"""What is wanted against PyTorch's kernel, by engine, input and number of threads."""


@pytest.fixture(params=["fast", "numpy"])
def engine(request, monkeypatch):
    """Either engine's name, while it is the one that sums."""
    if request.param == "numpy":
        monkeypatch.setattr(fast, "kernels", lambda: None)
    elif fast.kernels() is None:
        pytest.skip("needs numkong")
    return request.param


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((64, 64, 112, 112), np.float32)


@pytest.fixture(scope="module")
def signals():
    return np.random.default_rng(1).standard_normal((256, 64, 2500), np.float32)


@pytest.fixture(scope="module")
def rows_of_64():
    return np.random.default_rng(2).standard_normal((1_000_000, 64), np.float32)


def sum_on(threads, x):
    """np.sum on so many threads, each with its share."""
    shares = np.array_split(x, threads)
    if threads == 1:
        return lambda: [share.sum() for share in shares]
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(np.sum, shares))


def mean_and_var(x):
    axes = (0, *range(2, x.ndim))
    return lambda: (x.mean(axes), x.var(axes))


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("everything", EVERYTHING)
@pytest.mark.parametrize("kind", ["images", "signals"])
def test_channels_first(kind, everything, threads, engine, race, request):
    x = request.getfixturevalue(kind)
    tensor = torch.from_numpy(x)
    torch.set_num_threads(threads)
    axes = (0, *range(2, x.ndim))
    rivals = {
        "torch.batch_norm_update_stats": (
            lambda: torch.batch_norm_update_stats(tensor, None, None, 0.1),
            UPDATE[engine, kind][threads] if everything else 2.0,
        )
    }
    if not everything:
        rivals["np.sum"] = sum_on(threads, x), 1 / 3.5
        rivals["x.mean, x.var"] = mean_and_var(x), None
        rivals["torch.var_mean"] = lambda: torch.var_mean(tensor, axes), None
    race(
        f"{engine}: {x.shape} float32, {what(everything)}",
        threads,
        lambda: taken(everything)(x, threads=threads),
        rivals,
        values=x.size,
        rounds=9,
    )


def taken(everything):
    return channel_stats if everything else channel_moments


def what(everything):
    return "all" if everything else "mean and var"


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("everything", EVERYTHING)
def test_float64(everything, threads, race, images):
    x = images.astype(np.float64)
    assert taken(everything)(x, threads=threads).engines == NUMPY
    race(
        f"{x.shape} float64, {what(everything)}",
        threads,
        lambda: taken(everything)(x, threads=threads),
        {"x.mean, x.var": (mean_and_var(x), 4.0)},
        values=x.size,
        rounds=5,
    )


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("everything", EVERYTHING)
@pytest.mark.parametrize("kind", ["(N,C)", "channels last"])
def test_channels_last(kind, everything, threads, race, rows_of_64):
    x = rows_of_64
    if kind == "channels last":
        x = np.moveaxis(x.reshape(20, 250, 200, 64), -1, 1)
    assert taken(everything)(x, threads=threads).engines == NUMPY
    race(
        f"{kind} a million by 64, {what(everything)}",
        threads,
        lambda: taken(everything)(x, threads=threads),
        {"x.mean(0), x.var(0)": (mean_and_var(rows_of_64), 1.0 if everything else 2.0)},
        values=x.size,
    )


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("everything", EVERYTHING)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["images", "rows_of_64"])
def test_half_precision(kind, dtype, everything, threads, engine, race, request):
    x = request.getfixturevalue(kind)
    flat = encode(x, dtype).ravel()
    strides = tuple(int(np.prod(x.shape[i + 1 :])) for i in range(x.ndim))
    half = TensorRef("", None, x.shape, dtype, strides, lambda: flat)
    wanted = 0.7 if engine == "fast" and kind == "images" else 0.5
    race(
        f"{engine}: {x.shape} {dtype}, {what(everything)}",
        threads,
        lambda: taken(everything)(half, threads=threads),
        {"bncli in float32": (lambda: taken(everything)(x, threads=threads), wanted)},
        values=x.size,
    )


@pytest.mark.parametrize("everything", EVERYTHING)
@pytest.mark.parametrize("shape", [(8, 4), (64, 64), (16, 3, 8, 8), (4, 64, 14, 14), (32, 4096)])
def test_small(shape, everything, race):
    """Of so few values the engines make no difference: NumPy sums them."""
    x = np.random.default_rng(3).standard_normal(shape, np.float32)
    plain = mean_and_var(x)
    axes = (0, *range(2, x.ndim))
    rivals = {"x.mean, x.var": (plain, 1.0)}
    if everything:
        rivals = {
            "x.mean, x.var, x.min, x.max, np.isfinite": (
                lambda: (plain(), x.min(axes), x.max(axes), np.isfinite(x).all(axes)),
                1.0,
            )
        }
    race(
        f"{shape} float32, {what(everything)}",
        1,
        lambda: taken(everything)(x),
        rivals,
        values=x.size,
        rounds=1000,
    )


def test_far_from_zero(engine, race, images):
    far = images + np.float32(1000)
    race(
        f"{engine}: {images.shape} float32, all, mean 1000 std",
        1,
        lambda: channel_stats(far, threads=1),
        {"bncli at mean 0": (lambda: channel_stats(images, threads=1), None)},
        values=far.size,
        rounds=5,
    )
