"""Python objects in the place of paths: their names, in the call that they are of and no other."""

from __future__ import annotations

import pytest

from bncli.given import is_given, name_of, object_of, objects_given


def test_an_object_has_one_name_and_each_its_own():
    first, second = [1], [1]
    with objects_given():
        assert name_of(first) == name_of(first) == "<list>"
        assert name_of(second) == "<list 2>"
        assert object_of("<list 2>") is second
        assert object_of("<list>::weight") is first
        assert is_given("<list>::weight")
        assert not is_given("<list 3>")


def test_outside_of_the_call_nothing_is_given():
    with objects_given():
        name = name_of({}, "state_dict")
        with objects_given():
            assert not is_given(name)
    assert name == "<state_dict>"
    assert not is_given(name)
    with pytest.raises(KeyError):
        object_of(name)
    with pytest.raises(RuntimeError, match="objects_given"):
        name_of({})


def test_a_name_has_nothing_of_a_path_or_a_pattern_or_a_terminal():
    hostile = type("a/../b\n\x1b[31m*[x]?::y" + "z" * 200, (), {})
    with objects_given():
        name = name_of(hostile())
        assert name.isprintable()
        assert not set("/*[]?:") & set(name)
        assert ".." in name
        assert len(name) < 80
        assert is_given(f"{name}::y")
