"""A part of a larger whole: what one task of many read of the inputs, and how it was called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass

if TYPE_CHECKING:
    from bncli.report import Value


MOST_SHARDS = 1_000_000
"""More would be more than there are machines; a list of those that are missing stays small."""
MOST_INPUTS, LONGEST_LIST = 100_000, 1 << 22
"""Inputs, and characters of their names, that a part lists one by one, in some 10 MB."""
MOST_BYTES = 1 << 63
"""More than all files of the world together."""

MOST_SAID = 20
"""Shards that a sentence names one by one."""


@dataclass(frozen=True, slots=True)
class PartInput:
    """One input as it was when it was read: its path as given, its bytes, and a mark of them.

    An input that could not be read has no mark.
    """

    path: str
    nbytes: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Part:
    """Shard `k` of `n` of the inputs of a call, k from 0; the whole is shard 0 of 1.

    `inputs` are its own. `number`, `nbytes`, `names` and `digest` are of the inputs of all shards:
    how many there are, their bytes, and hashes of their names, and of names and sizes. `flags` are
    those, as typed, that change the numbers, `call` the arguments behind "bncli". `versions` has
    those of bncli and of the libraries that made the numbers, `folder` a hash of the folder in
    which relative paths begin. `missing` names the shards that a whole lacks. Where a model ran,
    its batches are what is shared out: `number` counts those of all shards, 0 where that is not
    known, and `batches` its own; else that is 0.
    """

    k: int = 0
    n: int = 1
    inputs: tuple[PartInput, ...] = ()
    number: int = 0
    nbytes: int = 0
    digest: str = ""
    names: str = ""
    flags: Mapping[str, str] = field(default_factory=dict)
    call: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    missing: tuple[int, ...] = ()
    batches: int = 0

    @property
    def own_bytes(self) -> int:
        """The bytes of this part's own inputs."""
        return sum(each.nbytes for each in self.inputs)

    @property
    def share(self) -> float | None:
        """What it has of the whole: of the batches, or of the inputs' bytes; None if not known."""
        if self.batches:
            return self.batches / self.number if self.number else None
        return self.own_bytes / self.nbytes if self.own_bytes and self.nbytes else None

    def plain(self) -> dict[str, Value]:
        """The part as JSON has it; an input is a list [path, bytes, fingerprint]."""
        values = asdict(self)
        rows = [[each.path, each.nbytes, each.fingerprint] for each in self.inputs]
        return values | {
            "inputs": rows,
            "flags": dict(self.flags),
            "call": list(self.call),
            "versions": dict(self.versions),
            "missing": list(self.missing),
        }

    @classmethod
    def of(cls, values: object) -> Part:
        """The part that `plain` gave, of this bncli or one that knew fewer or more fields.

        What says of which inputs it is has to be there. Raises ValueError for anything else.
        """
        if not isinstance(values, dict) or not values.keys() >= {"k", "n", "inputs"}:
            raise ValueError(values)
        usual = cls().plain()
        given: dict[str, Any] = {name: values.get(name, usual[name]) for name in usual}
        whole = ("k", "n", "number", "nbytes", "batches")
        fits = (
            all(_is_count(given[name]) for name in whole)
            and given["k"] < given["n"] <= MOST_SHARDS
            and all(isinstance(given[name], str) for name in ("digest", "names", "folder"))
            and all(_is_texts(given[name]) for name in ("flags", "versions"))
            and _is_list(given["call"], lambda each: isinstance(each, str))
            and _is_list(given["missing"], _is_count)
            and _is_list(given["inputs"], _is_input)
        )
        if not fits:
            raise ValueError(values)
        given["inputs"] = tuple(PartInput(*row) for row in given["inputs"])
        given |= {name: tuple(given[name]) for name in ("call", "missing")}
        return cls(**given)


def part_beside(target: str, k: int, n: int) -> str:
    """The file for one rank's part of a statistics file, which lies beside it."""
    path = Path(target)
    return str(path.with_name(f"{path.stem}.part-{k}-of-{n}{path.suffix}"))


def whole_of(parts: Sequence[Part], missing: Sequence[int] = ()) -> Part:
    """The parts of one whole, which lacks the shards `missing`, as one.

    The same for any order of them.
    """
    first = min(parts, key=lambda part: part.k)
    return replace(
        first,
        k=0,
        n=1,
        inputs=_inputs(parts),
        missing=tuple(sorted(missing)),
        batches=sum(part.batches for part in parts),
    )


def together(parts: Sequence[Part]) -> Part:
    """Several wholes as one, with the flags that they share, the same for any order of them."""
    if len(parts) == 1:
        return parts[0]
    shared = set.intersection(*(set(part.flags.items()) for part in parts))
    versions = set.intersection(*(set(part.versions.items()) for part in parts))
    return Part(
        inputs=_inputs(parts),
        number=sum(part.number for part in parts),
        nbytes=sum(part.nbytes for part in parts),
        flags=dict(sorted(shared)),
        versions=dict(sorted(versions)),
        missing=tuple(sorted({k for part in parts for k in part.missing})),
        batches=sum(part.batches for part in parts),
    )


def shards_said(shards: Sequence[int], n: int = 0) -> str:
    """Some of `n` shards as they are typed, or of an unknown number: "shards 1/4 and 3/4"."""
    of = f"/{n}" if n else ""
    shown = [f"{k}{of}" for k in shards[:MOST_SAID]]
    if len(shards) > MOST_SAID:
        shown.append(f"{len(shards) - MOST_SAID} more")
    said = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    return f"shard{'s' * (len(shards) > 1)} {said}"


def may_list(names: Sequence[str]) -> bool:
    """Whether inputs of these names are no more than a file should list."""
    return len(names) <= MOST_INPUTS and sum(map(len, names)) <= LONGEST_LIST


def _inputs(parts: Sequence[Part]) -> tuple[PartInput, ...]:
    """All inputs, in order; none where they are more than a file should list."""
    rows = sorted(row for part in parts for row in _rows(part))
    if not all(part.inputs for part in parts) or not may_list([row[0] for row in rows]):
        return ()
    return tuple(PartInput(*row) for row in rows)


def _rows(part: Part) -> list[tuple[str, int, str]]:
    return [(each.path, each.nbytes, each.fingerprint) for each in part.inputs]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_BYTES


def _is_texts(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(each, str) for pair in value.items() for each in pair
    )


def _is_list(value: object, fits: Any) -> bool:
    return isinstance(value, list) and all(map(fits, value))


def _is_input(row: object) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 3
        and isinstance(row[0], str)
        and _is_count(row[1])
        and isinstance(row[2], str)
    )
