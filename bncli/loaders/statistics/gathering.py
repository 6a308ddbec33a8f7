"""The parts of a statistics file that several ranks make, and the whole on rank 0.

Each rank's part lies beside the whole as soon as it is finished, so that what was done is not lost
where another rank fails; when rank 0 has written the whole, the parts are removed.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import BncliError, RankError
from bncli.files import reading
from bncli.files.held import held
from bncli.files.save import THERE, check_new
from bncli.loaders.statistics.file import open_statistics, statistics_bytes, write_statistics
from bncli.loaders.statistics.merging import merge_captures
from bncli.model.part import part_beside
from bncli.process.ranks import current

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bncli.model.capture import Capture
    from bncli.model.part import Part


KEPT, MADE = b"k", b"m"
"""What a payload begins with: whether its rank found its part finished, or made it."""


def own_target(target: str | None) -> str | None:
    """Where this rank's part of the statistics file `target` is to be, None without one."""
    ranks = current()
    return None if target is None else part_beside(target, ranks.rank, ranks.world)


def check_no_part(target: str) -> None:
    """Raise FileError where this rank's part lies beside `target` already.

    No rank begins before all have looked: so it is one of an earlier run.
    """
    ranks = current()
    check_new(Path(part_beside(target, ranks.rank, ranks.world)), THERE)
    ranks.assemble("no part")


def gathered(
    capture: Capture | None,
    target: str | None,
    *,
    kept: bool = False,
    new: bool = True,
    check: Callable[[], object] = lambda: None,
) -> Capture | None:
    """What all ranks saw, on rank 0, None for nothing; the other ranks leave the command here.

    `capture` is what this rank saw, None where it had nothing to do. It is written beside `target`
    first, if that is given, unless a file there holds it already (`kept`). `new` refuses a file
    that is there. `check` is called when this rank's part is safe, and may raise. Raises FileError
    where it cannot be written, RankError where the ranks see other inputs, and as `merge_captures`.
    """
    ranks = current()
    own = own_target(target)
    if own is not None and capture is not None:
        if not kept:
            write_statistics(own, capture, new=new)
        ranks.afterwards.append(partial(remove_part, Path(own)))
    check()
    mark = KEPT if kept else MADE
    payloads = ranks.gather(b"" if capture is None else mark + statistics_bytes(capture))
    finished = [str(rank) for rank, data in enumerate(payloads) if data.startswith(KEPT)]
    if finished:
        note = f"rank {finished[0]} had finished its part already and read nothing again"
        if len(finished) > 1:
            note = f"{len(finished)} ranks had finished their parts already and read nothing again"
        reading.current().notes[note] = None
    paths = [held(Path(ranks.said(rank)), data[1:]) for rank, data in enumerate(payloads) if data]
    captures = [open_statistics(path) for path in paths]
    if not captures:
        return None
    _check_inputs(paths, captures)
    if not captures[0].part.number:  # so that nothing but this says that the others had no batches
        n = len(captures)
        captures = [
            replace(each, part=replace(each.part, k=k, n=n)) for k, each in enumerate(captures)
        ]
    whole = merge_captures(paths, captures)
    remove_held_parts(target, whole.part)
    return whole


def remove_held_parts(target: str | None, whole: Part) -> None:
    """Have rank 0 remove the parts beside `target` that the `whole` there holds, of any run.

    Those are what earlier runs left, of the same or another number of ranks. A part with an input
    that the whole lacks, or has in another state, stays.
    """
    if target is not None and whole.inputs:
        current().afterwards.append(partial(_remove_held, target, whole))


def _remove_held(target: str, whole: Part) -> None:
    files: list[Path] = []
    with suppress(OSError):
        files += Path(target).parent.iterdir()
    for path in files:
        if found := re.search(r"\.part-([0-9]{1,9})-of-([0-9]{1,9})\.", path.name):
            k, n = map(int, found.groups())
            if path != Path(part_beside(target, k, n)):
                continue
            with suppress(BncliError, OSError):
                part = open_statistics(path).part
                held = part.inputs and {*part.inputs} <= {*whole.inputs}
                alike = (part.k, part.n, part.flags) == (k, n, whole.flags)
                if held and alike and (not part.batches or part.digest == whole.digest):
                    remove_part(path)


def _check_inputs(paths: Sequence[Path], captures: Sequence[Capture]) -> None:
    """Raise RankError where a rank saw other inputs than the first."""
    first = captures[0].part
    for path, capture in zip(paths, captures, strict=True):
        part = capture.part
        if (part.number, part.nbytes, part.digest) != (first.number, first.nbytes, first.digest):
            raise RankError(
                f"{path} sees {part.number} inputs of {part.nbytes} bytes and {paths[0]} "
                f"{first.number} of {first.nbytes}, or of other names or sizes; all ranks need the "
                "same files."
            )


def remove_part(path: Path) -> None:
    """Remove a part, of which the whole is written, or which is of no use."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
