"""PyTorch's steps between input and output against the formulas in NumPy."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bncli.backends import BackendName, backend
from bncli.backends.interface import BatchNormCall
from bncli.errors import MissingBackendError
from bncli.model import BatchNormSettings
from tests.backends.calls import MODES, SHAPES, call_of, expected_quantities

TORCH = backend(BackendName.TORCH)


def expected_steps(call: BatchNormCall) -> dict[str, np.ndarray]:
    """Every step by its formula, in NumPy."""
    ends = expected_quantities(call)
    settings, axis = call.settings, call.channel_axis
    x = np.moveaxis(call.x.astype(np.float64), axis, -1)
    g = np.moveaxis(call.grad_output.astype(np.float64), axis, -1)
    axes = tuple(range(x.ndim - 1))
    ones, zeros = np.ones(x.shape[-1]), np.zeros(x.shape[-1])
    weight = ones if call.weight is None else call.weight
    bias = zeros if call.bias is None else call.bias
    batch = settings.normalizes_with_batch
    found = {}
    if batch or call.running is None:
        mean, var = x.mean(axes), x.var(axes)
        found["unbiased_var"] = x.var(axes, ddof=1)
    else:
        mean, var = call.running.running_mean, call.running.running_var
    shifted = var + settings.eps
    invstd = 1 / np.sqrt(shifted)
    x_hat = (x - mean) * invstd
    by_element = {
        "x": x, "deviation": x - mean, "squared": (x - mean) ** 2, "x_hat": x_hat,
        "scaled": x_hat * weight, "g": g, "grad_x_hat": g * weight,
    }  # fmt: skip
    found |= {
        "mean": mean, "var": var, "var_plus_eps": shifted, "sqrt": np.sqrt(shifted),
        "invstd": invstd, "alpha": weight * invstd, "beta": bias - mean * weight * invstd,
        "sum_g": g.sum(axes), "sum_g_x_hat": (g * x_hat).sum(axes),
    }  # fmt: skip
    found |= {name: np.moveaxis(values, -1, axis) for name, values in by_element.items()}
    found |= {"output": ends["output"], "grad_input": ends["grad_input"]}
    if settings.affine:
        found |= {"weight": weight, "bias": bias}
    if batch:
        found |= {
            "var_sum": ((x - mean) ** 2).sum(axes),
            "grad_var": -0.5 * weight * invstd**3 * (g * (x - mean)).sum(axes),
            "grad_mean": -weight * invstd * g.sum(axes),
        }
    return found


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "settings", MODES, ids=lambda s: f"{s.training:d}{s.affine:d}{s.track_running_stats:d}"
)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_steps_between_input_and_output(shape, settings, dtype):
    call = call_of(shape, settings, dtype, channel_axis=len(shape) - 1)
    before = call.x.copy()
    found = TORCH.steps(call)
    expected = expected_steps(call)
    assert set(found) == set(expected)
    rounding = 1e-10 if dtype == "float64" else 1e-4  # the steps of half precision are float32's
    for quantity, values in expected.items():
        np.testing.assert_allclose(
            found[quantity], values, rtol=rounding, atol=rounding * (1 + np.abs(values).max()),
            err_msg=quantity,
        )  # fmt: skip
    np.testing.assert_array_equal(call.x, before)


def test_without_the_library_there_are_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingBackendError):
        TORCH.steps(call_of((6, 3), BatchNormSettings()))
