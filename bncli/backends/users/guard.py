"""What a user's backend is called, and how its code is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from bncli.light import dataclass

Running = Callable[[str], AbstractContextManager[None]]
"""Runs the user's code; it is told what runs, such as "the forward pass", and tells its errors.

It raises ModelError, a sentence, for whatever the code raises, and keeps what the code prints from
standard output.
"""


@dataclass(frozen=True, slots=True)
class Code:
    """A class or a function of the user's.

    `name` is how it was chosen, "package.module:name", and `called` what sentences and tables call
    it, the last part of that. `version` is that of its package, "" where that says none.
    """

    value: Any
    name: str
    called: str
    version: str
    running: Running

    @classmethod
    def of(cls, value: Any, running: Running, name: str = "") -> Code:
        """What is known of an object; `name` is "" where it was not named."""
        module = str(getattr(value, "__module__", "") or "")
        own = getattr(value, "__qualname__", "") or getattr(
            getattr(value, "func", None), "__qualname__", type(value).__name__
        )
        name = name or (f"{module}:{own}" if module else str(own))
        package = sys.modules.get(module.partition(".")[0])
        version = getattr(package, "__version__", "")
        return cls(
            value,
            name,
            (name.rpartition(":")[2] or str(own)).rpartition("<locals>.")[2],
            version if isinstance(version, str) else "",
            running,
        )
