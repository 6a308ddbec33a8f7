"""A table of a report as Python has it: rows, columns, and a DataFrame where pandas is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from bncli import report
from bncli.errors import MissingBackendError
from bncli.light import dataclass

if TYPE_CHECKING:
    from pandas import DataFrame
    from typing_extensions import Self

    from bncli.report import Value

INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Table(report.Table):
    """A table: iterating gives its rows, each a mapping by the columns' keys.

    `table["mean"]` is a column, a list with the value of each row.
    """

    @classmethod
    def of(cls, table: report.Table) -> Self:
        """The same table."""
        return cls(*(getattr(table, field.name) for field in fields(table)))

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns' keys, in their order."""
        return tuple(column.key for column in self.columns)

    def __iter__(self) -> Iterator[Mapping[str, Value]]:
        """The rows."""
        return iter(self.rows)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    def __getitem__(self, key: str) -> list[Value]:
        """A column. Raises KeyError for a key that no column has."""
        if key not in self.keys:
            raise KeyError(f"the table {self.key} has no column {key!r}: {', '.join(self.keys)}")
        return [row[key] for row in self.rows]

    def __repr__(self) -> str:
        """What the table is, in a line."""
        return f"<table {self.key}: {len(self.rows)} rows of {', '.join(self.keys)}>"

    def to_pandas(self) -> DataFrame:
        """The table as a pandas DataFrame, a column for each key.

        Whole numbers are int64 and bools bool, or pandas' Int64 and boolean where one is missing;
        other numbers are float64, in which a missing one is NaN. Texts and lists are objects, None
        where there is none. Raises MissingBackendError where pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingBackendError(
                "to_pandas: pandas is not installed; `pip install pandas`."
            ) from error
        return pd.DataFrame(
            {key: pd.Series(self[key], dtype=_dtype(self[key])) for key in self.keys}
        )


def _dtype(values: list[Any]) -> str:
    """The dtype of a column that holds these values."""
    there = [value for value in values if value is not None]
    missing = len(there) < len(values)
    if not there:
        return "object"
    if all(isinstance(value, bool) for value in there):
        return "boolean" if missing else "bool"
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in there):
        if not all(isinstance(value, int) for value in there):
            return "float64"
        if all(value in INT64 for value in there):
            return "Int64" if missing else "int64"
    return "object"
