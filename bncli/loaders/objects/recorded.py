"""What a model's layers saw, in memory, in the place of a statistics file."""

from __future__ import annotations

from pathlib import Path

from bncli.errors import UnsupportedFileError
from bncli.given import object_of
from bncli.model.capture import Capture

RECORDING = "bncli.live.recording"
"""The module of the classes whose `capture` is what was seen; it is above this one."""


def is_recorded(value: object) -> bool:
    """Whether an object is what a statistics file would hold."""
    return isinstance(value, Capture) or (
        any(kind.__module__ == RECORDING for kind in type(value).__mro__)
        and hasattr(type(value), "capture")
    )


def capture_in(path: Path) -> Capture:
    """What the object that `path` names saw so far.

    Raises UnsupportedFileError for another kind of object, and ModelError where a layer's input
    could not be taken in.
    """
    value = object_of(path)
    if not is_recorded(value):
        raise UnsupportedFileError(
            path, "it does not hold statistics, as what bncli.capture gives does."
        )
    capture = value if isinstance(value, Capture) else value.capture  # type: ignore[attr-defined]  # as was asked
    assert isinstance(capture, Capture)
    return capture
