"""What costs little when Python starts: frozen dataclasses, and NumPy when it is first used.

For a frozen class `dataclasses.dataclass` compiles six methods, one by one, whenever Python starts;
with the fifty classes of a call this was a third of what bncli adds to NumPy and Typer. Here
`__init__` alone is compiled, and the others are shared. It fills the slots themselves, since a
checkpoint has hundreds of thousands of such values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

__all__ = ["dataclass", "np"]

Fields = ParamSpec("Fields")
Made = TypeVar("Made")

COMPARED = "__compared__"
"""Where a class keeps what takes the fields that are compared out of a value."""

if TYPE_CHECKING:
    from dataclasses import dataclass

    import numpy as np
else:

    class _NumPy:
        """NumPy by its names, imported at the first of them; each is kept once it was asked for."""

        def __getattr__(self, name: str) -> Any:
            import numpy as np

            value = getattr(np, name)
            setattr(self, name, value)
            return value

    np = _NumPy()

    def dataclass(**flags: bool) -> Callable[[type], type]:
        """As `dataclasses.dataclass`, which does what is asked with other flags than these two."""
        if flags != {"frozen": True, "slots": True}:
            return dataclasses.dataclass(**flags)
        return _frozen


def _frozen(cls: type) -> type:
    """The class with fields and slots; methods of its own stay.

    Unlike the standard library's it knows no `hash=` of a field, and its subclasses are made here
    too. A field with `init=False` is free until it is set.
    """
    made: Any = dataclasses.dataclass(slots=True, init=False, eq=False, repr=False)(cls)
    made.__init__ = _init_of(made)
    names = [each.name for each in fields(made) if each.compare]
    compared = attrgetter(*names) if len(names) > 1 else partial(_few, names)
    setattr(made, COMPARED, compared)
    for name, method in METHODS.items():
        if name not in cls.__dict__:
            setattr(made, name, method)
    return cast("type", made)


def _init_of(made: Any) -> Callable[..., None]:
    """The `__init__` of a class with slots, as the standard library writes it."""
    known: dict[str, Any] = {"__missing": dataclasses.MISSING}  # no field is called like these
    arguments, lines = ["self"], []
    for each in fields(made):
        name = each.name
        known[f"__set_{name}"] = getattr(made, name).__set__
        value = name
        if each.default is not dataclasses.MISSING:
            known[f"__default_{name}"] = each.default
            argument = f"{name}=__default_{name}"
        elif each.default_factory is not dataclasses.MISSING:
            known[f"__factory_{name}"] = each.default_factory
            argument, value = f"{name}=__missing", f"__factory_{name}()"
            if each.init:
                value = f"{value} if {name} is __missing else {name}"
        else:
            argument = name
        if each.init:
            arguments.append(argument)
            lines.append(f" __set_{name}(self, {value})")
        elif argument != name:
            value = value if "(" in value else f"__default_{name}"
            lines.append(f" __set_{name}(self, {value})")
    if hasattr(made, "__post_init__"):
        lines.append(" self.__post_init__()")
    text = f"def __init__({', '.join(arguments)}):\n" + "\n".join(lines or [" pass"])
    exec(text, known)  # noqa: S102  # as the standard library does, of the names of fields
    init: Any = known["__init__"]
    init.__qualname__ = f"{made.__qualname__}.__init__"
    init.__module__ = made.__module__
    return cast("Callable[..., None]", init)


def filler(cls: Callable[Fields, Made]) -> Callable[Fields, Made]:
    """Returns a function that makes an instance of `cls`, a class made here, from keywords.

    It asks for every field, even one that has a default, and raises TypeError for any other set of
    names. It skips `__init__`, which takes four times as long, and `__post_init__`.
    """
    made: Any = cls
    fills = {each.name: made.__dict__[each.name].__set__ for each in fields(made)}
    new = object.__new__

    def fill(**values: object) -> Any:
        if values.keys() != fills.keys():
            raise TypeError(f"{made.__qualname__} is filled with {', '.join(fills)}")
        value = new(made)
        for name, given in values.items():
            fills[name](value, given)
        return value

    return cast("Callable[Fields, Made]", fill)


def _set(self: Any, name: str, value: object) -> None:
    """Set a field for the first time, as `__init__` does. Raises FrozenInstanceError afterwards."""
    if hasattr(self, name):
        raise FrozenInstanceError(f"cannot assign to field {name!r}")
    object.__setattr__(self, name, value)


def _delete(self: Any, name: str) -> None:  # noqa: ARG001  # no field is ever deleted
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _shown(self: Any) -> str:
    values = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{type(self).__qualname__}({', '.join(values)})"


def _equal(self: Any, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return bool(_compared(self) == _compared(other))


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _compared(value: object) -> Any:
    return getattr(type(value), COMPARED)(value)


def _few(names: list[str], value: Any) -> tuple[Any, ...]:
    """The fields of a value as a tuple, which `attrgetter` does not make of one or none."""
    return tuple(getattr(value, name) for name in names)


METHODS = {
    "__setattr__": _set,
    "__delattr__": _delete,
    "__repr__": _shown,
    "__eq__": _equal,
    "__hash__": _hash,
}
"""What the classes share."""
