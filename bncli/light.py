"""What costs little when Python starts: frozen dataclasses, and NumPy when it is first used.

For a frozen class `dataclasses.dataclass` compiles six methods, one by one, whenever Python starts;
with the fifty classes of a call this was a third of what bncli adds to NumPy and Typer. Here
`__init__` alone is compiled, and the others are shared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "np"]

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
    """The class with fields and slots; methods of its own stay."""
    made: type = dataclasses.dataclass(slots=True, eq=False, repr=False)(cls)
    for name, method in METHODS.items():
        if name not in cls.__dict__:
            setattr(made, name, method)
    return made


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
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _compared(value: Any) -> tuple[Any, ...]:
    return tuple(getattr(value, each.name) for each in fields(value) if each.compare)


METHODS = {
    "__setattr__": _set,
    "__delattr__": _delete,
    "__repr__": _shown,
    "__eq__": _equal,
    "__hash__": _hash,
}
"""What the classes share."""
