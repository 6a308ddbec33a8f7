"""A report in Python: it saves, shows and converts itself."""

from __future__ import annotations

import html
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bncli import report
from bncli.api.calls import surrounded
from bncli.api.tables import Table
from bncli.errors import BncliError, ExitCode, MissingBackendError, UsageError
from bncli.light import dataclass
from bncli.pictures import pictures_of
from bncli.renderers import Format, check_format, format_of, rendered, renderer
from bncli.renderers.interface import RenderContext
from bncli.report import FailOn, Saved

if TYPE_CHECKING:
    from bncli.api.calls import Surroundings
    from bncli.files.reading import Reading
    from bncli.pictures import Shown

NARROWEST = 20
"""Columns that a report is given at least."""


@dataclass(frozen=True, slots=True)
class Report(report.Report):
    """All that a command has to say.

    `findings`, `facts`, `tables` and `verdict` are data; `print` shows the report as a terminal
    does, and a notebook shows it as a page. `fail_on` is the least severity of a finding with which
    it is not `ok`. Where its pictures are made of the objects that the call was given, it keeps
    these until a page is made.
    """

    fail_on: FailOn = FailOn.ERROR
    _read: Reading | None = None

    @classmethod
    def of(
        cls,
        plain: report.Report,
        fail_on: FailOn = FailOn.ERROR,
        around: Surroundings | None = None,
    ) -> Report:
        """The same report, of a call with these surroundings.

        Where its pictures are made when they are wanted, they are made in such surroundings.
        """
        values = {field.name: getattr(plain, field.name) for field in fields(plain)}
        values["tables"] = tuple(map(Table.of, plain.tables))
        if callable(plain.pictures):
            values["pictures"] = _Later(partial(pictures_of, plain), around)
        return cls(**values, fail_on=fail_on, _read=None if around is None else around.read)

    def exit_code(self, fail_on: FailOn | None = None) -> ExitCode:
        """What the command line would exit with, given the least severity that fails."""
        return report.Report.exit_code(self, self.fail_on if fail_on is None else fail_on)

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0: all was read and checked, and nothing found that fails."""
        return self.exit_code() is ExitCode.OK

    def table(self, key: str) -> Table:
        """The table of that key. Raises KeyError where there is none."""
        for table in self.tables:
            if table.key == key and isinstance(table, Table):
                return table
        keys = ", ".join(table.key for table in self.tables)
        raise KeyError(f"the report of {self.command} has no table {key!r}: {keys}")

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON has it; None stands for a number that is not finite."""
        document: dict[str, Any] = json.loads(
            self._text(Format.JSON, RenderContext(self.exit_code()))
        )
        return document

    def save(self, path: str | bytes | os.PathLike[Any], *, verbose: bool = False) -> None:
        """Write the report to a file, in the format of its suffix, as -o does.

        `verbose` writes every table and column where people read them. Raises UsageError for
        another suffix and for a file that the report was made of, FileError for one that cannot be
        written, and MissingBackendError where a page lacks the extra `report`. Warns where a page
        has no pictures, as what they are of was changed since.
        """
        from bncli.cli.delivery import write
        from bncli.files.save import check_writable

        target = os.fsdecode(path)
        if not target or "\0" in target:
            raise UsageError(
                f"save: {'the path has a null byte' if target else 'the path is empty'}; name a "
                "file, such as report.html."
            )
        form = format_of(target, "save")
        check_format(form, f"save {target}")
        check_writable(target)
        if self._read is not None and self._read.has_read(target):
            raise UsageError(f"save {target}: this would overwrite an input; name another file.")
        problem = (
            _problem_of(self.pictures) if form is Format.HTML and callable(self.pictures) else ""
        )
        if problem:
            warnings.warn(f"save {target}: the page has no pictures. {problem}", stacklevel=2)
        context = RenderContext(self.exit_code(), verbose=verbose, fail_on=self.fail_on)
        write(target, rendered(form, self, context), new=self.saved is Saved.NEW)

    def __str__(self) -> str:
        """The report as a terminal of this width shows it."""
        width = max(shutil.get_terminal_size().columns, NARROWEST)
        context = RenderContext(self.exit_code(), width, fail_on=self.fail_on)
        return self._text(Format.TABLE, context).rstrip("\n")

    def __repr__(self) -> str:
        """The same, as a shell shows it."""
        return str(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002  # IPython's
        """The same, as IPython shows it."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """The report as a notebook shows it; its text, where the extra `report` is not there."""
        try:
            check_format(Format.HTML, "a notebook")
        except MissingBackendError:
            return f"<pre>{html.escape(str(self))}</pre>"
        from bncli.renderers.html import fragment

        return fragment(self, RenderContext(self.exit_code(), fail_on=self.fail_on))

    def _text(self, form: Format, context: RenderContext) -> str:
        """The report in a format."""
        return renderer(form)(self, context)

    def __eq__(self, other: object) -> bool:
        """Whether all is equal that a reader can see; pictures show what stands in the tables."""
        if not isinstance(other, Report):
            return NotImplemented
        return _comparable(self) == _comparable(other)

    __hash__ = None  # type: ignore[assignment]  # as that of what holds dictionaries


class _Later:
    """Pictures that are made when they are wanted, of what the call was given, and then kept.

    The objects of the call are kept until then, and not longer.
    """

    def __init__(self, make: Callable[[], tuple[Shown, ...]], around: Surroundings | None) -> None:
        self._make: Callable[[], tuple[Shown, ...]] | None = make
        self._around = around
        self._made: tuple[Shown, ...] = ()
        self._problem = ""

    def __call__(self) -> tuple[Shown, ...]:
        """The pictures. Raises BncliError where what they are of is not as it was any more."""
        if self._problem:
            raise BncliError(self._problem)
        make, around = self._make, self._around
        if make is not None:
            how = {} if around is None else around.how
            with surrounded(None if around is None else around.objects, **how):
                self._made = make()
            self._make = self._around = None
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        """The pictures, made; where they cannot be, why not."""
        problem = _problem_of(self)
        return {"_make": None, "_around": None, "_made": self._made, "_problem": problem}


def _problem_of(pictures: Callable[[], object]) -> str:
    """Why pictures cannot be made, "" where they can."""
    try:
        pictures()
    except BncliError as error:
        return str(error)
    return ""


def _comparable(made: Report) -> list[Any]:
    """What two reports are compared by."""
    hidden = ("pictures", "_read", "read")
    return [_even(getattr(made, each.name)) for each in fields(made) if each.name not in hidden]


def _even(value: Any) -> Any:
    """A value that is equal to one like it, NaN too."""
    if isinstance(value, float):
        return "nan" if value != value else value  # noqa: PLR0124  # only NaN is not itself
    if isinstance(value, Mapping):
        return {key: _even(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):  # rows may be made when asked
        return [_even(each) for each in value]
    if is_dataclass(value):
        return [type(value).__name__, *(_even(getattr(value, each.name)) for each in fields(value))]
    return value
