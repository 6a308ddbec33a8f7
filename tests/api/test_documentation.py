"""What help() says: every argument, in the words of Python, and an example that runs."""

from __future__ import annotations

import doctest
import inspect
import re

import pytest

import bncli
from bncli.api.arguments import arguments_of
from bncli.api.examples import EXAMPLES
from bncli.commands import COMMANDS, DOCUMENTS

NAMES = [*COMMANDS, *DOCUMENTS]


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name):
    assert EXAMPLES[name].strip() in inspect.getdoc(getattr(bncli, name))
    example = doctest.DocTestParser().get_doctest(EXAMPLES[name], {"bncli": bncli}, name, name, 0)
    assert len(example.examples) > 0
    said: list[str] = []
    failed = doctest.DocTestRunner().run(example, out=said.append).failed
    assert not failed, "".join(said)


@pytest.mark.parametrize("name", COMMANDS)
def test_it_says_what_every_argument_is(name):
    text = getattr(bncli, name).__doc__
    for argument in arguments_of(name):
        assert re.search(rf"^    \*?{argument.name}: \S", text, re.MULTILINE), argument.name
        if not argument.positional and argument.flag.count("-") > 2:
            assert f"{argument.flag} " not in text.partition("Example:")[0], argument.flag
    assert "may be repeated" not in text
    assert max(map(len, text.splitlines())) <= 96


def test_words_are_those_of_python():
    text = " ".join(bncli.compute.__doc__.split())
    assert "Relative tolerance for all quantities; requires atol (default: from" in text
    assert "running statistics (training=True), or normalise with the running" in text
    assert "affine: Scale by weight and shift by bias (default: True)." in text
    assert "running statistics; None for the cumulative average (default: 0.1)" in text
    assert "fail_on: The report is not ok if a finding has this severity" in text
