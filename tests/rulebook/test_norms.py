"""What a tensor's shape shows where several norms are to choose from."""

from __future__ import annotations

import pytest

from bncli.rulebook.norms import shape_findings


@pytest.mark.parametrize(
    ("shape", "given", "blamed"),
    [
        ((16, 6, 6), False, True),
        ((16, 6, 6), True, False),
        ((16, 6, 5), False, False),
        ((6, 6, 5), False, False),
        ((6, 6), False, False),
        ((16, 6, 6, 6), False, False),
    ],
)
def test_two_axes_that_could_be_the_channels(shape, given, blamed):
    found = shape_findings(shape, axis_given=given)
    assert [(f.code, f.subject, f.evidence) for f in found] == (
        [("BN020", "input", {"shape": list(shape)})] if blamed else []
    )
    said = "axes 1 and 2 both have size 6; axis 1 was taken as the channels"
    assert all(finding.message == said for finding in found)
