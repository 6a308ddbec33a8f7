"""`bncli capture --distributed`: each rank's shard of the batches, and the whole on rank 0."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.arguments.shard import Shard
from bncli.commands.capture.shards import data_marks
from bncli.errors import RankError
from bncli.light import dataclass
from bncli.live.data_source import EmptyShardError
from bncli.loaders.statistics.gathering import check_no_part, gathered, own_target
from bncli.process.ranks import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from bncli.commands.capture.shards import Task
    from bncli.live.session import Session
    from bncli.model.capture import Capture
    from bncli.model.ranks import RankDifference


@dataclass(frozen=True, slots=True)
class OfRanks:
    """What all ranks come to, on rank 0.

    `capture` is None where no layer saw anything, or the ranks' models differ, which `differing`
    tells. `kept` says that a finished file holds it, and `session` is rank 0's, if it has one.
    """

    capture: Capture | None
    differing: list[RankDifference]
    kept: bool = False
    session: Session | None = None


def captured_by_ranks(
    task: Task,
    open_session: Callable[[tuple[int, int]], Session],
    capture: Callable[[Session], Capture | None],
) -> OfRanks:
    """Each rank captures its shard of the `task`, which is the whole; ranks other than 0 leave.

    First the parameters and buffers of all ranks are compared, and what their code gives. A rank
    whose part is finished does not run the model. `open_session` opens the model and a shard (k, n)
    of the data, `capture` runs it. Raises RankError where the ranks see other data.
    """
    ranks = current()
    held = task.held()
    if ranks.agree("whole", "there" if held is not None else "") == "there":
        ranks.gather(b"")
        return OfRanks(held, [], kept=True)
    if task.target is not None and not task.resume:
        check_no_part(task.target)
    shard = Shard(ranks.rank, ranks.world)
    own = replace(task, shard=shard, target=own_target(task.target))
    marks, session = own.marks(), None
    try:
        session = open_session((shard.k, shard.n))
    except EmptyShardError:
        if ranks.leads:
            raise
    differing = _compared(session)
    if differing:
        return OfRanks(None, differing, session=session)
    part = own.held()
    seen = part
    if part is None and session is not None:
        marks = {**marks, **data_marks(session.data)}
        try:
            seen = capture(session)
        except EmptyShardError:
            seen = None
        if seen is not None:
            seen = replace(seen, part=own.record(session.data, marks))
    whole = gathered(seen, task.target, kept=part is not None)
    return OfRanks(whole, [], session=session)


def _compared(session: Session | None) -> list[RankDifference]:
    """In which tensors the ranks' models differ, on rank 0; the others leave where they do.

    Raises RankError where their code gives other batches.
    """
    from bncli.live.rank_audit import audited

    ranks = current()
    model = None if session is None else session.model
    layers = [] if session is None else [layer.name for layer in session.layers]
    if found := audited(model, layers):
        return found
    marks = {} if session is None else session.data.marks()
    told = ranks.collect("marks", b"" if session is None else json.dumps(marks).encode())
    if told is not None:
        _check_marks([json.loads(each) if each else {} for each in told])
    return []


def _check_marks(marks: list[dict[str, int]]) -> None:
    """Raise RankError where the same code gives another first batch on a rank than on rank 0."""
    ranks = current()
    for rank, own in enumerate(marks):
        for code, mark in own.items():
            if marks[0].get(code, mark) != mark:
                raise RankError(
                    f"{code} gives another first batch on {ranks.said(rank)} than on rank 0, and "
                    "no DistributedSampler divides the data, so it is not known which rank is to "
                    "take which batches; let it give the same on all ranks, or give its DataLoader "
                    "a DistributedSampler."
                )
