"""What every command returns and every renderer takes: plain data, standard library only.

A cell, a fact or a piece of evidence is a `Value`: a string, a bool, an int, a float, None, or
a list of those. Arrays are turned into lists before they come here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from bncli.errors import ExitCode

Value = str | bool | int | float | None | Sequence["Value"]


class Severity(str, Enum):
    """How bad a finding is; the order is `rank`."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for error."""
        return ("info", "warning", "error").index(self.value)


class FailOn(str, Enum):
    """The least severity of a finding that makes the exit code 1."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the user's numbers that a person should know.

    `subject` is the place (a layer, a quantity, a channel), `message` the fact with its number,
    `hint` the mend, and `evidence` the numbers for a script.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    evidence: Mapping[str, Value] = field(default_factory=dict)
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: `key` for scripts, `title` for people.

    `spec` is the format specification for floats on a terminal; JSON and CSV carry them in full.
    Columns stand in the order of their weight: those that a narrow terminal has no room for
    follow in a table of their own. A `foldable` one is then said in a line, if it is the same in
    every row. One that `wraps` is prose, which goes on in the next line where there is no room.
    """

    key: str
    title: str
    spec: str = ".6g"
    foldable: bool = False
    wraps: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values under columns; every row holds every column's key.

    Where people look, consecutive rows alike in the columns `group` are drawn as a table of their
    own, with what they share in its heading; and a table too long for them is shortened: with
    `ends` to its first and its last rows, else to the rows that `digest` names, or to its first.
    A `whole` one is shown in full.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Value]]
    note: str = ""
    group: tuple[str, ...] = ()
    ends: bool = False
    digest: Sequence[int] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Named series over a common x axis."""

    key: str
    title: str
    x: Sequence[float]
    series: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Report:
    """All that a command has to say; `tables[0]` is its main table, the one that CSV carries.

    `verdict` is the closing line. `nothing_checked` makes the exit code 3. `read` names the
    files that were read, which no output may overwrite.
    """

    command: str
    facts: Mapping[str, Value]
    tables: tuple[Table, ...]
    findings: tuple[Finding, ...] = ()
    charts: tuple[Chart, ...] = ()
    verdict: str = ""
    nothing_checked: bool = False
    read: tuple[str, ...] = ()

    def exit_code(self, fail_on: FailOn = FailOn.ERROR) -> ExitCode:
        """The exit code this report asks for, given the least severity that fails."""
        if self.nothing_checked:
            return ExitCode.NOTHING
        if fail_on is FailOn.NEVER:
            return ExitCode.OK
        least = Severity(fail_on.value).rank
        if any(finding.severity.rank >= least for finding in self.findings):
            return ExitCode.FINDING
        return ExitCode.OK


def printable(text: str) -> str:
    """Text as one line that no terminal obeys; a name from a file may hold anything."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
