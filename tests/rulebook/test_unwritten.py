"""What no training left in the place of the statistics, and what is said of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bncli.report import Certainty
from bncli.rulebook.origin import untrained_statistics
from bncli.rulebook.unwritten import check_same_bits
from tests.rulebook.layers import codes, f4, layer, only

ZEROS = {"running_mean": np.zeros(4, np.float32), "running_var": np.zeros(4, np.float32)}


def test_weights_of_0_do_not_hide_statistics_of_0():
    for counter in (0, None, 100):
        made = layer(counter=counter, weight=np.zeros(4, np.float32), **ZEROS)
        finding = only(made, "BN208")
        assert finding.evidence["scale_max"] == 0
        assert finding.detail.endswith("weight is exactly 0 too, so the output is the bias.")


def test_an_eps_of_0_leaves_no_scale_to_name():
    made = layer(**ZEROS)
    object.__setattr__(made, "eps", 0.0)
    assert codes(made) == {"BN208"}
    assert only(made, "BN208").evidence["scale_max"] == math.inf


def test_garbage_names_all_that_is_not_finite_once():
    """A variance that is NaN beside a mean of memory, in a layer that never counted."""
    made = layer(
        running_mean=f4(0.1, 1e-38, 0.2, -4e30),
        running_var=f4(0.5, np.nan, 0.3, np.nan),
        counter=0,
    )
    assert codes(made) == {"BN209"}
    finding = only(made, "BN209")
    assert finding.evidence["running_mean_channels"] == [1, 3]
    assert finding.evidence["running_var_channels"] == [1, 3]
    assert finding.evidence["num_batches_tracked"] == 0
    assert finding.message == "running_mean is 1e-38 in channel 1 and -4e+30 in channel 3"
    assert finding.detail.startswith(
        "running_var is NaN in channels 1 and 3 of 4. num_batches_tracked is 0. No batch leaves "
    )
    assert finding.certainty is Certainty.LIKELY
    assert set(finding.extent) == {
        (leaf, channel, channel) for leaf in ("running_mean", "running_var") for channel in (1, 3)
    }
    assert untrained_statistics(made)
    assert not untrained_statistics(layer(weight=f4(1e-38, 1e30, 1, 1)))


def test_one_tensor_in_two_places():
    values = f4(0.3, -0.2, 1.5, 0.7)
    made = layer(running_mean=values, running_var=values.copy())
    assert codes(made) == {"BN210"}
    assert only(made, "BN210").evidence["tensors"] == ["running_var", "running_mean"]
    assert only(made, "BN210").evidence["negative"] == 1
    for other in ("weight", "bias"):
        made = layer(running_var=np.abs(values), **{other: np.abs(values)})
        assert only(made, "BN210").evidence["tensors"] == ["running_var", other]
    made = layer(running_mean=values, weight=values)
    assert only(made, "BN210").evidence["tensors"] == ["running_mean", "weight"]
    spoilt = f4(0.3, np.nan, 1.5, 0.7)
    assert codes(layer(running_mean=spoilt, running_var=spoilt)) == {"BN210", "BN201"}


@pytest.mark.parametrize(
    ("counter", "cause", "said"),
    [
        (None, "zero-filled", "Nothing was ever written there, or every input of the layer was 0."),
        (0, "zero-filled", "Nothing was ever written there, and num_batches_tracked is 0 too."),
        (7, "zero-filled", "Nothing was ever written there, though num_batches_tracked is 7."),
    ],
)
def test_why_statistics_are_0(counter, cause, said):
    finding = only(layer(counter=counter, weight=f4(1, -2, np.nan, 0.5), **ZEROS), "BN208")
    assert finding.evidence["cause"] == cause
    assert finding.message == "running_mean and running_var are exactly 0 in all 4 channels"
    # 2, the largest finite |weight|, over the root of eps.
    assert finding.evidence["scale_max"] == pytest.approx(2 / 1e-5**0.5)
    assert finding.detail == (
        f"{said} With eps 1e-05 (assumed), the layer multiplies by up to 632.5."
    )
    assert finding.certainty is Certainty.CERTAIN  # whatever eps is
    assert finding.evidence["num_batches_tracked"] == counter


def test_a_weight_that_is_not_finite_leaves_no_scale():
    finding = only(layer(weight=f4(np.nan, np.inf, np.nan, np.nan), **ZEROS), "BN208")
    assert finding.detail.endswith(" No weight is finite.")
    assert finding.evidence["scale_max"] == 0


def test_bits_that_agree_but_for_the_dtype():
    values = f4(0.25, -0.5, 1.5, 0.75)
    made = layer(running_mean=values, running_var=values.astype(np.float16))
    object.__setattr__(made, "dtypes", made.dtypes | {"running_var": "float16"})
    (finding,) = check_same_bits(made)
    assert finding.message == (
        "running_var is a bit-for-bit copy of running_mean, apart from the dtype, in all 4 channels"
    )
    assert finding.detail.startswith(
        "running_var is negative in channel 1 of 4, and a variance is never negative."
    )
    (plain,) = check_same_bits(layer(running_mean=values, weight=values))
    assert plain.message == "running_mean is a bit-for-bit copy of weight in all 4 channels"
    assert plain.detail == "One of the two tensors was written to both places."
    assert plain.evidence["channels_total"] == 4
