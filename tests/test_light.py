"""Frozen dataclasses that share methods, against those of `dataclasses`; NumPy when it is used."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, field, fields, replace

import pytest

from bncli import light


def made(dataclass, name):
    """The same class by one decorator or the other, where pickle finds it."""

    class Point:
        x: float
        y: float = 2.0
        label: str = field(default="p", compare=False, repr=False)
        tags: tuple[str, ...] = field(default_factory=tuple)

        @property
        def norm(self):
            return abs(self.x) + abs(self.y)

    Point.__qualname__ = name
    return dataclass(frozen=True, slots=True)(Point)


Ours = made(light.dataclass, "Ours")
Theirs = made(dataclasses.dataclass, "Theirs")


def same(ours, theirs):
    return repr(ours).replace("Ours", "Theirs") == repr(theirs)


def test_they_look_alike():
    assert same(Ours(1.0), Theirs(1.0))
    assert same(Ours(1.0, 3.0, "q", ("a",)), Theirs(1.0, 3.0, "q", ("a",)))
    assert [f.default for f in fields(Ours)] == [f.default for f in fields(Theirs)]
    assert Ours.__match_args__ == Theirs.__match_args__
    assert Ours.__slots__ == Theirs.__slots__
    assert not hasattr(Ours(1.0), "__dict__")


@pytest.mark.parametrize("other", [(1.0,), (1.0, 2.0, "q"), (1.0, 3.0), (2.0,), (1, 2, "", ("a",))])
def test_they_are_equal_where_the_others_are(other):
    assert (Ours(1.0) == Ours(*other)) == (Theirs(1.0) == Theirs(*other))
    assert hash(Ours(*other)) == hash(Theirs(*other))
    assert len({Ours(1.0), Ours(*other)}) == len({Theirs(1.0), Theirs(*other)})


def test_another_class_is_another_value():
    assert Ours(1.0) != Theirs(1.0)
    assert Ours(1.0) != (1.0, 2.0, ())
    assert Ours(1.0).__eq__(1.0) is NotImplemented


@pytest.mark.parametrize("make", [Ours, Theirs])
def test_they_are_frozen(make):
    point = make(1.0)
    for change in (lambda: setattr(point, "x", 5.0), lambda: delattr(point, "x")):
        with pytest.raises(FrozenInstanceError, match=r"^cannot (assign to|delete) field 'x'$"):
            change()
    with pytest.raises((AttributeError, TypeError)):
        point.other = 1
    assert point.x == 1.0


def test_a_value_is_filled_with_all_its_fields():
    fill = light.filler(Ours)
    point = fill(tags=("a",), x=1.0, y=3.0, label="q")
    assert type(point) is Ours
    assert point == Ours(1.0, 3.0, "q", ("a",))
    assert point.label == "q"
    with pytest.raises(FrozenInstanceError):
        point.x = 5.0
    names = {"x": 1.0, "y": 3.0, "label": "q"}
    for values in [names, names | {"z": ()}, names | {"tags": (), "z": ()}]:
        with pytest.raises(TypeError, match="Ours is filled with x, y, label, tags"):
            fill(**values)
    with pytest.raises(TypeError, match="positional"):
        fill(1.0, 3.0, "q", ())


@light.dataclass(frozen=True, slots=True)
class Named:
    """Fields called as a generated `__init__` might call what it needs."""

    missing: tuple[int, ...] = ()
    made: dict[str, int] = field(default_factory=dict)
    set_made: int = 1
    default_made: int = 2
    factory_made: list[int] = field(default_factory=list)
    value: int = 3


def test_fields_may_have_any_name():
    assert Named() == Named((), {}, 1, 2, [], 3)
    assert Named(missing=(4,), factory_made=[5]).made == {}


def test_they_are_copied_and_replaced():
    point = Ours(1.0, 3.0, "q", ("a",))
    for twin in (copy.copy(point), copy.deepcopy(point), pickle.loads(pickle.dumps(point))):
        assert twin == point
        assert twin.label == "q"
    assert replace(point, x=4.0) == Ours(4.0, 3.0, "q", ("a",))
    assert point.norm == 4.0


def test_a_class_keeps_its_own_methods_and_those_it_inherits():
    @light.dataclass(frozen=True, slots=True)
    class Base:
        x: list[int]
        total: int = field(init=False)

        def __post_init__(self):
            object.__setattr__(self, "total", sum(self.x))

        def __repr__(self):
            return f"<{self.total}>"

        def __eq__(self, other):
            return self.total == other.total

        __hash__ = None

    @light.dataclass(frozen=True, slots=True)
    class Derived(Base):
        y: int = 0

    assert repr(Base([1, 2])) == "<3>"
    assert Base([1, 2]) == Base([3])
    with pytest.raises(TypeError, match="unhashable"):
        hash(Base([1]))
    derived = Derived([1, 2], 4)
    assert (derived.total, derived.y) == (3, 4)
    assert derived != Derived([3], 4)
    with pytest.raises(FrozenInstanceError):
        derived.x = []


def test_other_flags_are_those_of_dataclasses():
    @light.dataclass(slots=True)
    class Counter:
        count: int = 0

    counter = Counter()
    counter.count += 1
    assert counter == Counter(1)

    @light.dataclass(frozen=True, slots=True, order=True)
    class Ordered:
        x: int

    assert Ordered(1) < Ordered(2)


PROBE = """
import builtins, dataclasses
from bncli import light
counted = []
run = builtins.exec
def exec(*given): counted.append(1); run(*given)
dataclasses.exec = light.exec = exec
class Point:
    x: float
    y: float = 2.0
{}.dataclass(frozen=True, slots=True)(Point)
print(len(counted))
"""


def test_one_method_is_compiled():
    def compiled(module: str) -> int:
        probe = [sys.executable, "-c", PROBE.format(module)]
        return int(subprocess.run(probe, capture_output=True, check=True).stdout)

    assert compiled("light") == 1
    assert compiled("dataclasses") == 6 or sys.version_info >= (3, 13)


def test_numpy_is_imported_when_it_is_used():
    code = """
import sys
from bncli.light import np
assert "numpy" not in sys.modules
assert np.float32(2) == 2
import numpy
assert np.sqrt is numpy.sqrt
assert vars(np).keys() == {"float32", "sqrt"}  # found without a look into NumPy next time
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_numpy_lacks_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_function"):
        light.np.no_such_function  # noqa: B018
