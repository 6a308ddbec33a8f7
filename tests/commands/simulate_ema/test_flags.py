"""The flags of `bncli simulate-ema`, and the momentum that no plan reaches."""

from __future__ import annotations

import math

import pytest

from bncli.commands.simulate_ema.flags import BatchFlags, BufferDtype, PlanFlags, RunningFlags
from bncli.errors import UsageError


@pytest.mark.parametrize("noise", [0.0, -0.1, math.inf, math.nan, 1e300])
def test_a_noise_that_no_momentum_leaves_is_refused(noise):
    with pytest.raises(UsageError, match=r"^--reach-noise .*: give a standard error above 0"):
        PlanFlags(reach_noise=noise).check()


@pytest.mark.parametrize("noise", [None, 1e-300, 0.01, 1.0, 9e299])
def test_any_other_is_taken(noise):
    PlanFlags(reach_noise=noise).check()


def test_what_is_not_given_is_none_or_pytorchs():
    flags = BatchFlags()
    assert (list(flags.inputs), flags.channel_axis, flags.epochs, flags.seed) == ([], None, 1, 0)
    assert (flags.batch_size, flags.batch_axis, flags.generate, flags.drop_last) == (
        None, None, None, False,
    )  # fmt: skip
    assert RunningFlags().buffer_dtype is BufferDtype.FLOAT32
