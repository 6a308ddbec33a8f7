"""Kernel sums tell what a convolution makes of the means of its input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bncli.live.watching import input_kernel

KERNELS = {
    "strided": (nn.Conv2d(3, 8, 3, 2, 1), (9, 12)),
    "grouped": (nn.Conv2d(4, 8, (5, 3), (2, 3), (2, 0), dilation=(1, 2), groups=2), (11, 13)),
    "same": (nn.Conv1d(2, 5, 5, padding="same", bias=False), (9,)),
    "volumes": (nn.Conv3d(1, 4, 3, padding=(1, 0, 2)), (4, 5, 6)),
    "reflected": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (6, 6)),
    "unpadded": (nn.Conv2d(3, 4, 3), (6, 6)),
    "linear": (nn.Linear(5, 3), ()),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_sums_give_the_output_of_a_constant_input(name):
    module, size = KERNELS[name]
    module = module.double()
    kernel = input_kernel(module, size)
    means = torch.linspace(-1, 2, kernel.sums.shape[1], dtype=torch.float64)
    x = means.reshape(1, -1, *(1,) * len(size)).expand(1, -1, *size)
    with torch.no_grad():
        output = module(x).reshape(1, len(kernel.sums), -1).mean((0, 2)).numpy()
    bias = 0.0 if kernel.bias is None else kernel.bias
    np.testing.assert_allclose(kernel.sums @ means.numpy() + bias, output, rtol=1e-12, atol=1e-12)
    assert kernel.padded == (name not in {"unpadded", "linear"})
    assert (kernel.bias is None) == (module.bias is None)


def test_input_channels_outside_a_group_count_for_nothing():
    kernel = input_kernel(KERNELS["grouped"][0], (11, 13))
    assert not kernel.sums[:4, 2:].any()
    assert not kernel.sums[4:, :2].any()
    assert kernel.sums[:4, :2].all()


def test_too_many_kernels_are_not_summed():
    assert input_kernel(nn.Linear(300, 300)) is None
