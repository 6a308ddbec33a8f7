"""bncli verifies and inspects Batch Normalization: statistics, steps, buffers, checkpoints.

The names below are the public Python API; each is imported when it is first used, so that
`import bncli` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "channel_stats": "bncli.moments",
    "merge": "bncli.moments",
    "open_file": "bncli.loaders",
    "open_tensor": "bncli.loaders",
    "open_layer": "bncli.loaders",
    "main": "bncli.cli",
    "BncliError": "bncli.errors",
    "ExitCode": "bncli.errors",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  # every key of _HOMES is a string


def __getattr__(name: str) -> Any:
    """Import a public name from its home. Raises AttributeError for any other name."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bncli' has no attribute {name!r}")
    from importlib import import_module  # here, so that a process can handle signals before it

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
