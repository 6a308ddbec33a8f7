"""Mistakes of the backward pass behind an output that is right, each planted alone."""

from __future__ import annotations

import pytest

from tests.verify.departures.planted import GRADIENTS, case, named


@pytest.mark.parametrize("mistake", GRADIENTS)
def test_a_gradient(mistake):
    quantity, words = GRADIENTS[mistake]
    causes, failed = named(mistake, case())
    assert (failed, causes) == ({quantity}, {quantity: words})


def test_evaluation_with_the_terms_of_training():
    causes, failed = named("training terms", case(training=False))
    assert failed == set(causes) == {"grad_input"}
    assert causes["grad_input"] == "grad_input has the terms of training in eval mode"
