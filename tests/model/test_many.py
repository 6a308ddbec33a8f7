"""Many files as a value."""

from __future__ import annotations

import json

import pytest

from bncli.model.changes import How, State
from bncli.model.many import Kind, Made, Many


def test_a_layer_that_several_files_lack_counts_once():
    lacking = (("b.pt", ("bn1", "bn2")), ("c.pt", ("bn2",)))
    assert Many(Kind.SERIES, ("a.pt", "b.pt", "c.pt"), 3, lacking=lacking).unmatched == 2
    assert Many(Kind.SERIES, ("a.pt",), 3).unmatched == 0


def enums(node):
    """The lists of words that a schema allows, wherever they stand."""
    if isinstance(node, dict):
        if "enum" in node:
            yield {each for each in node["enum"] if each is not None}
        node = node.values()
    elif not isinstance(node, list):
        return
    for each in node:
        yield from enums(each)


@pytest.mark.parametrize("words", [Kind, Made, State, How])
def test_the_schema_allows_each_word(words, repository):
    schema = json.loads((repository / "bncli/report.schema.json").read_text())
    assert {word.value for word in words} in list(enums(schema))
