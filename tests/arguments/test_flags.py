"""Groups of flags: a tolerance is whole or not there."""

from __future__ import annotations

import math

import pytest

from bncli.arguments.flags import AgainstFlags
from bncli.backends import BackendName
from bncli.errors import UsageError


def test_a_tolerance_comes_whole_or_not_at_all():
    assert AgainstFlags().tolerance is None
    assert AgainstFlags(BackendName.TORCH, 0.0, 1e-3).tolerance == (0.0, 1e-3)
    assert AgainstFlags(rtol=0.0, atol=1e-3).pair(compared=True) == (0.0, 1e-3)
    for pair in ((1e-3, None), (None, 0.0)):
        with pytest.raises(UsageError, match="--rtol and --atol go together"):
            AgainstFlags(None, *pair).pair(compared=True)
    for pair, flag in (
        ((-1.0, 0.0), "--rtol"),
        ((0.0, math.nan), "--atol"),
        ((0.0, -1e-9), "--atol"),
    ):
        with pytest.raises(UsageError, match=f"^{flag} .*: a tolerance is 0 or more"):
            AgainstFlags(None, *pair).pair(compared=True)


def test_a_tolerance_without_a_comparison_is_refused():
    with pytest.raises(UsageError, match="are for a comparison: add --against torch"):
        _ = AgainstFlags(rtol=0.0, atol=1e-3).tolerance
    assert AgainstFlags().pair(compared=False) is None
