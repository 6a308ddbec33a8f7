"""Hypotheses: their words, how odd they are, and their maps against the formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.moments import channel_stats
from bncli.verify.identify import hypotheses
from bncli.verify.identify.hypotheses import (
    BATCH,
    EPS,
    EVAL,
    FRESH,
    STORED,
    TRAINING,
    Hypothesis,
    Known,
    affine_ways,
    batch_norms,
    channel_map,
    eps_text,
    plain_batch_norms,
)

X = np.random.default_rng(0).normal(2, 3, (50, 4))
KNOWN = Known(
    weight=np.array([1.0, 2.0, -1.0, 0.5]),
    bias=np.array([0.0, 1.0, -2.0, 3.0]),
    running_mean=np.array([1.5, 2.0, 2.5, 3.0]),
    running_var=np.array([4.0, 8.0, 9.0, 16.0]),
)


def made(hypothesis, known=KNOWN):
    found = channel_map(hypothesis, known, channel_stats(X))
    return (X - found.center) * found.scale + found.bias


def by_hand(center, invstd, weight=KNOWN.weight, bias=KNOWN.bias):
    return (X - center) * invstd * weight + bias


m, v, eps = KNOWN.running_mean, KNOWN.running_var, 1e-3
WAYS = {
    "training": (Hypothesis(TRAINING, 0, eps), (X.mean(0), 1 / np.sqrt(X.var(0) + eps))),
    "unbiased": (
        Hypothesis(TRAINING, 1, eps), (X.mean(0), 1 / np.sqrt(X.var(0, ddof=1) + eps)),
    ),
    "eval": (Hypothesis(EVAL, None, eps), (m, 1 / np.sqrt(v + eps))),
    "outside": (Hypothesis(EVAL, None, eps, outside=True), (m, 1 / (np.sqrt(v) + eps))),
    "fresh": (Hypothesis(EVAL, None, eps, statistics=FRESH), (0, 1 / np.sqrt(1 + eps))),
    "swapped": (
        Hypothesis(EVAL, None, eps, statistics=hypotheses.SWAPPED), (v, 1 / np.sqrt(m + eps)),
    ),
    "invstd": (Hypothesis(EVAL, None, eps, statistics=hypotheses.IS_INVSTD), (m, v)),
    "stored invstd": (
        Hypothesis(EVAL, None, eps, statistics=hypotheses.INVSTD_STORED),
        (m, 1 / np.sqrt(1 / np.sqrt(v + KNOWN.eps) + eps)),
    ),
    "kept eps": (
        Hypothesis(EVAL, None, eps, statistics=hypotheses.KEPT_EPS), (m, 1 / np.sqrt(v + 2 * eps)),
    ),
    "uncentered": (
        Hypothesis(TRAINING, 0, eps, statistics=hypotheses.UNCENTERED),
        (0, 1 / np.sqrt(X.var(0) + eps)),
    ),
    "unscaled": (Hypothesis(EVAL, None, eps, statistics=hypotheses.UNSCALED), (m, 1)),
    "no weight": (
        Hypothesis(EVAL, None, eps, affine=hypotheses.NO_WEIGHT), (m, 1 / np.sqrt(v + eps), 1),
    ),
    "no bias": (
        Hypothesis(EVAL, None, eps, affine=hypotheses.NO_BIAS),
        (m, 1 / np.sqrt(v + eps), KNOWN.weight, 0),
    ),
    "neither": (
        Hypothesis(EVAL, None, eps, affine=hypotheses.NO_AFFINE), (m, 1 / np.sqrt(v + eps), 1, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_a_map_is_the_formula(name):
    hypothesis, formula = WAYS[name]
    np.testing.assert_allclose(made(hypothesis), by_hand(*formula), rtol=1e-12, atol=1e-12)


def test_what_is_not_known_is_1_and_0_and_evaluation_needs_statistics():
    plain = Hypothesis(TRAINING, 0, eps)
    expected = by_hand(X.mean(0), 1 / np.sqrt(X.var(0) + eps), 1, 0)
    np.testing.assert_allclose(made(plain, Known()), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="evaluation needs"):
        made(Hypothesis(EVAL, None, eps), Known())


def test_every_way_is_there_once():
    found = list(batch_norms(KNOWN, ""))
    assert len(found) == len(set(found))
    assert {item.eps for item in found} == set(EPS)
    assert {item.statistics for item in found if item.mode == TRAINING} == set(BATCH)
    assert {item.statistics for item in found if item.mode == EVAL} == {*STORED, FRESH}
    assert {item.ddof for item in found if item.mode == TRAINING} == {0, 1}
    assert {item.outside for item in found} == {True, False}
    assert not [item for item in found if item.outside and item.eps == 0]
    unscaled = [item for item in found if item.statistics == hypotheses.UNSCALED]
    assert {(item.eps, item.ddof) for item in unscaled} == {(KNOWN.eps, 0), (KNOWN.eps, None)}
    kept = {item.eps for item in found if item.statistics == hypotheses.KEPT_EPS}
    assert kept == {eps for eps in EPS if 2 * eps not in (0.0, *EPS)}
    # One value a channel makes no statistics, and without stored ones there are a new layer's.
    assert {item.mode for item in batch_norms(KNOWN, "", 1)} == {EVAL}
    assert {item.statistics for item in batch_norms(Known(), "", 1)} == {FRESH}


def test_plain_ones_have_nothing_odd_but_the_view():
    found = list(plain_batch_norms(KNOWN, "axis 1"))
    assert {item.variant for item in found} == {"axis 1"}
    assert {item.eps for item in found} == set(EPS)


@pytest.mark.parametrize(
    ("known", "ways"),
    [
        (Known(), {""}),
        (Known(weight=np.ones(1)), {"", hypotheses.NO_WEIGHT}),
        (Known(bias=np.ones(1)), {"", hypotheses.NO_BIAS}),
        (KNOWN, set(hypotheses.AFFINE)),
    ],
)
def test_what_is_not_there_is_not_ignored(known, ways):
    assert set(affine_ways(known)) == ways


def test_words():
    assert Hypothesis(EVAL, None, 1e-3).words == "eval mode with eps 1e-3"
    unbiased = Hypothesis(TRAINING, 1, 1e-5, outside=True, view="axis 1")
    assert unbiased.words == (
        "training mode with the unbiased variance and eps 1e-5 (eps outside the root, axis 1)"
    )
    assert Hypothesis("LayerNorm", None, 0.1).words == "LayerNorm with eps 0.1"


def test_what_one_expects_is_the_least_odd():
    plain = Hypothesis(EVAL, None, 1e-5)
    assert plain.oddness(KNOWN) == 0
    assert Hypothesis(TRAINING, 0, 1e-5).oddness(Known()) == 0
    order = [
        plain, Hypothesis(EVAL, None, 1e-3), Hypothesis(TRAINING, 0, 1e-5),
        Hypothesis(TRAINING, 1, 1e-5), Hypothesis(EVAL, None, 1e-5, affine="weight ignored"),
        Hypothesis(EVAL, None, 1e-5, view="axis 1"),
        Hypothesis(EVAL, None, 4e-4, fitted=True),
    ]  # fmt: skip
    oddness = [item.oddness(KNOWN) for item in order]
    assert oddness == sorted(set(oddness))


@pytest.mark.parametrize(
    ("hypothesis", "known", "expected"),
    [
        (Hypothesis(EVAL, None, 1e-5), KNOWN, True),
        (Hypothesis(TRAINING, 0, 1e-5), KNOWN, True),
        (Hypothesis(TRAINING, 1, 1e-5), KNOWN, False),
        (Hypothesis(EVAL, None, 1e-3), KNOWN, False),
        (Hypothesis(EVAL, None, 1e-5), Known(training=True), False),
        (Hypothesis(TRAINING, 0, 1e-5), Known(training=True), True),
        (Hypothesis(TRAINING, 0, 1e-5, outside=True), KNOWN, False),
        (Hypothesis(EVAL, None, 1e-5, statistics=FRESH), Known(), True),
        (Hypothesis(EVAL, None, 1e-5, statistics=FRESH), KNOWN, False),
        (Hypothesis("LayerNorm", None, 1e-5), Known(trailing_weight=np.ones(3)), True),
        (Hypothesis("LayerNorm", None, 1e-5), Known(), False),
        (Hypothesis("RMSNorm", None, 2.0**-23), Known(trailing_bias=np.ones(3)), True),
    ],
)
def test_what_is_expected(hypothesis, known, expected):
    assert hypothesis.is_expected(known) == expected


def test_a_state_in_another_order():
    taken = KNOWN.taken([3, 0, 1, 2])
    np.testing.assert_array_equal(taken.weight, KNOWN.weight[[3, 0, 1, 2]])
    np.testing.assert_array_equal(taken.running_var, KNOWN.running_var[[3, 0, 1, 2]])
    assert Known().taken([0]).weight is None


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (0.0, "0"), (1e-5, "1e-5"), (1.001e-5, "1.001e-5"), (1e-3, "1e-3"), (0.1, "0.1"),
        (3.3e-4, "3.3e-4"), (2.0**-23, "1.19209e-7"), (1e-8, "1e-8"),
    ],
)  # fmt: skip
def test_eps_is_written_as_people_write_it(eps, text):
    assert eps_text(eps) == text
