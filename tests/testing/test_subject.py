"""What an implementation refuses is found out, and told from what it gets wrong."""

from __future__ import annotations

from unittest import SkipTest

import pytest
import torch

from bncli.testing import BatchNormMismatch, batchnorm_configurations, check_batchnorm
from tests.testing.implementations import Honest

ALL = {str(each): each for each in batchnorm_configurations()}


class NoHalf(Honest):
    def forward(self, x):
        if x.dtype in (torch.float16, torch.bfloat16):
            raise NotImplementedError("no kernel for half precision")
        return super().forward(x)


def test_a_dtype_may_be_refused():
    summary = check_batchnorm(NoHalf)
    reasons = set(summary.skipped.values())
    assert reasons == {
        f"{dtype} input is refused (NotImplementedError: no kernel for half precision)"
        for dtype in ("float16", "bfloat16")
    }
    assert set(summary.skipped) == {
        name for name, each in ALL.items() if each.dtype in ("float16", "bfloat16")
    }


def test_an_argument_may_be_missing():
    class NoAverage(Honest):
        def factor(self):
            if self.momentum is None:
                raise ValueError("momentum has to be a number")
            return self.momentum

    class NoAffine(torch.nn.Module):
        def __init__(self, num_features, eps=1e-5, momentum=0.1):
            super().__init__()
            self.inner = Honest(num_features, eps, momentum)

        def forward(self, x):
            return self.inner(x)

        def state_dict(self, *arguments, **named):
            return self.inner.state_dict(*arguments, **named)

        def load_state_dict(self, *arguments, **named):
            return self.inner.load_state_dict(*arguments, **named)

        def named_parameters(self, *arguments, **named):
            return self.inner.named_parameters()

    summary = check_batchnorm(NoAverage)
    assert set(summary.skipped) == {"momentum-none", "steps-cumulative"}
    summary = check_batchnorm(NoAffine)
    assert set(summary.skipped) == {
        name for name, each in ALL.items() if not (each.affine and each.track_running_stats)
    }
    assert all("which this layer needs" in reason for reason in summary.skipped.values())


def test_what_raises_for_some_numbers_alone_is_wrong():
    class Picky(Honest):
        def scale(self, var):
            if self.eps == 0:
                raise ValueError("eps is 0")
            return super().scale(var)

    with pytest.raises(BatchNormMismatch, match="eps-0-eval: evaluation raised ValueError: eps"):
        check_batchnorm(Picky)


def test_one_configuration_is_enough_to_find_a_refusal():
    with pytest.raises(SkipTest, match="float16 input is refused"):
        check_batchnorm(NoHalf, configurations=[ALL["float16-eval"]])


def test_a_refused_number_of_axes_is_replaced():
    class Four(Honest):
        def forward(self, x):
            _n, _c, _h, _w = x.shape
            return super().forward(x)

    summary = check_batchnorm(Four)
    fixed = {name for name, each in ALL.items() if each.fixed and each.ndim != 4}
    assert set(summary.skipped) == fixed
    assert summary.moved == sum(each.ndim != 4 and not each.fixed for each in ALL.values())
    assert "not enough values to unpack" in summary.skipped["train-2d"]
