"""What `help` says of the functions: what the command's help says, in the words of Python."""

from __future__ import annotations

import re
import textwrap
from enum import Enum
from typing import TYPE_CHECKING

from bncli.api.arguments import arguments_of
from bncli.api.examples import EXAMPLES
from bncli.commands import command

if TYPE_CHECKING:
    from bncli.api.arguments import Argument

WIDTH = 96
"""Columns of the texts, which help() indents."""

FLAG = re.compile(r"(?<![\w-])--?([a-z][a-z-]*)(?:/--?[a-z-]+)?(?![\w-])")
"""A flag in a sentence."""

OBJECTS = (
    "Where a path or code is named, the object itself may stand: an array of NumPy or of any "
    "library with DLPack, a tensor of PyTorch on any device, a module, a dictionary of tensors, "
    "batches, a function. It is not copied, unless it lies on another device. Several values of "
    "an argument are a list."
)
REWORDED = (
    ("; may be repeated", ""),
    (" May be repeated.", ""),
    ("; separate several with commas, or repeat the flag", ""),
    ("; none for", "; None for"),
    ("Exit with code 1 if", "The report is not ok if"),
)
"""What is said otherwise where nothing is typed."""

CLOSING = (
    "Returns the report (bncli.api.report.Report). Raises bncli.BncliError, whose sentence calls "
    "an argument by its flag on the command line."
)


def purpose_of(name: str) -> str:
    """What a command does, in its first line."""
    return (command(name).__doc__ or "").splitlines()[0]


def docstring_of(name: str, *, body: str = "", closing: str = CLOSING, unsaid: str = "") -> str:
    """The docstring of a command's function.

    `body` stands in the place of the command's own, and `unsaid` is left out of the arguments.
    """
    arguments = arguments_of(name)
    text = body or textwrap.dedent(f"    {command(name).__doc__}").strip()
    first, _, rest = text.partition("\n")
    parts = [first]
    if rest.strip():
        parts += map(_wrapped, in_python(rest.strip("\n"), arguments).split("\n\n"))
    if any(each.takes_objects for each in arguments):
        parts.append(textwrap.fill(OBJECTS, WIDTH))
    parts.append("\n".join(["Arguments:", *(_line(each, arguments, unsaid) for each in arguments)]))
    parts.append(textwrap.fill(closing, WIDTH))
    parts.append(f"Example:\n{EXAMPLES[name].strip()}")
    return "\n\n".join(parts) + "\n"


def _wrapped(paragraph: str) -> str:
    """A paragraph in lines of WIDTH; one with code stays as it is."""
    return paragraph if "\n    " in f"\n{paragraph}" else textwrap.fill(paragraph, WIDTH)


def in_python(text: str, arguments: tuple[Argument, ...]) -> str:
    """A text with the arguments' names in the place of flags."""
    flags = [each for each in arguments if not each.positional]
    names = {each.flag: f"{each.name}=True" if each.off else each.name for each in flags}
    off = {each.off: f"{each.name}=False" for each in flags if each.off}

    def name(found: re.Match[str]) -> str:
        flag = f"--{found[1]}"
        return names.get(flag) or off.get(flag) or found[0]

    return FLAG.sub(name, text)


def _line(argument: Argument, arguments: tuple[Argument, ...], unsaid: str) -> str:
    """An argument and what it means."""
    text = argument.help.replace(unsaid, "")
    for typed, said in REWORDED:
        text = text.replace(typed, said)
    text = in_python(text, arguments).rstrip(".")
    default = _default(argument, arguments)
    star = "*" if argument.positional and argument.many else ""
    return textwrap.fill(
        f"{star}{argument.name}: {text}{default}.",
        WIDTH,
        initial_indent="    ",
        subsequent_indent="        ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _default(argument: Argument, arguments: tuple[Argument, ...]) -> str:
    """What an argument is where it is not given; "" where that goes without saying."""
    said = argument.stands_for
    if not isinstance(said, str):
        value = argument.default
        if value in (None, False, "") or argument.positional:
            return ""
        said = str(value.value if isinstance(value, Enum) else value)
    said = "True" if f"--{said}" == argument.flag else in_python(said, arguments)
    return f" (default: {said})"
