"""What half precision costs."""

from __future__ import annotations

import torch

from bncli.rulebook.precision import HALF_STATISTICS


def test_bfloat16_statistics_stop_where_the_rule_says():
    assert "stops half-way from 0 to 1, and a running_var never leaves 1 for 2" in (
        HALF_STATISTICS.certainty
    )
    module = torch.nn.BatchNorm1d(1, momentum=0.001).bfloat16()
    x = torch.tensor([[0.0], [2.0]], dtype=torch.bfloat16)  # mean 1, unbiased variance 2
    for _ in range(2000):
        module(x)
    assert (module.running_mean.item(), module.running_var.item()) == (0.5, 1.0)
