"""`bncli diagnose`: why a model is good in training and bad in evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from bncli.arguments import options
from bncli.arguments.completion import complete_code
from bncli.arguments.model import ModelFlags
from bncli.arguments.options import argument, option
from bncli.report import Report, Severity
from bncli.rulebook.layers import label

if TYPE_CHECKING:
    from bncli.commands.diagnose.source import Run
    from bncli.model.capture import Capture
    from bncli.pictures import Shown
    from bncli.report import Finding
    from bncli.rulebook.live.causes import Diagnosis

TRIALS = "Diagnosis"


def diagnose(
    given: Annotated[
        list[str],
        argument(
            "MODEL|STATS.npz...",
            "The model as package.module:name or file.py:name, a class, a function or an instance: "
            "this imports and runs your code. Or statistics files that bncli capture saved, which "
            "are merged; neither the model nor PyTorch is needed then.",
            complete_code,
        ),
    ],
    *,
    model: ModelFlags,
    metric: Annotated[
        str | None,
        option(
            "A function of your own, called with the model's output and the batch, that gives a "
            "number such as a loss or an accuracy.",
            TRIALS,
            metavar="FILE.py:NAME",
            complete=complete_code,
        ),
    ] = None,
    most_tried: Annotated[
        int | None,
        option(
            "Try the data's statistics in at most N suspicious layers one by one, and in all of "
            "them; 0 tries nothing.",
            TRIALS,
            "--try",
            metavar="N",
            default="5",
            least=0,
        ),
    ] = None,
    train_batch_size: Annotated[
        int | None,
        option(
            "The number of samples in a batch of training, if these data come in batches of "
            "another "
            "size; the noise of the running statistics depends on it.",
            TRIALS,
            metavar="N",
            default="that of the data",
            least=1,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        option(
            "A statistics file of the same model on its training data. It tells whether the stored "
            "statistics or the data are to blame.",
            TRIALS,
            metavar="STATS.npz",
            default=False,
        ),
    ] = None,
    chart: Annotated[
        bool, option("Draw how far each layer's output is off.", options.OUTPUT, "--chart")
    ] = False,
) -> Report:
    """Find out why a model is good in training and bad in evaluation.

    The model runs over your data twice, each BatchNorm layer normalising by the batch and by its
    stored statistics. The report names the layers whose statistics do not fit and the cause, and
    tries whether new statistics would help. Nothing in the model is changed.
    """
    from bncli.commands.diagnose.source import TrialFlags, reference_of, run

    done = run(given, model, TrialFlags(metric, most_tried, train_batch_size))
    known = None
    if reference is not None and done.capture.norms:
        known = reference_of(reference, done.capture)
    return report_of(done, train_batch_size, known, metric=metric, drawn=chart)


def report_of(
    done: Run,
    train_batch_size: int | None = None,
    reference: Capture | None = None,
    *,
    metric: str | None = None,
    drawn: bool = False,
) -> Report:
    """The diagnosis of a run; exit code 3 where no BatchNorm layer ran."""
    from bncli.rulebook.live.causes import diagnosis

    if not done.capture.norms:
        return _nothing(done)
    found = diagnosis(done.capture, done.trials, train_batch_size, reference)
    return _report(done, found, metric, drawn=drawn)


def _report(done: Run, found: Diagnosis, metric: str | None, *, drawn: bool) -> Report:
    """The report of a diagnosis."""
    from functools import partial

    from bncli.commands.diagnose import rows, words
    from bncli.commands.diagnose.answer import layers_table
    from bncli.rulebook.live.evidence import THE_INPUT
    from bncli.sections.live import live_facts

    capture, trials = done.capture, done.trials
    findings = tuple(replace(finding, path=done.path) for finding in found.findings)
    layers = rows.layer_rows(capture, found.measures, findings, words.closes_alone(capture, trials))
    single = words.best(capture, trials, "one", "input") if trials is not None else None
    names = list(map(label, done.layers))
    places = names if capture.input is None else [THE_INPUT, *names]
    tried = rows.tried_table(capture, trials)
    facts = {
        **live_facts(capture),
        "cause": found.cause,
        "closes": None if single is None else single[1],
        **words.metric_facts(trials, metric),
    }
    return Report(
        command="diagnose",
        facts=facts,
        tables=(rows.layers_table(layers), tried),
        findings=findings,
        pictures=partial(_pictures, findings=findings, rows=layers, tried=tried.rows, facts=facts),
        charts=rows.depth_charts(found.measures),
        verdict=words.verdict(capture, trials, found.measures, _strongest(findings)),
        subject=_subject(done),
        answer=partial(layers_table, rows=layers),
        remarks=tuple(words.remarks(capture, trials, found.measures, metric or "")),
        drawn=drawn,
        read=done.read,
        checked={done.path: places},
        names={done.path: names},
        about=() if done.path else tuple((path, "") for path in done.read) or (("", done.label),),
    )


def _pictures(**shown: Any) -> tuple[Shown, ...]:
    """What a page shows of the tables and the facts."""
    from bncli.commands.diagnose.pictures import pictures

    return pictures(**shown)


def _subject(done: Run) -> tuple[str, ...]:
    """What was looked at, and what is particular about its modes."""
    from bncli.commands.diagnose.words import modes_of
    from bncli.sections.live import live_subject

    first, *others = live_subject(done.capture)
    stored = f"{done.label}  " if done.trials is None and done.read else ""
    lines = [f"{stored}{first}", *others]
    return (*lines[:-1], f"{lines[-1]}  {modes_of(done.capture)}".rstrip())


def _strongest(findings: tuple[Finding, ...]) -> Finding | None:
    """The first finding that is more than a note."""
    return next((each for each in findings if each.severity is not Severity.INFO), None)


def _nothing(done: Run) -> Report:
    """The report where there is no BatchNorm layer, or none that a batch reached."""
    from bncli.commands.diagnose import rows
    from bncli.rulebook.interface import examples
    from bncli.sections.live import live_facts

    number = len(done.layers)
    which = f"any of the {number} BatchNorm layers" if number > 1 else "the BatchNorm layer"
    why = f"no batch reaches {which} of {done.label}"
    why = f"{why} ({examples(done.layers)})" if number else f"{done.label} has no BatchNorm layer"
    facts = {**live_facts(done.capture), "cause": None, "closes": None}
    return Report(
        command="diagnose",
        facts=facts,
        tables=(rows.layers_table([]), rows.tried_table(done.capture, None)),
        verdict=why,
        nothing_checked=True,
        read=done.read,
        checked={done.path: []},
    )
