"""`bncli diff INPUT`: bncli beside a backend, by mode, quantity and channel."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.arguments.input import parse_channels
from bncli.arguments.layer import about_pass, check_count, layer_facts, resolve_layer
from bncli.backends.interface import ChoosesPath, IsRepeated
from bncli.commands.diff.mode_tables import (
    ModeResult,
    budget_table,
    mode_channels_table,
    mode_differences_table,
    per_quantity_table,
)
from bncli.light import dataclass
from bncli.report import Report
from bncli.sections.findings import backend_findings, nan_note, pass_findings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.arguments.flags import EitherModeFlags, InputFlags
    from bncli.arguments.input import Input
    from bncli.arguments.layer import Layer
    from bncli.backends import BackendName
    from bncli.backends.interface import Backend
    from bncli.model import ChannelStats
    from bncli.report import Finding, Value
    from bncli.verify.batch_norm_pass import Path


@dataclass(frozen=True, slots=True)
class RunFlags:
    """What the user chose beside the layer."""

    reading: InputFlags
    against: BackendName
    tolerance: tuple[float, float] | None
    seed: int
    path: Path
    per_quantity: bool
    threads: int | None


def diff_run(specs: list[str], flags: EitherModeFlags, chosen: RunFlags) -> Report:
    """The report on one input, which is named or typed."""
    from bncli.backends import installed

    given = chosen.reading.open(specs)
    shown = parse_channels(chosen.reading.channel, given.num_features)
    training = flags.training
    modes = [True, False] if training is None else [training]
    skipped = None
    if training is None and given.count == 1:
        modes = [False]
        skipped = "training: PyTorch wants more than 1 value a channel"
    layers = [resolve_layer(replace(flags, training=mode), given) for mode in modes]
    tensor = given.tensors[0]
    for layer in layers:
        check_count(given, layer)
    library = installed(chosen.against)
    _check_path(library, chosen.path)
    (stats,) = given.statistics(threads=chosen.threads)
    x = given.values(tensor)
    results = [_result(given, x, stats, layer, library, chosen) for layer in layers]
    name = f"{library.name} {library.version()}"
    findings = _findings(given, x, results, library, named=training is not None)
    minds_path = isinstance(library, ChoosesPath)
    facts: dict[str, Value] = {
        "input": given.label,
        **layer_facts(given, layers[0], None),
        "training": None if len(modes) > 1 else modes[0],
        "modes": [result.mode for result in results],
        "skipped": skipped,
        "backend": library.name,
        "backend_version": library.version(),
        "device": chosen.path.device if minds_path else None,
        "memory_format": chosen.path.memory_format,
        "torch_threads": results[0].compared.run.threads if minds_path else None,
        "seed": chosen.seed,
        "equal_nan": True,
    }
    tables = [mode_differences_table(results, name), mode_channels_table(results, shown)]
    if any(result.budget for result in results):
        repeated = isinstance(library, IsRepeated)
        tables.append(budget_table(results, library.name, repeated=repeated))
    if chosen.per_quantity:
        tables.append(per_quantity_table(results, shown))
    return Report(
        command="diff",
        facts=facts,
        tables=tuple(tables),
        findings=tuple(findings),
        verdict=_verdict(results, name, findings),
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
    given: Input, x: NDArray[Any], results: list[ModeResult], library: Backend, *, named: bool
) -> list[Finding]:
    """What the batch, the state and the comparison show; `named` says that a mode was chosen."""
    from bncli.rulebook.comparison import channels_sentence

    name = f"{library.name} {library.version()}"
    found: dict[tuple[str, str, str], Finding] = {}
    for result in results:
        done, layer = result.done, result.layer
        judged = replace(layer, fresh=layer.fresh and named)
        own = pass_findings(done.stats, judged, done.norm)
        wholes = [item.whole for item in result.compared.quantities]
        more = {item.whole.quantity: channels_sentence(item) for item in result.compared.quantities}
        output = next(item for item in wholes if item.quantity == "output")
        if not output.passed:
            made = _identified(given, x, result, library.name)
            more["output"] = " ".join(filter(None, (more["output"], made)))
        differing = backend_findings(wholes, name, done.norm, given.dtype, own, more=more)
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
    return list(found.values())


def _place(result: ModeResult, quantity: str, results: list[ModeResult]) -> str:
    """A quantity, with its mode where there are two."""
    return f"{quantity} in {result.mode} mode" if len(results) > 1 else quantity


def _identified(given: Input, x: NDArray[Any], result: ModeResult, backend: str) -> str:
    """What the backend's output is, in a sentence."""
    from bncli.verify.identify.hypotheses import Known
    from bncli.verify.identify.output import identify_output
    from bncli.verify.identify.pair import ArraySource

    done = result.done
    running = done.before
    known = Known(
        weight=done.layer.weight,
        bias=done.layer.bias,
        running_mean=running.running_mean if running else None,
        running_var=running.running_var if running else None,
        eps=done.settings.eps,
        training=done.settings.normalizes_with_batch,
    )
    output = result.compared.run.quantities["output"]
    found = identify_output(
        ArraySource(x, given.dtype),
        ArraySource(output, given.dtype),
        given.channel_axis,
        known,
        f"{backend}'s output",
    )
    return found.best if found.hypotheses else ""


def _verdict(results: list[ModeResult], name: str, findings: list[Finding]) -> str:
    """Whether the two agree, and whose digits were lost."""
    items = [(result.mode, item.whole) for result in results for item in result.compared.quantities]
    failed = [f"{item.quantity} ({mode})" for mode, item in items if not item.passed]
    repeated = [
        line.repeated_ulp
        for result in results
        for line in result.budget
        if line.repeated_ulp is not None
    ]
    note = nan_note(findings)
    said = f"bncli and {name} agree in all {len(items)} comparisons.{' ' * bool(note)}{note}"
    if failed:
        listed = ", ".join(failed[:4]) + (f" and {len(failed) - 4} more" * (len(failed) > 4))
        said = f"bncli and {name} differ in {len(failed)} of {len(items)} comparisons: {listed}."
    if repeated and max(repeated) == 0:
        said += " PyTorch's arithmetic, repeated, gives PyTorch's numbers bit for bit."
    elif repeated:
        said += f" PyTorch's arithmetic, repeated, is off by up to {max(repeated):.3g} ULP."
    return said
