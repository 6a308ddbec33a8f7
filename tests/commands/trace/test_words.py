"""The sentences of a trace."""

from __future__ import annotations

import math

import pytest

from bncli.commands.trace.words import difference_clauses, example_clause, identities_clause
from bncli.verify.trace import Identity

HOLDS = Identity("sum(x_hat)", "0", 0.0, 0.0, 1.0)
FAILS = Identity("sum(x_hat)", "0", 0.5, 0.0, 1.0)
UNKNOWN = Identity("sum(x_hat)", "0", math.nan, 0.0, 1.0)


ALIKE = "normalised as in training, to within rounding"


@pytest.mark.parametrize(
    ("differing", "said"),
    [
        ({}, []),
        ({0: "", 1: ""}, ["evaluation normalises as training does, to within rounding"]),
        ({0: "at mean", 1: "at var"}, ["at mean", "so does 1 other channel"]),
        ({0: "at mean", 1: "at var", 2: "at var"}, ["at mean", "so do 2 other channels"]),
        ({0: "", 1: "at var"}, ["at var", f"channel 0 is {ALIKE}"]),
        ({0: "", 1: "at var", 2: ""}, ["at var", f"channels 0 and 2 are {ALIKE}"]),
    ],
)
def test_where_evaluation_differs_is_said_of_one_channel(differing, said):
    assert difference_clauses(differing) == said


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ([HOLDS, HOLDS], "2 of 2 identities of the gradients hold"),
        ([HOLDS, FAILS, UNKNOWN], "1 of 2 identities of the gradients do not hold"),
        (
            [HOLDS, UNKNOWN],
            "1 of 2 identities of the gradients hold, 1 cannot be checked: numbers are not finite",
        ),
        (
            [UNKNOWN],
            "the identities of the gradients cannot be checked: the numbers are not finite",
        ),
    ],
)
def test_identities_are_counted(checks, said):
    assert identities_clause(checks) == said


def test_an_example_is_an_element_and_its_output():
    element = {"index": (0, 2), "x": 4.0, "output": -0.60192912}
    assert example_clause(element) == "x[0, 2] = 4 becomes -0.6019291"
    element = {"index": (0, 2), "x": math.nan, "output": math.nan}
    assert example_clause(element) == "x[0, 2] = nan becomes nan"
