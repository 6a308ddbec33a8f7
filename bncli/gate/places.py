"""Where a finding is: the literal name of a layer, a tensor or a quantity.

Two names are one place where they are the same text. Beside that, a wrapper that all layers of a
file share may come or go, and so may known wrappers inside a name:

    state_dict.module.stem.1                    in a training checkpoint of DistributedDataParallel
    stem.1                                      in the bare state_dict
    stem._checkpoint_wrapped_module.1           under activation checkpointing

Neither the layers that the user chose to look at nor numbers in sentences are part of it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

from bncli.light import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.report import Finding, Report

WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What DataParallel, torch.compile, FSDP and activation checkpointing put into names."""

INNER = frozenset(
    {
        "_orig_mod",
        "_fsdp_wrapped_module",
        "_fpw_module",
        "_checkpoint_wrapped_module",
        "_forward_module",
    }
)
"""What torch.compile, FSDP, activation checkpointing and Fabric put into names, at any depth."""

OUTER = INNER | {
    "module",
    "model",
    "net",
    "network",
    "state",
    "state_dict",
    "model_state",
    "model_state_dict",
    "model_dict",
    "net_state_dict",
    "network_state_dict",
    "weights",
    "params",
    "checkpoint",
}
"""What wrapping a model or saving it among other things puts before all of its names."""

_COMPONENT = re.compile(r"([^./]+)[./](?=.)", re.DOTALL)
_INNER = re.compile(rf"(?:^|(?<=[./]))(?:{'|'.join(sorted(INNER))})[./](?=.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one file, and what of them is a wrapper.

    `prefix` is the wrapper that all of them share, with its dots. `literal` says that no other
    wrapper is left out, because two names would be one: `bn` beside `module.bn`.
    """

    every: frozenset[str]
    prefix: str
    literal: bool

    def bare(self, name: str) -> str:
        """A name without wrappers; it need not be one of `every`."""
        return without_wrappers(name, self.prefix, literal=self.literal)


def without_wrappers(name: str, prefix: str, *, literal: bool) -> str:
    """A name without as much of a file's wrapper as it has, and without wrappers inside it."""
    while prefix and not (name.startswith(prefix) and len(name) > len(prefix)):
        prefix = _shorter(prefix)
    rest = name[len(prefix) :]
    return rest if literal else _INNER.sub("", rest)


def _shorter(prefix: str) -> str:
    """A wrapper without its last component."""
    return re.sub(r"[^./]+[./]$", "", prefix)


@lru_cache(maxsize=16)  # asked again for every finding of a file
def names_of(names: tuple[str, ...]) -> Names:
    """What is a wrapper among the names of one file."""
    every = frozenset(names)
    prefix = ""
    first = next(iter(every), "")
    while (found := _COMPONENT.match(first, len(prefix))) and found[1] in OUTER:
        longer = first[: found.end()]
        if not all(name.startswith(longer) and len(name) > len(longer) for name in every):
            break
        prefix = longer
    bare = {_bare_of_all(name) for name in every}
    return Names(every, prefix, literal=len(bare) < len(every))


def _bare_of_all(name: str) -> str:
    """A name without anything that may be a wrapper."""
    at = 0
    while (found := _COMPONENT.match(name, at)) and found[1] in OUTER:
        at = found.end()
    return _INNER.sub("", name[at:])


def names_in(report: Report, path: str) -> Names:
    """The names of one of a report's files; "" is what its files are together."""
    return names_of(tuple(report.names.get(path, ())))


def places(finding: Finding) -> tuple[str, ...]:
    """The places that a finding stands for; most have one, which is the subject."""
    return finding.places or (finding.subject,)


# ------------------------------------------------------------------ patterns of places


def fits(name: str, glob: str) -> bool:
    """Whether a glob means a name. One with brackets means what is called so, too."""
    return (
        name == glob
        or fnmatchcase(name, glob)
        or ("[" in glob and fnmatchcase(name, glob.replace("[", "[[]")))
    )


def matches(name: str, glob: str) -> bool:
    """Whether a layer's name, or any end of it behind a "." or "/", is what the glob means."""
    return fits(name, glob) or any(
        fits(name[at.end() :], glob) for at in re.finditer(r"[./]", name)
    )


def aliases(place: str, report: Report, path: str) -> set[str]:
    """The names by which a user may call a place, none of which could mean another layer.

    Those are its own, and the one without wrappers, with or without what all names of its file
    begin with.
    """
    every = tuple(report.names.get(path, ()))
    own = 1 if place in names_of(every).every else 0
    meanings = _meanings(every)
    return {place, *(name for name in _spellings(place, every) if meanings.get(name, 0) <= own)}


def _spellings(place: str, every: tuple[str, ...]) -> set[str]:
    """A place with and without wrappers and the common prefix."""
    prefix = common_prefix(every)
    full = unwrapped(place)
    short = full.removeprefix(f"{prefix}.") if prefix else full
    return {place, names_of(every).bare(place), full, short}


@lru_cache(maxsize=16)
def _meanings(every: tuple[str, ...]) -> Mapping[str, int]:
    """How many of a file's layers each spelling could mean."""
    return Counter(name for place in set(every) for name in _spellings(place, every))


def unwrapped(name: str) -> str:
    """A name without the components that wrappers put there; "/" counts as "."."""
    parts = re.split(r"[./]", name)
    return ".".join(part for part in parts if part not in WRAPPERS) or name


@lru_cache(maxsize=16)  # asked again for every finding of a file
def common_prefix(names: tuple[str, ...]) -> str:
    """The leading components that all names share, wrappers left out; "" for fewer than two."""
    split = [unwrapped(name).split(".")[:-1] for name in names]
    if len(split) < 2:
        return ""
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


# ------------------------------------------------------------------ fingerprints


def fingerprint(finding: Finding, report: Report) -> str:
    """Sixteen hexadecimal digits that stay while the same rule speaks of the same place.

    The file belongs to it, as it was named; the numbers in the finding, and a wrapper that all
    names of the file share, do not.
    """
    import hashlib  # here, as it loads OpenSSL

    names = names_in(report, finding.path)
    parts = [report.command, finding.code, *map(names.bare, places(finding))]
    about = ((report.file_of(finding), ""),) if finding.path or not report.about else report.about
    for path, name in about:
        parts += [os.path.normpath(path).replace(os.sep, "/") if path else "", name]
    parts = [part.replace("\\", "\\\\").replace("\n", "\\n") for part in parts]
    return hashlib.sha256("\n".join(parts).encode(errors="backslashreplace")).hexdigest()[:16]
