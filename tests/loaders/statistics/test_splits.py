"""Random splits of random inputs: whatever is where, the whole comes to what the values come to."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from bncli.loaders.statistics import read_statistics, write_statistics
from bncli.model.capture import Capture, WatchedLayer
from bncli.model.part import Part
from tests.loaders.statistics.captures import TRAINING, sums_of
from tests.moments.exact_batches import COUNTS, exact_sums, rows, two

ROOM = 1e-12
SAMPLE = range(0, 200, 20)
"""Splits of the default run; all 200 belong to the whole of the matrix."""
DTYPES = ("float16", "float32", "float64")


def inputs_of(rng):
    """Inputs of four channels: any size, scale and mean; one constant, one with NaN or Inf."""
    dtype = DTYPES[rng.integers(3)]
    number = int(rng.integers(1, 41))
    scale = 10.0 ** (rng.uniform(-2, 2) if dtype == "float16" else rng.uniform(-6, 6))
    far = rng.choice([0.0, 1.0, 30.0, 1000.0])
    rest = tuple(rng.integers(1, 5, rng.integers(0, 3)))
    inputs = []
    for _ in range(number):
        x = (rng.standard_normal((rng.integers(1, 7), 4, *rest)) + far) * scale
        x[:, 1] = 0.1
        if rng.random() < 0.5:
            x[0, 2] = rng.choice([np.nan, np.inf, -np.inf, 0.0])
        inputs.append(x.astype(dtype))
    return inputs


def written(folder, inputs, n):
    """The statistics file of each shard of `n` that has inputs."""
    paths = []
    for k in range(min(n, len(inputs))):
        seen = {TRAINING: sums_of(inputs[k::n], 4)}
        part = Part(k, n, number=len(inputs), nbytes=1, digest="d")
        paths.append(folder / f"{n}-{k}.npz")
        write_statistics(paths[-1], Capture((WatchedLayer("x", 0, 4, seen=seen),), part=part))
    return paths


def errors(found, inputs):
    """How far each sum is from the exact one, as a share of the room that `test_splits` gives."""
    wrong = {}
    for channel in range(4):
        values = np.concatenate([rows(x, channel).ravel() for x in inputs])
        if not np.isfinite(values).all():
            with np.errstate(invalid="ignore"):
                np.testing.assert_array_equal(found.mean[channel], values.sum())
            assert np.isnan(found.var[channel])
            continue
        exact = exact_sums(inputs, channel)
        m2 = exact["within"] + exact["between"]
        var = float(m2 / len(values))
        mean = math.fsum(values) / len(values)
        assert (
            abs(float(exact["mean"]) - mean) <= 2.0**-52 * abs(mean) + 1e-300
        )  # two oracles agree
        size = max(abs(mean), math.sqrt(var), 1e-300)
        wrong["mean"] = abs(float(two(found, "offset", channel) - exact["mean"])) / size
        got = Fraction(float(found.within[channel])) + Fraction(float(found.between[channel]))
        wrong["var"] = max(wrong.get("var", 0), float(abs(got - m2) / m2) if m2 else float(got))
        for name in ("sample_squares", "sample_between", "batch_mean_squares", "batch_var"):
            if name in exact:
                least = Fraction(var) * Fraction(1e-3)  # nothing is exact beside the variance
                off = abs(Fraction(float(getattr(found, name)[channel])) - exact[name])
                share = float(off / max(exact[name], least)) if var else float(off)
                wrong[name] = max(wrong.get(name, 0), share)
    return wrong


def counted(inputs, name, channel):
    """What is counted, or an extreme, by NumPy over all values at once."""
    values = np.concatenate([rows(x, channel).ravel() for x in inputs])
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (np.nan, np.nan)
    return {
        "min": low,
        "max": high,
        "at_min": (values == low).sum(),
        "at_max": (values == high).sum(),
        "at_zero": (values == 0).sum(),
        "nan": np.isnan(values).sum(),
        "posinf": (values == np.inf).sum(),
        "neginf": (values == -np.inf).sum(),
    }[name]


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=() if seed in SAMPLE else pytest.mark.exhaustive)
        for seed in range(200)
    ],
)
def test_splits(tmp_path, seed):
    rng = np.random.default_rng(seed)
    inputs = inputs_of(rng)
    paths = written(tmp_path, inputs, int(rng.integers(2, 41)))
    whole = read_statistics(paths)
    files = []
    for order in (paths, paths[::-1], [paths[i] for i in rng.permutation(len(paths))]):
        merged = read_statistics(order)
        write_statistics(tmp_path / "all.npz", replace(merged, part=whole.part))
        assert merged.part == whole.part
        files.append((tmp_path / "all.npz").read_bytes())
    assert files[0] == files[1] == files[2]
    for found in (whole.layers[0].seen[TRAINING], sums_of(inputs, 4)):
        assert (found.batches, found.samples) == (len(inputs), sum(map(len, inputs)))
        for name in COUNTS:
            wanted = [counted(inputs, name, channel) for channel in range(4)]
            np.testing.assert_array_equal(getattr(found, name), wanted, err_msg=name)
        worst = errors(found, inputs)
        assert all(share <= ROOM for share in worst.values()), worst
