"""From a capture to its findings: every cause that holds, less those that others explain away."""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING

from bncli.light import dataclass
from bncli.report import Severity
from bncli.rulebook.live import batches, inputs, modes, notes, weights
from bncli.rulebook.live.evidence import Evidence, evidence
from bncli.rulebook.live.measures import BLAMED, LayerMeasure
from bncli.rulebook.live.own_state import excused, is_cause, state_findings, without_disproved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model.capture import Capture, Trials
    from bncli.report import Finding

MOST_TRIED = 5
"""How many layers are tried alone."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a capture comes to.

    `findings` have the strongest first; the rule of the first cause is `cause`, by its name, None
    where nothing is wrong. `closes` is the share of the gap above its floor that the best trial
    closes. `gap`, `gap_floor` and their `ratio` are the outputs', None where they are not known.
    """

    findings: tuple[Finding, ...]
    measures: tuple[LayerMeasure, ...]
    cause: str | None = None
    closes: float | None = None
    gap: float | None = None
    gap_floor: float | None = None
    ratio: float | None = None
    suspects: tuple[str, ...] = field(default=())


def diagnosis(
    capture: Capture,
    trials: Trials | None = None,
    train_batch_size: float | None = None,
    reference: Capture | None = None,
) -> Diagnosis:
    """The causes of a capture's gap; `reference` is the same model's capture of training data."""
    found = evidence(capture, trials, train_batch_size, reference)
    own = without_disproved(state_findings(capture, found.measures), found.measures)
    found = replace(found, excused=excused(own))
    modal = _of_modes(found, own)
    findings = [*own, *modal, *causes(found, [*modal, *own]), *_notes(found)]
    findings.sort(key=_strength)
    best = found.best()
    return Diagnosis(
        findings=tuple(findings),
        measures=found.measures,
        cause=_first_cause(findings),
        closes=None if best is None else best[1],
        gap=found.gap,
        gap_floor=capture.gap_floor,
        ratio=found.ratio,
        suspects=tuple(suspects(found.measures)),
    )


def observations(capture: Capture) -> list[Finding]:
    """What a capture shows as a fact, the strongest first: no judgement of stored statistics."""
    found = evidence(capture)
    checks = (notes.check_one_value, notes.check_settled, notes.check_moved)
    findings = [*_of_modes(found, ()), *(each for check in checks for each in check(found))]
    return sorted(findings, key=_strength)


def causes(found: Evidence, others: Sequence[Finding] = ()) -> list[Finding]:
    """What explains the layers that are off, without what something stronger explains away.

    `others` are the findings of modes and of the checkpoint's rules.

    Batches that differ come before shifted inputs, since both show in the first layer. Where the
    weights moved meanwhile, only the model's input is judged: what the layers saw is not that of
    one model.
    """
    differ = batches.check_differ(found)
    if found.capture.weights_moved:
        return differ
    dropout = batches.check_dropout(found)
    dropped = {name for each in dropout for name in each.places}
    rest = replace(found, excused=found.excused | dropped)
    scaled = inputs.check_scaled(rest)
    constant = [] if _certain(scaled) else inputs.check_constant(rest)
    scaled = [] if constant else scaled
    spoilt = [] if scaled or constant else weights.check_spoilt(rest)
    other = [] if scaled or constant or spoilt else weights.check_weights(rest)
    memory = [] if scaled or constant or spoilt or other else batches.check_memory(rest)
    domain = []
    if not (scaled or constant or spoilt or other or memory):
        domain = inputs.check_domain(rest)
    small = batches.check_small(rest)
    explained = [*differ, *scaled, *spoilt, *other, *domain, *memory, *small, *dropout, *constant]
    known = any(each.severity is not Severity.INFO for each in explained)
    known = known or (not rest.blamed and any(map(_cause, others)))
    unexplained = [] if known else weights.check_unexplained(rest)
    return [*explained, *unexplained]


def suspects(found: Sequence[LayerMeasure]) -> list[str]:
    """The layers worth a trial of their own: those that are off most, the blamed ones first."""
    living = [each for each in found if not each.frozen and each.predicted_error is not None]
    living.sort(key=lambda each: -each.error)
    off = [each for each in living if each.error > BLAMED]
    off.sort(key=lambda each: not each.blamed)
    return [each.name for each in (off or living)[:MOST_TRIED]]


def input_suspected(capture: Capture, found: Sequence[LayerMeasure]) -> bool:
    """Whether maps of the input are worth a trial."""
    return inputs.input_suspected(Evidence(capture, tuple(found)))


def _of_modes(found: Evidence, own: Sequence[Finding]) -> list[Finding]:
    """Flags, and values that are not finite where the layers' own numbers do not explain them."""
    findings = [each for check in modes.CHECKS for each in check(found)]
    if any(each.code.startswith("BN20") and each.severity is Severity.ERROR for each in own):
        return [
            each
            for each in findings
            if each.code != modes.NOT_FINITE.code or each.evidence.get("propagation") != "eval"
        ]
    return findings


def _notes(found: Evidence) -> list[Finding]:
    """What a capture could not see."""
    return [each for check in notes.CHECKS for each in check(found)]


def _certain(findings: Sequence[Finding]) -> bool:
    return any(each.certainty.value == "certain" for each in findings)


def _strength(finding: Finding) -> tuple[int, str]:
    return -finding.severity.rank, finding.code


def _first_cause(findings: Sequence[Finding]) -> str | None:
    """The name of the strongest cause; frozen layers are one where there is no other."""
    named = (name for each in findings if (name := _cause(each)))
    frozen = notes.FROZEN.name if any(f.code == notes.FROZEN.code for f in findings) else None
    return next(named, frozen)


def _cause(finding: Finding) -> str:
    """The name of the rule that a finding is a cause by; "" for none."""
    if finding.code.startswith("BN8"):
        quiet = finding.severity is Severity.INFO or finding.code in NO_CAUSES
        return "" if quiet else _names()[finding.code]
    return _names()[finding.code] if is_cause(finding) else ""


NO_CAUSES = (notes.ONE_VALUE.code, notes.MOVED.code, modes.STILL_TRAINING.code)
"""What is a warning and explains no gap."""


def _names() -> dict[str, str]:
    """The rules' names by their codes."""
    from bncli.rulebook import RULES

    return {rule.code: rule.name for rule in RULES}
