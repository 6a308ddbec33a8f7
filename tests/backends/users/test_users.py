"""What is a backend: a class, what makes a module, a function; and what is none, in a sentence."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm

from bncli.backends.interface import Backend, ChoosesPath, IsUsers
from bncli.errors import ModelError
from bncli.model import BatchNormSettings
from bncli.verify.comparison import compare_pass
from tests.backends.calls import MODES, ROUNDING, SHAPES, call_of, expected_quantities
from tests.backends.users.code import Plain, backend, plain
from tests.configurations import configuration

FEATURES = {"1d rows": 1, "1d": 1, "2d": 2, "3d": 3}


def makes(num_features, **arguments):
    return torch.nn.BatchNorm2d(num_features, **arguments)


def returns(channels, eps=1e-5) -> torch.nn.Module:
    return torch.nn.BatchNorm2d(channels, eps)


@pytest.mark.parametrize(
    "value",
    [torch.nn.BatchNorm2d, makes, returns, partial(torch.nn.BatchNorm2d, dtype=torch.float64)],
)
def test_a_class_and_what_makes_a_module(value):
    call = call_of(SHAPES["2d"], BatchNormSettings())
    run = backend(value).run(call)
    for quantity, values in expected_quantities(call).items():
        if quantity not in ("mean", "var", "invstd"):
            np.testing.assert_allclose(run.quantities[quantity], values, rtol=1e-10, atol=1e-10)
    assert set(run.quantities) == set(expected_quantities(call)) - {"mean", "var", "invstd"}
    assert run.changed == ()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("settings", MODES, ids=repr)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_functions_of_both_libraries(shape, settings, dtype):
    call = call_of(shape, settings, dtype)
    expected = expected_quantities(call)
    given = {"output"} | ({"running_mean", "running_var"} if call.running else set())
    for value, more in (
        (plain, set()),
        (batch_norm, {"grad_input", "grad_weight", "grad_bias"} & set(expected)),
    ):
        run = backend(value).run(call)
        assert set(run.quantities) == given | more
        for quantity, values in run.quantities.items():
            scale = 1 + np.abs(expected[quantity]).max()
            np.testing.assert_allclose(
                values, expected[quantity], rtol=ROUNDING[dtype], atol=ROUNDING[dtype] * scale
            )


def test_honest_ones_pass_on_all_data():
    """PyTorch's own class and function and one in NumPy, on ordinary and on hard data."""
    for seed in range(3000, 3080):
        config = configuration(seed, largest=20_000)
        own = getattr(torch.nn, f"BatchNorm{max(config.x.ndim - 2, 1)}d")
        for value in (own, batch_norm, plain):
            compared, run = compare_pass(config.done(), config.x, backend(value), seed=seed)
            assert compared
            assert [item for item in compared if not item.passed] == [], (seed, value)
            assert run.changed == ()


def test_what_it_says_of_itself():
    for value in (torch.nn.BatchNorm2d, plain, batch_norm):
        made = backend(value)
        assert isinstance(made, Backend)
        assert isinstance(made, IsUsers)
        assert isinstance(made, ChoosesPath) == (value is not plain)
    module = backend(torch.nn.BatchNorm2d)
    assert module.name == "torch.nn.modules.batchnorm:BatchNorm2d"
    assert (module.called, module.version()) == ("BatchNorm2d", str(torch.__version__))
    named = backend(Plain, "layers.py:net.Plain")
    assert (named.name, named.called, named.version()) == ("layers.py:net.Plain", "net.Plain", "")


class Other:
    def __init__(self, num_features): ...


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (Plain(3), "it is a module already; name its class"),
        (Other, "it is a class, but not a torch.nn.Module; name a function (x, weight, bias,"),
        (3, "it is neither a class nor a function"),
    ],
)
def test_what_is_no_backend_is_told(value, sentence):
    with pytest.raises(ModelError, match=__name__) as caught:
        backend(value, f"{__name__}:it")
    assert sentence in str(caught.value)
