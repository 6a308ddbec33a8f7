"""What Typer refuses on a command line, said with what to type instead."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from typer import TyperException

from bncli.cli.help import lacking, metavar, typed
from bncli.commands import COMMANDS, DOCUMENTS
from bncli.paths import is_remote
from bncli.renderers import Format

ELSEWHERE = {
    "--tolerance": ("--rtol", "--atol"),
    "--tol": ("--rtol", "--atol"),
    "--epsilon": ("--eps",),
    "--gamma": ("--weight",),
    "--beta": ("--bias",),
    "--train": ("--training",),
    "--evaluation": ("--eval",),
    "--axis": ("--channel-axis",),
    "--channels": ("--channel",),
    "--layers": ("--layer",),
    "--debug": ("--verbose",),
    "--silent": ("--quiet",),
    "--strict": ("--fail-on",),
    "--ckpt": ("--checkpoint",),
    "--weights": ("--checkpoint",),
    "--dataset": ("--data",),
    "--loader": ("--data",),
    "--save": ("--save-stats",),
}
"""Flags as other tools call them, and what they are here."""


PARTS = (
    " Save the statistics of each batch with bncli compute --shard K/N --per-batch --save-stats "
    "FILE.npz, and give it these files."
)
"""How simulate-ema gets at batches that several tasks have read."""


CODE = re.compile(r".+\.py(:\w[\w.]*)?|\w+(\.\w+)*:\w[\w.]*")
"""A file of Python, or a name in one or in a module."""


def explained(error: TyperException, commands: Mapping[str, Any] | None = None) -> str:
    """The sentence for what Typer refused.

    `commands` are all commands by the name that is typed; without them they are built, where the
    sentence may name another one.
    """
    context: Any = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if hasattr(error, "possibilities"):
        return _no_such_flag(str(option), context, commands or _every_command())
    if option is not None:
        return _value_or_not(str(option), error, context)
    if getattr(error, "param", None) is not None:
        return _wrong_value(error, context)
    sentence = " ".join(error.format_message().split())
    if found := re.match(r"No such command '(.*)'\.", sentence):
        return _no_such_command(found[1])
    if found := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", sentence):
        return f"{context.command.name} takes fewer arguments; leave out {found[1]}."
    return sentence


def _every_command() -> Mapping[str, Any]:
    """All commands by the name that is typed."""
    import typer.main

    from bncli.cli import build_app

    group: Any = typer.main.get_command(build_app())
    commands: Mapping[str, Any] = group.commands
    return commands


def _flags(command: Any) -> list[str]:
    """The long and short flags of a command."""
    return [flag for each in command.params for flag in (*each.opts, *each.secondary_opts)]


def _no_such_flag(flag: str, context: Any, commands: Mapping[str, Any]) -> str:
    """What to type instead of a flag: another one, or the command that has it."""
    name = str(context.command.name)
    if name not in commands:  # of bncli itself
        return f"bncli has no flag {flag}; flags come after a command, and bncli --help lists them."
    own = [each for each in _flags(commands[name]) if each.startswith("-")]
    if flag in own:
        return f"write {flag} with two dashes."
    begin = f"{name} has no flag {flag}; "
    instead = ELSEWHERE.get(flag, ())
    if instead and set(instead) <= set(own):
        return f"{begin}use {_joined(instead, 'and')}."
    owners = [other for other, command in commands.items() if flag in _flags(command)]
    if owners:
        more = PARTS if (flag, name) == ("--shard", "simulate-ema") else ""
        return f"{flag} is a flag of {_joined(owners, 'and')}, not of {name}.{more}"
    if flag[2:] in {form.value for form in Format} and "--format" in own:
        return f"{begin}use -f {flag[2:]}."
    near = get_close_matches(flag, own, 1, 0.7) if flag.startswith("--") else []
    return f"{begin}did you mean {near[0]}?" if near else f"{begin}bncli {name} --help lists them."


def _value_or_not(flag: str, error: TyperException, context: Any) -> str:
    """That a flag's value is missing, or that it takes none."""
    if "requires an argument" not in error.format_message():
        return f"{flag} takes no value; write {flag} alone."
    param = next((each for each in context.command.params if flag in each.opts), None)
    form = metavar(param, context) if param is not None else "VALUE"
    return f"{flag} needs a value: {flag} {form}."


def _wrong_value(error: Any, context: Any) -> str:
    """What a value should have been, or that an argument is missing."""
    param = error.param
    if hasattr(error, "param_type"):  # it is missing
        return lacking(str(context.command.name).replace("-", "_"))
    flag = max(param.opts, key=len)
    said = " ".join(error.message.split())
    if found := re.match(r"(.*) is not a valid (int|float)", said):
        number = "whole number" if found[2] == "int" else "number"
        return f"{flag}: {found[1]} is not a {number}."
    if found := re.match(r"(.*) is not in the range", said):
        least, most = param.type.min, param.type.max
        return f"{flag}: {found[1]} is not {_range(least, most)}."
    choices = [str(choice) for choice in getattr(param.type, "choices", ())]
    if choices and (found := re.match(r"'(.*)' is not one of", said)):
        return f"{flag}: it takes {_joined(choices, 'or')}, not '{found[1]}'."
    return f"{flag}: {said}"


def _range(least: float | None, most: float | None) -> str:
    """What numbers a flag takes."""
    if most is None:
        return f"{least:g} or more"
    return f"from {least:g} to {most:g}" if least is not None else f"{most:g} or less"


def _no_such_command(word: str) -> str:
    """Which command was meant, or what to write before a file."""
    names = [typed(name) for name in (*COMMANDS, *DOCUMENTS)]
    if CODE.fullmatch(word):
        return (
            f"{word} is not a command; write bncli diagnose {word} --data FILE to find out what "
            "is wrong with that model in evaluation."
        )
    path = word.partition("::")[0]
    if is_remote(word) or os.path.exists(path):  # noqa: PTH110 (false for an impossible path)
        return (
            f"{word} is not a command; write bncli compute {word} for a tensor, or "
            f"bncli inspect-checkpoint {word} for a checkpoint."
        )
    if word == "merge":
        return (
            "there is no command merge; parts are merged by the command that reads them: bncli "
            "compute, diagnose, recalibrate, simulate-ema or inspect-checkpoint."
        )
    near = [name for name in names if name.startswith(word)] or get_close_matches(word, names)
    instead = f"did you mean {_joined(near, 'or')}?" if near else "bncli --help lists them."
    return f"there is no command {word}; {instead}"


def _joined(words: Iterable[str], last: str) -> str:
    """A list as people write it."""
    *before, end = words
    return f"{', '.join(before)} {last} {end}" if before else end
