"""A pass against the formulas in NumPy, as a backend is asked for it, and the noise sent back."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.dtypes import decode, encode
from bncli.verify.batch_norm_pass import backend_call, upstream_gradient
from tests.configurations import configuration


@pytest.mark.parametrize("seed", range(40))
def test_a_pass_is_the_formula(seed):
    given = configuration(seed, largest=500)
    done, settings = given.done(), given.settings
    table = np.moveaxis(given.x, given.channel_axis, 0).reshape(len(done.norm.var), -1)
    table = table.astype(np.longdouble)
    count = table.shape[1]
    mean, var = table.mean(1), table.var(1)
    if settings.training and given.running is not None:
        tracked = given.running.num_batches_tracked + 1
        a = 1 / tracked if settings.momentum is None else settings.momentum
        unbiased = var * count / (count - 1)
        expected_mean = (1 - a) * given.running.running_mean + a * mean
        expected_var = (1 - a) * given.running.running_var + a * unbiased
        size = np.abs(mean) + 1
        np.testing.assert_allclose(
            done.after.running_mean, expected_mean.astype(float), atol=float(1e-12 * size.max())
        )
        np.testing.assert_allclose(
            done.after.running_var, expected_var.astype(float), rtol=1e-9, atol=1e-12
        )
        assert done.after.num_batches_tracked == tracked
    elif given.running is not None:
        assert done.after == given.running
    else:
        assert done.after is None
    if not settings.training and given.running is not None:
        mean, var = given.running.running_mean, given.running.running_var
    np.testing.assert_allclose(done.norm.var, var.astype(float), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(
        done.norm.invstd, (1 / np.sqrt(var + settings.eps)).astype(float), rtol=1e-9
    )
    assert (done.settings, done.before) == (settings, given.running)
    assert done.parameter_dtype == given.parameter_dtype


def test_a_backend_is_asked_for_the_same_pass():
    given = configuration(3, largest=100)
    done = given.done()
    g = np.zeros_like(given.x)
    call = backend_call(done, given.x, g)
    assert call.x is given.x
    assert call.grad_output is g
    assert (call.dtype, call.parameter_dtype) == (given.dtype, given.parameter_dtype)
    assert (call.channel_axis, call.settings) == (given.channel_axis, given.settings)
    assert (call.weight is given.weight, call.bias is given.bias) == (True, True)
    assert call.running is given.running
    assert (call.device, call.memory_format, call.threads) == ("cpu", None, None)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_noise_is_of_the_dtype_and_the_seed(dtype):
    found = upstream_gradient((40, 50), dtype, 7)
    assert found.dtype == {"float16": np.float16, "float64": np.float64}.get(dtype, np.float32)
    np.testing.assert_array_equal(decode(encode(found, dtype), dtype), found)
    np.testing.assert_array_equal(upstream_gradient((40, 50), dtype, 7), found)
    assert (upstream_gradient((40, 50), dtype, 8) != found).any()
    wide = found.astype(np.float64)
    assert abs(wide.mean()) < 0.1
    assert abs(wide.std() - 1) < 0.1
    if dtype == "float64":
        expected = np.random.default_rng(7).standard_normal((40, 50))
        np.testing.assert_array_equal(found, expected)
