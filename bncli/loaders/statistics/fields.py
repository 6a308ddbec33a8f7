"""The JSON header, read with suspicion: every value is of the kind that was written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from bncli.errors import CorruptFileError
from bncli.light import dataclass
from bncli.loaders.interface import lean_json
from bncli.loaders.names import quoted
from bncli.loaders.registry import STATISTICS

LARGEST, MOST_MARKS = 1 << 24, 1 << 20
"""How long the header may be, and how many marks it may have (`lean_json`): a layer has some 30
in 700 bytes."""
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""How numbers stand that JSON has none for."""

Kind = TypeVar("Kind")


def damaged(path: Path, fact: str) -> CorruptFileError:
    """The error for a statistics file that is not what bncli writes."""
    return CorruptFileError(
        path,
        f"{fact}; the statistics file is damaged or was changed, so save the statistics again.",
    )


def parsed(path: Path, text: bytes) -> Fields:
    """The header, which is one JSON object. Raises CorruptFileError."""
    if len(text) > LARGEST:
        raise damaged(path, f"its {STATISTICS} is far larger than the statistics need")
    try:
        values = lean_json(text, MOST_MARKS, parse_constant=_refuse)
    except ValueError:
        fact = f"its {STATISTICS} is not JSON, or far larger than the statistics need"
        raise damaged(path, fact) from None
    return Fields.of(path, "", values)


def number(value: float | None) -> float | str | None:
    """A number as the header has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def plain(value: Any) -> Any:
    """What `Capture.source` holds, as JSON has it; numbers that are not finite are their names."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return number(value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


@dataclass(frozen=True, slots=True)
class Fields:
    """An object of the header, and the keys that lead to it.

    Every method raises CorruptFileError where the key is missing or its value of another kind.
    """

    path: Path
    where: str
    values: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path, where: str, values: object) -> Fields:
        """The object; raises CorruptFileError for any other value."""
        if not isinstance(values, dict):
            raise damaged(path, f"{where or 'the value'} in its {STATISTICS} is not an object")
        return cls(path, where, values)

    def text(self, key: str) -> str:
        """A string."""
        return self._typed(key, str)

    def flag(self, key: str) -> bool:
        """True or false."""
        return self._typed(key, bool)

    def whole(self, key: str, least: int = 0) -> int:
        """A whole number that is not below `least`."""
        value = self._typed(key, int)
        if isinstance(value, bool) or value < least:
            raise self.wrong(key)
        return value

    def number(self, key: str) -> Any:
        """A number, whole or not, or None."""
        value = self.any(key)
        if isinstance(value, str) and value in NOT_FINITE:
            return NOT_FINITE[value]
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            return value
        raise self.wrong(key)

    def optional(self, key: str, kind: type[Kind]) -> Kind | None:
        """A value of this kind, or None."""
        return None if self.any(key) is None else self._typed(key, kind)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self._typed(key, list)
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(key)
        return tuple(values)

    def inner(self, key: str) -> Fields:
        """An object."""
        return Fields.of(self.path, self._place(key), self.any(key))

    def each(self, key: str) -> Iterator[Fields]:
        """The objects of a list."""
        for i, value in enumerate(self._typed(key, list)):
            yield Fields.of(self.path, f"{self._place(key)}[{i}]", value)

    def any(self, key: str) -> Any:
        """A value of any kind."""
        if key not in self.values:
            raise damaged(self.path, f"{self._place(key)} is missing in its {STATISTICS}")
        return self.values[key]

    def wrong(self, key: str) -> CorruptFileError:
        """The error for a value that no statistics file has."""
        shown = quoted(json.dumps(self.values[key]), 40)
        return damaged(self.path, f"{self._place(key)} in its {STATISTICS} cannot be {shown}")

    def _typed(self, key: str, kind: type[Kind]) -> Kind:
        value = self.any(key)
        if not isinstance(value, kind):
            raise self.wrong(key)
        return value

    def _place(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key
