"""What --against names: a library, code, or an object of Python's."""

from __future__ import annotations

import pytest
import torch

from bncli.arguments.against import backend_named, backend_of
from bncli.errors import BncliError, ModelError, UsageError
from bncli.given import name_of, objects_given
from tests.backends.plain import PlainBackend
from tests.backends.users.code import Plain, plain
from tests.live.code import code  # noqa: F401  # a fixture


def test_libraries_code_and_objects():
    assert backend_named("torch").name == "torch"
    named = backend_named("torch.nn:BatchNorm2d")
    assert (named.name, named.called) == ("torch.nn:BatchNorm2d", "BatchNorm2d")
    with objects_given():
        given = backend_named(name_of(Plain))
    assert given.name == "tests.backends.users.code:Plain"
    assert backend_of(plain).called == "plain"
    own = PlainBackend()
    assert backend_of(own) is own


def test_a_file_of_the_users(code):  # noqa: F811
    code("mine.py", "import torch\nclass Mine(torch.nn.BatchNorm2d): pass\n")
    assert backend_named("mine.py:Mine").name == "mine.py:Mine"
    with pytest.raises(UsageError, match=r"name the BatchNorm in it, such as mine\.py:Mine"):
        backend_named("mine.py")
    with pytest.raises(ModelError, match=r"mine\.py: there is no 'Mind' in it; did you mean Mine"):
        backend_named("mine.py:Mind")


@pytest.mark.parametrize("spec", ["", "tensorflow", "x.npy", "a b:c", "torch:", ":BatchNorm2d"])
def test_what_is_neither_is_told(spec):
    with pytest.raises(BncliError) as caught:
        backend_named(spec)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UsageError)


def test_an_instance_is_told():
    with pytest.raises(ModelError, match="it is a module already"):
        backend_of(torch.nn.BatchNorm2d(3))
