"""The arrays of the configurations: the same each time, in their dtype and layout."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.dtypes import decode, encode
from bncli.testing import batchnorm_configurations
from bncli.testing.inputs import batch_of, laid_out, layer_of, settings_of

ALL = {str(each): each for each in batchnorm_configurations()}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_values_are_those_of_the_dtypes(dtype):
    for configuration in ALL.values():
        if configuration.dtype == dtype:
            values_are_representable(configuration)


def values_are_representable(configuration):
    for step in range(len(configuration.modes)):
        batch = batch_of(configuration, step)
        for values in (batch.x, batch.g):
            assert values.shape == configuration.shape_of(step)
            kept = decode(encode(values, configuration.dtype), configuration.dtype)
            assert np.array_equal(kept, values, equal_nan=True)
        assert (batch.stats is None) == (batch.x.size == 0)
        assert settings_of(configuration, step).training == (configuration.modes[step] == "t")
    layer = layer_of(configuration)
    if layer.weight is not None:
        dtype = configuration.parameter_dtype
        assert np.array_equal(decode(encode(layer.weight, dtype), dtype), layer.weight)


def test_a_batch_is_the_same_each_time_and_no_ones_else():
    one = batch_of(ALL["train-4d"], 0)
    one.x[:] = 0
    two = batch_of(ALL["train-4d"], 0)
    assert two.x.all()
    assert not np.array_equal(two.x, batch_of(ALL["eval-4d"], 0).x)


def test_the_means_are_where_they_are_said_to_be():
    stats = batch_of(ALL["mean-10000"], 0).stats
    assert (abs(stats.mean) / np.sqrt(stats.var) > 8e3).all()
    assert (batch_of(ALL["denormal-variance"], 0).stats.var < 2.0**-126).all()
    x = batch_of(ALL["overflow-float32"], 0).x
    assert np.isfinite(x).all()
    with np.errstate(over="ignore"):
        assert np.isinf(np.square(x[:, 1])).all()


def test_layouts():
    values = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    for layout in ("contiguous", "channels_last", "strided", "reversed"):
        laid = laid_out(values, layout)
        assert np.array_equal(laid, values)
        assert not np.shares_memory(laid, values)
        assert laid.flags.c_contiguous == (layout == "contiguous")
    assert laid_out(values, "channels_last").strides[1] == 4
    assert laid_out(values, "strided").strides[-1] == 8
    assert laid_out(values, "reversed").flags.f_contiguous
