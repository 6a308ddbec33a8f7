"""What half precision costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.report import Certainty
from bncli.rulebook.layers import Checkpoint
from bncli.rulebook.precision import HALF_STATISTICS, check_casts, check_dtypes, check_lost
from bncli.rulebook.summaries import summary
from tests.rulebook.layers import f4, layer


def test_bfloat16_statistics_stop_where_the_rule_says():
    assert (
        "stops half-way from 0 to 1, and a running_var that starts at 1 never moves towards 2"
        in (HALF_STATISTICS.certainty)
    )
    module = torch.nn.BatchNorm1d(1, momentum=0.001).bfloat16()
    x = torch.tensor([[0.0], [2.0]], dtype=torch.bfloat16)  # mean 1, unbiased variance 2
    for _ in range(2000):
        module(x)
    assert (module.running_mean.item(), module.running_var.item()) == (0.5, 1.0)


def test_variances_that_half_precision_lost():
    made = layer(dtype="float16", running_var=f4(0, 0, 65504, 1), weight=f4(1, 1e-4, 1, 1))
    (finding,) = check_lost(made)
    assert (finding.code, finding.evidence["channels"]) == ("BN502", [0, 2])
    assert finding.message == (
        "running_var is exactly 0 in channel 0 of 4, clipped to 65504 in channel 2 of 4"
    )
    assert finding.certainty is Certainty.LIKELY
    assert check_lost(layer(running_var=f4(0, 0, 65504, 1))) == []  # float32 lost nothing
    assert check_lost(layer(dtype="bfloat16", running_var=f4(1, 1, 65504, 1))) == []
    (finding,) = check_lost(layer(dtype="bfloat16", running_var=f4(1, 1, 1, 3.3895314e38)))
    assert finding.evidence["channels"] == [3]


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        ({"running_var": f4(1, 65505, 1, 1)}, "running_var would be Inf in channel 1"),
        ({"running_mean": f4(0, -65505, 1, 1)}, "running_mean would be Inf in channel 1"),
        ({"running_var": f4(1, 65504, 1, 1)}, None),
        ({"running_mean": f4(0, -65504, 1, 1)}, None),
        ({"weight": f4(1, 1e5, 1, 1), "running_var": f4(1, 1, 1, 1)}, "the scale would be Inf in"),
        ({"running_var": f4(1, 2.0**-25, 1, 1)}, None),  # nothing beside eps
        ({"running_var": f4(1, np.inf, 1, 1)}, None),  # which is BN202
    ],
)
def test_what_float16_would_not_hold(vectors, said):
    found = [finding for finding in check_casts(layer(**vectors)) if finding.code == "BN503"]
    assert len(found) == (said is not None)
    for finding in found:
        assert f"in float16, {said}" in finding.message
        assert finding.evidence["channels"] == [1]
        assert "bfloat16" not in finding.detail
        assert finding.certainty is Certainty.CERTAIN
    narrow = check_casts(layer(dtype="float16", **vectors))  # where it is too late to warn
    assert "BN503" not in {finding.code for finding in narrow}


def test_what_a_small_eps_makes_of_a_variance_that_rounds_to_0():
    made = layer(running_var=f4(1, 2.0**-25, 2.0**-24, 1))
    object.__setattr__(made, "eps", 1e-7)
    (finding,) = check_casts(made)
    assert finding.message == "in float16, running_var would be 0 in channel 1 of 4"
    assert finding.detail == "This holds for eps 1e-07 (assumed)."
    assert finding.certainty is Certainty.ASSUMED
    both = layer(running_var=f4(1, 2.0**-25, 7e4, 1), running_mean=f4(0, 0, 0, 1e5))
    object.__setattr__(both, "eps", 1e-7)
    (finding,) = check_casts(both)
    assert finding.message == "in float16, running_var would be Inf in channel 2 of 4"
    assert finding.detail == (
        "Also, running_mean would be Inf in channel 3 of 4, running_var would be 0 in channel 1 of "
        "4. float16 ends at 65504, and running_var reaches 7e+04, running_mean reaches 1e+05."
    )
    assert finding.certainty is Certainty.CERTAIN


def test_bfloat16_holds_what_float32_does_all_but_the_largest():
    (finding,) = check_casts(layer(running_var=f4(1, 3.4e38, 1, 1)))
    assert finding.detail == (
        "float16 ends at 65504, and running_var reaches 3.4e+38. bfloat16 would not hold it either."
    )
    for leaf in ("running_var", "running_mean"):  # its largest number
        (finding,) = check_casts(layer(**{leaf: f4(1, 3.3895314e38, 1, 1)}))
        assert "bfloat16" not in finding.detail


@pytest.mark.parametrize(
    ("scales", "channels"),
    [
        ([1, 1, 1, 1, 65, 65], [4, 5]),
        ([1, 1, 1, 1, 64, 64], None),
        ([1, 1, 1, 1, 1, 65], None),  # one alone is BN405
        ([1, 1, 65], None),
    ],
)
def test_a_range_of_scales_that_int8_does_not_hold(scales, channels):
    made = layer(channels=len(scales), weight=np.float32(scales),
                 running_var=np.ones(len(scales), np.float32))  # fmt: skip
    object.__setattr__(made, "eps", 0.0)
    found = [finding for finding in check_casts(made) if finding.code == "BN504"]
    assert [finding.evidence["channels"] for finding in found] == [channels] * bool(channels)
    if found:
        assert "the largest scale is 65, 65 times the median of 1" in found[0].message


def test_dtypes_of_a_file():
    def judged(*dtypes, parameters=()):
        layers = [summary(layer(f"bn{n}", dtype=dtype)) for n, dtype in enumerate(dtypes)]
        return check_dtypes(Checkpoint(layers, parameter_dtypes=frozenset(parameters)))

    assert judged("float32", "float32") == []
    mixed = judged("float16", "float32", "bfloat16")
    assert [(f.code, f.subject) for f in mixed] == [("BN501", "bn0"), ("BN501", "bn2")]
    assert "other layers of the file are wider" in mixed[0].message
    (whole,) = judged("float16", "float16")
    assert (whole.code, whole.subject, whole.evidence["layers"]) == ("BN505", "dtype", 2)
    assert whole.message == "2 layers and all other weights are float16"
    assert judged("float16")[0].message == "1 layer and all other weights are float16"
    assert [f.code for f in judged("float16", parameters=["float32"])] == ["BN501"]
