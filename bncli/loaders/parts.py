"""Parts of a whole that several calls made: what each records, and whether they belong together.

A run of many tasks fails in some of them, is started again, and gets other inputs meanwhile. So a
part says which inputs it is of, and nothing is merged that does not add up.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path

from bncli import __version__
from bncli.errors import FileError
from bncli.files.reading import MissingParts, current
from bncli.light import np
from bncli.loaders import split_spec
from bncli.loaders.file_marks import crc_of, file_size, fingerprint
from bncli.loaders.interface import look, measure
from bncli.loaders.names import listed, quoted
from bncli.loaders.part_calls import call_of, made_with, shown
from bncli.model.part import Part, PartInput, may_list, shards_said, together, whole_of
from bncli.report import printable


def made_part(
    shard: tuple[int, int],
    every: Sequence[str],
    own: Sequence[str],
    flags: Mapping[str, object],
    code: Mapping[str, Path | None] | None = None,
    *,
    unread: bool = False,
) -> Part:
    """The record of a part: `own` of the inputs `every`, each as PATH or PATH::NAME.

    `flags` are those that change the numbers, None where one was not given. `code` has the file of
    each input that names Python code, None for code without one: all of it is the mark of that
    input, and tells parts apart, too. Too many inputs to list are not named. Raises FileError for
    an input that is not there or cannot be read; with `unread`, such a one has no fingerprint
    instead. Of inputs that are not its own, the sizes alone are asked for.
    """
    listed_own = own if may_list(own) else ()
    mine = {split_spec(spec)[0] for spec in listed_own}
    look(mine)
    measure({split_spec(spec)[0] for spec in every} - mine)
    named = {spec: _code(spec, file) for spec, file in (code or {}).items()}
    sizes = {
        spec: named[spec].nbytes if spec in named else _size_if(split_spec(spec)[0], unread=unread)
        for spec in every
    }
    names, marks = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    for spec, size in sizes.items():
        mark = f"\0{named[spec].fingerprint}" if spec in named else ""
        names.update(f"{spec}{mark}\n".encode(errors="surrogateescape"))
        marks.update(f"{spec}\0{size}{mark}\n".encode(errors="surrogateescape"))
    return Part(
        *shard,
        tuple(named.get(spec) or _input(spec, sizes[spec], unread=unread) for spec in listed_own),
        number=len(every),
        nbytes=sum(sizes[spec] for spec in every),
        digest=marks.hexdigest(),
        names=names.hexdigest(),
        flags={name: shown(str(value)) for name, value in flags.items() if value is not None},
        call=call_of(shard),
        versions={"bncli": __version__, "numpy": np.__version__},
        folder=_folder(),
    )


def _folder() -> str:
    """A hash of the current folder, which tells whether relative paths mean what they meant."""
    return hashlib.blake2b(os.fsencode(Path.cwd()), digest_size=8).hexdigest()


def input_of(spec: str) -> PartInput:
    """An input as it is now. Raises FileError where it is not there or cannot be read."""
    return _input(spec, file_size(split_spec(spec)[0]))


def _input(spec: str, size: int, *, unread: bool = False) -> PartInput:
    try:
        return PartInput(spec, size, fingerprint(split_spec(spec)[0], size))
    except FileError:
        if not unread:
            raise
        return PartInput(spec, size, "")


def _size_if(path: Path, *, unread: bool) -> int:
    """A file's bytes; with `unread`, 0 where that is not known."""
    try:
        return file_size(path)
    except FileError:
        if not unread:
            raise
        return 0


def _code(spec: str, file: Path | None) -> PartInput:
    """Python code as an input."""
    return (
        PartInput(spec, 0, "") if file is None else PartInput(spec, file_size(file), crc_of([file]))
    )


# ---------------------------------------------------------------------------- what was made before


def held_inputs(path: Path, part: Part, wanted: Part, unread: Collection[str] = ()) -> list[str]:
    """The inputs of `wanted`, as they were given, that the finished part at `path` holds already.

    Those are not `unread`, which it could not read when it was made. Raises FileError where the two
    are of other shards or flags, and where an input that it holds is no longer wanted or has
    changed.
    """
    problem, fix = "", "name another file"
    if (part.k, part.n) != (wanted.k, wanted.n):
        problem = f"it is {_named(part)}, and this call makes {_named(wanted)}"
    elif not part.inputs:
        problem = "it does not say which inputs it was made from"
    elif part.flags != wanted.flags:
        made, asked = _flags_apart(part, wanted)
        problem = f"it was made {made}, but this call is {asked}"
        fix = "give the same flags, or name another file"
    elif part.missing:
        problem = f"it was merged without {shards_said(part.missing)}"
    if problem:
        raise FileError(path, f"{problem}, so --resume cannot use it; {fix}.")
    own = {each.path: each for each in wanted.inputs}
    for each in part.inputs:
        now = own.get(each.path)
        if now is None:
            raise FileError(
                path,
                f"it holds {quoted(each.path)}, which this call would not read, so --resume cannot "
                "use it; remove this part, or name another file.",
            )
        if each.path not in unread and now != each:
            raise FileError(
                path,
                f"its input {quoted(each.path)} has changed since it was read, so --resume cannot "
                "use it; remove this part, or name another file.",
            )
    return [each.path for each in part.inputs if each.path not in unread]


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
        _check_inputs_once(named)
        for path, part in named:
            _note_missing([(path, part)], part.missing, part)
        return together(parts)
    _check_alike(named, lambda part: part.n, lambda one, other: (_typed(one), _typed(other, "K")))
    _check_alike(named, lambda part: (part.number, part.names), _inputs_apart, RUN_AGAIN)
    _check_alike(named, lambda part: tuple(sorted(part.flags.items())), _flags_apart)
    _check_once(named)
    check_unchanged(named)
    _note_versions(parts)
    _note_states(parts)
    first = named[0][1]
    missing = _absent(parts)
    _note_missing(named, missing, first)
    return whole_of(parts, missing)


RUN_AGAIN = (
    "inputs came, went or changed their names between the tasks, so run every task again; for this "
    "one, "
)

Named = tuple["Path | str", Part]


def _check_alike(
    named: Sequence[Named],
    of: Callable[[Part], Hashable],
    apart: Callable[[Part, Part], tuple[str, str]],
    why: str = "",
) -> None:
    """Raise FileError for the parts in which something is not as it is in most of them.

    `apart` says how one part was made, and how another, and `why` what may have happened.
    """
    counts = Counter(of(part) for _, part in named)
    usual = max(counts, key=counts.__getitem__)
    good = [part for _, part in named if of(part) == usual]
    odd = [(path, part) for path, part in named if of(part) != usual]
    if not odd:
        return
    path, part = odd[0]
    mine, theirs = apart(part, good[0])
    rest = "the other part was" if len(good) == 1 else f"the {len(good)} other parts were"
    too = [str(each) for each, _ in odd[1:]]
    also = (
        f" ({listed(too)} {'is' if len(too) == 1 else 'are'} not like them either)" if too else ""
    )
    missing = _absent(good) if good[0].n > 1 else []
    fix = why + made_with(missing, good[0], path) if missing else "leave it out."
    if any(part.missing for _, part in named):  # of which it may be one
        fix = "merge all parts again, with those that were missing, instead of what was merged."
    raise FileError(path, f"it was made {mine}, but {rest} made {theirs}{also}; {fix}")


def _note_versions(parts: Sequence[Part]) -> None:
    """Note where different versions of a library made the parts, whose last bits may differ."""
    for name in sorted({name for part in parts for name in part.versions}):
        versions = sorted({part.versions.get(name, "an unknown version") for part in parts})
        if len(versions) > 1:
            current().notes[f"the parts were made with different {name}: {listed(versions)}"] = None


def _note_states(parts: Sequence[Part]) -> None:
    """Note where an input had another size when some of the parts were made.

    It need not be wrong: a broken input is repaired, and its own part alone is made again. What
    each part itself has read is held against the files, where they are at hand.
    """
    if len({part.digest for part in parts}) > 1:
        current().notes[
            "an input had another size when some of the parts were made; each part holds what was "
            "there when it read its own inputs"
        ] = None


def _absent(parts: Sequence[Part]) -> list[int]:
    """The shards that are not among these parts of one whole.

    A shard beyond the last input has none, and there is no file of it.
    """
    first = parts[0]
    last = min(first.n, first.number) if first.number else first.n
    there = {part.k for part in parts}
    return [k for k in range(last) if k not in there]


def _check_once(named: Sequence[Named]) -> None:
    """Raise FileError for a shard that comes twice."""
    first: dict[int, Path | str] = {}
    twice: list[Named] = []
    for path, part in named:
        if first.setdefault(part.k, path) is not path:
            twice.append((path, part))
    if twice:
        path, part = twice[0]
        too = listed([str(each) for each, _ in twice[1:]])
        also = f" (as would those of {too})" if too else ""
        raise FileError(
            path,
            f"it is {_named(part)}, and so is {printable(str(first[part.k]))}; leave one of them "
            f"out, because their inputs would count twice{also}.",
        )


def _check_inputs_once(named: Sequence[Named]) -> None:
    """Raise FileError for an input that two wholes hold; of batches of a model none is known."""
    holder: dict[tuple[object, ...], Path | str] = {}
    for path, part in named:
        flags = tuple(sorted(part.flags.items()))
        for each in part.inputs if not part.batches else ():
            mark = (part.folder, each.path, each.nbytes, each.fingerprint, flags)
            if each.fingerprint and holder.setdefault(mark, path) is not path:
                raise FileError(
                    path,
                    f"it holds {quoted(each.path)}, and so does {printable(str(holder[mark]))}; "
                    "leave one of them out, because that input would count twice.",
                )


def check_unchanged(named: Sequence[Named]) -> None:
    """Raise FileError where inputs are others now; inputs that are elsewhere are not seen."""
    changed = [
        (path, part, each) for path, part in named if (each := _changed_input(part)) is not None
    ]
    if changed:
        path, part, each = changed[0]
        too = listed([str(other) for other, _, _ in changed[1:]])
        also = f" (inputs of {too} have changed, too)" if too else ""
        fix = made_with([part.k for _, part, _ in changed], part, path)
        raise FileError(
            path, f"its input {quoted(each.path)} has changed since it was read{also}; {fix}"
        )


def _changed_input(part: Part) -> PartInput | None:
    """The first input of a part that is still there, and is another one now.

    A relative path means nothing in another folder than that of the call, and nothing remote is
    contacted for what a file says.
    """
    here = part.folder == _folder()
    for each in part.inputs:
        if not each.fingerprint:
            continue
        file = split_spec(each.path)[0]
        if "://" in each.path or not (here or file.is_absolute()):
            continue
        try:
            size = file_size(file)
            if size != each.nbytes or fingerprint(file, size) != each.fingerprint:
                return each
        except FileError:
            continue
    return None


def _note_missing(named: Sequence[Named], missing: Sequence[int], part: Part) -> None:
    """Raise FileError where shards are missing; where that is allowed, remember that they are."""
    if not missing:
        return
    n = part.n if part.n > 1 else 0
    if not current().allow_missing_parts:
        said, them = shards_said(missing, n), "it" if len(missing) == 1 else "them"
        allow = f"add --allow-missing-parts to go on without {them}, or"
        problem = (
            f"it is one of {n} shards, and {said} {'is' if len(missing) == 1 else 'are'} missing; "
            f"{allow} {made_with(missing, part)}"
            if n
            else f"it was merged without {said}; {allow} merge all parts again."
        )
        raise FileError(named[0][0], problem)
    shares = [each.share for _, each in named]
    known = [share for share in shares if share is not None]
    share: float | None = 1 - sum(known)
    of = "the batches" if part.batches else "the inputs' bytes"
    if len(known) < len(shares):
        share, of = len(missing) / n if n else None, "the shards"
    again = made_with(missing, part) if n and part.call else ""
    current().missing.append(MissingParts(str(named[0][0]), tuple(missing), n, share, of, again))


def _flags_apart(one: Part, other: Part) -> tuple[str, str]:
    """The flags in which two parts differ, as each was made: "with --dtype float64", "without"."""
    names = sorted({*one.flags, *other.flags})
    unlike = [name for name in names if one.flags.get(name) != other.flags.get(name)]
    mine, theirs = (
        " and ".join(
            f"with {name} {quoted(part.flags[name], 60)}".removesuffix(" True")
            if name in part.flags
            else f"without {name}"
            for name in unlike
        )
        for part in (one, other)
    )
    return mine, theirs


def _inputs_apart(one: Part, other: Part) -> tuple[str, str]:
    """Of which inputs two parts were made."""
    what = "batches" if one.batches else "inputs"
    mine = f"when there were {one.number} {what}"
    if not one.names or not other.names:
        said = "by an older bncli, which does not record the inputs", "with a record of them"
        return said if not one.names else said[::-1]
    if one.number == other.number:
        return mine, "when some of them had other names"
    return mine, f"when there were {other.number}"


def _typed(part: Part, k: str = "") -> str:
    """With which shard a part was made."""
    return f"with --shard {k or part.k}/{part.n}" if part.n > 1 else "without --shard"


def _named(part: Part) -> str:
    return f"shard {part.k}/{part.n}" if part.n > 1 else "the whole"
