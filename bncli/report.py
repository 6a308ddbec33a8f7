"""What every command returns and every renderer takes: plain data, standard library only.

A cell, a fact or a piece of evidence is a `Value`: a string, a bool, an int, a float, None, or
a list of those. Arrays are turned into lists before they come here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from enum import Enum
from types import MappingProxyType

from bncli.errors import ExitCode
from bncli.light import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bncli.pictures import Shown

Value = str | bool | int | float | None | Sequence["Value"]
Member = str | tuple[str, int, int]

MOST_ROWS = 100_000
"""Rows of a table, in every format; a flag such as --channel chooses which."""

ANSWER_ROWS = 20
"""Rows of the table that carries the answer; a screen of 24 lines holds about as many."""

BRACKETED = re.compile(r"##(?=\w*\[)")
"""What begins a command of Azure, TeamCity and old GitHub wherever it stands in a line."""

COMMANDS = ("::", "--- ", "+++ ", "~~~ ", "^^^ ")
"""What begins a command of GitHub, or a group of Buildkite's, at the beginning of a line."""


class Severity(str, Enum):
    """How bad a finding is; the order is `rank`."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def label(self) -> str:
        """What people read: an info is a note."""
        return "note" if self is Severity.INFO else self.value

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for error."""
        return ("info", "warning", "error").index(self.value)


class Certainty(str, Enum):
    """How sure a finding is of what it says; the value is what a person reads.

    CERTAIN is proven by the numbers, LIKELY the best reading of them, and ASSUMED holds if a value
    does that was not given, such as an assumed eps.
    """

    CERTAIN = "certain"
    LIKELY = "likely"
    ASSUMED = "depends on an assumption"


class FailOn(str, Enum):
    """The least severity of a finding that makes the exit code 1."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    NEVER = "never"

    @classmethod
    def _missing_(cls, value: object) -> FailOn | None:
        """INFO for "note", which is what reports call it."""
        return cls.INFO if value == Severity.INFO.label else None


class Saved(Enum):
    """Whether a report is written to the files of -o: always, to new ones alone, or not at all."""

    YES = "yes"
    NEW = "new"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the user's numbers that a person should know.

    `subject` is the place (a layer, a quantity, a channel), `message` the claim with its number in
    a line, without a full stop, `detail` what else supports it, in sentences, `hint` the fix, and
    `evidence` the numbers for a script. `claim` is what all findings of its rule say, and heads
    them where several are told together. `path` is the file it is about, ""
    where a command reads its files as one input. `extent` holds what may not grow while the
    finding stays known in a baseline: names and other text, and runs of channels as
    `(what, first, last)`. `places` says where it is in words that stay, if the subject holds
    numbers, and has several where the finding stands for as many; empty is the subject alone.
    `where` is the place as people read it, if that is not the file and the subject.
    `instead_of` has the codes of the findings in the place of which this one is said, None where
    that is not known: what knows all of them knows this one.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    evidence: Mapping[str, Value] = field(default_factory=dict)
    hint: str = ""
    path: str = ""
    extent: tuple[Member, ...] = ()
    places: tuple[str, ...] = ()
    instead_of: tuple[str, ...] | None = None
    claim: str = ""
    detail: str = ""
    certainty: Certainty = Certainty.CERTAIN
    where: str = ""

    @property
    def text(self) -> str:
        """The claim and what supports it, in sentences."""
        return f"{self.message.rstrip('.')}. {self.detail}".rstrip()


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A finding that the user chose not to hear of; it counts for no exit code.

    `by` says what took it out: "select", "ignore" or "baseline".
    """

    finding: Finding
    by: str


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that could not be read while others could; `problem` is a sentence."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: `key` for scripts, `title` for people.

    `spec` is the format specification for floats on a terminal; JSON and CSV carry them in full.
    In the answer, a column whose `spare` is not 0 is shown only where there is room, the greatest
    number being the first to go. In the full tables, columns stand in the order of their
    importance: those that a narrow terminal has no room for follow in a table of their own. A
    `foldable` one is then said in a line, if it is the same in every row. One that `wraps` is
    prose, which goes on in the next line where there is no room.
    """

    key: str
    title: str
    spec: str = ".6g"
    foldable: bool = False
    wraps: bool = False
    spare: int = 0

    @classmethod
    def plain(
        cls, *keys: str, spec: str = ".6g", foldable: bool = False, spare: int = 0
    ) -> tuple[Column, ...]:
        """Columns whose keys are their titles too."""
        return tuple(cls(key, key, spec, foldable, spare=spare) for key in keys)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values under columns; every row holds every column's key.

    Where people look, consecutive rows alike in the columns `group` are drawn as a table of their
    own, with what they share in its heading. The first `lead` columns name a row: where the table
    is cut to fit a terminal, every piece begins with them. `note` is said below it. `left_out` rows
    are not there: no table has more than MOST_ROWS.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Value]]
    note: str = ""
    group: tuple[str, ...] = ()
    lead: int = 1
    left_out: int = 0

    @property
    def abridged(self) -> bool:
        """Whether its note refers to -v for the rows that it leaves out."""
        return "-v lists" in self.note

    def shortened(self) -> Table:
        """The table with its first MOST_ROWS rows, and the number of the others."""
        more = len(self.rows) - MOST_ROWS
        if more <= 0:
            return self
        return replace(self, rows=self.rows[:MOST_ROWS], left_out=self.left_out + more)


@dataclass(frozen=True, slots=True)
class Chart:
    """Named series over a common x axis."""

    key: str
    title: str
    x: Sequence[float]
    series: Mapping[str, Sequence[float | None]]


Answer = Callable[["Report", FailOn], tuple[Table, ...]]
"""What makes the answer of a report whose findings are those that count."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that a command has to say; `tables[0]` is its main table, the one that CSV carries.

    People see the `subject` (what was looked at, and what was assumed of it, in a line or two), the
    findings, the `answer` (the table that carries it, of at most ANSWER_ROWS rows that fit a narrow
    terminal; the main table if it is empty; or what makes it of the findings that count), the
    `remarks` (a line each), and the verdict. Everything else is told by -v: the facts, all `tables`
    and the `charts`, which are `drawn` by default if the user asked for them.
    A page (HTML) shows the `pictures`, or what makes them when they are wanted.

    `verdict` is a sentence without a full stop. Where the report is delivered, it comes to begin
    with a `word` (PASS, WARN, FAIL, NOTHING or ERROR), and to count the findings, in the `scope`
    that was judged ("100 BatchNorm layers") if there is one. A report that `judged` nothing, and
    found nothing, has no word. `nothing_checked` makes the exit code 3. `read` names the files that
    were read, which no output may overwrite, and `unread` those that could not be: they make the
    exit code 2. `checked` holds the places that were judged (a file's layers, under its path), by
    the names that findings use as `subject`; `partial` says that the user left some of them out,
    and `names` has all that the file holds, chosen or not. `about` tells what findings without a
    path of their own are about: each input as (path, name in it), and other words as ("", words).
    `suppressed` is empty until the report is delivered. `part` is the fact of that name, which JSON
    alone carries: what it takes to make the report of a whole from those of its parts. `saved` is
    what becomes of -o. `findings` are kept `in_order`, which is
    the one order in which every format says them.
    """

    command: str
    facts: Mapping[str, Value]
    tables: tuple[Table, ...]
    findings: tuple[Finding, ...] = ()
    charts: tuple[Chart, ...] = ()
    pictures: tuple[Shown, ...] | Callable[[], tuple[Shown, ...]] = ()
    verdict: str = ""
    subject: tuple[str, ...] = ()
    answer: tuple[Table, ...] | Answer = ()
    remarks: tuple[str, ...] = ()
    scope: str = ""
    judged: bool = True
    drawn: bool = False
    word: str = ""
    nothing_checked: bool = False
    read: tuple[str, ...] = ()
    unread: tuple[Unread, ...] = ()
    checked: Mapping[str, Sequence[str]] = field(default_factory=dict)
    partial: bool = False
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    about: tuple[tuple[str, str], ...] = ()
    suppressed: tuple[Suppressed, ...] = ()
    part: Mapping[str, object] = field(default_factory=dict)
    saved: Saved = Saved.YES

    def __post_init__(self) -> None:
        """Put the findings in their order, whoever found them."""
        object.__setattr__(self, "findings", in_order(self.findings, self.names))

    def exit_code(self, fail_on: FailOn = FailOn.ERROR) -> ExitCode:
        """The exit code this report asks for, given the least severity that fails."""
        if self.unread:
            return ExitCode.ERROR
        if self.nothing_checked:
            return ExitCode.NOTHING
        if any(fails(finding, fail_on) for finding in self.findings):
            return ExitCode.FINDING
        return ExitCode.OK

    def file_of(self, finding: Finding) -> str:
        """The file to point at: the finding's own, else the first that was read, else ""."""
        return finding.path or self.first_file

    @property
    def first_file(self) -> str:
        """The first file that was read; "" where that is none but standard input."""
        return next((path for path in self.read if path != "-"), "")

    def answers(self, *, verbose: bool) -> tuple[Table, ...]:
        """What carries the answer of a delivered report, with rows; not what -v tells anyway."""
        main = () if verbose else self.tables[:1]
        answer = main if callable(self.answer) or not self.answer else self.answer
        return tuple(table for table in answer if table.rows and not (verbose and table.abridged))

    def word_for(self, exit_code: ExitCode) -> str:
        """The word that the verdict begins with; "" where nothing was judged or found."""
        if exit_code is ExitCode.OK:
            if not (self.judged or self.findings):
                return ""
            warned = any(finding.severity is not Severity.INFO for finding in self.findings)
            return "WARN" if warned else "PASS"
        words = {ExitCode.FINDING: "FAIL", ExitCode.NOTHING: "NOTHING"}
        return words.get(exit_code, "ERROR")

    def place_of(self, finding: Finding) -> str:
        """Where the finding is: a layer as a person would type it, else the file and the subject.

        The file is missing where it is not known, the subject where it is the file.
        """
        if finding.where:
            return finding.where
        path, subject = self.known_file(finding), finding.subject
        if not path or subject in ("", path):
            return path or subject
        layer = subject in self.names.get(path, ())
        return f"{path}{'::' if layer else ': '}{self.subject_of(finding)}"

    def subject_of(self, finding: Finding) -> str:
        """The subject; where it is the first of several places, how many more there are."""
        more = len(finding.places) - 1 if finding.subject in finding.places else 0
        return f"{finding.subject} and {more} more" if more > 0 else finding.subject

    def known_file(self, finding: Finding) -> str:
        """The file that the finding is in: its own, or the only one that was read; else ""."""
        only = len({*self.read, *(item.path for item in self.unread)}) == 1
        return finding.path or (self.first_file if only else "")


def in_order(
    findings: Iterable[Finding], names: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> tuple[Finding, ...]:
    """Errors, then warnings, then notes; each by code, and of one code as the files have them.

    `names` has the places of each file in their order. A finding with none of them, such as that
    of a channel, stays where it came among its like, before the layers of its file; one with
    several stands at the first.
    """
    findings = tuple(findings)
    if len(findings) < 2:  # which the many reports of a call need not look up anything for
        return findings
    files = {path: number for number, path in enumerate(names)}
    at = {(path, name): n for path, every in names.items() for n, name in enumerate(every)}

    def key(finding: Finding) -> tuple[int, str, int, int]:
        file = files.get(finding.path, len(files))
        spots = (at.get((finding.path, place)) for place in (finding.subject, *finding.places))
        place = min((spot for spot in spots if spot is not None), default=-1)
        return -finding.severity.rank, finding.code, file, place

    return tuple(sorted(findings, key=key))


def fails(finding: Finding, fail_on: FailOn) -> bool:
    """Whether a finding is bad enough to make the exit code 1."""
    return fail_on is not FailOn.NEVER and finding.severity.rank >= Severity(fail_on.value).rank


def count_findings(findings: Sequence[Finding]) -> str:
    """How many findings there are of each severity: "1 error, 2 notes"; "" for none."""
    counts = []
    for severity, plural in (("error", "errors"), ("warning", "warnings"), ("info", "notes")):
        number = sum(finding.severity.value == severity for finding in findings)
        if number:
            counts.append(f"{number} {plural if number > 1 else plural[:-1]}")
    return ", ".join(counts)


def printable(text: str) -> str:
    r"""Text as one line that no terminal and no CI server obeys; a file's names may be anything.

    What is not printable (control and bidirectional characters, line breaks) is escaped as Python
    does: \x1b, \u202e. So is the second # of what Azure and TeamCity, and GitHub as it once was,
    obey anywhere in a line: ##[...], ##vso[...], ##teamcity[...]. The result stays as it is.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escape(c) for c in text)
    return BRACKETED.sub(r"#\\x23", text) if "##" in text else text


def harmless(line: str) -> str:
    """A printable line that no CI server obeys for its beginning either."""
    words = line.lstrip()
    if not words.startswith(COMMANDS):
        return line
    return f"{line[: -len(words)]}{_escape(words[0])}{words[1:]}"


def _escape(character: str) -> str:
    """A character by its number, in as many hexadecimal digits as Python gives it."""
    number = ord(character)
    if number < 1 << 8:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"
