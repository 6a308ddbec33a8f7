"""Each planted bug is named by its words, and by no others."""

from __future__ import annotations

import pytest

from bncli.testing import BatchNormMismatch, batchnorm_configurations, check_batchnorm
from bncli.testing.causes import every_cause
from bncli.testing.naming import _one_of, _Search
from tests.testing.implementations import Honest
from tests.testing.planted import PLANTED

FEWER = [
    each
    for number, each in enumerate(batchnorm_configurations())
    if number % 2 or each.kind or each.is_extreme or each.eps != 1e-5 or each.layout != "contiguous"
]
"""Two thirds of them, which tell all that was planted."""


def is_named(bug, configurations):
    implementation, words = PLANTED[bug]
    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(implementation, configurations=configurations)
    assert caught.value.causes == (words,)
    assert caught.value.unexplained == ()
    assert words in str(caught.value)


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_named(bug):
    is_named(bug, FEWER)


@pytest.mark.exhaustive
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_named_in_all_configurations(bug):
    is_named(bug, None)


def test_too_few_numbers_leave_alternatives():
    """In one configuration two formulas may be as near: neither of them is picked."""
    one = [each for each in batchnorm_configurations() if str(each) == "train-3d"]
    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(PLANTED["EpsOutside"][0], configurations=one)
    assert caught.value.causes == ("eps is outside the root, or eps is ignored: it is always 2e-5",)


def test_a_few_that_explain_alike_are_alternatives():
    nearest = [
        cause
        for cause in every_cause()
        if cause.words in ("weight is ignored", "bias is ignored", "weight is ignored in eval")
    ]
    one = _one_of(nearest, lambda _cause: True)
    assert one.words == "weight is ignored, or bias is ignored"
    assert one.fix == "Multiply by weight. Or: Add bias."
    assert _one_of(nearest, lambda cause: cause.words == "bias is ignored").words == (
        "bias is ignored"
    )
    assert _one_of(every_cause()[:8], lambda _cause: True) is None


def test_the_search_for_pairs_ends(monkeypatch):
    """What nothing explains is said after a bounded time, not after all pairs were tried."""

    class Odd(Honest):
        def kept_var(self, var, x):
            n = x.numel() / x.shape[1]
            return var * (n - 2) / n

    tried = []
    pairs = _Search.pairs
    monkeypatch.setattr(
        _Search, "pairs", lambda *given: (tried.append(pair) or pair for pair in pairs(*given))
    )
    monkeypatch.setattr("bncli.testing.naming.SECONDS", 0.0)
    some = [each for each in batchnorm_configurations() if str(each) in ("train-3d", "train-4d")]
    with pytest.raises(BatchNormMismatch, match="what no known cause explains"):
        check_batchnorm(Odd, configurations=some)
    assert len(tried) <= 1
