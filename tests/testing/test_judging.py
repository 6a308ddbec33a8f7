"""What is judged apart from numbers: refusals, overflow, NaN, empty batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncli.backends.interface import QUANTITIES
from bncli.testing.judging import Judge
from bncli.testing.prediction import predicted
from bncli.testing.ways import PYTORCH
from tests.testing.test_prediction import step_of


def right(name, **changed):
    """A step in which everything is as it has to be, but for what is `changed`."""
    step = step_of(name)
    found = {quantity: np.array(values) for quantity, values in predicted(step, PYTORCH).items()}
    return replace(step, found={**found, **changed})


def failing(step, way=PYTORCH):
    return {failure.quantity for failure in Judge().failures(step, way)}


@pytest.mark.parametrize("name", ["train-4d", "nan", "inf", "empty", "eval-2d", "momentum-0"])
def test_what_is_exact_passes(name):
    assert failing(right(name)) == set()


@pytest.mark.parametrize("quantity", QUANTITIES[QUANTITIES.index("output") :])
def test_any_quantity_may_fail(quantity):
    values = right("train-4d").found[quantity].copy()
    values.flat[-1] += 0.01 if quantity != "num_batches_tracked" else 1
    (failure,) = Judge().failures(right("train-4d", **{quantity: values}))
    assert failure.quantity == quantity
    assert failure.used > 1
    assert failure.actual == values.flat[-1]
    assert failure.index == tuple(size - 1 for size in values.shape)
    assert failing(right("train-4d", **{quantity: values[:-1]})) == {quantity}


def test_a_factor_widens():
    values = right("train-4d").found["output"] * (1 + 2e-5)
    step = right("train-4d", output=values)
    assert failing(step) == {"output"}
    assert list(Judge(100.0).failures(step)) == []


def test_an_overflowing_channel_may_be_its_bias_or_nan_and_nothing_else():
    exact = right("overflow-float32").found["output"]
    bias = step_of("overflow-float32").call.bias[1]
    for value in (bias, np.nan, np.inf):
        output = exact.copy()
        output[:, 1] = value
        assert failing(right("overflow-float32", output=output)) == set()
    output = exact.copy()
    output[:, 1] = bias + 0.5
    assert failing(right("overflow-float32", output=output)) == {"output"}
    output = exact.copy()
    output[:, 0] = np.nan
    assert failing(right("overflow-float32", output=output)) == {"output"}


def test_nan_stays_in_its_channel():
    output = right("nan").found["output"].copy()
    assert np.isnan(output[:, 1]).all()
    output[:, 1] = np.inf
    assert failing(right("nan", output=output)) == set()
    output[:, 1] = 0.0
    assert failing(right("nan", output=output)) == {"output"}
    output = right("nan").found["output"].copy()
    output[0, 2] = np.nan
    assert failing(right("nan", output=output)) == {"output"}
    assert failing(right("nan", output=output), PYTORCH.changed({"spreads": True})) == set()


@pytest.mark.parametrize("name", ["one-value", "empty"])
def test_a_valueerror_is_an_answer_where_there_are_too_few_values(name):
    refused = replace(step_of(name), error=ValueError("too few"), found={})
    assert failing(refused) == set()
    assert failing(replace(refused, error=ZeroDivisionError("division by zero"))) == {"error"}
    other = replace(step_of("train-4d"), error=ValueError("too few"), found={})
    assert failing(other) == {"error"}


def test_one_value_gives_the_bias():
    step = step_of("one-value")
    bias = step.call.bias[None]
    nothing = np.full(3, np.nan)
    assert failing(replace(step, found={"output": bias, "running_var": nothing})) == set()
    assert failing(replace(step, found={"output": bias + 0.1})) == {"output"}


def test_what_was_overwritten_is_said():
    step = replace(right("train-4d"), changed=("x",))
    (failure,) = Judge().failures(step)
    assert failure.sentence == "x was overwritten"
