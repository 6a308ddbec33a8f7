"""What of a batch enters the buffers: fractions for float64, PyTorch's modules for the others."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from bncli.running_stats.batch_table import BatchTable
from bncli.running_stats.frameworks import CONVENTIONS, convention

from .test_scatter import collected

COUNTS = [8, 2, 8, 1000]


def plain():
    rng = np.random.default_rng(0)
    return BatchTable(np.array(COUNTS), rng.normal(size=(4, 3)), rng.random((4, 3)) + 0.5)


def test_what_is_shown_of_float64():
    table = plain()
    mean, var = table.shown
    assert mean is table.mean
    assert var is table.var
    assert table.num_features == 3


@pytest.mark.parametrize("row", CONVENTIONS, ids=lambda row: row.name)
@pytest.mark.parametrize("eps", [None, 0.25])
def test_the_variance_that_enters_by_definition(row, eps):
    table = plain()
    found = table.entering(row, eps)
    assert found.shape == (4, 2, 3)
    np.testing.assert_array_equal(found[:, 0], table.mean)
    for at, n in enumerate(COUNTS):
        factor = {
            "biased": Fraction(1),
            "unbiased": Fraction(n, n - 1),
            "keras2": n / (n - 1 - Fraction(float(row.eps) if eps is None else eps)),
        }[row.variance]
        np.testing.assert_allclose(found[at, 1], table.var[at] * float(factor), rtol=1e-14)


@pytest.mark.parametrize(("name", "enters"), [("pytorch", "nan"), ("keras3", 0.0), ("caffe", 0.0)])
def test_one_value_a_channel(name, enters):
    table = BatchTable(np.array([1]), np.ones((1, 2)), np.zeros((1, 2)))
    assert str(table.entering(convention(name), None)[0, 1, 0]) == str(float(enters))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_a_module_of_momentum_1_keeps(dtype):
    kind = getattr(torch, dtype)
    x = torch.from_numpy(np.random.default_rng(4).normal(3, 2, (50, 3, 7))).to(kind)
    module = torch.nn.BatchNorm1d(3, momentum=1.0).to(kind)
    module(x)
    table = collected([x.float().numpy()], dtype).table()
    mean, var = torch.from_numpy(table.entering(convention("pytorch"), None)[0]).to(kind)
    assert torch.equal(mean, module.running_mean)
    assert torch.equal(var, module.running_var)
    shown_mean, shown_var = table.shown
    assert shown_mean is table.held_mean
    wide = x.double().transpose(0, 1).reshape(3, -1)
    np.testing.assert_allclose(shown_var[0], wide.var(1, correction=0), rtol=1e-2)
