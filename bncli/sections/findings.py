"""The findings of a pass over one layer, what a backend adds, and the verdict on both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.sections.answer import closest, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.arguments.layer import Layer
    from bncli.backends.interface import Backend
    from bncli.batchnorm import Normalization
    from bncli.model import ChannelStats, Closeness
    from bncli.report import Finding, Table, Value
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.closeness import GivenTolerance


EXPLAINED = "rounding explains it: the tolerance that follows from the arithmetic is kept"
"""What a verdict says where all that fails, fails a narrower tolerance that was given."""


def pass_findings(stats: ChannelStats, layer: Layer, norm: Normalization) -> list[Finding]:
    """What the batch and the layer's state show."""
    from bncli.rulebook.batch import batch_findings, fresh_statistics_finding, state_findings

    findings = batch_findings(
        stats,
        layer.settings,
        layer.parameter_dtype,
        None if layer.settings.normalizes_with_batch else norm.var,
    )
    findings += state_findings(
        {
            "weight": layer.weight,
            "bias": layer.bias,
            "running_mean": layer.running.running_mean if layer.running else None,
            "running_var": layer.running.running_var if layer.running else None,
        }
    )
    if layer.fresh:
        findings.append(fresh_statistics_finding())
    return findings


def backend_findings(
    compared: list[Closeness],
    name: str,
    norm: Normalization,
    dtype: str,
    findings: list[Finding],
    *,
    more: Mapping[str, str] | None = None,
    causes: Mapping[str, tuple[str, str, bool]] | None = None,
) -> list[Finding]:
    """What the comparison with the backend `name` shows, given the pass's own `findings`.

    `more` holds sentences to add, by quantity, and `causes` why it differs, what to change, and
    whether nothing else explains it.
    """
    from bncli.rulebook.batch_rules import OVERFLOW
    from bncli.rulebook.comparison import comparison_findings, lost_digits_findings

    overflow = any(finding.code == OVERFLOW.code for finding in findings)
    found = comparison_findings(compared, name, overflow=overflow, more=more, causes=causes)
    output = next(item for item in compared if item.quantity == "output")
    if dtype in ("float32", "float64") and not overflow:  # half precision is coarse by itself
        scale = float(np.max(np.abs((norm.weight, norm.bias))))
        found += lost_digits_findings(output, scale, name)
    return found


@dataclass(frozen=True, slots=True)
class ComparedSection:
    """What a comparison with a backend adds to a report.

    `table` holds every quantity, `answer` the table of those that failed or came near, if any did.
    `missing` says what the backend has nothing of, "" where that is nothing.
    """

    table: Table
    findings: list[Finding]
    facts: dict[str, Value]
    checked: dict[str, list[str]]
    verdict: str
    answer: tuple[Table, ...] = ()
    missing: str = ""


def compared_with(
    backend: Backend,
    compared: list[Closeness],
    done: BatchNormPass,
    findings: list[Finding],
    tolerance: GivenTolerance = None,
    changed: Sequence[tuple[str, int, int]] = (),
) -> ComparedSection:
    """What a comparison of `done`, which has these `findings`, with a backend's pass shows.

    `tolerance` is what the user allows in place of what follows from the arithmetic, and `changed`
    the arguments that the backend overwrote.
    """
    from bncli.rulebook.overwritten import overwritten_findings
    from bncli.sections.tables import differences_answer, differences_table

    name = full_name(backend)
    own = backend_findings(compared, name, done.norm, done.dtype, findings)
    own += overwritten_findings(changed, name)
    return ComparedSection(
        differences_table(compared, name),
        own,
        backend_facts(backend, tolerance),
        {"": [item.quantity for item in compared]},
        agreement(compared, name, [*findings, *own], tolerance),
        differences_answer(compared, name),
    )


def full_name(backend: Backend) -> str:
    """A backend as people name it, "torch 2.13.0": its version without the build, such as +cpu.

    A user's class or function is called by its name.
    """
    from bncli.backends.interface import IsUsers

    if isinstance(backend, IsUsers):
        return backend.called
    return f"{backend.name} {backend.version().partition('+')[0]}"


def typed_name(backend: Backend) -> str:
    """A backend's name as it was chosen, and its version: once in a report, where it is said."""
    return f"{backend.name} {backend.version().partition('+')[0]}".strip()


def short_name(backend: Backend) -> str:
    """A backend's name alone, as the head of a column."""
    from bncli.backends.interface import IsUsers

    return backend.called if isinstance(backend, IsUsers) else backend.name


def backend_facts(backend: Backend, tolerance: GivenTolerance) -> dict[str, Value]:
    """The facts on what a result was compared with, and on a tolerance of the user's own."""
    facts: dict[str, Value] = {"backend": backend.name, "backend_version": backend.version()}
    if isinstance(tolerance, tuple):
        facts |= dict(zip(("rtol", "atol"), tolerance, strict=True))
    elif tolerance is not None:
        facts["tolerance_factor"] = tolerance
    return facts


def tolerance_said(tolerance: GivenTolerance) -> str:
    """A tolerance of the user's own, as a sentence names it; "" where there is none."""
    if isinstance(tolerance, tuple):
        return "rtol {:g}, atol {:g}".format(*tolerance)
    return "" if tolerance is None else f"{tolerance:g} times the tolerance"


def agreement(
    compared: Sequence[Closeness],
    name: str,
    findings: Sequence[Finding],
    tolerance: GivenTolerance = None,
) -> str:
    """The verdict on a comparison; it says that NaN agrees where `findings` report any.

    `tolerance` is what the user allows in place of what follows from the arithmetic.
    """
    if not compared:
        return f"nothing was compared: {name} has none of the quantities"
    failed = [item for item in compared if not item.passed]
    total = len(compared)
    within = f" at {tolerance_said(tolerance)}" if tolerance is not None else ""
    if failed:
        names = listed([item.quantity for item in failed])
        return closing(
            f"{name} differs in {len(failed)} of {total} quantities{within}: {names}",
            EXPLAINED if all(item.explained for item in failed) else "",
        )
    worst = max(compared, key=lambda item: item.used)
    return closing(
        f"{name} agrees in {total} of {total} quantities{within}",
        closest(worst.quantity, worst.used) if worst.used else "all are equal",
        nan_note(findings),
    )


def nan_note(findings: Sequence[Finding]) -> str:
    """That NaN on both sides counts as agreement, if `findings` report any; else ""."""
    from bncli.rulebook import batch_rules as rules

    causes = (rules.NOT_FINITE, rules.NOT_POSITIVE, rules.STATE_NOT_FINITE)
    codes = {rule.code for rule in (*causes, rules.GRADIENT_NOT_FINITE)}
    if codes.isdisjoint(finding.code for finding in findings):
        return ""
    return "NaN on both sides counts as agreement"


def closing(*clauses: str) -> str:
    """A verdict of several clauses; empty ones are left out."""
    return "; ".join(filter(None, clauses))
