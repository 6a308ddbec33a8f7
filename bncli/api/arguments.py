"""The arguments of a command's function in Python, each of which is a flag of the command line."""

from __future__ import annotations

import inspect
import keyword
import os
import re
from collections.abc import Callable
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from bncli.arguments.options import AllowMissingParts, Download, NoChecksum
from bncli.arguments.output import Output
from bncli.cli.flags import flags_of
from bncli.commands import COMMANDS, command
from bncli.light import dataclass

LEFT_OUT = {
    "format": "write the report with report.save(FILE)",
    "output": "write the report with report.save(FILE)",
    "width": "print(report) is as wide as the terminal",
    "verbose": "report.tables has every table and column",
    "quiet": "nothing is printed",
    "distributed": "torchrun starts bncli, as the command line, with --distributed",
}
"""Flags of the command line that are no arguments in Python, and what there is instead."""


class NotGiven(Enum):
    """What stands for an argument that is not given, where None is a value."""

    NOT_GIVEN = "..."

    def __repr__(self) -> str:
        """As a signature shows it."""
        return self.value


NOT_GIVEN = NotGiven.NOT_GIVEN

GIVEN = re.compile(r"MODEL|STATS|CKPT|INPUT|FILE(\[|\||\.py)|\|CODE")
"""What the metavar of a flag has in it that takes an object of Python in the place of a path."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: its `name` in Python, and the `flag` that it is on the command line.

    `field` is the parameter of the command that takes it, `kind` the type of its value or of each
    of them if it takes `many`, and `least` and `most` bound a number. A `positional` one has no
    flag, and `flag` is how the command's help calls it; some are `required`. `off` is the flag for
    False, if there is one.
    """

    name: str
    field: str
    flag: str
    kind: type
    many: bool
    default: Any
    metavar: str
    help: str
    positional: bool = False
    required: bool = False
    off: str = ""
    least: float | None = None
    most: float | None = None
    stands_for: str | bool = ""

    @property
    def takes_none(self) -> bool:
        """Whether None is a value, such as the momentum of the cumulative average."""
        return "none" in self.metavar.split("|")

    @property
    def takes_objects(self) -> bool:
        """Whether an object of Python may stand in the place of a path."""
        return GIVEN.search(self.metavar) is not None

    @property
    def parameter(self) -> inspect.Parameter:
        """The parameter of the function in Python."""
        if self.positional and self.many:
            return inspect.Parameter(self.name, inspect.Parameter.VAR_POSITIONAL)
        either, alone = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        kind = either if self.positional else alone
        default = NOT_GIVEN if self.takes_none else self.default
        if isinstance(default, Enum) and default is not NOT_GIVEN:
            default = default.value
        return inspect.Parameter(self.name, kind, default=default)


@cache
def arguments_of(name: str) -> tuple[Argument, ...]:
    """The arguments of a command, positional ones first, and after its own those of all."""
    entry = COMMANDS[name]
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    flags = [each for each in flags_of(command(name)) if each.name != "distributed"]
    of_reading = {
        **({"no_checksum": NoChecksum, "download": Download} if entry.reads else {}),
        **({"allow_missing_parts": AllowMissingParts} if entry.merges else {}),
    }
    flags += [
        inspect.Parameter(flag, keyword_only, default=False, annotation=hint)
        for flag, hint in of_reading.items()
    ]
    flags += [each for each in flags_of(Output) if each.name not in LEFT_OUT]
    found = list(map(_argument, flags))
    return tuple(sorted(found, key=lambda each: not each.positional))


def _argument(parameter: inspect.Parameter) -> Argument:
    """The argument that a parameter of a command is."""
    hint, option = get_args(parameter.annotation)[:2]
    kind, many = _kind_of(hint)
    declared = [option.default] if isinstance(option.default, str) else []
    names = [*declared, *(option.param_decls or ())]
    long = next((each for each in names if each.startswith("--")), "")
    positional = type(option).__name__ == "ArgumentInfo"
    field = parameter.name
    on, _, off = long.partition("/")
    flag = option.metavar if positional else on or f"--{field.replace('_', '-')}"
    if not (off or positional) and kind is bool and not long:
        off = f"--no-{field.replace('_', '-')}"
    name = field.strip("_") if positional else flag[2:].replace("-", "_")
    return Argument(
        name=f"{name}_" if keyword.iskeyword(name) else name,
        field=field,
        flag=flag,
        kind=kind,
        many=many,
        default=None if parameter.default in (inspect.Parameter.empty, ()) else parameter.default,
        metavar=option.metavar or "",
        help=option.help,
        positional=positional,
        required=parameter.default is inspect.Parameter.empty,
        off=off,
        least=option.min,
        most=option.max,
        stands_for=option.show_default,
    )


def _kind_of(hint: Any) -> tuple[type, bool]:
    """The type of a value, and whether there may be several."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    many = get_origin(hint) is list
    return (get_args(hint)[0] if many else hint), many


def signature_of(name: str) -> inspect.Signature:
    """The signature of a command's function in Python."""
    return inspect.Signature([each.parameter for each in arguments_of(name)])


def refuse_unknown(name: str, given: dict[str, Any]) -> None:
    """Raise TypeError for an argument that the command has not, with the one that is meant."""
    names = [each.name for each in arguments_of(name)]
    for argument in given:
        if argument not in names:
            begin = f"{name}() got an unexpected keyword argument '{argument}'"
            raise TypeError(f"{begin}{_instead_of(argument, name, names)}")


def _instead_of(argument: str, name: str, names: list[str]) -> str:
    """What to write in the place of an argument that there is not, behind the fact."""
    from difflib import get_close_matches

    from bncli.cli.mistakes import ELSEWHERE

    if argument in LEFT_OUT:
        return f"; {LEFT_OUT[argument]}."
    flag = f"--{argument.replace('_', '-')}"
    off = next((each for each in arguments_of(name) if each.off == flag), None)
    if off is not None:
        return f"; write {off.name}=False."
    known: Callable[[str], str] = lambda each: each[2:].replace("-", "_")  # noqa: E731  # two uses
    instead = [known(each) for each in ELSEWHERE.get(flag, ())]
    if not instead or not set(instead) <= set(names):
        instead = get_close_matches(argument, names, 1, 0.6)
        if f"{argument}_" in names:
            instead = [f"{argument}_"]
    return f"; did you mean {' and '.join(map(repr, instead))}?" if instead else ""


def path_of(value: object) -> str | None:
    """A text or a path as the command line has it; None for anything else."""
    if isinstance(value, str):
        return str(value) if not isinstance(value, Enum) else None
    return os.fsdecode(value) if isinstance(value, os.PathLike) else None
