"""What several of these tests have in common."""

from __future__ import annotations

import numpy as np
import torch

CHANNEL_KEYS = {
    "channel", "count", "mean", "var", "unbiased_var", "std", "invstd", "min", "max", "nan", "inf",
    "running_mean", "running_var",
}  # fmt: skip


DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def random(*shape: int, seed: int = 0, mean: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 2.0, shape).astype(np.float32)


def table(result, key: str = "channels") -> list[dict]:
    return result.report["tables"][key]


def column(result, key: str, name: str = "channels") -> np.ndarray:
    return np.array([row[key] for row in table(result, name)], np.float64)


def rows_of(x: np.ndarray, axis: int = 1) -> np.ndarray:
    """A channel's values in a row, float64."""
    return np.moveaxis(x.astype(np.float64), axis, 0).reshape(x.shape[axis], -1)


def codes(result) -> list[str]:
    return [finding["code"] for finding in result.report["findings"]]


def finding(result, code: str) -> dict:
    (found,) = [item for item in result.report["findings"] if item["code"] == code]
    return found
