"""Many files as a value."""

from __future__ import annotations

from bncli.model.many import Kind, Many


def test_a_layer_that_several_files_lack_counts_once():
    lacking = (("b.pt", ("bn1", "bn2")), ("c.pt", ("bn2",)))
    assert Many(Kind.SERIES, ("a.pt", "b.pt", "c.pt"), 3, lacking=lacking).unmatched == 2
    assert Many(Kind.SERIES, ("a.pt",), 3).unmatched == 0
