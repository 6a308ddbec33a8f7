"""A place as version 1 of baselines and of SARIF's fingerprints knew it.

Numbers and all wrappers are left out, and so is the prefix of the layers that were looked at:
what is read by this rule is less strict than `bncli.gate.places`, and nothing new is written by it,
except for the fingerprints that stand beside the new ones.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from bncli.values import dataclass

if TYPE_CHECKING:
    from bncli.report import Finding, Report

WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What DataParallel, torch.compile, FSDP and activation checkpointing put into names."""

CHANNELS = re.compile(r"\bchannels? \d+(?:, \d+)*(?: and \d+(?: more)?)?")
NUMBER = re.compile(r"(?<!\S)\d+(?!\S)")


@dataclass(frozen=True, slots=True)
class Place:
    """A place as a stable name: `prefix` is what all places of the file begin with.

    `full` is the whole name, only without wrappers and numbers that training changes.
    """

    prefix: str
    short: str

    @property
    def full(self) -> str:
        """Prefix and short name together."""
        return f"{self.prefix}.{self.short}" if self.prefix else self.short


def place(finding: Finding, report: Report) -> Place:
    """The stable name of a finding's subject, among the places that the report judged."""
    subject = unwrapped(NUMBER.sub("N", CHANNELS.sub("channels", finding.subject)))
    prefix = common_prefix(tuple(report.checked.get(finding.path, ())))
    if prefix and subject.startswith(f"{prefix}."):
        return Place(prefix, subject.removeprefix(f"{prefix}."))
    return Place("", subject)


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


def former_fingerprint(finding: Finding, report: Report) -> str:
    """Sixteen hexadecimal digits that stay while the same rule speaks of the same place.

    Neither the numbers in it nor wrappers and common prefixes of the names change it.
    """
    parts = (report.command, finding.code, place(finding, report).short)
    return hashlib.sha256("\n".join(parts).encode(errors="backslashreplace")).hexdigest()[:16]
