"""`bncli capture --distributed`: each rank's shard of the batches, and the whole on rank 0."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.arguments.shard import Shard
from bncli.commands.capture.shards import data_marks
from bncli.errors import RankError
from bncli.light import dataclass
from bncli.live.data_source import EmptyShardError
from bncli.loaders.statistics.gathering import (
    check_no_part,
    gathered,
    own_target,
    remove_held_parts,
    remove_part,
)
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
    `divided` names code of which each rank took all batches.
    """

    capture: Capture | None
    differing: list[RankDifference]
    kept: bool = False
    session: Session | None = None
    divided: tuple[str, ...] = ()


def captured_by_ranks(
    task: Task,
    open_session: Callable[[tuple[int, int]], Session],
    capture: Callable[[Session], Capture | None],
) -> OfRanks:
    """Each rank captures its shard of the `task`, which is the whole; ranks other than 0 leave.

    First the parameters and buffers of all ranks are compared, and what their code gives: code that
    gives other batches on each rank divides the data itself. A rank whose part is finished does not
    run the model. `open_session` opens the model and a shard (k, n) of the data, `capture` runs it.
    Raises RankError where the ranks see other data, or such code gives two of them one batch.
    """
    ranks = current()
    held = task.held()
    if ranks.agree("whole", "there" if held is not None else "") == "there":
        ranks.gather(b"")
        if held is not None:
            remove_held_parts(task.target, held.part)
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
    if differing := _compared(session):
        return OfRanks(None, differing, session=session)
    divided = _divided(session)
    part = own.held()
    seen = part
    if part is None and session is not None:
        try:
            session.data.check_shard()
            marks = {**marks, **data_marks(session.data)}
            seen = capture(session)
        except EmptyShardError:
            seen = None
        if seen is not None:
            seen = replace(seen, part=own.record(session.data, marks))
    check = partial(_check_apart, session, own.target) if divided else lambda: None
    whole = gathered(seen, task.target, kept=part is not None, check=check)
    return OfRanks(whole, [], session=session, divided=divided)


def _compared(session: Session | None) -> list[RankDifference]:
    """In which tensors the ranks' models differ, on rank 0; the others leave where they do."""
    from bncli.live.rank_audit import audited

    model = None if session is None else session.model
    layers = [] if session is None else [layer.name for layer in session.layers]
    return audited(model, layers)


def _divided(session: Session | None) -> tuple[str, ...]:
    """The code that gives other batches on each rank, all of which are to be taken.

    Raises RankError where two ranks have one first batch nevertheless.
    """
    ranks = current()
    marks = {} if session is None else session.data.marks()
    told = ranks.collect("marks", json.dumps(marks).encode())
    names: set[str] = set()
    if told is not None:
        every = [json.loads(each) for each in told]
        names = {
            code for code in every[0] if len({marks[code] for marks in every if code in marks}) > 1
        }
        firsts = [{code: [marks[code]] for code in names if marks.get(code)} for marks in every]
        if problem := _overlap(firsts):
            raise RankError(problem)
    agreed = ranks.agree("divided", json.dumps(sorted(names)) if ranks.leads else None)
    divided = tuple(json.loads(agreed))
    if session is not None:
        session.data.give_all_of(divided)
    return divided


def _check_apart(session: Session | None, own: str | None) -> None:
    """Raise RankError where code gave one batch to two ranks; the ranks' parts are removed then."""
    ranks = current()
    digests = {} if session is None else session.data.digests()
    told = ranks.collect("batches", json.dumps(digests).encode())
    problem = "" if told is None else _overlap([json.loads(each) for each in told])
    if ranks.agree("batches", problem if ranks.leads else None):
        if own is not None:
            remove_part(Path(own))
        if ranks.leads:
            raise RankError(problem)
        ranks.gather(b"")


def _overlap(ranks_digests: list[dict[str, list[int]]]) -> str:
    """Which two ranks had one batch, whose digests these are by the name of its code; "" if none.

    The code of none has two batches of one digest by chance: there are 2**64 of them.
    """
    ranks = current()
    first: dict[tuple[str, int], tuple[int, int]] = {}
    for rank, digests in enumerate(ranks_digests):
        for code, every in digests.items():
            for number, digest in enumerate(every, 1):
                before, its = first.setdefault((code, digest), (rank, number))
                if before != rank:
                    return (
                        f"{code} does not give the same batches on all ranks, but batch {number} on"
                        f" {ranks.said(rank)} is batch {its} on {ranks.said(before)}, so it would "
                        "count twice; let each rank give batches of its own, or all ranks the same."
                    )
    return ""
