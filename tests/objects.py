"""Calls of commands on objects of Python, and on the files of the same, for tests that compare."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, get_args

from bncli.cli.flags import call, flags_of
from bncli.commands import command
from bncli.files.reading import reading
from bncli.gate.verdict import with_verdict
from bncli.given import is_given, name_of, objects_given
from bncli.renderers import Format, renderer
from bncli.renderers.interface import RenderContext
from bncli.report import FailOn

PLAIN = (str, bool, int, float, type(None))


def run(name: str, *given: Any, **flags: Any) -> Any:
    """The report of a command; `given` are its arguments, of which several are one list."""
    function = command(name)
    parameters = flags_of(function)
    with objects_given(), reading():
        values = {each.name: each.default for each in parameters}
        typed = [each for each in parameters if "ArgumentInfo" in repr(each.annotation)]
        texts = [_named(value) for value in given]
        if "list[" in repr(typed[0].annotation):
            texts = [texts]
        values.update(zip((each.name for each in typed), texts, strict=False))
        for flag, value in flags.items():
            assert flag in values, (flag, [*values])
            kind = _enum_of(next(each for each in parameters if each.name == flag).annotation)
            named = [*map(_named, value)] if isinstance(value, list) else _named(value)
            values[flag] = kind(named) if kind and named is not None else named
        report = call(function, values)
        if callable(report.answer):
            from dataclasses import replace

            report = replace(report, answer=report.answer(report, FailOn.ERROR))
        return with_verdict(report, report.exit_code())


def _enum_of(hint: Any) -> Any:
    """The enum that an annotation takes a value of."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    return next(filter(None, map(_enum_of, get_args(hint))), None)


class Part:
    """A layer or a tensor of an object, by its name."""

    def __init__(self, value: Any, name: str) -> None:
        self.value = value
        self.name = name


def _named(value: Any) -> Any:
    if isinstance(value, Part):
        return f"{name_of(value.value)}::{value.name}"
    return value if isinstance(value, PLAIN) or is_given(value) else name_of(value)


def said(name: str, *given: Any, **flags: Any) -> dict[str, Any]:
    """What JSON says of that report."""
    report = run(name, *given, **flags)
    return json.loads(renderer(Format.JSON)(report, RenderContext(report.exit_code(), 80)))


def alike(value: Any, names: dict[str, str]) -> Any:
    """The same with each of the names as another one, wherever it stands."""
    if isinstance(value, dict):
        return {key: alike(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [alike(each, names) for each in value]
    if isinstance(value, str):
        for name, other in names.items():
            value = value.replace(name, other)
    return value
