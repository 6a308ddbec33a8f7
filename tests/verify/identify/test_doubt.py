"""What else explains an output is named, and the data that it asks for do decide."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from bncli.verify.identify.doubt import MOST_NAMED, differ_in_eps, doubt_of, nearly_same
from bncli.verify.identify.hypotheses import Hypothesis, Known
from bncli.verify.identify.output import identify_output
from bncli.verify.identify.pair import ArraySource
from bncli.verify.identify.search import Candidate, Seen
from bncli.verify.identify.views import layouts


def source(values: np.ndarray) -> ArraySource:
    return ArraySource(values, values.dtype.name)


def candidate(hypothesis: Hypothesis, *, explains: bool = True) -> Candidate:
    return Candidate(hypothesis, 0.0, 0, (0.0,), 0, explains=explains)


EVAL = Hypothesis("eval", None, 1e-5)


@pytest.mark.parametrize(
    ("other", "in_eps", "nearly"),
    [
        (EVAL, True, True),
        (replace(EVAL, eps=1.005e-5), True, True),
        (replace(EVAL, eps=1.02e-5), True, False),
        (replace(EVAL, eps=1e-3, fitted=True), True, False),
        (replace(EVAL, mode="training", ddof=0), False, False),
        (replace(EVAL, eps=1e-3, affine="without bias"), False, False),
    ],
)
def test_hypotheses_that_differ_in_eps_and_those_that_hardly_do(other, in_eps, nearly):
    for one, two in ((EVAL, other), (other, EVAL)):
        assert differ_in_eps(one, two) == in_eps
        assert nearly_same(candidate(one), candidate(two)) == nearly


def test_what_fits_as_well_is_named_and_the_rest_counted():
    x = np.random.default_rng(5).normal(size=(8, 3))
    known = Known(running_mean=np.zeros(3), running_var=np.ones(3))
    seen = Seen.of(layouts(source(x), source(x), 1)[0], known)
    best = candidate(EVAL)
    others = [candidate(Hypothesis(name, None, 1e-5)) for name in ("A", "B", "C", "D")]
    wrong = candidate(replace(EVAL, eps=1e-3), explains=False)
    assert doubt_of([best, wrong], seen, None) == ""
    one = doubt_of([best, wrong, others[0]], seen, None)
    assert one.startswith("A with eps 1e-5 fits as well: ")
    many = doubt_of([best, *others], seen, None)
    assert many.startswith("A with eps 1e-5, B with eps 1e-5 and 2 more fit as well: ")
    assert len(others) - MOST_NAMED == 2
    # Other values of eps come first, and are those of `eps_range` where there is one.
    near = candidate(replace(EVAL, eps=1e-4))
    assert doubt_of([best, others[0], near], seen, None).startswith("eps 1e-4 and A with eps 1e-5")
    digits = doubt_of([best, near], seen, (1e-5, 1e-4))
    assert digits.startswith("float64 has too few digits to tell which eps it is")
    assert "fit" not in digits


def test_two_values_of_eps_on_large_variances():
    """Neither float32 nor the reader can tell them apart, and a smaller variance would."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(64, 4)) * 100).astype(np.float32)
    y = (x - x.mean(0, dtype="f8")) / np.sqrt(x.var(0, dtype="f8") + 1e-6)
    found = identify_output(source(x), source(y.astype(np.float32)), 1, Known())
    assert found.expected
    assert not found.confident
    assert found.hypotheses[0].hypothesis == Hypothesis("training", 0, 1e-5)
    assert "eps 1e-3, 1e-6" in found.best
    limit = float(re.search(r"a variance below (\S+) would decide", found.best)[1])
    told = (x * np.sqrt(limit / 1e4 / 4)).astype(np.float32)
    y = (told - told.mean(0, dtype="f8")) / np.sqrt(told.var(0, dtype="f8") + 1e-6)
    found = identify_output(source(told), source(y.astype(np.float32)), 1, Known())
    assert found.hypotheses[0].hypothesis.eps == 1e-6


def test_a_large_batch_hides_the_divisor():
    rng = np.random.default_rng(0)

    def found(count):
        x = rng.normal(size=(2, 3, count // 2)).astype(np.float32)
        axes = (0, 2)
        wide = x.astype(np.float64)
        var = wide.var(axes, ddof=1, keepdims=True)
        y = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(var + 1e-5)
        return identify_output(source(x), source(y.astype(np.float32)), 1, Known())

    told, hidden = found(2_000), found(2_000_000)
    assert told.hypotheses[0].hypothesis.ddof == 1
    assert not told.expected
    assert hidden.expected
    assert "the unbiased variance" in hidden.best
    fewer = int(re.search(r"at most (\d+) values per channel", hidden.best)[1])
    assert 2_000 < fewer < 2_000_000
    assert found(fewer // 4).hypotheses[0].hypothesis.ddof == 1


def test_one_sample_may_be_an_instance_norms():
    x = np.random.default_rng(0).normal(size=(1, 3, 40))
    y = (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5)
    found = identify_output(source(x), source(y), 1, Known())
    assert found.expected
    assert not found.confident
    assert "InstanceNorm with eps 1e-5 and LayerNorm with eps 1e-5" in found.best
    assert found.best.endswith("fit as well: a batch of several samples would decide.")


@pytest.mark.parametrize("training", [False, True])
def test_a_weight_of_0_tells_neither_mode_nor_eps(training):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(16, 2, 3))
    bias = np.array([0.5, -2.0])
    known = Known(np.zeros(2), bias, rng.normal(size=2), np.ones(2))
    y = np.broadcast_to(bias[:, np.newaxis], x.shape)
    found = identify_output(source(x), source(y), 1, replace(known, training=training))
    assert not found.confident
    assert found.expected
    explaining = {item.hypothesis.mode for item in found.hypotheses if item.explains}
    assert explaining == {"training", "eval"}
    assert "a layer with a weight that is not 0" in found.best


def test_swapped_statistics_have_a_positive_variance_and_a_finite_difference():
    """The negative numbers are the means: no variance is below them, and no output is "inf" off."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 8, 8)).astype(np.float32)
    mean, var = np.array([-0.4, 0.3, -0.01, 0.2]), np.array([0.5, 0.02, 0.8, 0.3])
    shape = (1, 4, 1, 1)
    y = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-5)
    known = Known(running_mean=var, running_var=mean, eps=1e-5)
    said = identify_output(source(x), source(y.astype(np.float32)), 1, known).said
    assert said.contrast.endswith("the output would be NaN or infinite in channel 0")
    below = re.fullmatch(
        r"eps 1.001e-5 fits as well: a channel with a variance below (\S+) would decide", said.doubt
    )
    assert below is not None
    assert 0 < float(below[1]) < 0.02
