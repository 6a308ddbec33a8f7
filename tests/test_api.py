"""The public Python API: every name resolves on first use, and importing bncli costs nothing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import bncli


def test_every_public_name_is_there():
    for name in bncli.__all__:
        assert getattr(bncli, name) is not None
    assert set(bncli.__all__) <= set(dir(bncli))


def test_another_name_is_not():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = bncli.nonsense


def test_import_costs_nothing():
    probe = "import sys, bncli; print([m for m in ('numpy', 'typer', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_statistics_of_an_array():
    stats = bncli.channel_stats(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert stats.mean.tolist() == [2.0, 5.0]
    assert stats.var.tolist() == [1.0, 0.0]
    assert stats.unbiased_var.tolist() == [2.0, 0.0]
