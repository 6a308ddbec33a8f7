"""What a shell completes beside commands and flags: rule codes, names inside files and code.

The shells' scripts are Typer's (`bncli --install-completion`). They call bncli with the words
typed so far in the environment, and bncli prints what fits.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import UsageError
from bncli.process.streams import print_text
from bncli.report import FailOn

if TYPE_CHECKING:
    from bncli.model import TensorFile
    from bncli.model.capture import Capture

INSTRUCTION = "_BNCLI_COMPLETE"
"""The variable in which Typer's scripts say what they want."""

MOST_NAMES = 1000
"""Names that are offered at most; no shell shows more in a useful way."""

BREAK = re.compile(r"\n([:=]+)(?:\n|$)")
"""A word that Bash makes of ":" and "=" alone, between the words that they join."""

Completions = Iterator[str | tuple[str, str]]
Completer = Callable[[str], Completions]


def complete_codes(incomplete: str) -> Completions:
    """The rules' codes, each with its name, behind the last comma."""
    from bncli.rulebook.registry import RULES

    before, comma, _ = incomplete.rpartition(",")
    for rule in RULES:
        yield f"{before}{comma}{rule.code}", rule.name.replace("-", " ")


def complete_severities(incomplete: str) -> Completions:
    """What --fail-on takes."""
    return (choice.value for choice in FailOn if choice.value.startswith(incomplete))


def complete_tensors(incomplete: str) -> Completions:
    """`FILE::NAME` for every tensor of FILE; nothing before the colons, where shells have files.

    A statistics file has layers in their place.
    """
    return _names(
        incomplete,
        lambda file: list(file.tensors),
        lambda capture: [layer.name for layer in capture.layers],
    )


def complete_layers(incomplete: str) -> Completions:
    """`FILE::NAME` for every BatchNorm layer of FILE."""

    def layers(file: TensorFile) -> list[str]:
        from bncli.state_dict import batch_norm_layers

        return [layer.name for layer in batch_norm_layers(file)]

    return _names(incomplete, layers, lambda capture: [layer.name for layer in capture.norms])


def complete_parts(incomplete: str) -> Completions:
    """`FILE::PART` for what holds tensors of FILE at its top, such as state_dict_ema."""
    return _names(
        incomplete,
        lambda file: list(
            dict.fromkeys(name.partition(".")[0] for name in file.tensors if "." in name)
        ),
    )


def complete_code(incomplete: str) -> Completions:
    """`FILE.py:NAME` for the classes, functions and values of FILE.py, which is not run."""
    path, colon, begun = incomplete.rpartition(":")
    if not path.endswith(".py"):
        return
    import ast

    from bncli.files.reading import read_bytes

    try:
        tree = ast.parse(read_bytes(Path(path).expanduser()))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return
    for item in tree.body:
        targets = item.targets if isinstance(item, ast.Assign) else [item]
        for each in targets:
            name = str(getattr(each, "name", getattr(each, "id", "_")))
            if name.startswith(begun) and not name.startswith("_"):
                yield f"{path}{colon}{name}"


def complete_against(incomplete: str) -> Completions:
    """The libraries to compare with, and `FILE.py:NAME` for code."""
    from bncli.backends import BackendName

    yield from (name.value for name in BackendName if name.value.startswith(incomplete))
    yield from complete_code(incomplete)


def complete_data(incomplete: str) -> Completions:
    """`FILE::NAME` for tensors, and `FILE.py:NAME` for code."""
    yield from complete_tensors(incomplete) if "::" in incomplete else complete_code(incomplete)


def _names(
    incomplete: str,
    find: Callable[[TensorFile], list[str]],
    captured: Callable[[Capture], list[str]] = lambda _: [],
) -> Completions:
    """The names behind the last "::"; none, and no complaint, where the file cannot be read.

    `find` gives those of a file of tensors, and `captured` those of a statistics file.
    """
    path, colons, begun = incomplete.rpartition("::")
    if not path:
        return
    from bncli.errors import BncliError
    from bncli.loaders import open_file
    from bncli.loaders.interface import is_statistics_file
    from bncli.loaders.statistics import open_statistics

    try:
        file = Path(path).expanduser()
        known = is_statistics_file(file)
        names = captured(open_statistics(file)) if known else find(open_file(file))
    except (BncliError, OSError, RuntimeError, MemoryError):
        return
    fitting = (name for name in names if name.startswith(begun) and name.isprintable())
    for name, _ in zip(fitting, range(MOST_NAMES), strict=False):
        yield f"{path}{colons}{name}"


@contextmanager
def whole_words() -> Iterator[None]:
    """While Typer completes, show it the words of a Bash command line as they were typed.

    Bash breaks words at ":" and "=", so that FILE::NAME comes as three, and it puts what is
    printed behind the last break.
    """
    if os.environ.get(INSTRUCTION) != "complete_bash":
        yield
        return
    place = os.environ.get("COMP_CWORD", "")
    if not (place.isascii() and place.isdigit() and len(place) < 10):
        raise UsageError(f"COMP_CWORD: {place!r} is not a word number; Bash sets it itself.")
    typed = os.environ.get("COMP_WORDS", "").split("\n")[: int(place) + 1]
    words = BREAK.sub(r"\1", "\n".join(typed)).split("\n")
    joined = len(typed) - len(words)
    os.environ |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(int(place) - joined)}
    word = words[-1].rpartition("=")[2] if words[-1].startswith("-") else words[-1]
    behind = word.rfind(":") + 1 if joined else 0
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            yield
    finally:
        print_text("".join(f"{line[behind:]}\n" for line in text.getvalue().splitlines()))
