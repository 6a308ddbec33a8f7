"""Values of Python as a command takes them: what its flags would be on the command line."""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from numbers import Real
from typing import TYPE_CHECKING, Any

from bncli.api.arguments import NOT_GIVEN, arguments_of, path_of
from bncli.commands import COMMANDS
from bncli.errors import UsageError
from bncli.given import name_of

if TYPE_CHECKING:
    from bncli.api.arguments import Argument

SHAPES = ("INDEX", "LIST", "SHAPE")
"""The metavars of flags that are whole numbers with commas between them."""
MOST_AXES = 64
"""How deep lists of numbers go, as NumPy's arrays do."""


def flags_of_call(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the command's function takes, by its parameters, for arguments of its Python function.

    Objects get a name in this call (`bncli.given`). Raises UsageError for a value that the argument
    does not take.
    """
    arguments = {each.name: each for each in arguments_of(name)}
    given = dict(given)
    for argument in arguments.values():
        if argument.positional:
            _take_inputs(argument, given, typed="values" in arguments)
    flags = {
        each.field: _value(each, given.get(each.name, NOT_GIVEN)) for each in arguments.values()
    }
    if any(each.required and not flags[each.field] for each in arguments.values()):
        raise UsageError(f"{name} needs {COMMANDS[name].needs}.")
    return flags


def _take_inputs(argument: Argument, given: dict[str, Any], *, typed: bool) -> None:
    """Make lists of inputs one list, and lists of numbers the typed values of the command."""
    value = given.get(argument.name)
    inputs: list[Any] = list(value or ()) if argument.many else [value]
    if typed and len(inputs) == 1 and _are_numbers(inputs[0]) and given.get("values") is None:
        given["values"], inputs = inputs[0], []
    elif argument.many:
        inputs = [one for each in inputs for one in (each if _is_list(each) else [each])]
    given[argument.name] = inputs if argument.many else next(iter(inputs), None)


def _is_list(value: object) -> bool:
    """Whether a value is a list of values, and not one in itself."""
    return isinstance(value, (list, tuple, set, frozenset, range))


def _are_numbers(value: object) -> bool:
    """Whether a value is a list of numbers, or of such lists, as far as an array has axes."""
    for _ in range(MOST_AXES):  # a list may hold itself
        if not isinstance(value, (list, tuple)) or not value:
            return False
        value = value[0]
        if isinstance(value, Real):
            return True
    return False


def _value(argument: Argument, value: Any) -> Any:
    """A value as the command takes it; raises UsageError as `flags_of_call`."""
    if value is NOT_GIVEN or (value is None and not argument.takes_none):
        return [] if argument.positional and argument.many else argument.default
    if argument.many:
        return [_one(argument, each) for each in _several(argument, value)]
    return _one(argument, value)


def _several(argument: Argument, value: Any) -> Iterable[Any]:
    """The values of an argument that may have several, each as one text or object."""
    if isinstance(value, Mapping) and argument.metavar == "NAME=VALUE":
        return [f"{name}={_literal(argument, name, each)}" for name, each in value.items()]
    if isinstance(value, Mapping) and argument.metavar.startswith("[GLOB=]"):
        return [f"{glob}={_one(argument, each)}" for glob, each in value.items()]
    if argument.metavar in SHAPES and hasattr(value, "tolist"):
        value = value.tolist()
    if argument.takes_objects and argument.name == "data":
        if _is_list(value) and not value:
            raise UsageError(f"{argument.flag}: there is no batch in an empty {_shown(value)}.")
        paths = _is_list(value) and all(path_of(each) is not None for each in value)
        return value if paths else [value]
    return value if _is_list(value) else [value]


def _literal(argument: Argument, name: str, value: object) -> str:
    """A value of the user's own function as the text that means it. Raises UsageError."""
    text = repr(value)
    try:
        same = type(ast.literal_eval(text)) is type(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        same = False
    if not same:
        raise UsageError(
            f"{argument.flag} {name}: it takes Python literals, not {type(value).__name__}; build "
            "the model yourself, and give it."
        )
    return text


def _one(argument: Argument, value: Any) -> Any:
    """One value of an argument; raises UsageError for what it does not take."""
    kind = argument.kind
    if kind is bool:
        if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
            return bool(value)
        raise _refusal(argument, "True or False", value)
    if kind is int:
        return _in_range(argument, _whole(argument, value))
    if kind is float:
        return _in_range(argument, _number(argument, value))
    if issubclass(kind, Enum):
        return _choice(argument, kind, value)
    return _text(argument, value)


def _whole(argument: Argument, value: Any) -> int:
    """A whole number. Raises UsageError."""
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise UsageError(f"{argument.flag}: {_shown(value)} is not a whole number.")


def _number(argument: Argument, value: Any) -> float:
    """A number. Raises UsageError."""
    if not isinstance(value, (bool, str, bytes)):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise UsageError(f"{argument.flag}: {_shown(value)} is not a number.")


def _in_range(argument: Argument, value: Any) -> Any:
    """The same number. Raises UsageError for one that the flag does not take."""
    least, most = argument.least, argument.most
    if (least is not None and value < least) or (most is not None and value > most):
        bounds = f"{least:g} or more" if most is None else f"from {least:g} to {most:g}"
        raise UsageError(f"{argument.flag}: {value} is not {bounds}.")
    return value


def _choice(argument: Argument, kind: type[Enum], value: Any) -> Enum:
    """The member of an enum that a value means. Raises UsageError.

    By itself, by its text, or as NumPy and PyTorch have it: a dtype, a device, a memory format.
    """
    names = (getattr(value, name, None) for name in ("name", "type", "__name__"))
    for each in (value, *names, str(value).rpartition(".")[2]):
        if isinstance(each, str):
            with suppress(ValueError):
                return kind(each)
    *before, last = (str(each.value) for each in kind)
    raise _refusal(argument, f"{', '.join(before)} or {last}" if before else last, value)


def _text(argument: Argument, value: Any) -> str:
    """A value as it would be typed; an object by its name in this call. Raises UsageError."""
    if (path := path_of(value)) is not None:
        if "\0" in path:
            raise UsageError(f"{argument.flag.rstrip('.')}: {_shown(path)} has a null byte in it.")
        return path
    if argument.metavar == "LISTS":
        return _typed(argument, value)
    if argument.metavar in SHAPES:
        numbers = value.tolist() if hasattr(value, "tolist") else value
        numbers = list(numbers) if isinstance(numbers, (Sequence, range)) else [numbers]
        return ",".join(str(_whole(argument, each)) for each in numbers)
    number = isinstance(value, Real)
    if argument.takes_objects:
        if value is None or number:
            takes = "a path or an object with values"
            if argument.name == "against":
                takes = "the name of a backend, a class or a function"
            raise _refusal(argument, takes, value)
        return name_of(value)
    if value is None:
        return "none"
    if isinstance(value, Enum):
        return str(value.value)
    if number and str(value) not in ("True", "False"):
        return _number_text(value)
    raise _refusal(argument, "a path" if "FILE" in argument.metavar else "text", value)


def _typed(argument: Argument, value: Any) -> str:
    """Lists of numbers as they would be typed. Raises UsageError for anything else."""
    if hasattr(value, "tolist"):
        raise UsageError(
            f"{argument.flag}: it takes lists of numbers; give an array or a tensor as the first "
            "argument."
        )
    if not isinstance(value, (list, tuple)):
        raise _refusal(argument, "lists of numbers", value)
    try:
        return json.dumps(value, default=_plain)
    except (TypeError, ValueError, RecursionError):  # another object, or a list that holds itself
        raise UsageError(
            f"{argument.flag}: a list in it holds itself, or something that is not a number."
        ) from None


def _number_text(value: Any) -> str:
    """A number as it would be typed, with all digits."""
    try:
        return str(operator.index(value))
    except TypeError:
        return repr(float(value))


def _plain(value: Any) -> Any:
    """A number of NumPy's as one of Python's. Raises TypeError for anything else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(type(value).__name__)


def _shown(value: object) -> str:
    """A value in a sentence."""
    kind = type(value)
    plain = value is None or isinstance(value, (str, int, float))
    plain = plain or kind.__name__.endswith(("dtype", "DType", "device"))  # NumPy's and PyTorch's
    text = repr(value) if plain else kind.__name__
    if isinstance(value, Real) and not plain:
        text = f"the number {value}"
    if isinstance(value, type):
        text = f"{value.__module__}.{value.__qualname__}".removeprefix("builtins.")
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refusal(argument: Argument, takes: str, value: object) -> UsageError:
    """The error for a value that an argument does not take."""
    return UsageError(f"{argument.flag.rstrip('.')}: it takes {takes}, not {_shown(value)}.")
