"""Flags one by one and in groups: what a command takes apart, and is called with."""

from __future__ import annotations

from typing import Annotated, Optional, get_type_hints

import pytest

from bncli.cli.flags import bare, call, flags_of
from bncli.light import dataclass

Eps = Annotated[float | None, "eps"]
Path = Annotated[str, "path"]


@dataclass(frozen=True, slots=True)
class Inner:
    eps: Eps = None
    momentum: float = 0.1


@dataclass(frozen=True, slots=True)
class Outer:
    inner: Inner
    axis: int = 1


def command(path: Path, *, outer: Outer, seed: int = 0) -> tuple[object, ...]:
    return path, outer, seed


def test_groups_are_taken_apart_where_they_stand():
    flags = flags_of(command)
    assert [flag.name for flag in flags] == ["path", "eps", "momentum", "axis", "seed"]
    assert [flag.default for flag in flags][1:] == [None, 0.1, 1, 0]
    assert [flag.annotation for flag in flags] == [Path, Eps, float, int, int]


def test_a_command_is_called_with_its_groups():
    flags = {"path": "x", "eps": 1e-3, "momentum": 0.5, "axis": 2, "seed": 7, "quiet": True}
    assert call(command, flags) == ("x", Outer(Inner(1e-3, 0.5), 2), 7)
    assert flags == {"quiet": True}
    with pytest.raises(KeyError):
        call(command, {"path": "x"})


@dataclass(frozen=True, slots=True)
class Narrower(Inner):
    momentum: int = 3  # an inherited flag keeps its place, as dataclasses have it
    seed: int = 0


def test_a_flag_that_is_inherited_stands_before_what_the_group_adds():
    flags = flags_of(Narrower)
    assert [flag.name for flag in flags] == ["eps", "momentum", "seed"]
    assert [flag.annotation for flag in flags] == [Eps, int, int]
    assert [flag.default for flag in flags] == [None, 3, 0]
    assert call(Narrower, {"eps": None, "momentum": 1, "seed": 2}) == Narrower(None, 1, 2)


def test_the_optional_that_python_3_10_adds_is_taken_off():
    assert bare(Optional[Annotated[int, "n"]]) == Annotated[int, "n"]  # noqa: UP045  # what 3.10 makes
    for hint in (int, Optional[int], Annotated[Optional[int], "n"], Annotated[int, "n"]):  # noqa: UP045
        assert bare(hint) == hint
    assert get_type_hints(Inner, include_extras=True)["eps"] == Eps
