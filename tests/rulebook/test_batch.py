"""What a batch's own statistics show; every number is worked out from the batch itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bncli.model import BatchNormSettings
from bncli.moments import channel_stats
from bncli.rulebook.batch import (
    batch_findings,
    fresh_statistics_finding,
    gradient_findings,
    inputs_findings,
    state_findings,
)
from bncli.rulebook.interface import MOST_EVIDENCE
from bncli.running_stats.scatter import FRatio

RNG = np.random.default_rng(0)
HEALTHY = RNG.normal(size=(64, 4))


def judged(x, dtype="float32", running_var=None, **settings):
    given = BatchNormSettings(training=running_var is None, **settings)
    return batch_findings(channel_stats(np.asarray(x)), given, dtype, running_var)


def codes(findings):
    return [finding.code for finding in findings]


def changed(**columns):
    """The healthy batch with other values in some channels: `changed(c2=...)`."""
    x = HEALTHY.copy()
    for name, values in columns.items():
        x[:, int(name[1:])] = values
    return x


def test_a_healthy_batch_has_no_finding():
    assert judged(HEALTHY) == judged(HEALTHY, running_var=np.ones(4)) == []


def test_where_a_batch_is_not_finite():
    x = changed()
    x[5, 2] = x[6, 2] = np.nan
    x[9, 1] = -np.inf
    (finding,) = judged(x)
    assert (finding.code, finding.subject) == ("BN001", "channels 1 and 2")
    assert finding.message == "2 NaN and 1 Inf among 64 values per channel, the first at [9, 1]"
    assert finding.evidence == {
        "channels": [1, 2], "nan": [0, 2], "inf": [1, 0], "first_nonfinite": [(9, 1), (5, 2)],
    }  # fmt: skip
    assert finding.extent == (("NaN", 2, 2), ("Inf", 1, 1))
    assert finding.places == ("channels",)


def test_only_what_there_is_of_nan_and_inf_is_counted():
    x = changed()
    x[3, 0] = np.inf
    (finding,) = judged(x)
    assert finding.message == "1 Inf among 64 values per channel, the first at [3, 0]"
    assert finding.detail == "The whole output of such a channel is NaN."
    (stored,) = judged(x, running_var=np.ones(4))
    assert stored.detail == ""  # evaluation keeps the other values


def test_evidence_names_so_many_channels_and_counts_the_others():
    x = np.full((8, MOST_EVIDENCE + 3), np.nan)
    (finding,) = judged(x)
    assert finding.evidence["channels"] == list(range(MOST_EVIDENCE))
    assert finding.evidence["channel_count"] == MOST_EVIDENCE + 3
    assert len(finding.evidence["nan"]) == MOST_EVIDENCE


def test_the_worst_condition_is_named():
    signs = np.tile([1.0, -1.0], 32)
    x = changed(c1=signs + 2000, c3=signs - 5000).astype(np.float32)
    (finding,) = judged(x)
    assert (finding.code, finding.subject) == ("BN002", "channels 1 and 3")
    assert finding.message == (
        f"|mean|/std is 5000 in channel 3: float32 keeps the output to about {5000 * 2.0**-24:.1g}"
    )
    (single,) = judged(changed(c3=signs - 5000).astype(np.float32))
    assert single.message.startswith("|mean|/std is 5000: ")  # the subject names the channel
    assert finding.evidence["condition"] == [2000, 5000]
    assert judged(x, "float64") == []
    assert judged(changed(c1=signs + 1000)) == []
    assert codes(judged(changed(c1=signs + 1001))) == ["BN002"]


def test_squares_beyond_the_dtype_that_adds_them_up():
    signs = np.tile([1.0, -1.0], 32)
    x = changed(c0=signs * 1e19, c2=signs * 2e19)
    (finding,) = judged(x)
    assert (finding.code, finding.subject) == ("BN004", "channels 0 and 2")
    assert finding.message == (
        "the squared deviations add up to 2.56e+40 in channel 2, too much for float32"
    )
    assert finding.evidence["sum_of_squares"] == pytest.approx([6.4e39, 2.56e40])
    assert judged(x, "float64") == []
    (finding,) = judged(changed(c1=signs * 1e154), "float64")
    assert (finding.code, finding.subject) == ("BN004", "channel 1")
    assert finding.message.endswith("too much for float64")
    assert judged(x, running_var=np.ones(4)) == []  # evaluation adds no squares


def test_what_stands_under_the_root_is_below_eps():
    signs = np.tile([1.0, -1.0], 32)
    x = changed(c0=signs * 0.5, c3=signs * 0.25)
    (finding,) = judged(x, eps=0.26)
    assert (finding.code, finding.subject) == ("BN003", "channels 0 and 3")
    assert finding.message == "the variance is 0.0625 to 0.25, below eps 0.26"
    low, high = (np.sqrt(var / (var + 0.26)) for var in (0.0625, 0.25))
    assert f"standard deviation is {low:.2g} to {high:.2g} instead of 1." in finding.detail
    assert finding.evidence["var"] == [0.25, 0.0625]
    assert finding.places == ("channels",)
    assert codes(judged(x, eps=0.25)) == ["BN003"]
    assert judged(x, eps=0.0625) == []
    (finding,) = judged(x, running_var=np.array([1e-6, 1, 0, 1.0]))
    assert finding.message == "running_var is 0 to 1e-06, below eps 1e-05"
    assert finding.detail == ""  # the batch's own variance is another
    assert (finding.subject, finding.places) == ("channels 0 and 2", ("running_var",))


def test_a_root_of_a_number_that_is_not_positive():
    found = judged(HEALTHY, running_var=np.array([1, -0.5, 0, np.nan]), eps=0.0)
    assert codes(found) == ["BN006"]
    assert found[0].subject == "channels 1, 2 and 3"
    assert found[0].message == (
        "running_var is -0.5 in channel 1, not positive even with eps 0 added"
    )
    assert found[0].extent == (("not positive", 1, 3),)
    assert found[0].places == ("running_var",)
    assert judged(HEALTHY, running_var=np.array([1, 1, 1, 1e-4]), eps=1e-5) == []


@pytest.mark.parametrize(
    ("momentum", "blamed"), [(None, False), (0, False), (1, False), (1.01, True), (-0.01, True),
                             (math.nan, True)],
)  # fmt: skip
def test_a_momentum_outside_0_to_1(momentum, blamed):
    found = judged(HEALTHY, momentum=momentum)
    assert [(f.code, f.subject, f.message) for f in found] == (
        [("BN007", "momentum", f"momentum {momentum:g} is outside 0 to 1")] if blamed else []
    )


@pytest.mark.parametrize(("count", "noise"), [(7, "58%"), (3, "100%"), (2, "141%"), (8, None)])
def test_few_values(count, noise):
    found = judged(HEALTHY[:count])
    said = (
        f"only {count} values per channel, whose variance is off by about {noise} by chance alone"
    )
    assert [f.message for f in found] == ([said] if noise else [])
    assert all((f.code, f.evidence) == ("BN008", {"count": count}) for f in found)


def test_one_value_is_few_and_not_constant():
    found = judged(HEALTHY[:1], running_var=np.ones(4))
    assert [(f.code, f.message) for f in found] == [("BN008", "only 1 value per channel")]


def test_a_constant_channel_is_said_as_such():
    (finding,) = judged(changed(c1=3.0, c2=-2.0))
    assert (finding.code, finding.subject) == ("BN009", "channels 1 and 2")
    assert finding.message == "all values of each channel are equal: -2 to 3"
    assert finding.evidence["value"] == [3, -2]
    assert finding.detail == "The variance is 0, so the output is the bias."
    # In evaluation the stored variance is divided by, which may be small all the same.
    found = judged(changed(c1=3.0), running_var=np.array([1, 1e-7, 1, 1]))
    assert codes(found) == ["BN003", "BN009"]
    assert (found[1].message, found[1].detail) == ("all values are equal: 3", "")


def test_a_state_that_is_not_finite():
    state = {
        "weight": np.array([1, np.nan, np.inf]),
        "bias": np.ones(3),
        "running_mean": None,
        "running_var": np.array([-np.inf, 1, 1]),
    }
    found = state_findings(state)
    assert [(f.code, f.subject) for f in found] == [("BN011", "weight"), ("BN011", "running_var")]
    assert found[0].message == "weight is NaN in channel 1, inf in channel 2"
    assert found[0].extent == (("NaN", 1, 1), ("Inf", 2, 2))
    assert found[1].evidence == {"channels": [0]}


def test_a_gradient_that_is_not_finite():
    gradient = np.zeros((4, 3, 2))
    assert gradient_findings(gradient, 1) == []
    gradient[0, 2] = np.nan
    gradient[1, 0, 1] = np.inf
    (finding,) = gradient_findings(gradient, 1)
    assert (finding.code, finding.subject) == ("BN012", "grad_output")
    assert finding.message == ("the upstream gradient has 3 NaN or Inf in channels 0 and 2")
    assert finding.evidence == {"channels": [0, 2], "not_finite": [1, 2]}
    assert finding.extent == (("NaN", 2, 2), ("Inf", 0, 0))
    (last,) = gradient_findings(np.moveaxis(gradient, 1, -1), 2)
    assert last.evidence == finding.evidence


def test_no_state_is_a_warning():
    assert fresh_statistics_finding().code == "BN005"


def test_inputs_that_lie_apart():
    ratio = np.array([1.0, 30.0, 31.0, 50.0])
    (note,) = inputs_findings(ratio, None, None)
    assert (note.code, note.severity.value) == ("BN010", "info")
    assert note.message == (
        "in channel 3, the variance between inputs is 50 times what independent values would show"
    )
    assert note.detail == "2 of 4 channels are above 30 times."
    assert note.evidence == {
        "channels": [2, 3], "f_ratio": [31.0, 50.0], "by": "values", "border": 30.0,
    }  # fmt: skip
    assert inputs_findings(ratio[:2], None, None) == []
    samples = FRatio(np.array([1.0, 5.0, 9.0, math.inf]), np.ones(4), (1, 14))
    found = inputs_findings(ratio, samples, np.array([False, True, True, False]))
    assert [f.severity.value for f in found] == ["warning"]
    assert found[0].message == (
        "in channel 2, the variance between inputs is 9 times what shuffled samples would show"
    )
    assert found[0].detail == f"2 of 4 channels are above {samples.border:.3g} times."
    assert found[0].evidence["channels"] == [1, 2]
    assert found[0].extent == ("by samples",)
    (beyond,) = inputs_findings(ratio, samples, np.array([False, False, True, True]))
    assert "is infinitely many times what shuffled samples would show" in beyond.message
    assert [f.severity.value for f in inputs_findings(ratio, samples, np.zeros(4, bool))] == [
        "info"
    ]
