"""How a value looks to a person; None and what is not finite are decided here, once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.report import printable

if TYPE_CHECKING:
    from bncli.report import Value


MANY_TIMES = 10
"""The share, 1000%, from which a percentage is written as so many times."""


def format_cell(value: Value, spec: str = ".6g") -> str:
    """A value as text: floats by `spec`, a list as (1, 2, 3), None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        if spec.endswith("%") and abs(value) >= MANY_TIMES:
            return f"{value:.3g} times"
        return format(value, spec)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return printable(value)
    return "(" + ", ".join(format_cell(item, spec) for item in value) + ")"


def format_fact(value: Value) -> str:
    """A fact as text; counts of several kinds as "43 trained, 10 identical"."""
    if isinstance(value, list | tuple) and value and all(map(_is_count, value)):
        return ", ".join(f"{pair[1]} {pair[0]}" for pair in value)
    return format_cell(value)


def _is_count(value: Value) -> bool:
    """Whether it is a pair of a kind and a number."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    kind, number = value
    return isinstance(kind, str) and isinstance(number, int)
