"""Values that are not finite, and the cause that their pattern names."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.rulebook.corruption import check_infinite, check_nan
from tests.rulebook.layers import f4, layer

N, I = np.nan, np.inf


@pytest.mark.parametrize(
    ("spoilt", "counter", "cause"),
    [
        ({"running_mean": f4(0, N, 1, 2), "running_var": f4(1, N, 1, 1)}, 9, "nan-activations"),
        ({"running_mean": f4(0, N, 1, 2)}, 9, "overwritten"),
        ({"running_var": f4(1, N, 1, 1)}, 9, "spoilt-variance"),
        ({"running_var": f4(N, N, N, N)}, 9, "one-value-a-channel"),
        (
            {"running_mean": f4(0, I, 1, 2), "running_var": f4(1, N, 1, 1)},
            9,
            "inf-activations",
        ),
        ({"weight": f4(1, N, 1, 1)}, 9, "diverged"),
        ({"running_var": f4(1, N, 1, 1)}, 0, "never-filled-or-edited"),
    ],
)
def test_what_the_pattern_of_nan_means(spoilt, counter, cause):
    (finding,) = check_nan(layer(counter=counter, **spoilt))
    assert (finding.code, finding.subject) == ("BN201", "bn")
    assert finding.evidence["cause"] == cause
    assert finding.evidence["num_batches_tracked"] == counter
    where = {leaf: np.flatnonzero(np.isnan(v)).tolist() for leaf, v in spoilt.items()}
    for leaf, channels in where.items():
        if channels:
            assert finding.evidence[f"{leaf}_channels"] == channels
            assert leaf in finding.message
    assert finding.evidence["channels"] == sorted({c for some in where.values() for c in some})
    assert {member[0] for member in finding.extent} == {leaf for leaf, c in where.items() if c}
    assert ("training batches through it" in finding.hint) == (cause == "never-filled-or-edited")
    assert ("The layer has seen 9 batches." in finding.detail) == (counter == 9)


@pytest.mark.parametrize(
    ("spoilt", "more", "cause"),
    [
        ({"running_var": f4(1, I, 1, 1)}, {}, "overflow"),
        ({"running_var": f4(1, -I, 1, 1)}, {}, "overwritten"),
        ({"running_mean": f4(1, I, 1, 1)}, {}, "inf-activations"),
        ({"running_mean": f4(1, I, 1, 1), "running_var": f4(1, I, 1, 1)}, {}, "inf-activations"),
        ({"bias": f4(1, I, 1, 1)}, {}, "diverged"),
        ({"bias": f4(1, I, 1, 1)}, {"counter": 0}, "never-filled-or-edited"),
        ({"running_var": f4(1, I, 1, 1)}, {"dtype": "float16"}, "cast-to-half"),
        ({"running_var": f4(1, I, 1, 1)}, {"dtype": "bfloat16"}, "cast-to-half"),
    ],
)
def test_what_the_pattern_of_inf_means(spoilt, more, cause):
    (finding,) = check_infinite(layer(**{"counter": 9, **more}, **spoilt))
    assert (finding.code, finding.evidence["cause"]) == ("BN202", cause)
    assert finding.evidence["channels"] == [1]
    largest = {"float16": "65504", "bfloat16": "3.39e38"}.get(more.get("dtype"))
    assert largest is None or f"above {largest} does not fit" in finding.detail


def test_finite_values_are_left_alone():
    assert check_nan(layer()) == check_infinite(layer()) == []
    assert check_nan(layer(running_var=f4(1, I, 1, 1))) == []
    assert check_infinite(layer(running_var=f4(1, N, 1, 1))) == []


def test_what_a_diverged_step_leaves_of_the_statistics_is_said():
    (finding,) = check_nan(layer(weight=f4(1, N, 1, 1)))
    assert finding.message == "weight is NaN in channel 1 of 4"
    assert finding.detail == (
        "An optimiser step diverged; the statistics are finite. The layer has seen 100 batches."
    )
    (finding,) = check_nan(layer(weight=f4(1, N, 1, 1), running_var=f4(1, I, 1, 1)))
    assert "the statistics are not all finite either." in finding.detail


def test_a_counter_of_0_may_be_another_layers():
    moved = "Unless an average, a conversion or an InstanceNorm left the counter at 0"
    fresh = {"running_mean": f4(0, N, 0, 0), "running_var": f4(1, 1, 1, 1)}
    (finding,) = check_nan(layer(counter=0, **fresh))
    assert moved not in finding.detail
    (finding,) = check_nan(layer(counter=0, **(fresh | {"running_var": f4(1, 1, 2, 1)})))
    assert moved in finding.detail
    assert "evaluation mode" not in finding.detail
    (finding,) = check_nan(layer(counter=0, weight=f4(1, N, 1, 1)))
    assert "an optimiser diverged while the layer was in evaluation mode" in finding.detail


@pytest.mark.parametrize(
    ("spoilt", "claim", "where"),
    [
        (
            {"running_mean": f4(0, N, 1, 2), "running_var": f4(1, N, 1, 1)},
            "running_mean and running_var are NaN in channel 1 of 4",
            False,
        ),
        (
            {"running_mean": f4(0, N, 1, 2), "bias": f4(N, N, N, N)},
            "running_mean is NaN in channel 1 of 4, bias in all 4 channels",
            False,
        ),
        (
            {
                "running_mean": f4(0, N, 1, 2),
                "running_var": f4(N, N, 1, 1),
                "weight": f4(1, 1, 1, N),
            },
            "running_mean, running_var and weight are NaN in some channels",
            True,
        ),
    ],
)
def test_where_the_tensors_are_nan_is_claimed_or_told_beside_it(spoilt, claim, where):
    (finding,) = check_nan(layer(**spoilt))
    assert finding.message == claim
    places = "Which ones: running_mean in channel 1 of 4, running_var in channels 0 and 1 of 4, "
    assert finding.detail.startswith(f"{places}weight in channel 3 of 4. ") == where


@pytest.mark.parametrize(
    ("counter", "seen"),
    [(1, "seen 1 batch."), (2, "seen 2 batches."), (0, ""), (None, ""), (-3, ""), (2.5, "")],
)
def test_a_number_of_batches_is_told_where_it_is_one(counter, seen):
    (finding,) = check_nan(layer(counter=counter, running_var=f4(1, N, 1, 1)))
    assert finding.detail.endswith(seen)
    assert bool(seen) == ("seen" in finding.detail)


def test_a_mean_is_called_finite_only_where_it_is():
    (finding,) = check_nan(layer(running_var=f4(1, N, 1, 1)))
    assert finding.detail.startswith("running_mean is finite there. ")
    (finding,) = check_infinite(layer(running_mean=f4(0, N, 1, 2), running_var=f4(1, I, 1, 1)))
    assert "finite there" not in finding.detail
