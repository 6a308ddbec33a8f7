"""`bncli diff INPUT`: bncli beside a backend, by mode, quantity and channel."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bncli.arguments.input import parse_channels
from bncli.arguments.layer import check_count, resolve_layer
from bncli.arguments.layer_report import about_pass, layer_facts, subject_line
from bncli.backends.interface import ChoosesPath, IsRepeated
from bncli.commands.diff.differences import channels_answer, drawn
from bncli.commands.diff.mode_answer import (
    IS_ROUNDING,
    quantities_answer,
    rounding_sentence,
    verdict,
    worst_findings_first,
)
from bncli.commands.diff.mode_tables import (
    MODE_COLUMN,
    ModeResult,
    budget_table,
    mode_channels_table,
    mode_differences_table,
    per_quantity_table,
)
from bncli.light import dataclass
from bncli.report import Column, Report
from bncli.sections.answer import counted, scope_of
from bncli.sections.findings import (
    backend_facts,
    backend_findings,
    full_name,
    pass_findings,
    short_name,
    tolerance_said,
    typed_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bncli.arguments.flags import EitherModeFlags, InputFlags
    from bncli.arguments.input import Input
    from bncli.arguments.layer import Layer
    from bncli.backends.interface import Backend
    from bncli.model import ChannelCloseness, ChannelStats
    from bncli.report import Finding, Table, Value
    from bncli.verify.batch_norm_pass import Path
    from bncli.verify.closeness import GivenTolerance
    from bncli.verify.departures.cause import Cause


FOLLOWS = "Fix the output first: the gradients follow from it."
"""What to do about a gradient where it is known why the output differs."""


@dataclass(frozen=True, slots=True)
class RunFlags:
    """What the user chose beside the layer."""

    reading: InputFlags
    against: str
    tolerance: GivenTolerance
    seed: int
    path: Path
    per_quantity: bool
    budget: bool
    threads: int | None


def diff_run(specs: list[str], flags: EitherModeFlags, chosen: RunFlags) -> Report:
    """The report on one input, which is named or typed."""
    from bncli.arguments.against import backend_named

    given = chosen.reading.open(specs, flags.state)
    shown = parse_channels(chosen.reading.channel, given.num_features)
    training = flags.training
    modes = [True, False] if training is None else [training]
    skipped = None
    if training is None and given.count == 1:
        modes = [False]
        skipped = "training: PyTorch needs more than 1 value per channel"
    tracked = flags.track_running_stats is not False
    layers = [
        resolve_layer(replace(flags, training=mode, track_running_stats=tracked), given)
        for mode in modes
    ]
    tensor = given.tensors[0]
    for layer in layers:
        check_count(given, layer)
    library = backend_named(chosen.against)
    _check_path(library, chosen.path)
    (stats,) = given.statistics(threads=chosen.threads)
    x = given.values(tensor)
    results = [_result(given, x, stats, layer, library, chosen) for layer in layers]
    name = full_name(library)
    findings = _findings(given, x, results, library, chosen.tolerance, named=training is not None)
    tables = _tables(results, shown, library, per_quantity=chosen.per_quantity)
    return Report(
        command="diff",
        facts=_facts(given, results, library, chosen, skipped),
        subject=_subject(given, layers, results, library, chosen, skipped),
        answer=_answer(results, tables, library, chosen),
        remarks=_remarks(given, results, library, chosen),
        scope=scope_of(given.num_features, given.count),
        tables=tuple(tables.values()),
        pictures=partial(drawn, tables["differences"], tables["channels"]),
        findings=tuple(findings),
        verdict=verdict(results, name, findings, chosen.tolerance),
        checked={
            "": [
                _place(result, item.whole.quantity, results)
                for result in results
                for item in result.compared.quantities
            ]
        },
        read=(*given.read, *layers[0].read),
        about=about_pass(given, layers[0], mode=False),
    )


def _facts(
    given: Input,
    results: list[ModeResult],
    library: Backend,
    chosen: RunFlags,
    skipped: str | None,
) -> dict[str, Value]:
    """What the report says of the input and the layer, the modes, and the backend's way."""
    minds_path = isinstance(library, ChoosesPath)
    first = results[0]
    return {
        "input": given.label,
        **layer_facts(given, first.layer, first.done.stats, None),
        "training": None if len(results) > 1 else first.layer.settings.training,
        "modes": [result.mode for result in results],
        "skipped": skipped,
        "device": chosen.path.device if minds_path else None,
        "memory_format": chosen.path.memory_format,
        "torch_threads": first.compared.run.threads if minds_path else None,
        "seed": chosen.seed,
        "equal_nan": True,
        **backend_facts(library, chosen.tolerance),
    }


def _tables(
    results: list[ModeResult], shown: Sequence[int], library: Backend, *, per_quantity: bool
) -> dict[str, Table]:
    """Everything, by the tables' keys."""
    tables = [
        mode_differences_table(results, full_name(library)),
        mode_channels_table(results, shown),
    ]
    if any(result.budget for result in results):
        repeated = isinstance(library, IsRepeated)
        tables.append(budget_table(results, short_name(library), repeated=repeated))
    if per_quantity:
        tables.append(per_quantity_table(results, shown))
    return {table.key: table for table in tables}


def _answer(
    results: list[ModeResult], tables: dict[str, Table], library: Backend, chosen: RunFlags
) -> tuple[Table, ...]:
    """The quantities that matter, and what flags ask for."""
    answer = [quantities_answer(results, short_name(library))]
    sides = "bncli", short_name(library)
    mode = (MODE_COLUMN,) if len(results) > 1 else ()
    if chosen.reading.channel is not None:
        named = (*mode, *Column.plain("channel", "quantity"))
        table = tables["channels"]
        answer.append(channels_answer(table.rows, named, sides, table.title))
    if chosen.per_quantity:
        named = (*mode, *Column.plain("quantity", "channel"))
        table = tables["quantities"]
        answer.append(channels_answer(table.rows, named, sides, table.title))
    if chosen.budget and "budget" in tables:
        answer.append(tables["budget"])
    return tuple(answer)


def _remarks(
    given: Input, results: list[ModeResult], library: Backend, chosen: RunFlags
) -> tuple[str, ...]:
    """What was not compared, and why: gradients that there are none of, and the error budget."""
    without = [
        result.mode for result in results if "grad_input" not in result.compared.run.quantities
    ]
    said = []
    if without and isinstance(library, ChoosesPath):  # on PyTorch's tensors, which have gradients
        modes = f" in {' and '.join(without)}" if len(results) > 1 else ""
        said.append(
            f"gradients were not compared{modes}: {short_name(library)}'s output has none, though "
            "its input asks for them (torch.no_grad or detach in it?)"
        )
    if chosen.budget and given.dtype != "float32":
        said.append(f"no error budget: it is computed in float32 only, and this is {given.dtype}")
    return tuple(said)


def _subject(
    given: Input,
    layers: list[Layer],
    results: list[ModeResult],
    library: Backend,
    chosen: RunFlags,
    skipped: str | None,
) -> tuple[str, ...]:
    """The input and the layer, and what they are compared with."""
    parts = [f"against {typed_name(library)}", " and ".join(result.mode for result in results)]
    if isinstance(library, ChoosesPath):
        threads = results[0].compared.run.threads
        parts += [chosen.path.device] if chosen.path.device != "cpu" else []
        parts += [chosen.path.memory_format] if chosen.path.memory_format else []
        parts.append(counted(threads, "thread"))
    if chosen.tolerance is not None:
        parts.append(tolerance_said(chosen.tolerance))
    if skipped:
        parts.append(f"no {skipped}")
    return subject_line(given, layers[0], ""), ", ".join(parts)


def _check_path(library: Backend, path: Path) -> None:
    """Raise UsageError where the backend cannot go this way."""
    from bncli.errors import UsageError

    if isinstance(library, ChoosesPath) and path.device in library.devices:
        return
    flags = {"--memory-format": path.memory_format, "--torch-threads": path.threads}
    if isinstance(library, ChoosesPath) or path.device != "cpu":
        flags = {"--device": path.device}
    for flag, value in flags.items():
        if value is not None:
            raise UsageError(
                f"{flag} {value}: the backend {library.name} has no such choice; leave it out."
            )


def _result(
    given: Input,
    x: NDArray[Any],
    stats: ChannelStats,
    layer: Layer,
    library: Backend,
    chosen: RunFlags,
) -> ModeResult:
    """One mode, computed here and by the backend."""
    from bncli.verify.batch_norm_pass import batch_norm_pass
    from bncli.verify.budget import error_budget
    from bncli.verify.comparison import compare_channels

    done = batch_norm_pass(layer, stats, dtype=given.dtype, channel_axis=given.channel_axis)
    compared = compare_channels(
        done,
        x,
        library,
        seed=chosen.seed,
        tolerance=chosen.tolerance,
        path=chosen.path,
    )
    budget = error_budget(done, x, compared) if given.dtype == "float32" else []
    return ModeResult(
        "training" if done.settings.training else "eval", layer, done, compared, budget
    )


def _findings(
    given: Input,
    x: NDArray[Any],
    results: list[ModeResult],
    library: Backend,
    tolerance: GivenTolerance,
    *,
    named: bool,
) -> list[Finding]:
    """What the batch, the state and the comparison show.

    `tolerance` is what the user gave, if anything; `named` says that a mode was chosen.
    """
    from bncli.rulebook.comparison import channels_sentence
    from bncli.rulebook.overwritten import overwritten_findings

    name = full_name(library)
    found: dict[tuple[str, str, str], Finding] = {}
    departed = [_departed(x, result, short_name(library)) for result in results]
    _agree([causes for causes, _ in departed])
    for result, (departures, made) in zip(results, departed, strict=True):
        done, layer = result.done, result.layer
        judged = replace(layer, fresh=layer.fresh and named)
        own = pass_findings(done.stats, judged, done.norm)
        wholes = [item.whole for item in result.compared.quantities]
        more = {item.whole.quantity: channels_sentence(item) for item in result.compared.quantities}
        causes = _said(departures, result)
        more["output"] = " ".join(filter(None, (more["output"], made)))
        differing = backend_findings(
            wholes, name, done.norm, given.dtype, own, more=more, causes=causes
        )
        differing = [
            replace(finding, places=(f"{finding.subject} in {result.mode} mode",))
            for finding in differing
        ]
        if len(results) > 1:
            differing = [
                replace(
                    finding,
                    subject=_place(result, finding.subject, results),
                    evidence={**finding.evidence, "mode": result.mode},
                )
                for finding in differing
            ]
        for finding in (*own, *differing):
            found.setdefault((finding.code, finding.subject, finding.message), finding)
    changed = {
        each.argument: each for result in results for each in result.compared.run.overwritten
    }
    for finding in overwritten_findings(tuple(changed.values()), name):
        found[finding.code, finding.subject, finding.message] = finding
    rounding = isinstance(tolerance, tuple) and rounding_sentence(results) == IS_ROUNDING
    return worst_findings_first(list(found.values()), name, rounding=rounding)


def _place(result: ModeResult, quantity: str, results: list[ModeResult]) -> str:
    """A quantity, with its mode where there are two."""
    return f"{quantity} in {result.mode} mode" if len(results) > 1 else quantity


def _is_output(item: ChannelCloseness) -> bool:
    return item.whole.quantity == "output"


def _departed(x: NDArray[Any], result: ModeResult, backend: str) -> tuple[dict[str, Cause], str]:
    """Why quantities differ, and what the backend's output is, in a sentence.

    "" where the output passed, nothing of it could be compared, or several causes explain it.
    """
    from bncli.verify.departures import departures
    from bncli.verify.departures.output import identified

    found, sentence = None, ""
    if any(not item.whole.passed for item in result.compared.quantities if _is_output(item)):
        found = identified(result.done, x, result.compared.run, backend)
        clauses = "; ".join(filter(None, (found.said.claim, found.said.contrast)))
        sentence = f"{clauses}." if found.hypotheses else ""
    causes = departures(result.done, x, result.compared, found)
    if "output" in causes and (causes["output"].others or not (found is None or found.explained)):
        sentence = ""
    return causes, sentence


def _agree(departed: Sequence[dict[str, Cause]]) -> None:
    """Begin the cause of the output in each mode with the one that explains all modes."""
    from bncli.verify.departures.cause import agreed

    having = [causes for causes in departed if "output" in causes]
    outputs = agreed([causes["output"] for causes in having]) if having else []
    for causes, cause in zip(having, outputs, strict=True):
        before = causes["output"]
        causes |= {name: cause for name, each in causes.items() if each == before}


def _said(causes: dict[str, Cause], result: ModeResult) -> dict[str, tuple[str, str, bool]]:
    """A clause for each cause, what to do, and whether it alone explains the quantity."""
    said = {name: (one.said, one.advice, not one.others) for name, one in causes.items()}
    if "output" in causes:
        failed = (
            item.whole.quantity
            for item in result.compared.quantities
            if not (item.whole.passed or item.whole.explained)
        )
        said |= {name: ("", FOLLOWS, True) for name in failed if name.startswith("grad_")}
    return said
