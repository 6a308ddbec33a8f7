"""The files that are compared: patterns become files, and no file is compared with itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.arguments.checkpoints import as_models
from bncli.errors import UsageError
from bncli.light import dataclass
from bncli.loaders import split_spec
from bncli.loaders.interface import STANDARD_INPUT
from bncli.loaders.patterns import expanded, natural

if TYPE_CHECKING:
    from bncli.model import TensorFile


@dataclass(frozen=True, slots=True)
class Given:
    """A file of the call and the part of it that is compared, "" for all of it."""

    path: Path
    part: str

    @property
    def spec(self) -> str:
        """How it is typed."""
        return f"{self.path}::{self.part}" if self.part else str(self.path)

    def is_same(self, other: Given) -> bool:
        """Whether both are the same part of one file, whatever it is called."""
        if self.part != other.part:
            return False
        try:
            return self.path.samefile(other.path)
        except (OSError, ValueError):  # such as one that is not there, which is said on opening
            return self.path == other.path


def part_in(file: TensorFile, part: str) -> str:
    """The part of a file as its names begin: one that ends in `part`, if no name begins with it.

    So ema means state_dict.ema. What is not the only one stays as it was given.
    """
    below = (f"{part}.", f"{part}/")
    if not part or any(name.startswith(below) for name in file.tensors):
        return part
    ends = re.compile(rf".*?[./]{re.escape(part)}(?=[./])", re.DOTALL)
    found = {match[0] for name in file.tensors if (match := ends.match(name))}
    return found.pop() if len(found) == 1 else part


def files_given(specs: Sequence[str], target: str | None) -> tuple[list[Given], Given | None]:
    """The files of a call, those of each pattern in natural order, and the target of --with.

    A file that a pattern fits is left out where it stands already, or is the target. Raises
    UsageError where too few are left, or one is typed twice, and FileError where a pattern fits no
    file.
    """
    aim = None if target is None else _one(target)
    files: list[Given] = []
    for spec in specs:
        found = [_given(each) for each in as_models(expanded([spec], natural))]
        typed = len(found) == 1 and found[0] == _given(as_models([spec])[0])
        for each in found:
            known = [*files, *([aim] if aim is not None else [])]
            twin = next((other for other in known if each.is_same(other)), None)
            if twin is None:
                files.append(each)
            elif typed:
                raise UsageError(_twice(each, twin))
    if not files or len(files) + (aim is not None) < 2:
        raise UsageError(_too_few(specs, files, aim))
    return files, aim


def _one(spec: str) -> Given:
    found = as_models(expanded([spec], natural))
    if len(found) > 1:
        raise UsageError(f"--with {spec}: {len(found)} files fit this pattern; name one of them.")
    return _given(found[0])


def _given(spec: str) -> Given:
    path, part = split_spec(spec)
    if path == STANDARD_INPUT:
        raise UsageError("compare-checkpoints reads files, not standard input; name each file.")
    return Given(path, part)


def _twice(given: Given, twin: Given) -> str:
    if given.path == twin.path:
        return f"{given.spec} is given twice; name another file, or a part of it as PATH::PART."
    return f"{twin.spec} and {given.spec} are the same file; name two files."


def _too_few(specs: Sequence[str], files: Sequence[Given], aim: Given | None) -> str:
    if aim is not None:
        return f"--with {aim.spec}: give at least one file beside it."
    (only,) = files
    if len(specs) == 1 and only.spec != specs[0]:
        return f"{specs[0]} is one file, {only.spec}; compare-checkpoints takes two or more."
    return (
        f"compare-checkpoints takes two files or more; for {only.spec} alone, use bncli "
        f"inspect-checkpoint {only.spec}."
    )
