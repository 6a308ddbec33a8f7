"""The ranking of hypotheses: its verdict and its bounds."""

from __future__ import annotations

import numpy as np
import torch


def test_nothing_finite_is_exit_3(run, save):
    save("x.npy", np.full((4, 2), np.nan, np.float32))
    result = run("identify", "x.npy", "x.npy", "-f", "json")
    assert result.code == 3
    assert result.report["tables"]["hypotheses"] == []


def test_a_thousand_channels_and_bounded_rows(run, save):
    x = np.random.default_rng(0).normal(size=(8, 1500)).astype(np.float32)
    save("x.npy", x)
    save("y.npy", torch.nn.BatchNorm1d(1500, eps=1e-3)(torch.from_numpy(x)).detach().numpy())
    result = run("identify", "x.npy", "y.npy", "-f", "json")
    assert result.report["facts"]["confident"] is True
    assert len(result.report["tables"]["hypotheses"]) <= 24
