"""The rows of many files, kept as columns: a dictionary for each takes far more memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from bncli.report import Value

    Row = dict[str, Value]

ALIKE = ("name", "dtype", "scale_sketch", "momentum_said")
"""Columns of texts that many rows share; each text is kept once."""
NOTHING: list[Value] = []
"""What every row says of eps and momentum that flags replace, where they replace none."""


class Rows(Sequence["Row"]):
    """Rows that all have the same keys. One that is asked for is made anew; changing it is vain.

    `columns` has what they hold, by key.
    """

    def __init__(self, rows: Iterable[Mapping[str, Value]] = ()) -> None:
        self.columns: dict[str, list[Value]] = {}
        self._texts: dict[Value, Value] = {}
        self._length = 0
        self.extend(rows)

    def append(self, row: Mapping[str, Value]) -> None:
        """Add a row, which has the keys of the others."""
        self._add({key: (value,) for key, value in row.items()}, 1)

    def extend(self, rows: Iterable[Mapping[str, Value]]) -> None:
        """Add some rows."""
        if isinstance(rows, Rows):
            self._add(rows.columns, len(rows))
            return
        for row in rows:
            self.append(row)

    def _add(self, columns: Mapping[str, Sequence[Value]], length: int) -> None:
        """Add rows by their columns. Raises ValueError where their keys are others."""
        if not length:
            return
        if not self.columns:
            self.columns = {key: [] for key in columns}
        elif columns.keys() != self.columns.keys():
            raise ValueError(f"rows with other keys: {', '.join(columns)}")
        for key, values in columns.items():
            if key in ALIKE:
                self.columns[key] += [self._texts.setdefault(each, each) for each in values]
            elif key == "replaced":
                self.columns[key] += [each or NOTHING for each in values]
            else:
                self.columns[key] += values
        self._length += length

    def column(self, key: str) -> list[Value]:
        """What all rows have under a key."""
        return self.columns.get(key, [])

    def fill(self, key: str, values: Sequence[Value]) -> None:
        """Give the rows other values under a key that they have."""
        if self.columns:
            self.column(key)[:] = values

    def __len__(self) -> int:
        """How many there are."""
        return self._length

    def __iter__(self) -> Iterator[Row]:
        """The rows, one at a time."""
        keys = tuple(self.columns)
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(keys, values, strict=True))

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Rows: ...

    def __getitem__(self, index: int | slice) -> Row | Rows:
        """A row, or some of them."""
        if isinstance(index, int):
            return {key: column[index] for key, column in self.columns.items()}
        some = Rows()
        some.columns = {key: column[index] for key, column in self.columns.items()}
        some._length = len(range(self._length)[index])
        return some

    def __eq__(self, other: object) -> bool:
        """Whether these are the same rows in the same order, in whatever sequence."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list
