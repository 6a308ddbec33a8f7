"""Which arguments the user's code is given: by name, by position, and which it must have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.backends.users.arguments import (
    ARGUMENTS,
    Taken,
    function_arguments,
    module_arguments,
)
from bncli.errors import ModelError
from bncli.model import BatchNormSettings
from tests.backends.calls import call_of

VALUES = {name: name for name in ARGUMENTS} | {"momentum": 0.1}
BY_POSITION = (tuple(VALUES.values()), {})


def given(function, settings=None, momentum=0.1):
    call = call_of((4, 3), settings or BatchNormSettings())
    return function_arguments(Taken.of(function), VALUES | {"momentum": momentum}, call, "it")


def test_by_position_whatever_the_names():
    assert given(lambda x, g, b, m, v, t, mo, e: 0) == BY_POSITION
    assert given(lambda *all_of_it: 0) == BY_POSITION
    assert given(lambda x, weight, bias, rm, rv, training, mo, e, more=3: 0) == BY_POSITION
    assert given(max) == BY_POSITION  # of which Python tells nothing


def test_by_name_where_the_order_is_another():
    assert given(torch.nn.functional.batch_norm) == ((), VALUES)
    assert given(lambda x, eps, momentum, **more: 0) == ((), VALUES)


def test_by_name_where_there_is_no_position():
    def by_name(x, *, weight, bias, running_mean, running_var, training, momentum=0.1, eps=1e-5):
        return x

    assert given(by_name) == ((), VALUES)
    assert given(lambda x, weight, bias, *, eps=1e-5, **more: 0) == ((), VALUES)
    assert given(lambda x, w, b, m, v, t, mo, e, *, debug=False: 0) == BY_POSITION


def test_what_is_not_needed_may_be_missing():
    def evaluates(x, running_mean, running_var, weight=None, bias=None):
        return x

    _, names = given(lambda x, weight, bias, running_mean, running_var, eps, momentum: 0)
    assert set(names) == set(ARGUMENTS) - {"training"}
    with pytest.raises(ModelError, match="it has no argument training, which this layer needs"):
        given(evaluates, BatchNormSettings(training=False))
    with pytest.raises(ModelError, match=r"has no argument momentum, which .*: momentum=0\.3"):
        given(evaluates, BatchNormSettings(momentum=0.3), momentum=0.3)
    with pytest.raises(ModelError, match="has no argument eps"):
        given(evaluates, BatchNormSettings(eps=1e-3))


def test_a_function_of_something_else_is_told_with_what_it_takes():
    with pytest.raises(ModelError, match=r"it takes \(x, y, z\); a function .* \(x, weight, bias"):
        given(lambda x, y, z: 0)
    with pytest.raises(ModelError, match=r"it takes \(\)"):
        given(lambda: 0)


def test_a_class_is_given_what_it_takes():
    call = call_of((4, 3), BatchNormSettings(eps=1e-3, momentum=None))
    whole = {"eps": 1e-3, "momentum": None, "affine": True, "track_running_stats": True}
    assert module_arguments(Taken.of(torch.nn.BatchNorm1d), call, "it") == whole
    assert module_arguments(Taken.of(lambda n, **more: 0), call, "it") == whole
    handing = type("Handing", (torch.nn.BatchNorm1d,), {"__init__": lambda self, *a, **more: None})
    assert module_arguments(Taken.of(handing), call, "it") == whole
    few = Taken.of(lambda num_features, eps, momentum: 0)
    assert module_arguments(few, call, "it") == {"eps": 1e-3, "momentum": None}
    with pytest.raises(ModelError, match=r"has no argument momentum, .*: momentum=None"):
        module_arguments(Taken.of(lambda num_features, eps: 0), call, "it")


def test_annotations_are_found_whatever_else_is_not():
    def ahead(x: torch.Tensor, y: NotThere) -> torch.nn.Module: ...  # noqa: F821

    taken = Taken.of(ahead)
    assert (taken.first, taken.returned) == (torch.Tensor, torch.nn.Module)
    assert Taken.of(lambda x: x).first is None

    def unknown(x: NotThere): ...  # noqa: F821

    assert Taken.of(unknown).first is None

    class Called:
        def __call__(self, x: np.ndarray, more=1): ...

    assert Taken.of(Called()).first is np.ndarray
