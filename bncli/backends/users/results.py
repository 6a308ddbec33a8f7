"""What a user's code returned, checked: arrays by quantity, in the user's axes."""

from __future__ import annotations

from typing import Any

from bncli.backends.arithmetic import Arithmetic
from bncli.backends.interface import BackendRun, BatchNormCall, Overwritten
from bncli.backends.users.arrays import dtype_of, to_numpy
from bncli.backends.users.guard import Code
from bncli.errors import ModelError
from bncli.light import np


def output_of(value: Any, like: Any, dtype: str, code: Code) -> Any:
    """An output as a NumPy array, bfloat16 as float32.

    Raises ModelError where its shape is not that of the input `like`, or its dtype not `dtype`.
    """
    found = to_numpy(value, "the output", code)
    shape = tuple(like.shape)
    if found.shape != shape:
        raise ModelError(
            f"{code.called}: the output has shape {list(found.shape)}, but the input has "
            f"{list(shape)}; BatchNorm keeps its input's shape."
        )
    held = dtype_of(value)
    allowed = {dtype} | ({"float32"} if dtype == "bfloat16" and dtype_of(like) != dtype else set())
    if held not in allowed:
        raise ModelError(
            f"{code.called}: the output is {held or found.dtype}, but the input is {dtype}; "
            "BatchNorm keeps its input's dtype."
        )
    return found


def per_channel(value: Any, features: int, what: str, code: Code) -> Any:
    """One value a channel, (num_features,), in whatever shape it is kept, such as (1, C, 1, 1)."""
    found = to_numpy(value, what, code)
    if found.size != features or max(found.shape, default=1) != features:
        raise ModelError(
            f"{code.called}: {what} has shape {list(found.shape)}, but there are {features} "
            "channels."
        )
    return found.reshape(features)


def run_of(
    found: dict[str, Any], call: BatchNormCall, changed: tuple[Overwritten, ...], threads: int = 1
) -> BackendRun:
    """The run of a user's code, of which nothing is known but that it sums in float32 or wider.

    `found` has its arrays by quantity, with the channels on axis 1; `changed` are the arguments
    that it changed in place.
    """
    for name in ("output", "grad_input"):
        if name in found:
            found[name] = np.moveaxis(found[name], 1, call.channel_axis)
    additions = call.x.size // max(call.x.shape[call.channel_axis], 1)
    computed_in = "float64" if call.dtype == "float64" else "float32"
    arithmetic = Arithmetic.plain(
        call.dtype, call.parameter_dtype, additions, computed_in=computed_in
    )
    return BackendRun(found, arithmetic, threads, changed)


def overwritten(name: str, before: Any, after: Any) -> tuple[Overwritten, ...]:
    """An argument whose values changed, if any did; NaN is equal to NaN."""
    after = np.asarray(after).reshape(np.shape(before))
    changed = int(((before != after) & ~(np.isnan(before) & np.isnan(after))).sum())
    return (Overwritten(name, changed, after.size),) if changed else ()
