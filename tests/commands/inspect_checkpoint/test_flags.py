"""The flags that a part remembers: what was typed comes back, whatever is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bncli.commands.inspect_checkpoint.flags import Asked
from bncli.errors import UsageError
from bncli.files.reading import reading

TYPED = Asked(("a b", "it's.*", "c"), ("x=1e-3", "2"), ("none",), 3, "trouble")


def test_what_was_typed_comes_back():
    flags = TYPED.flags()
    assert all(isinstance(text, str) for text in flags.values())
    back = Asked.of(flags)
    assert [tuple(each) for each in (back.layer, back.eps, back.momentum)] == [
        TYPED.layer,
        TYPED.eps,
        TYPED.momentum,
    ]
    assert (back.expect_layers, back.sort) == (3, "trouble")


def test_what_was_not_typed_is_not_there():
    assert Asked().flags() == {}
    assert Asked.of({}) == Asked([], [], [], None, "file")
    with reading(checksum=False):
        assert set(Asked().flags()) == {"--no-checksum"}


@pytest.mark.parametrize(
    "flags", [{"--layer": "'"}, {"--expect-layers": "x"}, {"--sort": "size"}, {"--sort": ""}]
)
def test_flags_of_no_part(flags):
    with pytest.raises(ValueError):
        Asked.of(flags)


def test_the_flags_of_a_whole_are_those_of_its_parts():
    made = TYPED.flags()
    assert Asked().for_parts(Path("0.json"), made) == Asked.of(made)
    assert Asked(sort="name").for_parts(Path("0.json"), made).sort == "name"
    assert Asked(eps=("x=1e-3", "2")).for_parts(Path("0.json"), made).sort == "trouble"
    with pytest.raises(UsageError, match=r"--eps x=1e-3: 0.json was made without it"):
        Asked(eps=("x=1e-3",)).for_parts(Path("0.json"), made)
