"""Statistics of a part of the batch, of parts for themselves, and put together from parts."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.model import RunningStats
from bncli.moments import channel_stats, merge
from bncli.verify.identify import parts
from bncli.verify.identify.hypotheses import Known
from bncli.verify.identify.output import identify_output
from bncli.verify.identify.pair import ArraySource
from bncli.verify.identify.running import Observed, identify_update

SHARDS = (5, 9, 2)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(1, 2, (16, 3, 4)) + rng.normal(size=(16, 1, 1))
    return x, Known(rng.normal(1, 0.2, 3), rng.normal(size=3))


def normalised(x, mean, var, known, eps=1e-5):
    def lay(values):
        return np.reshape(values, (1, -1, 1))

    return (x - lay(mean)) / np.sqrt(lay(var) + eps) * lay(known.weight) + lay(known.bias)


def identified(x, y, known, dtype="float32", shards=()):
    x, y = x.astype(dtype), y.astype(dtype)
    return identify_output(ArraySource(x, dtype), ArraySource(y, dtype), 1, known, shards=shards)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (0, 8, "the first 8 of 16 samples"), (12, 16, "the last 4 of 16 samples"),
        (4, 8, "samples 4 to 7 of 16"), (0, 15, "the first 15 of 16 samples"),
    ],
)  # fmt: skip
def test_a_part_of_the_batch(dtype, first, last, words):
    x, known = batch()
    part = x[first:last]
    y = normalised(x, part.mean((0, 2)), part.var((0, 2)), known)
    found = identified(x, y, known, dtype)
    best = found.hypotheses[0]
    assert best.explains
    assert (best.hypothesis.mode, best.hypothesis.eps) == ("training", 1e-5)
    assert words in best.hypothesis.statistics
    assert not found.expected


def own(x, known, sizes):
    cuts = np.split(x, np.cumsum(sizes)[:-1])
    return np.concatenate(
        [normalised(cut, cut.mean((0, 2)), cut.var((0, 2)), known) for cut in cuts]
    )


@pytest.mark.parametrize("size", [2, 4, 8])
def test_equal_parts_with_statistics_of_their_own(size):
    x, known = batch()
    found = identified(x, own(x, known, [size] * (16 // size)), known)
    assert found.hypotheses[0].explains
    assert f"parts of {size} samples, {parts.OWN}" in found.hypotheses[0].hypothesis.statistics
    assert not found.expected


def test_several_inputs_each_with_its_own():
    x, known = batch()
    found = identified(x, own(x, known, SHARDS), known, shards=SHARDS)
    assert found.hypotheses[0].explains
    assert found.hypotheses[0].hypothesis.statistics == f"the inputs, {parts.OWN}"


@pytest.mark.parametrize("how", [parts.WITHIN, parts.SQUARES])
def test_the_mean_of_the_inputs_means(how):
    """By plain NumPy: each INPUT counts the same, however many samples it has."""
    x, known = batch()
    cuts = np.split(x, np.cumsum(SHARDS)[:-1])
    mean = np.mean([cut.mean((0, 2)) for cut in cuts], axis=0)
    if how == parts.WITHIN:
        var = np.mean([cut.var((0, 2)) for cut in cuts], axis=0)
    else:
        var = np.mean([(cut**2).mean((0, 2)) for cut in cuts], axis=0) - mean**2
    found = identified(x, normalised(x, mean, var, known), known, shards=SHARDS)
    assert found.hypotheses[0].explains
    assert found.hypotheses[0].hypothesis.statistics == how
    assert not found.expected
    pooled = identified(x, normalised(x, x.mean((0, 2)), x.var((0, 2)), known), known,
                        shards=SHARDS)  # fmt: skip
    assert pooled.expected
    assert pooled.hypotheses[0].hypothesis.statistics == ""


@pytest.mark.parametrize("how", [parts.WITHIN, "INPUT 2 alone", "eps 1e-3 added"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_an_update_with_parts_or_a_kept_eps(how, ddof):
    x, _ = batch()
    cuts = np.split(x, np.cumsum(SHARDS)[:-1])
    mean, var = x.mean((0, 2)), x.var((0, 2), ddof=ddof)
    if how == parts.WITHIN:
        mean = np.mean([cut.mean((0, 2)) for cut in cuts], axis=0)
        var = np.mean([cut.var((0, 2), ddof=ddof) for cut in cuts], axis=0)
    elif how.startswith("INPUT"):
        mean, var = cuts[1].mean((0, 2)), cuts[1].var((0, 2), ddof=ddof)
    else:
        var = var + 1e-3
    stats = tuple(channel_stats(cut, 1) for cut in cuts)
    before = RunningStats(np.zeros(3), np.ones(3), 0)
    after = RunningStats(0.1 * mean, 0.9 + 0.1 * var, 1)
    found = identify_update(Observed(merge(stats), before, after, "float64", stats))
    best = found.ways[0]
    assert best.explains
    assert best.update.variant.startswith(how)
    assert (best.update.weight, best.update.ddof) == (0.1, ddof)
    assert not found.expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_nothing_explains_is_shown_channel_by_channel(dtype):
    """With a mean and a variance of nobody: what they were is told."""
    x, known = batch()
    mean, var = np.array([0.3, -2.0, 5.0]), np.array([0.4, 2.0, 9.0])
    found = identified(x, normalised(x, mean, var, known), known, dtype)
    assert not found.explained
    rel = 1e-4 if dtype == "float32" else 1e-9
    implied = found.implied
    assert implied.mean == pytest.approx(mean, rel=rel)
    assert implied.var == pytest.approx(var, rel=rel)
    scale = known.weight / np.sqrt(var + 1e-5)
    assert implied.scale == pytest.approx(scale, rel=rel)
    assert implied.shift == pytest.approx(known.bias - mean * scale, rel=rel)
    assert implied.affine.all()
    bent = normalised(x, mean, var, known)
    bent[:, 1] = np.tanh(bent[:, 1])
    implied = identified(x, bent, known, dtype).implied
    assert implied.affine.tolist() == [True, False, True]
    assert np.isnan(implied.mean[1])
    assert implied.worst == 1
