"""The user's own number for an output, such as a loss, beside the gap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.errors import ModelError, UsageError
from bncli.live.imports import code_name, find, kind_of
from bncli.live.users_code import users_code
from bncli.loaders.names import quoted

if TYPE_CHECKING:
    from bncli.live.session import Metric


def open_metric(spec: str) -> Metric:
    """The function that `file.py:name` or `package.module:name` means, which gives a float.

    It is called with the model's output and the batch as the data gave it. Raises UsageError where
    that cannot be, FileError and ModelError where the code cannot be imported; the function raises
    ModelError where it gives something else than one number.
    """
    code = code_name(spec)
    if code is None:
        raise UsageError(
            f"--metric {quoted(spec)}: write file.py:name or package.module:name, such as "
            "seg.py:dice."
        )
    function = find(code, "metric")
    if not callable(function):
        raise UsageError(f"--metric {code}: it is {kind_of(function)}, not a function.")
    _check_arguments(str(code), function)

    def metric(output: Any, batch: Any) -> float:
        return _number(str(code), function(output, batch))

    return metric


def _check_arguments(name: str, function: Any) -> None:
    """Raise UsageError for a function that does not take the output and the batch."""
    from inspect import signature

    with users_code(f"looking at {name}"):
        try:
            taken = signature(function)
        except (TypeError, ValueError):  # of C, or one that hides it: calling it will tell
            return
        try:
            taken.bind(None, None)
        except TypeError as error:
            raise UsageError(
                f"--metric {name}: it is called with the model's output and the batch, but it "
                f"takes {taken}."
            ) from error


def _number(name: str, value: Any) -> float:
    """What the function gave, as a number. Raises ModelError for anything else."""
    shape = tuple(getattr(value, "shape", ()))
    if any(size != 1 for size in shape):
        raise ModelError(
            f"--metric {name}: it gave {kind_of(value)} of shape {list(shape)}, not one number; "
            "take the mean or the sum of it."
        )
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"--metric {name}: it gave {kind_of(value)}, not a number.") from error
