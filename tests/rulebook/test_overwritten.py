"""BN909: arguments that are changed in place."""

from __future__ import annotations

from bncli.rulebook.overwritten import overwritten_findings


def test_each_argument_is_a_finding():
    x, weight = overwritten_findings((("x", 7, 9), ("weight", 3, 3)), "Mine")
    assert (x.code, x.subject) == ("BN909", "x")
    assert x.message == "Mine changes 7 of 9 values of its input in place"
    assert weight.message == "Mine changes 3 of 3 values of weight in place"
    assert overwritten_findings((), "Mine") == []
