"""A command's flags: those that it takes one by one, and those that it takes as a group.

A group is a frozen dataclass, each field of which is a flag. A command that has it as a parameter
gets all of its flags there, and is called with the group.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints


def bare(hint: Any) -> Any:
    """An annotation without the Optional that Python 3.10 puts around it where the default is None.

    Typer would not see an argument or an option inside such an Optional.
    """
    arguments = get_args(hint)
    if get_origin(hint) is Union and len(arguments) == 2 and get_origin(arguments[0]) is Annotated:
        return arguments[0]
    return hint


@cache
def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a command or a group, with annotations that are types and not texts."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: parameter.replace(annotation=bare(hints[name]))
        for name, parameter in inspect.signature(function).parameters.items()
    }


def flags_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The flags of a command or of a group, one by one, in their order; groups taken apart."""
    found = []
    for parameter in _parameters(function).values():
        hint = parameter.annotation
        if is_dataclass(hint) and isinstance(hint, type):
            found += flags_of(hint)
        else:
            found.append(parameter)
    return found


def call(function: Callable[..., Any], flags: dict[str, Any]) -> Any:
    """Call a command, or make a group, with its flags; they are taken out of `flags`."""
    arguments = {}
    for name, parameter in _parameters(function).items():
        group = parameter.annotation
        if is_dataclass(group) and isinstance(group, type):
            arguments[name] = call(group, flags)
        else:
            arguments[name] = flags.pop(name)
    return function(**arguments)
