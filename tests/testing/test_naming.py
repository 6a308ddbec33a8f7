"""Each planted bug is named by its words, and by no others."""

from __future__ import annotations

import pytest

from bncli.testing import BatchNormMismatch, check_batchnorm
from tests.testing.planted import PLANTED


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_named(bug):
    implementation, words = PLANTED[bug]
    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(implementation)
    assert caught.value.causes == (words,)
    assert caught.value.unexplained == ()
    assert words in str(caught.value)
