"""The types of the Python interface, bncli/__init__.pyi, made of the commands' flags."""

from __future__ import annotations

from enum import Enum

import bncli
from bncli.api.arguments import NOT_GIVEN, Argument, arguments_of
from bncli.api.documentation import purpose_of
from bncli.commands import COMMANDS

HEAD = '''"""The Python interface's types; `pytest tests/api/test_stub.py --update` renews them."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias, overload

from bncli import testing as testing
from bncli.api.recorded import Captured, Recorded
from bncli.api.report import Report
from bncli.cli import main as main
from bncli.errors import BncliError as BncliError
from bncli.errors import ExitCode as ExitCode
from bncli.loaders import open_file as open_file
from bncli.loaders import open_layer as open_layer
from bncli.loaders import open_tensor as open_tensor
from bncli.moments import channel_stats as channel_stats
from bncli.moments import merge as merge

__version__: str
__all__ = {names}

Path: TypeAlias = str | PathLike[str]
Given: TypeAlias = object
"""A path, or the object itself, such as an array, a module, or batches."""
'''

TEXTS = {
    "[GLOB=]NUMBER": "float | str | Mapping[str, float] | Sequence[str]",
    "[GLOB=]NUMBER|none": "float | str | Mapping[str, float | None] | Sequence[str]",
    "INDEX": "int | str | Sequence[int]",
    "LIST": "int | str | Iterable[int | str]",
    "LISTS": "str | Sequence[Any]",
    "NAME=VALUE": "str | Mapping[str, Any] | Sequence[str]",
    "NUMBER|none": "float",
    "SHAPE": "int | str | Sequence[int]",
    "keep|batches|N": "int | str",
}
"""The types of arguments that are texts on the command line, by their metavars."""

NAMED_BY_OTHERS = ("ComputeDtype", "DeviceName", "MemoryFormatName")
"""Enums for which NumPy and PyTorch have objects of their own."""


def stub() -> str:
    """The whole file, as ruff formats it."""
    names = ", ".join(f'"{name}"' for name in sorted(bncli.__all__, key=_as_ruff_sorts))
    listed = f"[\n    {names.replace(', ', f',{chr(10)}    ')},\n]"
    functions = [function(name) for name in COMMANDS]
    functions.append(
        'def schema() -> dict[str, Any]:\n    """The JSON Schema of `Report.to_dict()`."""\n'
    )
    return "\n".join([HEAD.replace("{names}", listed), *functions])


def _as_ruff_sorts(name: str) -> tuple[bool, str]:
    """Classes, then everything else."""
    return not name[0].isupper(), name


def function(name: str) -> str:
    """The signature of a command's function."""
    if name == "capture":
        return capture()
    return _signature(name, arguments_of(name), "Report")


def capture() -> str:
    """The context manager, and the function that runs the model over data."""
    arguments = arguments_of("capture")
    watching = [each for each in arguments if each.name in ("model", "frozen", "per_batch")]
    both = [
        f"@overload\n{_signature('capture', watching, 'Recorded')}",
        f"@overload\n{_signature('capture', arguments, 'Captured', ('model', 'data'))}",
    ]
    return "\n".join(both)


def _signature(name: str, arguments, returned: str, required=()) -> str:
    if name in ("capture", "diagnose"):
        required = (*required, "model")
    lines = []
    stars = [each for each in arguments if each.positional and each.many]
    for each in arguments:
        if not each.positional and not stars:
            lines.append("*")
            stars.append(each)
        lines.append(_parameter(each, required=each.name in required))
    body = "".join(f"    {line},\n" for line in lines)
    return f'def {name}(\n{body}) -> {returned}:\n    """{purpose_of(name)}"""\n'


def _parameter(argument: Argument, *, required: bool) -> str:
    kind = type_of(argument)
    if argument.positional and argument.many:
        return f"*{argument.name}: {kind}"
    if required:
        return f"{argument.name}: {kind}"
    default = argument.parameter.default
    if default is None or default is NOT_GIVEN:
        kind = kind if kind == "Given" else f"{kind} | None"
    shown = "..." if default is NOT_GIVEN else repr(default).replace("'", '"')
    return f"{argument.name}: {kind} = {shown}"


def type_of(argument: Argument) -> str:
    """The type of a value that is given."""
    if argument.takes_objects:
        return "Given"
    if argument.metavar in TEXTS:
        return TEXTS[argument.metavar]
    kind = argument.kind
    if issubclass(kind, Enum):
        members = ", ".join(f'"{each.value}"' for each in kind)
        return f"Literal[{members}]{' | Any' if kind.__name__ in NAMED_BY_OTHERS else ''}"
    if kind is str:
        one = "Path" if "FILE" in argument.metavar else "str"
        return f"{one} | Sequence[{one}]" if argument.many else one
    return kind.__name__
