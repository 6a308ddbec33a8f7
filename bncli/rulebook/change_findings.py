"""What the rules about two files say of each layer, and how bad it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from bncli.light import dataclass
from bncli.model.changes import Comparison, Same, State
from bncli.report import Finding, Severity
from bncli.rulebook import changes as rules
from bncli.rulebook.change_settings import settings_findings
from bncli.rulebook.change_words import clause_of, copied_words, evidence_of, message_of
from bncli.rulebook.changes import Expectation, Expected
from bncli.rulebook.exported import PROGRAMS, in_training_mode
from bncli.rulebook.layers import label

if TYPE_CHECKING:
    from bncli.model.changes import LayerVersion
    from bncli.rulebook.interface import Rule

FEW = 3
"""Layers of one state of which the findings say how far each moved."""

HARMLESS = frozenset({"affine-only", "bias-in-mean", "few-roundings"})
"""The causes under which both files compute the same in evaluation mode, up to rounding."""

MISTAKES = frozenset(
    {
        "weight-neutral",
        "bias-neutral",
        "affine-neutral",
        "kernel-transposed",
        "kernel-flipped",
        "channels-exchanged",
        "outputs-permuted",
    }
)
"""The causes of weights that differ as no training makes them."""

RECALIBRATED = ("torch-zip", "torch-legacy", "torchscript", "safetensors", "npz", "memory")
"""How the names of those containers begin whose statistics bncli recalibrate can replace, of
objects once they are saved."""

TOOK_IN = frozenset({State.TRAINED, State.STATISTICS})
"""The states of a layer whose statistics took batches in."""

RULES_OF: Mapping[State, Rule] = {
    State.STATISTICS: rules.STATISTICS_ALONE,
    State.WEIGHTS: rules.WEIGHTS_ALONE,
    State.RESET: rules.LOST,
    State.EMPTY: rules.LOST,
    State.LOST: rules.LOST,
    State.IMPOSSIBLE: rules.LOST,
    State.CONVENTION: rules.CONVENTION,
    State.ORDER: rules.ORDER,
    State.FOLDED: rules.FOLDED,
    State.DIFFERENT: rules.DIFFERENT,
    State.COUNTER: rules.DIFFERENT,
}
"""The rule of each state that is more than a line in a table."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What the layers of two files did together.

    `training` says that some layer's statistics took batches in, `weights` that some weights moved.
    `many` are the states of many layers, of which the findings do not say how far each moved: their
    claims are then one. `copies` are the words by which the names of several layers differ from
    those of the layers whose tensors they took over: "q_net_target" and "q_net". `traced` has the
    layers of an ONNX model that was exported in training mode, by name.
    """

    training: bool
    weights: bool
    many: frozenset[State] = frozenset()
    copies: frozenset[tuple[str, str]] = frozenset()
    traced: frozenset[str] = frozenset()

    @classmethod
    def of(cls, compared: Comparison) -> Whole:
        """Of all layers that were matched."""
        states = [layer.found.state for layer in compared.matched]
        moved = {State.TRAINED, State.WEIGHTS, State.DIFFERENT}
        every = Counter(layer.found.state for layer in compared.layers)
        words_of = Counter(words for each in compared.matched if (words := copied_words(each)))
        return cls(
            any(state in TOOK_IN for state in states),
            any(state in moved for state in states)
            or any(layer.before is Same.MOVED for layer in compared.matched),
            frozenset(state for state, count in every.items() if count > FEW),
            frozenset(words for words, count in words_of.items() if count > 1),
            frozenset(
                layer.name
                for layer in compared.matched
                if compared.containers[1] == "onnx" and runs_in_training(layer, compared, 1)
            ),
        )


def change_findings(compared: Comparison, expected: Sequence[Expectation] = ()) -> list[Finding]:
    """What two files show, one finding at most for what happened to each layer.

    A layer that is not as `expected` is an error, whatever else it is. Those that differ because
    the weights of the files are not correlated have one finding together. The findings are about
    the second file, or about the first where that lacks what the second has.
    """
    whole = Whole.of(compared)
    findings = []
    apart = []
    for layer in compared.layers:
        unrelated = layer.found.numbers.get("cause") == "unrelated"
        finding = None if unrelated else _finding(layer, whole)
        unmet = next((each for each in expected if each.fails(layer)), None)
        if unmet is None and finding is not None and finding.severity is Severity.INFO:
            asked = any(each.means(layer.name or layer.other_name) for each in expected)
            finding = None if asked else finding  # the user asked for this state, and knows
        if unmet is not None:
            many = layer.found.state in whole.many
            finding = _unexpected(layer, unmet.what, finding, many=many)
        if finding is not None:
            numbers = layer.found.numbers
            first = "first" in (numbers.get("missing_in"), numbers.get("in"))
            path = compared.path if first else compared.other_path
            findings.append(_in_file(replace(finding, path=path), layer, compared))
        elif unrelated:
            apart.append(layer)
    settings = [replace(each, path=compared.other_path) for each in settings_findings(compared)]
    settings += _in_training_mode(compared)
    by_name = {label(layer.name): layer for layer in compared.matched}
    findings += [_in_file(each, by_name[each.subject], compared) for each in settings]
    return findings + _apart(apart, compared)


def _in_file(finding: Finding, layer: LayerVersion, compared: Comparison) -> Finding:
    """The finding with its place as the second file names it, and a fix for files of its kind."""
    second = finding.path == compared.other_path
    container = compared.containers[second]
    if container and not container.startswith(RECALIBRATED):
        again = finding.hint.replace("with bncli recalibrate", "in the file's own framework")
        finding = replace(finding, hint=again)
    if not second or not layer.name or layer.other_name in ("", layer.name):
        return finding
    place = f"{compared.other_path}::{layer.other_name}"
    return replace(finding, where=f"{place} ({layer.name} in {compared.path})")


def _in_training_mode(compared: Comparison) -> list[Finding]:
    """BN108 of the layers that one of the two files alone runs with the batch's statistics."""
    return [
        replace(in_training_mode(layer.name), path=path)
        for layer in compared.matched
        for at, path in enumerate((compared.path, compared.other_path))
        if runs_in_training(layer, compared, at) and not runs_in_training(layer, compared, 1 - at)
    ]


def runs_in_training(layer: LayerVersion, compared: Comparison, at: int) -> bool:
    """Whether the first file (0) or the second (1) normalises with the batch when it is run."""
    module = layer.modules[at]
    runs = compared.containers[at].startswith(PROGRAMS)
    return bool(runs and module is not None and module.training)


def _apart(layers: Sequence[LayerVersion], compared: Comparison) -> list[Finding]:
    """BN621 of all layers that differ as those of two networks do."""
    if not layers:
        return []
    names = tuple(label(layer.name) for layer in layers)
    by = "" if compared.correlation is None else f" ({compared.correlation:.2g})"
    finding = rules.DIFFERENT.finding(
        names[0],
        f"{layers[0].found.what}{by}",
        {**evidence_of(layers[0]), "layers": names, "correlation": compared.correlation},
        detail="Networks that were trained apart, each from its own start, look like this.",
        sure=layers[0].found.certainty,
        places=names,
    )
    return [replace(finding, path=compared.other_path)]


class Case(NamedTuple):
    """What is said of a layer apart from its claim, where that is not its rule's own."""

    severity: Severity
    hint: str
    detail: str


def _finding(layer: LayerVersion, whole: Whole) -> Finding | None:
    """The finding of a layer's state, None where it needs none."""
    found = layer.found
    rule = RULES_OF.get(found.state)
    if rule is None or found.numbers.get("cause") == "alone":  # the file has no such part
        return None
    case = Case(rule.severity, found.hint, found.detail)
    if found.state in CASES:
        case = CASES[found.state](layer, whole, case)
    return rule.finding(
        label(layer.name or layer.other_name),
        message_of(layer, far=found.state not in whole.many),
        evidence_of(layer),
        detail=case.detail,
        hint=case.hint,
        severity=case.severity,
        sure=found.certainty,
    )


def _statistics(layer: LayerVersion, whole: Whole, case: Case) -> Case:
    """Statistics that moved alone: by batches in train(), by no batch, or estimated again."""
    if layer.found.numbers.get("cause") == "dead":
        hint = "If a ReLU follows, the layer may not be needed: it passes hardly anything on."
        return case._replace(severity=Severity.INFO, hint=hint)
    if layer.name in whole.traced:
        return case._replace(
            detail="The second file was exported in training mode. It is likely that the export "
            "moved the statistics: torch.onnx.export runs the network to trace it.",
            hint="Call model.eval() before the export, and export the first file's network again.",
        )
    if not whole.weights:
        case = case._replace(
            hint="If update_bn or bncli recalibrate made the second file, nothing needs fixing. "
            "Otherwise call eval() on the network, or on the layers that should not change.",
        )
    if layer.measures.batches != 0:
        return case
    hint = "Find out what wrote these statistics: another rank, an average, or update_bn."
    if not whole.weights:  # recalibrate changes none
        hint = (
            "If bncli recalibrate made the second file, nothing needs fixing. Otherwise find out "
            "what wrote these statistics: another rank, an average, or update_bn."
        )
    return case._replace(
        detail=f"{case.detail} The counter did not move: no batch in train() did this.".strip(),
        hint=hint,
    )


def _weights(layer: LayerVersion, whole: Whole, case: Case) -> Case:
    """Weights that moved alone: a warning where the layer should have taken batches in."""
    if _took_nothing_in(layer, whole):
        return case
    hint = layer.found.hint or (
        "Nothing needs fixing if the layer was in eval() on purpose. If neither file was "
        "trained from the other, the weights were converted wrongly."
    )
    if layer.found.numbers.get("cause") in MISTAKES:
        return case._replace(hint=hint)
    return case._replace(severity=Severity.INFO, hint=hint)


def _order(layer: LayerVersion, whole: Whole, case: Case) -> Case:
    """Another order: harmless where the convolution has it too, or a copy takes tensors over."""
    numbers = layer.found.numbers
    if numbers.get("convolution") == "same order":
        hint = case.hint or "Nothing needs fixing if the layers behind it take the same order."
        return case._replace(severity=Severity.INFO, hint=hint)
    taken = numbers.get("cause") in ("other-layer", "twin")
    if taken and copied_words(layer) in whole.copies:
        hint = "Nothing needs fixing if a copy takes over the tensors, as a target network does."
        return case._replace(severity=Severity.INFO, hint=hint)
    return case


def _convention(layer: LayerVersion, whole: Whole, case: Case) -> Case:  # noqa: ARG001  # as others
    """Another convention: harmless where both files give the same outputs."""
    if layer.found.numbers.get("cause") not in HARMLESS:
        return case
    hint = case.hint or "Nothing needs fixing for evaluation."
    return case._replace(severity=Severity.INFO, hint=hint)


def _folded(layer: LayerVersion, whole: Whole, case: Case) -> Case:  # noqa: ARG001  # as others
    """A fold: a warning only where it is wrong."""
    if layer.found.numbers.get("fault"):
        return case
    hint = "Nothing needs fixing."
    if layer.found.numbers.get("bias_known") is False:
        hint = "Compare the outputs of both networks: the bias could not be compared."
    return case._replace(severity=Severity.INFO, hint=hint)


CASES = {
    State.STATISTICS: _statistics,
    State.WEIGHTS: _weights,
    State.ORDER: _order,
    State.CONVENTION: _convention,
    State.FOLDED: _folded,
}
"""What the severity and the fix of a state depend on."""


def _took_nothing_in(layer: LayerVersion, whole: Whole) -> bool:
    """Whether weights moved in training while the layer's statistics took nothing in."""
    numbers = layer.found.numbers
    frozen = numbers.get("own_moved") is False  # the layer itself did not move at all
    return bool(numbers.get("counted")) or (whole.training and not frozen)


def _unexpected(
    layer: LayerVersion, wanted: Expected, own: Finding | None, *, many: bool
) -> Finding:
    """BN620, in the place of what the layer's state says by itself."""
    found = layer.found
    hint = own.hint if own is not None and own.severity is Severity.WARNING else ""
    if wanted in (Expected.TRAINED, Expected.FOLDED) and (
        not hint or found.state is State.STATISTICS
    ):
        hint = f"Find out why the layer was not {wanted.value}, or change --expect."
    return replace(
        rules.UNEXPECTED.finding(
            label(layer.name or layer.other_name),
            f"not {wanted.value}: {clause_of(found, many=many)}",
            {**evidence_of(layer), "expected": wanted.value},
            detail=found.detail,
            hint=hint,
            sure=found.certainty,
        ),
        instead_of=None if own is None else (own.code,),
    )
