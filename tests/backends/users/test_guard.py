"""What a user's backend is called."""

from __future__ import annotations

from functools import partial

from bncli.backends.users.guard import Code
from bncli.live.users_code import users_code
from tests.backends.users.code import Plain, plain

HERE = "tests.backends.users.code"


def test_an_object_is_called_as_it_was_named_or_by_its_place():
    assert Code.of(Plain, users_code).name == f"{HERE}:Plain"
    assert Code.of(Plain, users_code, "x.py:Made").called == "Made"
    assert Code.of(partial(plain), users_code).called == "plain"
    assert Code.of(lambda x: x, users_code).called == "<lambda>"

    def inner(x):
        return x

    assert Code.of(inner, users_code).called == "inner"
    assert Code.of(inner, users_code).name.endswith("<locals>.inner")
