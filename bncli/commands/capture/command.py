"""`bncli capture`: what every BatchNorm layer of a model takes in, in kilobytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

from bncli.arguments import options
from bncli.arguments.completion import complete_code
from bncli.arguments.model import ModelFlags
from bncli.arguments.options import argument
from bncli.arguments.shard import ScaleFlags
from bncli.errors import UsageError
from bncli.given import called_from_python
from bncli.report import Report
from bncli.sections.answer import counted, listed, size_of

if TYPE_CHECKING:
    from bncli.commands.capture.shards import Task
    from bncli.live.session import Session
    from bncli.model.capture import Capture
    from bncli.model.ranks import RankDifference
    from bncli.pictures import Shown
    from bncli.report import Finding, Value


def capture(
    model: Annotated[
        str,
        argument(
            "MODEL",
            "The model as package.module:name or file.py:name: a class, a function or an instance. "
            "This imports and runs your code.",
            complete_code,
        ),
    ],
    *,
    flags: ModelFlags,
    save_stats: options.SaveStats = None,
    per_batch: options.PerBatch = False,
    scale: ScaleFlags,
) -> Report:
    """Run a model over data, and keep the statistics of every BatchNorm layer's input.

    The model runs as in training, each BatchNorm layer normalising by the batch, and as in
    evaluation; everything else stays in evaluation mode, so that the difference is BatchNorm's.
    Then the statistics are found anew in all layers, and the outputs are compared. Nothing in the
    model is changed.
    """
    if per_batch and save_stats is None:
        raise UsageError("--per-batch is for a statistics file: add --save-stats FILE.npz.")
    return captured(model, flags, save_stats, scale, per_batch=per_batch)[1]


def captured(
    model: str,
    flags: ModelFlags,
    save_stats: str | None,
    scale: ScaleFlags,
    *,
    per_batch: bool,
) -> tuple[Capture | None, Report]:
    """What the layers took in, and the report of it; None where nothing was captured.

    Arguments are as in `capture`.
    """
    from bncli.arguments.distributed import check_distributed
    from bncli.arguments.model import open_session
    from bncli.commands.capture.shards import data_marks, task_of
    from bncli.files.reading import current
    from bncli.live.data_source import EmptyShardError
    from bncli.loaders.statistics import check_statistics_path, write_statistics

    if save_stats is not None:
        check_statistics_path(save_stats)
    if scale.distributed:
        check_distributed(flags.data or (), scale.shard)
    task = task_of(model, flags, scale, save_stats, per_batch=per_batch)
    if scale.distributed:
        return None, _by_ranks(task, flags, model)
    facts: dict[str, Value] = {"shard": str(task.shard)} if task.given else {}
    if (held := task.held()) is not None:
        current().notes[f"{save_stats} is finished already, so the model did not run"] = None
        return held, _report(held, model, save_stats, facts)
    marks = task.marks()
    try:
        session = open_session(flags, model, (task.shard.k, task.shard.n))
        if save_stats is not None:
            check_statistics_path(save_stats)  # again, as it is known now what was read
        marks = {**marks, **data_marks(session.data)}
        seen = _captured(session, per_batch=per_batch) if session.layers else None
    except EmptyShardError as error:
        return None, _nothing(str(error).removesuffix("."), facts)
    if seen is None or not seen.norms:
        return None, _nothing(_why_nothing(session, model), facts)
    seen = replace(seen, part=task.record(session.data, marks))
    if save_stats is not None:
        write_statistics(save_stats, seen, new=bool(task.given))
    return seen, _report(seen, model, save_stats, facts)


def _by_ranks(task: Task, flags: ModelFlags, model: str) -> Report:
    """The report of what several ranks capture together, or of what their models differ in."""
    from bncli.arguments.model import open_session
    from bncli.commands.capture.by_ranks import captured_by_ranks
    from bncli.files.reading import current
    from bncli.loaders.statistics import write_statistics

    def capture(session: Session) -> Capture | None:
        seen = _captured(session, per_batch=task.per_batch) if session.layers else None
        return seen if seen is not None and seen.norms else None

    found = captured_by_ranks(
        task, lambda shard: open_session(flags, model, shard, of_ranks=True), capture
    )
    if found.differing:
        return _differing(found.differing, model)
    if found.capture is None:
        assert found.session is not None
        return _nothing(_why_nothing(found.session, model), {})
    if found.kept:
        current().notes[f"{task.target} is finished already, so the model did not run"] = None
    elif task.target is not None:
        write_statistics(task.target, found.capture, new=True)
    if found.divided:
        current().notes[
            f"{listed(found.divided)} gives other batches on each rank, so it is taken to divide "
            "the data itself, and each rank takes all that it is given; it is assumed that the "
            "ranks' batches do not overlap: what a loader only shuffles with a random source of "
            "its own would be counted once for each rank"
        ] = None
    divided: dict[str, Value] = {"divided_by": list(found.divided)} if found.divided else {}
    return _report(found.capture, model, task.target, divided)


def _differing(found: list[RankDifference], model: str) -> Report:
    """The report where the ranks' models differ, so that nothing was captured."""
    from bncli.rulebook.ranks import rank_findings

    layers = list(dict.fromkeys(each.layer for each in found))
    differ = "differs" if len(layers) == 1 else "differ"
    why = f"{counted(len(layers), 'module')} of {model} {differ} between the ranks"
    nothing = _nothing(f"{why}, so nothing was captured", {})
    return replace(
        nothing,
        nothing_checked=False,
        verdict=f"{why}; nothing was captured",
        findings=tuple(rank_findings(found)),
        subject=(model,),
        scope=f"the model of {model}",
        checked={"": layers},
        names={"": layers},
        about=(("", model),),
    )


def _captured(session: Session, *, per_batch: bool) -> Capture:
    """What the layers see while the model runs, with progress on standard error."""
    from bncli.live.weights import fingerprint
    from bncli.process.progress import batch_progress

    with session.open(), batch_progress("capture", lambda: session.data.length) as advance:
        session.advance = advance
        before = fingerprint(session.model)
        seen = session.capture(per_batch=per_batch)
        moved = fingerprint(session.model)["weights"] != before["weights"]
    return replace(seen, weights_moved=moved)


def _why_nothing(session: Session, model: str) -> str:
    """There is no BatchNorm layer, or none that a batch reaches."""
    if names := [layer.name for layer in session.layers]:
        why = f"no batch reaches a BatchNorm layer of {model} ({listed(names)})"
    else:
        why = f"{model} has no BatchNorm layer"
    return f"{why}, so nothing was captured"


def _nothing(why: str, facts: Mapping[str, Value]) -> Report:
    """The report where nothing was captured."""
    from bncli.commands.capture.tables import input_table, layers_table
    from bncli.model.capture import Capture
    from bncli.sections.live import live_facts

    empty = Capture(())
    return Report(
        command="capture",
        facts={**live_facts(empty), "saved_stats": None, **facts},
        tables=(layers_table(empty), input_table(empty)),
        verdict=why,
        nothing_checked=True,
        checked={"": []},
    )


def _report(seen: Capture, model: str, saved: str | None, shard: Mapping[str, Value]) -> Report:
    """The report of a capture, with what it shows as a fact."""
    from pathlib import Path

    from bncli.commands.capture.tables import input_table, layers_answer, layers_table
    from bncli.rulebook.layers import label
    from bncli.rulebook.live.causes import observations
    from bncli.sections.live import gap_line, left_out_lines, live_facts, live_subject, weights_path

    path = weights_path(seen)
    read = tuple(filter(None, [path]))
    names = [label(layer.name) for layer in seen.layers]
    remarks = [gap_line(seen), *left_out_lines(seen)]
    keeps = "save(FILE)" if called_from_python() else "--save-stats FILE.npz"
    verdict = f"{counted(len(seen.norms), 'layer')} captured; {keeps} keeps them"
    if saved is not None:
        size = size_of(Path(saved).stat().st_size)
        use = f"bncli diagnose {saved} judges it"
        if seen.part.n > 1:
            use = "bncli diagnose PARTS judges it together with the other parts"
        verdict = f"saved to {saved} ({size}); {use}"
    table = layers_table(seen)
    findings = tuple(replace(finding, path=path) for finding in observations(seen))
    return Report(
        command="capture",
        facts={**live_facts(seen), "saved_stats": saved, **shard},
        tables=(table, input_table(seen)),
        findings=findings,
        pictures=partial(_pictures, findings=findings, rows=table.rows),
        subject=live_subject(seen),
        answer=(layers_answer(seen),),
        remarks=tuple(remarks),
        scope=counted(len(seen.norms), "BatchNorm layer"),
        judged=False,
        verdict=verdict,
        read=read,
        checked={path: names},
        names={path: names},
        about=() if path else (("", model),),
    )


def _pictures(
    findings: Sequence[Finding], rows: Sequence[Mapping[str, Value]]
) -> tuple[Shown, ...]:
    """What a page shows of the layers."""
    from bncli.commands.capture.pictures import pictures

    return pictures(findings, rows=rows)
