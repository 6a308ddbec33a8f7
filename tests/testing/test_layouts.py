"""An implementation sees its input in the layout that is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.testing.layouts import laid_out_for

LAYOUTS = {
    "contiguous": (60, 20, 5, 1),
    "channels_last": (60, 1, 15, 3),
    "strided": (120, 40, 10, 2),
    "reversed": (1, 2, 6, 24),
}
"""The strides of shape (2, 3, 4, 5), in elements."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_and_tensors_have_the_strides(layout):
    seen = []

    def function(x):
        seen.append(x)
        return x

    called = laid_out_for(function, layout)
    x = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    called(x)
    tensor = torch.from_numpy(x).clone().requires_grad_()
    called(tensor * 1).sum().backward()
    assert tuple(step // 4 for step in seen[0].strides) == LAYOUTS[layout]
    assert seen[1].stride() == LAYOUTS[layout]
    assert np.array_equal(seen[0], x)
    assert np.array_equal(seen[1].detach(), x)
    assert (tensor.grad == 1).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_modules_have_them_too(layout):
    class Module(torch.nn.Module):
        def __init__(self, *arguments, **named):
            super().__init__()

        def forward(self, x):
            self.stride = x.stride()
            return x

    made = laid_out_for(Module, layout)
    assert made.func is Module
    module = made(3)
    module(torch.zeros(2, 3, 4, 5))
    assert module.stride == LAYOUTS[layout]


def test_what_is_no_array_stays():
    value = object()
    assert laid_out_for(lambda x: x, "strided")(value) is value
    function = laid_out_for(test_what_is_no_array_stays, "strided")
    assert function.__name__ == test_what_is_no_array_stays.__name__
