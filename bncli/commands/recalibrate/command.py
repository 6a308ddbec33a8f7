"""`bncli recalibrate`: a copy of a checkpoint with the right running statistics."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

from bncli.arguments.completion import complete_code
from bncli.arguments.model import DATA
from bncli.arguments.options import argument, option
from bncli.commands.recalibrate.flags import EffectFlags, RunFlags, SavedFlags, StatisticsFlags
from bncli.errors import UsageError
from bncli.report import Report, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.commands.recalibrate.run import Found
    from bncli.commands.recalibrate.writing import Written
    from bncli.live.recalibration import Wish
    from bncli.pictures import Shown
    from bncli.report import Finding, Value
    from bncli.rulebook.live.repair import Judgement


def recalibrate(
    model: Annotated[
        str | None,
        argument(
            "MODEL",
            "The model as package.module:name or file.py:name, a class, a function or an instance: "
            "this imports and runs your code. Leave it out with --stats.",
            complete_code,
        ),
    ] = None,
    *,
    run: RunFlags,
    stats: Annotated[
        list[str] | None,
        option(
            "Statistics files that bncli capture saved, instead of MODEL and --data; a quoted "
            "pattern is several, which are merged; may be repeated.",
            DATA,
            metavar="STATS.npz",
            default=False,
        ),
    ] = None,
    new: StatisticsFlags,
    effect: EffectFlags,
    saved: SavedFlags,
) -> Report:
    """Write the right running statistics into a copy of a checkpoint, and nothing else.

    The model runs over your data, and the mean and variance of what each BatchNorm layer takes in
    become its running statistics. Before anything is written, the model runs with them: what does
    not help is not written. With --stats, the statistics are those that bncli capture saved, and
    neither the model nor PyTorch is needed.
    """
    wish, most = new.wish(stored=model is None), new.most_error
    _check(model, run, stats, effect, saved)
    from bncli.commands.recalibrate.run import from_files, from_model

    if model is None:
        found = from_files(stats or [], run.checkpoint, wish, saved)
    else:
        found = from_model(model, run, wish, effect, saved)
    judgement = _judged(found, effect, most)
    written = _written(found, judgement, saved)
    return _report(found, wish, judgement, written, effect, saved)


def _check(
    model: str | None,
    run: RunFlags,
    stats: list[str] | None,
    effect: EffectFlags,
    saved: SavedFlags,
) -> None:
    """Raise UsageError for flags that do not go together, and for what bncli must not replace."""
    if model is not None and stats:
        if model.endswith(".npz"):  # which the shell put in place of a pattern
            raise UsageError(f"{model}: put --stats before it, or quotes around a pattern.")
        raise UsageError(
            f"{model} and --stats are both given; leave --stats out to run the model, or leave "
            "MODEL out to take the statistics from the files."
        )
    if model is None and not stats:
        raise UsageError(
            "name MODEL with --data, to run it, or give --stats with statistics files that bncli "
            "capture saved."
        )
    if model is None:
        replace(run, checkpoint=None).refuse_any("statistics files")
    effect.check(stored=model is None)
    saved.check(run.checkpoint)
    if run.checkpoint is not None:
        from bncli.commands.recalibrate.checkpoint import check_destination, check_format

        check_format(run.checkpoint)
        if saved.save_checkpoint is not None:
            check_destination(saved.save_checkpoint, run.checkpoint, force=saved.force)


def _judged(found: Found, effect: EffectFlags, most: float) -> Judgement:
    """Whether the new statistics help, are known well enough, and what they leave wrong.

    With --no-check, causes are not looked for. Raises UsageError where it cannot be measured
    whether they help.
    """
    from bncli.rulebook.live.causes import Diagnosis, diagnosis
    from bncli.rulebook.live.repair import Judgement, Outcome, judged
    from bncli.sections.live import gap_line

    if found.done is None:
        return Judgement(Outcome.UNKNOWN)
    causes = Diagnosis((), ()) if effect.no_check else diagnosis(found.done.capture)
    judgement = judged(found.done, effect.goal, causes, most)
    measured = found.done.gap_after is not None or bool(found.done.metrics)
    if found.ran and not measured and not effect.no_check:
        raise UsageError(
            f"{gap_line(found.done.capture)}. So it cannot be measured whether new statistics "
            "help; give --metric FILE.py:NAME, or leave the check out with --no-check."
        )
    return judgement


def _written(found: Found, judgement: Judgement, saved: SavedFlags) -> Written | None:
    """What changes in the checkpoint, and what was written of it; None without a checkpoint."""
    from bncli.commands.recalibrate.writing import Written
    from bncli.rulebook.live.repair import Outcome

    if found.checkpoint is None or found.done is None:
        return None
    planned = Written.planned(found.checkpoint, found.done.layers, saved)
    helps = judgement.outcome in (Outcome.HELPS, Outcome.UNKNOWN)
    if saved.save_checkpoint is None or not (helps or saved.force):
        return planned
    return planned.write(saved)


def _findings(found: Found, judgement: Judgement, *, forced: bool) -> tuple[Finding, ...]:
    """Why the new statistics do not help, or what they leave wrong.

    The former is a warning where the user has them written all the same.
    """
    findings = [*judgement.others]
    if judgement.finding is not None:
        finding = judgement.finding
        if forced:
            detail = f"{finding.detail} It was written all the same (--force).".lstrip()
            finding = replace(finding, severity=Severity.WARNING, detail=detail)
        findings.append(finding)
    path = "" if found.checkpoint is None else str(found.checkpoint.file.path)
    return tuple(replace(each, path=path) for each in findings)


def _report(
    found: Found,
    wish: Wish,
    judgement: Judgement,
    written: Written | None,
    effect: EffectFlags,
    saved: SavedFlags,
) -> Report:
    """The report; exit code 3 where no layer can change."""
    from bncli.commands.recalibrate import rows, words
    from bncli.commands.recalibrate.facts import facts_of, subject_of
    from bncli.rulebook.layers import label
    from bncli.rulebook.live.repair import Outcome

    forced = saved.force and written is not None and written.output is not None
    findings = _findings(found, judgement, forced=forced)
    told = judgement.outcome is Outcome.NO_HELP
    done = found.done
    layers = rows.layer_rows(done.layers if done is not None else ())
    path = "" if found.checkpoint is None else str(found.checkpoint.file.path)
    names = (
        [label(name) for name in (*(row.name for row in done.layers), *found.left)] if done else []
    )
    facts = facts_of(found, wish, judgement, written, effect)
    return Report(
        command="recalibrate",
        facts=facts,
        tables=(rows.layers_table(layers), rows.left_table(found.left)),
        findings=findings,
        pictures=partial(_pictures, findings=findings, rows=layers, facts=facts),
        subject=subject_of(found),
        answer=rows.answer(layers, rows.FEW if findings else rows.SHOWN),
        remarks=tuple(
            words.remarks(
                found,
                wish,
                written,
                effect.metric or "",
                told=told,
                kept=not saved.counts,
            )
        ),
        verdict=words.verdict(
            found,
            judgement.outcome,
            written,
            asked=saved.save_checkpoint is not None,
            forced=forced,
        ),
        judged=done is None or done.checked,
        nothing_checked=done is None,
        read=tuple(filter(None, [path])),
        checked={path: names},
        names={path: names},
        about=() if path else (("", found.label),),
    )


def _pictures(
    findings: Sequence[Finding], rows: Sequence[Mapping[str, Value]], facts: Mapping[str, Value]
) -> tuple[Shown, ...]:
    """What a page shows of the layers that change."""
    from bncli.commands.recalibrate.pictures import pictures

    return pictures(findings, rows=rows, facts=facts)
