"""The part of a checkpoint that fits a set of keys, by names alone: no tensor is read."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import MissingTensorError
from bncli.gate.places import names_of, unwrapped
from bncli.light import dataclass
from bncli.loaders.names import listed, quoted, under

if TYPE_CHECKING:
    from bncli.model import TensorRef

COUNTER = "num_batches_tracked"
"""A buffer that a checkpoint may lack: no output depends on it."""
SHOWN = 5
"""How many keys a sentence names."""

_QUOTE = "'"
_ENDS = re.compile(r"[./]")


@dataclass(frozen=True, slots=True)
class Part:
    """What lies under one prefix of a checkpoint.

    `found` has the tensor for each of the keys that were looked for, and `refs` all tensors under
    the prefix, by their names without it.
    """

    prefix: str
    found: Mapping[str, TensorRef]
    refs: Mapping[str, TensorRef]

    @property
    def left_over(self) -> tuple[str, ...]:
        """The full names of the tensors under the prefix that none of the keys stands for."""
        used = {ref.name for ref in self.found.values()}
        return tuple(ref.name for ref in self.refs.values() if ref.name not in used)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a file with most of some keys, by their prefixes, each with its "." or "/".

    A group of `groups` has the prefixes under which the same tensors are found, the longest first.
    `found` has these by prefix and key, and `inside` all tensors that were looked at. `whose` says
    whose keys they are, for the sentence.
    """

    path: Path
    whose: str
    inside: Mapping[str, TensorRef]
    found: Mapping[str, Mapping[str, TensorRef]]
    groups: Sequence[Sequence[str]]

    @property
    def names(self) -> list[str]:
        """What a user calls each group."""
        return [group[0].rstrip("./") for group in self.groups]

    def part(self, prefix: str) -> Part:
        """All that lies under a prefix."""
        cut = len(prefix)
        refs = {name[cut:]: ref for name, ref in self.inside.items() if name.startswith(prefix)}
        return Part(prefix.rstrip("./"), self.found[prefix], refs)

    def the_one(self) -> Part:
        """The part to take: the whole file, or the only one.

        Raises MissingTensorError where there are several.
        """
        names = self.names
        if len(names) > 1 and "" not in names:
            raise MissingTensorError(
                self.path,
                f"{listed(names, ' and ', mark=_QUOTE)} fit the {self.whose} equally; say which "
                f"with --checkpoint {quoted(str(self.path))}::{quoted(names[0])}.",
            )
        return self.part(self.groups[0][0])


def fitting_part(
    path: Path, tensors: Mapping[str, TensorRef], name: str, keys: Collection[str]
) -> Part:
    """The part of a file with most of a model's keys, whatever wrappers stand before them.

    `name` is the part that the user named, "" for none. Raises MissingTensorError where no part
    fits or two fit equally.
    """
    return fitting_parts(path, tensors, name, keys, "model").the_one()


def fitting_parts(
    path: Path, tensors: Mapping[str, TensorRef], name: str, keys: Collection[str], whose: str
) -> Parts:
    """The parts with most of the keys, in order. Raises MissingTensorError where there is none."""
    inside = under(path, tensors, name)
    own = {unwrapped(key): key for key in keys} | {key: key for key in keys}
    inner = names_of(tuple(keys)).bare  # the model may be wrapped, and not the checkpoint
    found, counted, most = max(
        (_found(inside, each) for each in (own, {inner(key): key for key in keys})),
        key=lambda each: each[2],  # the first of equals
    )
    if not most:
        raise MissingTensorError(
            path,
            f"none of the {whose}'s {len(keys)} tensors is in it; it has {few(inside)}, and the "
            f"{whose} has {few(keys)}.",
        )
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for prefix, each in found.items():
        if counted[prefix] == most:
            alike[tuple(sorted(ref.name for ref in each.values()))].append(prefix)
    groups = sorted(sorted(group, key=len, reverse=True) for group in alike.values())
    return Parts(path, whose, inside, found, groups)


def few(names: Iterable[str]) -> str:
    """The first of them, and how many there are: "3 keys (a, b, c)"."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    keys = "key" if len(every) == 1 else "keys"
    return f"{len(every)} {keys} ({listed(every[:SHOWN])}{more})" if every else "no keys"


def _found(
    tensors: Mapping[str, TensorRef], keys: Mapping[str, str]
) -> tuple[dict[str, dict[str, TensorRef]], dict[str, int], int]:
    """For each prefix, with its "." or "/", the tensors by key; how many; the most.

    `keys` has the keys by the names that are looked for. Counters are not counted.
    """
    found: dict[str, dict[str, TensorRef]] = defaultdict(dict)
    for name, ref in tensors.items():
        for start in (0, *(end.end() for end in _ENDS.finditer(name))):
            key = keys.get(name[start:]) or keys.get(unwrapped(name[start:]))
            if key is not None:
                found[name[:start]].setdefault(key, ref)
    counted = {
        prefix: sum(not key.endswith(COUNTER) for key in inside) for prefix, inside in found.items()
    }
    return found, counted, max(counted.values(), default=0)
