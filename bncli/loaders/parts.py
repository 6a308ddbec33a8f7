"""Parts of a whole that several calls made: what each records, and whether they belong together.

A run of many tasks fails in some of them, is started again, and gets other inputs meanwhile. So a
part says which inputs it is of, and nothing is merged that does not add up.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bncli import __version__
from bncli.errors import FileError, UsageError
from bncli.files.reading import MissingParts, current, open_again
from bncli.light import np
from bncli.loaders import split_spec
from bncli.loaders.interface import STANDARD_INPUT
from bncli.loaders.names import listed, quoted
from bncli.model.part import Part, PartInput, together, whole_of
from bncli.report import printable

PIECE = 4096
"""Bytes at the beginning, in the middle and at the end of an input that its fingerprint is of."""
MOST_SAID = 20
"""Parts that are named one by one where something is wrong with them."""


def made_part(
    shard: tuple[int, int],
    every: Sequence[str],
    own: Sequence[str],
    flags: Mapping[str, object],
) -> Part:
    """The record of a part: `own` of the inputs `every`, each as PATH or PATH::NAME.

    `flags` are those that change the numbers, None where one was not given. Raises FileError for an
    input that is not there or cannot be read.
    """
    sizes = {spec: _size(split_spec(spec)[0]) for spec in every}
    marks = hashlib.blake2b(digest_size=16)
    for spec, size in sizes.items():
        marks.update(f"{spec}\0{size}\n".encode(errors="surrogateescape"))
    return Part(
        *shard,
        tuple(_input(spec, sizes[spec]) for spec in own),
        number=len(every),
        nbytes=sum(sizes.values()),
        digest=marks.hexdigest(),
        flags={name: str(value) for name, value in flags.items() if value is not None},
        call=_call(shard),
        versions={"bncli": __version__, "numpy": np.__version__},
        folder=_folder(),
    )


def _folder() -> str:
    """A hash of the current folder, which tells whether relative paths mean what they meant."""
    return hashlib.blake2b(os.fsencode(Path.cwd()), digest_size=8).hexdigest()


def _input(spec: str, size: int) -> PartInput:
    return PartInput(spec, size, _fingerprint(split_spec(spec)[0], size))


def _size(path: Path) -> int:
    """A file's bytes; of a folder that is one model, those of its files."""
    if path == STANDARD_INPUT:
        raise UsageError("standard input cannot be cut into shards; name files.")
    try:
        if path.is_dir():
            return sum(each.stat().st_size for each in path.iterdir() if each.is_file())
        return path.stat().st_size
    except FileNotFoundError:
        from bncli.loaders.names import missing

        raise missing(path) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(path, f"it cannot be read ({reason.lower()}).") from None


def _fingerprint(path: Path, size: int) -> str:
    """A CRC-32 of an input's size and of three pieces of it, which changes with most of its bytes.

    All of them would have to be read twice. A folder's is that of its files' names and sizes.
    """
    crc = zlib.crc32(str(size).encode())
    if path.is_dir():
        for each in sorted(path.iterdir()):
            crc = zlib.crc32(f"{each.name}\0{each.stat().st_size}".encode(), crc)
        return f"{crc:08x}"
    with open_again(path) as file:
        for begin in (0, max(0, size // 2 - PIECE // 2), max(0, size - PIECE)):
            file.seek(begin)
            crc = zlib.crc32(file.read(PIECE), crc)
    return f"{crc:08x}"


def _call(shard: tuple[int, int]) -> tuple[str, ...]:
    """The arguments of this call, with the shard as a number, however it was named."""
    arguments = list(current().arguments)
    for at, argument in enumerate(arguments):
        if argument == "--shard" and at + 1 < len(arguments):
            arguments[at + 1] = "{}/{}".format(*shard)
        elif argument.startswith("--shard="):
            arguments[at] = "--shard={}/{}".format(*shard)
    return tuple(arguments)


# ---------------------------------------------------------------------------- what was made before


def held_inputs(path: Path, part: Part, wanted: Part) -> list[str]:
    """The inputs of `wanted`, as they were given, that the finished part at `path` holds already.

    Raises FileError where the two are of other shards or flags, and where an input that it holds is
    no longer wanted or has changed.
    """
    if (part.k, part.n) != (wanted.k, wanted.n):
        raise FileError(
            path,
            f"it is shard {part.k} of {part.n} and not {wanted.k} of {wanted.n}, so --resume cannot"
            " use it; name another file.",
        )
    if part.flags != wanted.flags:
        raise FileError(
            path,
            f"it was made {_unlike_flags(part.flags, wanted.flags)}, so --resume cannot use it; "
            "give the same flags, or name another file.",
        )
    if part.missing:
        raise FileError(
            path,
            f"it lacks {_shards_said(part.missing)}, so --resume cannot use it; name another file.",
        )
    if not part.inputs:
        raise FileError(
            path,
            "it does not say which inputs it is of, so --resume cannot use it; name another file.",
        )
    own = {each.path: each for each in wanted.inputs}
    for each in part.inputs:
        now = own.get(each.path)
        if now is None:
            raise FileError(
                path,
                f"it holds {quoted(each.path)}, which is none of the inputs of this call, so "
                "--resume cannot use it; name another file.",
            )
        if now != each:
            raise FileError(
                path,
                f"{quoted(each.path)} has changed since it was read for this file, so --resume "
                "cannot use it; remove the file, or name another one.",
            )
    return [each.path for each in part.inputs]


# ---------------------------------------------------------------------------- do they fit together


def check_parts(paths: Sequence[Path | str], parts: Sequence[Part]) -> Part:
    """The whole that the parts at these paths are, which is the same for any order of them.

    Raises FileError where they are not all of one whole: parts of another number of shards, made
    with other flags or of other inputs, one twice, or one missing, each named with the call that
    makes it again. Where missing parts are allowed, they are remembered instead.
    """
    named = sorted(zip(paths, parts, strict=True), key=lambda pair: (pair[1].k, str(pair[0])))
    shards = [pair for pair in named if pair[1].n > 1]
    if not shards:
        for path, part in named:
            _note_missing([(path, part)], part.missing, part)
        return together(parts)
    _check_alike(
        named,
        lambda part: part.n,
        lambda part, usual: (
            f"of {_counted(part.n)} and not of {usual.n}" if part.n > 1 else "no part of a whole"
        ),
    )
    _check_alike(
        named,
        lambda part: tuple(sorted(part.flags.items())),
        lambda part, usual: f"made {_unlike_flags(part.flags, usual.flags)}",
    )
    _check_alike(
        named,
        lambda part: (part.number, part.nbytes, part.digest),
        lambda part, usual: (
            f"made of other inputs ({_inputs_said(part)}, not "
            f"{_inputs_said(usual)}, or of other names or sizes)"
        ),
    )
    _check_once(named)
    for path, part in named:
        _check_unchanged(path, part)
    first = named[0][1]
    there = {part.k for part in parts}
    # A shard beyond the last input has none, and there is no file of it.
    last = min(first.n, first.number) if first.number else first.n
    missing = [k for k in range(last) if k not in there]
    _note_missing(named, missing, first)
    return whole_of(parts, missing)


Named = tuple["Path | str", Part]


def _check_alike(
    named: Sequence[Named],
    of: Callable[[Part], Hashable],
    said: Callable[[Part, Part], str],
) -> None:
    """Raise FileError for the parts in which something is not as it is in most of them."""
    counts = Counter(of(part) for _, part in named)
    usual = max(counts, key=counts.__getitem__)
    other = [(path, part) for path, part in named if of(part) != usual]
    if not other:
        return
    pattern = next(part for _, part in named if of(part) == usual)
    path, part = other[0]
    raise FileError(
        path,
        f"it is {said(part, pattern)}, as {_the_rest(named, other)}"
        f"{'' if pattern.n == 1 else _again([part.k], pattern)}.",
    )


def _the_rest(named: Sequence[Named], other: Sequence[Named]) -> str:
    """Which parts are as they should be, and which others are not."""
    good = len(named) - len(other)
    rest = "the other part is" if good == 1 else f"{good} other parts are"
    if more := [quoted(str(path)) for path, _ in other[1:]]:
        rest += f", and {listed(more)} {'is' if len(more) == 1 else 'are'} not either"
    return rest


def _check_once(named: Sequence[Named]) -> None:
    """Raise FileError for a shard that comes twice."""
    seen: dict[int, Path | str] = {}
    for path, part in named:
        if part.k in seen:
            raise FileError(
                path,
                f"it is shard {part.k} of {part.n}, as {printable(str(seen[part.k]))} is, so its "
                "inputs would count twice; leave one of them out.",
            )
        seen[part.k] = path


def _check_unchanged(path: Path | str, part: Part) -> None:
    """Raise FileError where an input is another one now; inputs that are elsewhere are not seen.

    A relative path means nothing in another folder than that of the call.
    """
    here = part.folder == _folder()
    for each in part.inputs:
        file = split_spec(each.path)[0]
        if "://" in each.path or not (here or file.is_absolute()):
            continue  # and nothing remote is contacted for what a file says
        try:
            now = replace(each, nbytes=_size(file))
            if now == each:
                now = replace(each, fingerprint=_fingerprint(file, each.nbytes))
        except FileError:
            continue
        if now != each:
            raise FileError(
                path,
                f"its input {quoted(each.path)} has changed since it was read"
                f"{_again([part.k], part)}.",
            )


def _note_missing(named: Sequence[Named], missing: Sequence[int], part: Part) -> None:
    """Raise FileError where shards are missing; where that is allowed, remember that they are."""
    if not missing:
        return
    n = part.n if part.n > 1 else 0
    if not current().allow_missing_parts:
        said = f"{_shards_said(missing)}{f' of {n}' if n else ''}"
        verb = "is" if len(missing) == 1 else "are"
        again = _again(missing, part) if n and part.call else "; make and add them"
        raise FileError(
            named[0][0],
            f"{said} {verb} missing{' from it' if not n else ''}{again}, or take what there is with"
            " --allow-missing-parts.",
        )
    there = sum(each.own_bytes for _, each in named)
    share = 1 - there / part.nbytes if part.nbytes and there else len(missing) / max(n, 1)
    current().missing.append(MissingParts(str(named[0][0]), tuple(missing), n, share))


def _again(missing: Sequence[int], like: Part) -> str:
    """How a part is made again, as half a sentence."""
    if not like.call:
        return "; make it again"
    k = missing[0]
    arguments = list(like.call)
    for at, argument in enumerate(arguments):
        before = arguments[at - 1] if at else ""
        if before == "--shard" or argument.startswith("--shard="):
            arguments[at] = f"{'--shard=' * argument.startswith('--shard=')}{k}/{like.n}"
        elif before in TARGETS or argument.startswith(tuple(f"{flag}=" for flag in TARGETS)):
            arguments[at] = _renumbered(argument, like.k, k)
    call = shlex.join(["bncli", *arguments])
    others = ""
    if len(missing) > 1:
        others = f", and {_shards_said(missing[1:])} likewise"
    return f"; make shard {k} with: {call}{others}"


TARGETS = ("--save-stats", "--output", "-o")
"""The flags whose file is a part."""


def _renumbered(name: str, old: int, new: int) -> str:
    """The name of another part's file: its number in the place of the last that is `old`."""
    folder, base = os.path.split(name)
    found = [each for each in re.finditer(r"[0-9]+", base) if int(each[0]) == old]
    if not found:
        return name
    last = found[-1]
    number = str(new).zfill(len(last[0]) if last[0].startswith("0") else 0)
    return os.path.join(folder, f"{base[: last.start()]}{number}{base[last.end() :]}")  # noqa: PTH118


def _unlike_flags(flags: Mapping[str, str], others: Mapping[str, str]) -> str:
    """In which flags the first are not the others."""
    said = []
    for name in sorted({*flags, *others}):
        mine, theirs = flags.get(name), others.get(name)
        if mine != theirs:
            said.append(f"{_flag_said(name, mine)} and not {_flag_said(name, theirs)}")
    return "; ".join(said)


def _flag_said(name: str, value: str | None) -> str:
    return f"without {name}" if value is None else f"with {name} {quoted(value, 60)}"


def _inputs_said(part: Part) -> str:
    return f"{part.number} of {part.nbytes} bytes"


def _shards_said(shards: Iterable[int]) -> str:
    """Some shards by their numbers: "shard 3", "shards 3, 4 and 7"."""
    numbers = list(shards)
    shown = [str(k) for k in numbers[:MOST_SAID]]
    if len(numbers) > MOST_SAID:
        shown.append(f"{len(numbers) - MOST_SAID} more")
    said = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    return f"shard{'s' * (len(numbers) > 1)} {said}"


def _counted(n: int) -> str:
    return "1 shard" if n == 1 else f"{n} shards"
