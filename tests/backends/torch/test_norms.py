"""PyTorch's norms against the formulas in NumPy."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from bncli.backends import BackendName, backend
from bncli.backends.interface import NORM_QUANTITIES, NormCall
from bncli.dtypes import decode, encode
from bncli.errors import MissingBackendError
from bncli.norms import BATCH, INSTANCE, LAYER, RMS, describe
from tests.backends.calls import ROUNDING

TORCH = backend(BackendName.TORCH)


def norms_of(shape, channel_axis=1, *, dtype="float64", groups=3, normalized=None, eps=None):
    normalized = len(shape) - 1 if normalized is None else normalized
    rms_eps = 2.0 ** (-52 if dtype == "float64" else -23)
    found = describe(
        shape, channel_axis, groups=groups, normalized=normalized, eps=eps, rms_eps=rms_eps
    )
    missing = () if hasattr(torch.nn, "RMSNorm") else (RMS,)  # it came with PyTorch 2.4
    return [norm for norm in found if not norm.refused and norm.name not in missing]


def expected_norm(norm, x) -> dict[str, np.ndarray]:
    """By the formulas, in NumPy: nothing of bncli's own."""
    x = x.astype(np.float64)
    axes = norm.axes
    if norm.groups is not None:
        x = np.moveaxis(x, norm.channel_axis, 1)
        x = x.reshape(x.shape[0], norm.groups, -1)
        axes = (2,)
    mean = x.mean(axes, keepdims=True) * (norm.name != RMS)
    invstd = 1 / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + norm.eps)
    output = (x - mean) * invstd
    if norm.groups is not None:
        order = [norm.shape[0], norm.shape[norm.channel_axis]]
        order += [n for axis, n in enumerate(norm.shape) if axis not in (0, norm.channel_axis)]
        output = np.moveaxis(output.reshape(order), 1, norm.channel_axis)
    return {"mean": mean, "invstd": invstd, "output": output}


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("eps", [None, 1e-2])
@pytest.mark.parametrize(
    ("shape", "channel_axis", "normalized"),
    [
        ((4, 6), 1, 1),
        ((4, 6, 5), 1, 2),
        ((4, 6, 5), 1, 1),
        ((4, 5, 6), 2, 1),
        ((4, 5, 6), 2, 2),
        ((3, 6, 4, 5), 1, 3),
        ((3, 4, 6, 5), 2, 2),
        ((3, 4, 5, 6), -1, 1),
        ((2, 6, 3, 2, 4), 1, 4),
    ],
)
def test_every_norm(dtype, eps, shape, channel_axis, normalized):
    rng = np.random.default_rng(0)
    x = decode(encode(rng.normal(1, 2, shape), dtype), dtype)
    axis = channel_axis % len(shape)
    for norm in norms_of(shape, axis, dtype=dtype, normalized=normalized, eps=eps):
        run = TORCH.run_norm(NormCall(norm, x, dtype))
        wanted = {"output", "mean", "invstd"}
        if norm.name == RMS:
            fused = hasattr(torch.ops.aten, "_fused_rms_norm")  # before, it gave no statistic
            wanted -= {"mean"} if fused else {"mean", "invstd"}
        assert set(run.quantities) == wanted <= set(NORM_QUANTITIES)
        expected = expected_norm(norm, x)
        assert run.quantities["output"].shape == shape
        assert run.affine_shape == (() if norm.name == INSTANCE else norm.affine_shape)
        for quantity, values in run.quantities.items():
            if quantity != "output":
                assert values.shape == norm.kept
            np.testing.assert_allclose(
                values.reshape(expected[quantity].shape), expected[quantity],
                rtol=ROUNDING[dtype], atol=ROUNDING[dtype] * 3, err_msg=f"{norm.name} {quantity}",
            )  # fmt: skip


def test_only_batch_norm_feels_the_other_samples():
    """The backend's own outputs, with and without the last sample."""
    x = np.random.default_rng(0).normal(size=(4, 6, 5))
    for norm in norms_of(x.shape):
        whole = TORCH.run_norm(NormCall(norm, x, "float64")).quantities["output"]
        (fewer,) = [item for item in norms_of((3, 6, 5)) if item.name == norm.name]
        rest = TORCH.run_norm(NormCall(fewer, x[:-1], "float64")).quantities["output"]
        change = np.abs(whole[:-1] - rest).max()
        assert (change > 0.1) == (norm.name == BATCH)
        assert norm.name == BATCH or change == 0


def test_a_norm_leaves_the_callers_array_alone():
    x = np.random.default_rng(0).normal(size=(4, 6, 5))
    before = x.copy()
    x.flags.writeable = False
    for norm in norms_of(x.shape):
        TORCH.run_norm(NormCall(norm, x, "float64"))
    np.testing.assert_array_equal(x, before)


def test_a_norm_of_a_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (norm,) = [norm for norm in norms_of((4, 6)) if norm.name == LAYER]
    with pytest.raises(MissingBackendError, match="python -m pip install"):
        TORCH.run_norm(NormCall(norm, np.ones((4, 6)), "float64"))
