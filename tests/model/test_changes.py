"""A comparison of two files as a value."""

from __future__ import annotations

from bncli.model.changes import Comparison, Found, How, LayerVersion, State
from bncli.report import Certainty


def test_the_layers_that_both_files_have():
    found = Found(State.IDENTICAL)
    layers = (
        LayerVersion("a", "b", How.ORDER, Certainty.LIKELY, found),
        LayerVersion("c", "", None, Certainty.CERTAIN, Found(State.LOST)),
        LayerVersion("", "", How.NAME, Certainty.CERTAIN, found),  # a file that is one layer
        LayerVersion("", "d", None, Certainty.CERTAIN, Found(State.LOST)),
    )
    comparison = Comparison("a.pt", "b.pt", "", "", layers)
    assert comparison.matched == (layers[0], layers[2])
