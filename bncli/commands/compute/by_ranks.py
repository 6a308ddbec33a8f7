"""`bncli compute --distributed`: each rank's shard of the inputs, and the whole on rank 0."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.arguments.shard import Shard
from bncli.commands.compute.sums_first import (
    inputs_said,
    stored_of_all,
    summed_first,
    sums_first,
)
from bncli.loaders.statistics.gathering import (
    check_no_part,
    gathered,
    own_target,
    remove_held_parts,
)
from bncli.process.ranks import current

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.arguments.flags import InputFlags, LayerFlags
    from bncli.commands.compute.stored import Stored
    from bncli.commands.compute.sums_first import Task


def sums_of_ranks(
    task: Task,
    typed: Sequence[str],
    reading: InputFlags,
    layer: LayerFlags,
    *,
    resume: bool,
) -> Stored:
    """The sums of all inputs of the `task`, which is the whole, on rank 0; the others leave here.

    With `resume`, what a whole at the target holds is not read again, and rank 0 alone reads the
    rest; without one, what the ranks' own parts beside it hold is not. Raises as `sums_first`.
    """
    ranks = current()
    there = task.target is not None and Path(task.target).exists()
    if ranks.agree("whole", "there" if there else "") == "there":
        ranks.gather(b"")
        stored = sums_first(task, typed, reading, layer)
        remove_held_parts(task.target, stored.capture.part)
        return stored
    shard = Shard(ranks.rank, ranks.world)
    own = replace(
        task, shard=shard, inputs=tuple(shard.of(task.every)), target=own_target(task.target)
    )
    if task.target is not None and not resume:
        check_no_part(task.target)
    if own.nothing:
        capture = gathered(None, task.target)
    else:
        summed = summed_first(own, reading, layer)
        capture = gathered(summed.capture, task.target, kept=summed.kept, new=summed.new)
    assert capture is not None  # as rank 0 has an input if there is one
    return replace(stored_of_all(capture, inputs_said(typed), layer), new=True)
