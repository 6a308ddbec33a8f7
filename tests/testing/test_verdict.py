"""What people read: a summary, and the message of a mismatch."""

from __future__ import annotations

import pytest
import torch

from bncli.testing import BatchNormMismatch, batchnorm_configurations, check_batchnorm
from tests.testing.planted import PLANTED

FEW = [each for each in batchnorm_configurations() if str(each) in ("train-2d", "train-4d", "nan")]


def test_a_summary():
    summary = check_batchnorm(torch.nn.BatchNorm2d, configurations=FEW)
    assert str(summary).splitlines()[0] == "BatchNorm2d is BatchNorm in 2 configurations."
    assert str(summary).splitlines()[1].startswith("It uses at most ")
    why = "2-D input is refused (ValueError: expected 4D input (got 2D input))"
    assert str(summary).splitlines()[2:] == [f"Skipped 1 configuration: {why}."]


def test_a_mismatch():
    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(PLANTED["BiasedRunningVar"][0], configurations=FEW)
    assert isinstance(caught.value, AssertionError)
    lines = str(caught.value).splitlines()
    assert lines[:3] == [
        "BiasedRunningVar is not BatchNorm in 3 of 3 configurations:",
        "",
        "  running_var is biased: it divides by n",
    ]
    assert lines[3] == (
        "    running_var, channel 2, is 1.156 in train-2d, but 1.202 was expected: 0.046 apart, "
        "1e-06 is allowed"
    )
    assert lines[4] == "    seen in train-2d, train-4d, nan"
    assert lines[5].startswith("    fix: Multiply the batch variance by n / (n - 1)")
    assert len(lines) == 6


def test_a_long_list_is_cut():
    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(PLANTED["NoWeight"][0])
    text = str(caught.value)
    assert " and 58 more" in text or " more" in text
    assert len(text) < 1000
