"""Python objects in the place of paths: their names, in the call that they are of and no other."""

from __future__ import annotations

from threading import Thread

import pytest

from bncli.given import (
    at_end,
    called_from_python,
    is_given,
    may_be_name,
    name_of,
    object_of,
    objects_given,
    whence,
)


def test_an_object_has_one_name_and_each_its_own():
    first, second = [1], [1]
    with objects_given():
        assert name_of(first) == name_of(first) == "<list>"
        assert name_of(second) == "<list 2>"
        assert object_of("<list 2>") is second
        assert object_of("<list>::weight") is first
        assert is_given("<list>::weight")
        assert not is_given("<list 3>")


def test_many_objects_are_named_in_time_that_grows_with_their_number():
    values = [[n] for n in range(20_000)]  # which took a minute, when each was looked for
    with objects_given() as known:
        names = [name_of(value) for value in values]
        assert names[:2] == ["<list>", "<list 2>"]
        assert names[-1] == "<list 20000>"
        assert [name_of(value) for value in values] == names
    with objects_given(known):
        assert object_of("<list 9>") is values[8]
        assert name_of([0]) == "<list 20001>"


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


def test_it_is_known_inside_and_in_no_other_thread():
    seen = []
    assert not called_from_python()
    with objects_given():
        assert called_from_python()
        thread = Thread(target=lambda: seen.append(called_from_python()))
        thread.start()
        thread.join()
    assert not called_from_python()
    assert seen == [False]


def test_what_is_to_be_done_at_the_end_is_done_whatever_happens():
    done = []

    def fail():
        with objects_given():
            at_end(lambda: done.append("first"))
            at_end(lambda: done.append("second"))
            with objects_given():
                at_end(lambda: done.append("inner"))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert done == ["inner", "second", "first"]
    with pytest.raises(RuntimeError, match="objects_given"):
        at_end(done.clear)


def test_a_name_of_another_call_is_known_as_one():
    with objects_given():
        assert may_be_name(name := name_of([]))
        assert may_be_name(name_of([1]))
        assert whence(f"{name}::x") == "the module"
    assert may_be_name(name)
    assert whence(name) == "the file"
    for path in ("", "<>", "a<b>", "<a>.pt", "x/<a>", "<a/b>"):
        assert not may_be_name(path)
