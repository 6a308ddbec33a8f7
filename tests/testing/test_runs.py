"""Steps: each begins with what the one before it left, and errors are kept."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from bncli.backends.users import users_backend
from bncli.testing import batchnorm_configurations
from bncli.testing.inputs import batch_of
from bncli.testing.runs import RaisedError, raising, steps_of, told

ALL = {str(each): each for each in batchnorm_configurations()}


def test_steps_are_those_of_one_module():
    configuration = ALL["steps-cumulative"]
    steps = steps_of(users_backend(torch.nn.BatchNorm1d, raising), configuration)
    module = torch.nn.BatchNorm1d(3, momentum=None)
    for number in range(len(configuration.modes)):
        module(torch.from_numpy(batch_of(configuration, number).x))
    assert [int(step.found["num_batches_tracked"][0]) for step in steps] == [1, 2, 3, 4]
    assert np.array_equal(steps[-1].found["running_mean"], module.running_mean.numpy())
    assert [step.place for step in steps][1] == "steps-cumulative, step 2"


def test_what_raises_ends_the_steps():
    def broken(x, weight, bias, running_mean, running_var, training, momentum, eps):
        if not training:
            raise KeyError("no such mode")
        return x * 1

    steps = steps_of(users_backend(broken, raising), ALL["train-then-eval"])
    assert [type(step.error) for step in steps] == [type(None), type(None), KeyError]
    assert told(steps[-1].error) == "KeyError: 'no such mode'"
    assert steps_of(users_backend(broken, raising), ALL["eval-twice"])[0].found == {}


def test_a_counter_that_is_not_there_is_counted():
    def honest(x: torch.Tensor, weight, bias, running_mean, running_var, training, momentum, eps):
        return torch.nn.functional.batch_norm(
            x, running_mean, running_var, weight, bias, training, momentum, eps
        )

    steps = steps_of(users_backend(honest, raising), ALL["steps-cumulative"])
    assert [step.call.running.num_batches_tracked for step in steps] == [0, 1, 2, 3]


def test_numbers_may_overflow_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with raising("it"):
            np.float32(3e38) * np.float32(10)
        with pytest.raises(RaisedError) as caught, raising("it"):
            warnings.warn("something else", DeprecationWarning, stacklevel=1)
    assert isinstance(caught.value.__cause__, DeprecationWarning)


def test_a_long_message_is_cut():
    assert told(ValueError("x" * 1000 + "\nmore")) == "ValueError: " + "x" * 100
    assert told(ValueError()) == "ValueError"
