"""The help texts: the commands by question, and a command's examples and flags.

Typer's own panels give a flag's name, metavar and text a column each, and cut off what does not
fit. Here a name is never cut: a long one gets a line of its own, with the text below it.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup

from bncli.arguments.options import COMPARISON, FINDINGS, INPUT, LAYER, OUTPUT, SCALE
from bncli.cli.given_once import GivenOnce
from bncli.commands import COMMANDS, DOCUMENTS
from bncli.errors import UsageError
from bncli.process.streams import color_wanted

ARGUMENTS, COMMON = "Arguments", "Common flags"
NO_FINDINGS = "Findings (this command has none)"
WIDEST = 100
"""The columns beyond which text is hard to read."""

NAMES = 29
"""The columns that names of flags get beside their texts."""

JOINED = "\xa0"
"""A space at which no line is broken."""

LITERAL = re.compile(r"(?<!\w)'[^']*'(?!\w)")
"""What is to be typed as it stands, between quotes that are not apostrophes."""

Rows = list[tuple[str, str]]


class Group(TyperGroup):
    """bncli itself, whose help needs none of the commands to be imported."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the commands by question, each with its purpose."""
        page = _Page(WIDEST)
        page.text(f"Usage: {ctx.command_path} COMMAND [ARGUMENTS] [FLAGS]")
        page.text(str(self.help))
        page.lines.append("")
        entries = COMMANDS | DOCUMENTS
        column = max(map(len, entries)) + 4
        for question, names in groupby(entries, lambda name: entries[name].question):
            page.heading(question)
            page.rows(((typed(name), entries[name].purpose) for name in names), column)
        flags = [_names(param) for param in self.get_params(ctx)]
        page.text(f"{ctx.command_path} COMMAND --help shows examples and every flag.")
        page.text(f"Flags: {', '.join(flags)}.")
        formatter.write(page.written())


class Command(GivenOnce):
    """A subcommand; its help begins with how it is called and what it is for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer's; raises UsageError for a call of nothing but the command, if it needs more."""
        needy = any(isinstance(each, TyperArgument) for each in self.params)
        if not args and needy and not ctx.resilient_parsing:
            name = str(self.name).replace("-", "_")
            if COMMANDS[name].needs:
                raise UsageError(lacking(name))
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the usage, the purpose, the examples, and the flags panel by panel."""
        entry = (COMMANDS | DOCUMENTS)[str(self.name).replace("-", "_")]
        page = _Page(WIDEST)
        params = self.get_params(ctx)
        arguments = [metavar(each, ctx) for each in params if isinstance(each, TyperArgument)]
        page.text(" ".join(["Usage:", ctx.command_path, *arguments, "[FLAGS]"]), indent=7)
        page.lines.append("")
        page.text(entry.purpose)
        page.lines.append("")
        page.heading("Examples")
        for example in entry.examples:
            page.lines += [f"  # {example.comment}", f"  bncli {example.call}"]
        for title, rows in _panels(params, entry.flags, ctx):
            page.lines.append("")
            page.heading(NO_FINDINGS if title == FINDINGS and not entry.reads else title)
            page.rows(rows, NAMES)
        formatter.write(page.written())


class _Page:
    """The lines of a help text, as wide as the terminal but no wider than is good to read."""

    def __init__(self, widest: int) -> None:
        self.width = min(shutil.get_terminal_size().columns, widest)
        self.lines: list[str] = []
        self.colored = color_wanted()

    def heading(self, text: str) -> None:
        """Add a heading."""
        mark = "" if text.endswith(("?", ")")) else ":"
        self.lines.append(self._styled(text + mark, bold=True))

    def text(self, text: str, indent: int = 0) -> None:
        """Add a text; lines after the first are indented."""
        self.lines += _wrapped(text, self.width, " " * indent)

    def rows(self, rows: Iterable[tuple[str, str]], column: int) -> None:
        """Add names, each with its text from `column` on, or below where the name is longer."""
        narrow = self.width < column + 20
        column = 6 if narrow else column
        for name, text in rows:
            words = text.replace(JOINED, " ") if narrow else text
            first, *more = _wrapped(words, self.width - column) or [""]
            shown = self._styled(name, fg="cyan")
            if len(name) + 4 > column:
                self.lines.append(f"  {shown}")
                more = [first, *more]
            else:
                self.lines.append(f"  {shown}{' ' * (column - 2 - len(name))}{first}".rstrip())
            self.lines += [f"{' ' * column}{line}" for line in more if line]

    def written(self) -> str:
        """The page as one text."""
        return "\n".join(self.lines)

    def _styled(self, text: str, **style: Any) -> str:
        return typer.style(text, **style) if self.colored else text


def typed(name: str) -> str:
    """A subcommand's name as a user types it."""
    return name.replace("_", "-")


def lacking(name: str) -> str:
    """What a command needs that was called without it, as a sentence with an example."""
    entry = COMMANDS[name]
    calls = [f"bncli {example.call}" for example in entry.examples[: 1 + (name == "diff")]]
    return f"{typed(name)} needs {entry.needs}; for example {' or '.join(calls)}."


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """The lines of a text; no word or literal in it is broken, not even at a hyphen."""
    lines = textwrap.wrap(
        LITERAL.sub(lambda found: found[0].replace(" ", JOINED), text),
        max(width, 20),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(JOINED, " ") for line in lines]


def _panels(params: Iterable[Any], common: tuple[str, ...], ctx: Any) -> Iterator[tuple[str, Rows]]:
    """The titles of the panels, each with its flags: a command's own panels stand in the middle."""
    shown = [each for each in params if not getattr(each, "hidden", False)]
    panels: dict[str, Rows] = {ARGUMENTS: [], COMMON: [], INPUT: []}
    by_name = {flag: each for each in shown for flag in each.opts}
    first = [by_name[flag] for flag in common]
    panels[COMMON] = [_row(each, ctx) for each in first]
    for each in shown:
        if each not in first:
            plain = ARGUMENTS if isinstance(each, TyperArgument) else OUTPUT
            panel = getattr(each, "rich_help_panel", None) or plain
            panels.setdefault(panel, []).append(_row(each, ctx))
    for last in (LAYER, COMPARISON, SCALE, FINDINGS, OUTPUT):
        panels[last] = panels.pop(last, [])
    return ((title, rows) for title, rows in panels.items() if rows)


def _row(param: Any, ctx: Any) -> tuple[str, str]:
    """A flag or an argument as it is typed, and what it means."""
    if isinstance(param, TyperArgument):
        return metavar(param, ctx), str(param.help or "")
    value = "" if param.is_flag else f" {metavar(param, ctx)}"
    said = "; ".join(filter(None, (_default(param), _limits(param))))
    if len(said) < 80 - NAMES - 2:  # and so fits a line
        said = said.replace(" ", JOINED)
    return f"{_names(param)}{value}", f"{param.help or ''}{f' [{said}]' if said else ''}"


def _names(param: Any) -> str:
    """All names of a flag, the short one first."""
    return ", ".join([*sorted(param.opts, key=len), *param.secondary_opts])


def metavar(param: Any, ctx: Any) -> str:
    """What stands for the value; in brackets for an argument that may be left out."""
    text: str = param.metavar or param.make_metavar(ctx=ctx).strip("<>[]")
    if not isinstance(param, TyperArgument) or text.startswith("["):
        return text
    if not param.required:
        return f"[{text}]"
    return f"({text})" if " | " in text else text


def _default(param: Any) -> str:
    """What a flag is when it is not given; "" where that needs no saying."""
    shown, value = param.show_default, param.default
    if not isinstance(shown, str):
        if not shown or value is None or (value is False and not param.secondary_opts):
            return ""
        shown = str(getattr(value, "value", value))
        if param.secondary_opts:
            shown = (param.opts if value else param.secondary_opts)[0].lstrip("-")
    return f"default: {shown}"


def _limits(param: Any) -> str:
    """The least and the greatest value that a flag takes."""
    least, most = getattr(param.type, "min", None), getattr(param.type, "max", None)
    if least is None or (most is None and least <= 1):  # which goes without saying
        return ""
    return f"at least {least:g}" if most is None else f"{least:g} to {most:g}"
