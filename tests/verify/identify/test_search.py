"""Hypotheses measured, judged by what rounding may leave, and ranked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.verify.identify.hypotheses import EVAL, TRAINING, Hypothesis, Known, channel_map
from bncli.verify.identify.pair import ArraySource, View
from bncli.verify.identify.search import (
    LEVELS,
    MEASURED,
    Candidate,
    Seen,
    candidates,
    fitted,
    ranked,
)

PLAIN = Hypothesis(TRAINING, 0, 1e-5)
ODD = replace(PLAIN, outside=True)
FITTED = replace(PLAIN, eps=0.123, fitted=True)
OTHER = replace(PLAIN, eps=1e-3)
NONE = (2.0, 2.0, 2.0)


def candidate(hypothesis, shares, off=0.0, oddness=0, **more):
    return Candidate(hypothesis, off, 0, shares, oddness, **more)


def order(*given, lenient=False):
    return [(item.hypothesis, item.explains) for item in ranked(list(given), lenient=lenient)]


def seen_of(x, y, known, dtype="float32"):
    return Seen.of(View(ArraySource(x, dtype), ArraySource(y, dtype), 1), known)


def test_a_level_is_the_first_that_allows_it_all():
    assert candidate(PLAIN, (0.5, 0.1, 0.1)).level == 0
    assert candidate(PLAIN, (1.0, 0.1, 0.1)).level == 0
    assert candidate(PLAIN, (1.1, 1.0, 0.1)).level == 1
    assert candidate(PLAIN, NONE).level == LEVELS
    assert candidate(PLAIN, (0.5, 0.5, 0.5)).told
    assert not candidate(PLAIN, (0.5, 0.5, 0.5), tells=(False, True, True)).told
    assert not candidate(PLAIN, NONE).told


def test_the_first_level_decides():
    tight, loose = (0.5,) * 3, (1.5, 0.5, 0.5)
    found = order(candidate(PLAIN, loose, plain=True), candidate(OTHER, tight, oddness=1))
    assert found == [(OTHER, True), (PLAIN, False)]


def test_among_equals_the_plainer_comes_first_and_a_close_call_is_equal():
    # 0.9 is within 2 * 0.45 + 0.1 of the best, 0.96 is not within 2 * 0.4 + 0.1.
    near = order(candidate(OTHER, (0.45,) * 3, oddness=1), candidate(PLAIN, (0.9,) * 3))
    assert near == [(PLAIN, True), (OTHER, True)]
    plain = candidate(PLAIN, (0.96,) * 3, plain=True)
    apart = order(candidate(OTHER, (0.4,) * 3, oddness=1), plain)
    assert apart == [(OTHER, True), (PLAIN, True)]


def test_a_fitted_eps_counts_where_nothing_else_explains():
    fits = (0.1,) * 3
    both = order(candidate(FITTED, fits), candidate(OTHER, (1.5, 1.5, 0.9), oddness=5))
    assert both == [(OTHER, True), (FITTED, False)]
    alone = order(candidate(FITTED, fits), candidate(OTHER, NONE, off=1.0))
    assert alone == [(FITTED, True), (OTHER, False)]
    # eps outside the root may look like another eps within it.
    hidden = order(candidate(ODD, fits, oddness=15), candidate(FITTED, fits, oddness=80))
    assert hidden == [(ODD, True), (FITTED, True)]


def test_what_is_only_loosely_right_stays_beside_the_odd_where_sums_are_long():
    given = candidate(ODD, (0.9,) * 3, oddness=15), candidate(PLAIN, (1.5, 0.2, 0.2), plain=True)
    assert order(*given)[0] == (ODD, True)
    assert (PLAIN, True) not in order(*given)
    assert order(*given, lenient=True) == [(PLAIN, True), (ODD, True)]


def test_what_fits_and_cannot_tell_is_not_outdone_by_what_is_odd():
    unseen = candidate(PLAIN, (0.5,) * 3, plain=True, tells=(False,) * 3)
    found = ranked([unseen, candidate(ODD, (0.5,) * 3, oddness=15)], lenient=False)
    assert (found[0].hypothesis, found[0].fits, found[0].explains) == (PLAIN, True, False)
    assert (found[1].fits, found[1].explains) == (False, False)


def test_the_rest_is_nearest_first():
    given = [candidate(replace(PLAIN, eps=eps), NONE, off=eps) for eps in (0.3, 0.1, 0.2)]
    assert [item.hypothesis.eps for item in ranked(given, lenient=False)] == [0.1, 0.2, 0.3]


@pytest.fixture
def made():
    rng = np.random.default_rng(0)
    known = Known(rng.normal(1, 0.2, 3), rng.normal(size=3), rng.normal(size=3),
                  rng.uniform(0.5, 2, 3))  # fmt: skip
    x = rng.normal(1, 2, (64, 3)).astype(np.float32)
    y = (x - known.running_mean) / np.sqrt(known.running_var + 1e-3)
    return x, (y * known.weight + known.bias).astype(np.float32), known


def test_the_nearest_are_measured_and_the_plain_ones_always(made):
    x, y, known = made
    seen = seen_of(x, y, known)
    found = candidates(seen)
    assert MEASURED <= len(found) <= MEASURED + 3
    best = min(found, key=lambda item: item.max_abs_diff)
    assert best.hypothesis == Hypothesis(EVAL, None, 1e-3)
    assert best.told
    assert {Hypothesis(EVAL, None, 1e-5), PLAIN} <= {item.hypothesis for item in found}
    for item in found:
        line = channel_map(item.hypothesis, known, seen.fit.stats)
        apart = np.abs((x.astype(np.float64) - line.center) * line.scale + line.bias - y).max(0)
        assert item.max_abs_diff == pytest.approx(apart.max(), rel=1e-9)
        assert item.channel == apart.argmax()


def test_a_screen_is_the_distance_of_the_lines_at_the_ends(made):
    x, y, known = made
    seen = seen_of(x, y, known)
    line = channel_map(PLAIN, known, seen.fit.stats)
    for channel, found in enumerate(seen.screened(line)):
        ends = np.array([x[:, channel].min(), x[:, channel].max()], np.float64)
        fit = np.polyval(np.polyfit(x[:, channel].astype(np.float64), y[:, channel], 1), ends)
        made_of = (ends - line.center[channel]) * line.scale[channel] + line.bias[channel]
        assert found == pytest.approx(np.abs(fit - made_of).max(), rel=1e-6)


def test_levels_allow_more_and_more_and_float32_is_within_the_first(made):
    x, y, known = made
    seen = seen_of(x, y, known)
    line = channel_map(Hypothesis(EVAL, None, 1e-3), known, seen.fit.stats)
    tight, loose, single = seen.tolerated(line, training=False)
    assert (tight < loose).all()
    assert (loose < single).all()
    off = np.abs((x.astype(np.float64) - line.center) * line.scale + line.bias - y).max(0)
    assert (off <= tight).all()
    assert (tight < 100 * 2.0**-24 * np.abs(y).max(0)).all()  # and it is no loose one
    trained = seen.tolerated(line, training=True)[1]
    assert (trained > loose).all()  # whose sums are as long as the batch


def test_far_from_0_the_folded_form_rounds_at_the_size_of_both_products():
    x = np.random.default_rng(0).normal(1000, 1, (500, 3)).astype(np.float32)
    mean, var = np.full(3, 1000.0), np.full(3, 0.5)
    state = [torch.from_numpy(values.astype(np.float32)) for values in (mean, var)]
    y = torch.nn.functional.batch_norm(torch.from_numpy(x), *state).numpy()
    seen = seen_of(x, y, Known(None, None, mean, var))
    line = channel_map(Hypothesis(EVAL, None, 1e-5), seen.known, seen.fit.stats)
    tight = seen.tolerated(line, training=False)[0]
    off = np.abs((x.astype(np.float64) - line.center) * line.scale - y).max(0)
    assert (off <= tight).all()
    assert (off > 0.01 * tight).all()  # by far more than a difference of 1 rounds


@pytest.mark.parametrize("eps", [4.2e-4, 0.0137, 1.5])
def test_an_eps_that_nobody_lists_is_fitted_to_few_digits(made, eps):
    x, _, known = made
    y = (x - known.running_mean) / np.sqrt(known.running_var + eps) * known.weight + known.bias
    found = fitted(seen_of(x, y.astype(np.float32), known))
    (best,) = [item for item in found if item.told and not item.hypothesis.statistics]
    assert best.hypothesis == Hypothesis(EVAL, None, eps, fitted=True)


def test_no_eps_is_fitted_to_what_has_no_slope(made):
    x, _, known = made
    assert fitted(seen_of(x, np.zeros_like(x), known)) == []
