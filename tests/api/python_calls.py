"""A call of the command line as a call of Python, argument by argument."""

from __future__ import annotations

import shlex
from typing import Any

from bncli.api.arguments import arguments_of


def python_call(line: str) -> tuple[str, list[str], dict[str, Any]]:
    """The function's name, its inputs, and its other arguments."""
    command, *words = shlex.split(line)
    name = command.replace("-", "_")
    by_flag = {each.flag: each for each in arguments_of(name) if not each.positional}
    by_off = {each.off: each for each in by_flag.values() if each.off}
    inputs: list[str] = []
    given: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag in by_off:
            given[by_off[flag].name] = False
        elif flag not in by_flag:
            inputs.append(word)
        elif by_flag[flag].kind is bool:
            given[by_flag[flag].name] = True
        else:
            argument = by_flag[flag]
            typed = as_typed(argument, value if equals else next(rest))
            if argument.many:
                given.setdefault(argument.name, []).append(typed)
            else:
                given[argument.name] = typed
    return name, inputs, given


def as_typed(argument, text: str) -> Any:
    """The value that a Python user would write."""
    if argument.kind in (int, float):
        return argument.kind(text)
    if argument.takes_none and "=" not in text:
        return None if text == "none" else float(text)
    return text
