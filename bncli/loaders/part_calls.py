"""The call that makes a part: as it is kept, and as it is said to make another of them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from bncli.files.reading import current
from bncli.loaders import split_spec
from bncli.model.part import Part, part_beside, shards_said
from bncli.paths import is_remote

TARGETS = ("--save-stats", "--output", "-o")
"""The flags whose file is a part."""


def call_of(shard: tuple[int, int]) -> tuple[str, ...]:
    """The arguments of this call, with the shard as a number, however it was named.

    Those of a rank make its part alone, where it would lie. What is secret in a URL is left out,
    for parts are passed on.
    """
    arguments = [shown(argument) for argument in current().arguments]
    ranks = "--distributed" in arguments
    for at, argument in enumerate(arguments):
        before = arguments[at - 1] if at else ""
        if argument == "--distributed":
            arguments[at] = "--shard={}/{}".format(*shard)
        elif ranks and before == "--save-stats":
            arguments[at] = part_beside(argument, *shard)
        elif ranks and argument.startswith("--save-stats="):
            target = argument.partition("=")[2]
            arguments[at] = f"--save-stats={part_beside(target, *shard)}"
        if argument == "--shard" and at + 1 < len(arguments):
            arguments[at + 1] = "{}/{}".format(*shard)
        elif argument.startswith("--shard="):
            arguments[at] = "--shard={}/{}".format(*shard)
    return tuple(arguments)


def shown(argument: str) -> str:
    """An argument, `--flag=VALUE` too, with a URL in it as people may see it."""
    flag, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", "")
    value = value if equals else argument
    if not is_remote(value):
        return argument
    path, name = split_spec(value)
    return f"{flag}{equals}{path}{'::' * bool(name)}{name}"


def made_with(shards: Sequence[int], like: Part, instead: Path | str | None = None) -> str:
    """How parts are made, as the end of a sentence; its call is not followed by a full stop.

    `like` is another part of the same whole, or the first of them as it was. `instead` is a file
    that does not fit and may be in the way.
    """
    k = shards[0]
    arguments = list(like.call)
    targets = []
    for at, argument in enumerate(arguments):
        before = arguments[at - 1] if at else ""
        flag, _, value = argument.partition("=")
        if before == "--shard" or (flag == "--shard" and value):
            arguments[at] = f"{'--shard=' * bool(value)}{k}/{like.n}"
        elif before in TARGETS or (flag in TARGETS and value):
            targets.append(_renumbered(value or argument, like.k, k))
            arguments[at] = f"{flag}=" * bool(value) + targets[-1]
    them = "" if len(shards) == 1 else " (and the others likewise)"
    first = ""
    if instead is not None:
        same = str(instead) in targets
        first = "remove this part and " if same else "leave this part out and "
    made = f"{first}make {shards_said([k], like.n)}{them}"
    return f"{made} with: {shlex.join(['bncli', *arguments])}" if like.call else f"{made}."


def _renumbered(name: str, old: int, new: int) -> str:
    """The name of another part's file: its number in the place of the last that is `old`.

    A name without it is one that bncli cannot guess.
    """
    if old == new:
        return name
    folder, base = os.path.split(name)
    found = [each for each in re.finditer(r"[0-9]+", base) if int(each[0]) == old]
    if not found:
        return os.path.join(folder, f"FILE{Path(base).suffix}")  # noqa: PTH118  # as it was typed
    last = found[-1]
    number = str(new).zfill(len(last[0]) if last[0].startswith("0") else 0)
    base = f"{base[: last.start()]}{number}{base[last.end() :]}"
    return os.path.join(folder, base)  # noqa: PTH118  # as it was typed
