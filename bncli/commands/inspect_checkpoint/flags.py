"""The flags of inspect-checkpoint that a part remembers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.errors import UsageError
from bncli.files.reading import current
from bncli.light import dataclass

if TYPE_CHECKING:
    from pathlib import Path

SEVERAL = ("layer", "eps", "momentum")
"""The flags of `Asked` that may be repeated."""
SORTS = ("file", "name", "trouble")


@dataclass(frozen=True, slots=True)
class Asked:
    """The flags that change what is seen of a checkpoint, or the order of its layers, as typed."""

    layer: Sequence[str] = ()
    eps: Sequence[str] = ()
    momentum: Sequence[str] = ()
    expect_layers: int | None = None
    sort: str = "file"

    def flags(self) -> dict[str, str]:
        """Those that were given, as a part has them."""
        given = {f"--{name}": shlex.join(getattr(self, name)) for name in SEVERAL}
        given["--expect-layers"] = "" if self.expect_layers is None else str(self.expect_layers)
        given["--sort"] = "" if self.sort == "file" else self.sort
        given["--no-checksum"] = "" if current().checksum else "given"
        return {name: text for name, text in given.items() if text}

    @classmethod
    def of(cls, flags: Mapping[str, str]) -> Asked:
        """The flags with which a part was made. Raises ValueError for what is none."""
        layer, eps, momentum = (shlex.split(flags.get(f"--{name}", "")) for name in SEVERAL)
        expected, sort = flags.get("--expect-layers"), flags.get("--sort", "file")
        if sort not in SORTS:
            raise ValueError(sort)
        number = None if expected is None else int(expected)
        return cls(layer, eps, momentum, number, sort)

    def for_parts(self, path: Path, flags: Mapping[str, str]) -> Asked:
        """The flags of a whole: those of its parts, and --sort as it is given now.

        Raises ValueError for flags of parts that are none, and UsageError for one that is given now
        and was another when the parts, one of which is at `path`, were made.
        """
        made = Asked.of(flags)
        for name, text in self.flags().items():
            if name not in ("--sort", "--no-checksum") and flags.get(name) != text:
                raise UsageError(
                    f"{name} {text}: {path} was made without it, and it needs the checkpoints "
                    "themselves; make the parts again with it."
                )
        return made if self.sort == "file" else replace(made, sort=self.sort)
