"""What several of these tests have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.backends.torch.tensors import repeats

repeated = pytest.mark.skipif(
    not repeats(), reason="bncli repeats the additions of another release or processor"
)


def table(result, key: str = "steps") -> list[dict]:
    return result.report["tables"][key]


def steps(result, key: str, convention: str = "pytorch") -> np.ndarray:
    """(steps, channels) of a column."""
    rows = [row for row in table(result) if row["convention"] == convention]
    channels = len({row["channel"] for row in rows})
    return np.array([row[key] for row in rows], np.float64).reshape(-1, channels)


def codes(result) -> set[str]:
    return {finding["code"] for finding in result.report["findings"]}


def trained(batches, channel_axis=1, *, dtype=torch.float32, **settings):
    """The module's buffers after each batch: (steps, channels) twice."""
    batches = [torch.from_numpy(np.asarray(x)).to(dtype).movedim(channel_axis, 1) for x in batches]
    kind = getattr(torch.nn, f"BatchNorm{max(batches[0].ndim - 2, 1)}d")
    module = kind(batches[0].shape[1], dtype=dtype, **settings)
    found = []
    with torch.no_grad():
        for x in batches:
            module(x)
            found.append((module.running_mean.double().numpy().copy(),
                          module.running_var.double().numpy().copy()))  # fmt: skip
    return np.stack([mean for mean, _ in found]), np.stack([var for _, var in found])


def assert_buffers(result, batches, channel_axis=1, **settings):
    assert (result.stderr, result.code in (0, 1)) == ("", True)
    mean, var = trained(batches, channel_axis, **settings)
    np.testing.assert_allclose(steps(result, "running_mean"), mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(steps(result, "running_var"), var, rtol=1e-6)


GENERATED = ("simulate-ema", "--generate", "8,2,3", "--batches", 6, "--momentum", 0.25)
