"""What a user's code returned, checked."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.backends.users.guard import Code
from bncli.backends.users.results import output_of, overwritten, per_channel, run_of
from bncli.errors import ModelError
from bncli.live.users_code import users_code
from bncli.model import BatchNormSettings
from tests.backends.calls import call_of

CODE = Code.of(print, users_code, "it")


def test_bfloat16_may_come_as_float32_where_it_came_so():
    like = np.ones((2, 3), np.float32)
    assert output_of(like, like, "bfloat16", CODE).dtype == np.float32
    with pytest.raises(ModelError, match="the output is float64, but the input is bfloat16"):
        output_of(like.astype(np.float64), like, "bfloat16", CODE)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 3, 1, 1), (3, 1)])
def test_channels_in_whatever_shape(shape):
    assert per_channel(np.arange(3.0).reshape(shape), 3, "weight", CODE).tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (3, 3), (0,)])
def test_another_number_of_channels_is_told(shape):
    with pytest.raises(ModelError, match="but there are 3 channels"):
        per_channel(np.ones(shape), 3, "weight", CODE)


def test_half_precision_is_taken_to_be_summed_in_float32():
    call = call_of((4, 2, 3), BatchNormSettings(affine=False, track_running_stats=False), "float16")
    run = run_of({"output": call.x}, call, ())
    assert call.parameter_dtype == "float16"
    assert (run.arithmetic.accumulate_dtype, run.arithmetic.additions) == ("float32", 12)
    assert not run.arithmetic.order_known


def test_nan_is_no_change():
    before = np.array([1.0, np.nan])
    assert overwritten("x", before, before.copy()) == ()
    assert overwritten("x", before, np.array([[1.0, 2.0]])) == (("x", 1, 2),)
