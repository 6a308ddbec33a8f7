"""The registry of backends: one file each, imported when it is asked for.

A new backend is a module with `BACKEND`, an `interface.Backend`, and an entry here. Those that a
user wrote are made by `users`, of the class or function that was named.
"""

from __future__ import annotations

from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from bncli.backends.interface import Backend


class BackendName(str, Enum):
    """Every backend; the value is the name of the module behind it."""

    TORCH = "torch"


def backend(name: BackendName) -> Backend:
    """The backend of that name."""
    return cast("Backend", import_module(f"bncli.backends.{name.value}").BACKEND)


def installed(name: BackendName) -> Backend:
    """The backend of that name. Raises MissingBackendError where its library is not installed."""
    library = backend(name)
    library.version()
    return library
