"""BN611 to BN616, BN620, BN621: what happened to layers between two files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from bncli.light import dataclass
from bncli.model.changes import Comparison, Same, State
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.change_words import clause_of, copied_words, evidence_of, message_of
from bncli.rulebook.interface import Rule
from bncli.rulebook.layers import label

if TYPE_CHECKING:
    from bncli.model.changes import LayerVersion

STATISTICS_ALONE = Rule(
    "BN611",
    "statistics-moved-alone",
    Severity.WARNING,
    "the running statistics moved, and the weights did not",
    "A frozen layer needs eval() as well as requires_grad=False: in train(), every batch moves its "
    "running statistics.",
    symptom="A frozen part of a network gives other outputs in evaluation than before the "
    "fine-tuning.",
    arithmetic="running_mean or running_var differs between the two files, while weight and bias "
    "are the same bit for bit, or up to the rounding of a dtype. In a layer without weight and "
    "bias, or whose weight is 1 and bias 0 in both files, the weights of the convolution or linear "
    "layer before it are the same.",
    certainty="Certain as a fact, or likely where the match of the layers is. What it "
    "costs depends on how far the statistics moved.",
    lookalike="update_bn and bncli recalibrate do this on purpose, to all layers.",
    less_sure=(Certainty.LIKELY,),
    seen=("pytorch/pytorch#86590",),
)
WEIGHTS_ALONE = Rule(
    "BN612",
    "weights-moved-alone",
    Severity.WARNING,
    "the weights moved, and the running statistics did not",
    "Keep the layer in train() while its weights are trained, or re-estimate its statistics with "
    "bncli recalibrate. If it was in eval() on purpose, nothing needs fixing.",
    symptom="The network trains well, and is bad in evaluation, where the statistics are those "
    "of older weights.",
    arithmetic="weight or bias of the layer, or the weights of the convolution before it, differ "
    "between the two files, while running_mean and running_var are the same bit for bit. It is a "
    "warning if other layers' statistics moved, or if the layer's counter did: then the network "
    "was in train(), and this layer took nothing in (its momentum is 0, it was in eval(), or the "
    "buffers that were saved are not those that were trained); or if no training does this: a "
    "weight that is 1, or a bias that is 0, in every channel, a kernel that is transposed or "
    "flipped, output channels in another order. Otherwise it is a note.",
    certainty="Certain as a fact, or likely where the match of the layers is.",
    lookalike="Fine-tuning in evaluation mode does this to all layers, on purpose. A layer that is "
    "frozen as a whole, in eval() and without gradients, stays as it is while the convolution "
    "before it is trained: a note.",
    milder=Severity.INFO,
    less_sure=(Certainty.LIKELY,),
    seen=("pytorch/executorch#21056", "FlyreelAI/sesemi#36"),
)
LOST = Rule(
    "BN613",
    "statistics-lost",
    Severity.WARNING,
    "tensors of the layer are missing, reset or impossible in one of the files",
    "Take what is missing from the file that has it, or re-estimate the statistics with bncli "
    "recalibrate.",
    symptom="A model is worse in evaluation after it was saved, converted or loaded again.",
    arithmetic="In the second file, the statistics are exactly 0 and 1 (initial) or 0 and 0 (never "
    "filled) in every channel, or they are NaN, infinite or, as a variance, negative, and in the "
    "first file they are not. Or one of the two files lacks tensors of the layer; a layer that is "
    "missing as a whole counts if the convolution before it is there and did not take it in. Among "
    "many files, statistics of 0 and 1 or 0 and 0 count where another file's are not, unless "
    "training begins there; NaN, Inf and negative variances count in each file.",
    certainty="Certain; likely where the layer counted batches and its variance is 0, as a "
    "momentum larger than the one assumed lets a constant input lead there.",
    lookalike="reset_running_stats() before statistics are estimated anew leaves 0 and 1, too. A "
    "folded network whose weights were quantised or trained on no longer shows the fold.",
    less_sure=(Certainty.LIKELY,),
    seen=("microsoft/DeepSpeed#1101", "onnx/tensorflow-onnx#1610"),
)
CONVENTION = Rule(
    "BN614",
    "other-convention",
    Severity.WARNING,
    "the tensors are converted, scaled or swapped",
    "Convert the statistics when the file is ported.",
    symptom="A ported model is a little or much worse in evaluation, although every tensor was "
    "copied.",
    arithmetic="One formula leads from the tensors of the first file to those of the second in "
    "every channel: the biased variance times n/(n-1), the variance plus eps, 1/sqrt(var + eps), "
    "mean and variance exchanged, a common factor. It holds within the rounding of the dtype. It "
    "is a note where both files give the same outputs in evaluation, up to rounding.",
    certainty="Certain where the formula holds within the rounding of the numbers, likely where "
    "it holds up to a scatter that is small beside what it explains.",
    lookalike="A common factor on the means and its square on the variances come from an input "
    "that was scaled, not from a convention.",
    milder=Severity.INFO,
    less_sure=(Certainty.LIKELY,),
    seen=("pytorch/pytorch#22192",),
)
ORDER = Rule(
    "BN615",
    "other-order",
    Severity.WARNING,
    "the channels are in another order, or the tensors are another layer's",
    "Put the channels into the order of the convolution before the layer, or the right layer in "
    "its place.",
    symptom="A ported model gives nonsense, although every tensor has the right shape and values.",
    arithmetic="The same values stand in other channels, by one permutation in all tensors of the "
    "layer; or they are those of another layer of either file.",
    certainty="Certain: no training gives the same values in another order. Where two layers of "
    "the second file are equal, it is likely that the one which moved further holds the other's.",
    lookalike="Channels that were sorted on purpose, as for pruning, have the convolution before "
    "the layer in the same order: a note. So is a copy, such as a target network, that takes over "
    "the tensors of several layers.",
    milder=Severity.INFO,
    less_sure=(Certainty.LIKELY,),
)
FOLDED = Rule(
    "BN616",
    "folded",
    Severity.WARNING,
    "the layer was folded into the convolution before it",
    "Fold the layer again, with the convolution's bias and the layer's mean.",
    symptom="There is none, or the folded model gives other outputs.",
    arithmetic="In one file, the convolution holds weight * w / sqrt(var + eps) in every output "
    "channel, with the layer's numbers in the other file, and the layer is gone or does nothing. "
    "Its bias should then be (b - mean) * w / sqrt(var + eps) + bias. It is a warning if it is "
    "not, or if the layer is still there as it was and is applied twice; else a note.",
    certainty="Certain: it holds within the rounding of the dtype. A fold over the wrong axis is "
    "likely, as a square weight does not show which axis is the output's.",
    lookalike="Where the variances are large beside eps, several values of eps fit.",
    milder=Severity.INFO,
    less_sure=(Certainty.LIKELY,),
)
UNEXPECTED = Rule(
    "BN620",
    "expectation-not-met",
    Severity.ERROR,
    "a layer is not in the state that --expect asks for",
    "Find out why the layer changed, or change --expect.",
    symptom="A gate between two checkpoints fails.",
    arithmetic="frozen asks for the same values up to the rounding of a dtype, identical for the "
    "same bits, both for the layer and the convolution before it; trained asks for weights, "
    "statistics and counter that moved together; folded for a layer that was folded into the "
    "convolution before it, with the right bias.",
    certainty="Certain of what differs, or likely where the state itself is.",
    lookalike="Without --expect, the same states are warnings or notes with codes of their own.",
    less_sure=(Certainty.LIKELY,),
)
DIFFERENT = Rule(
    "BN621",
    "different-layers",
    Severity.INFO,
    "the layers differ in a way that training does not explain",
    "Compare files of one training run, or say with --expect what should hold.",
    symptom="There is none by itself.",
    arithmetic="Statistics and weights moved, but the counter did not, or the weights of the two "
    "files are not correlated, as of networks that were trained apart, or the layers have "
    "different sizes.",
    certainty="Certain that they differ, or likely where the match of the layers is.",
    lookalike="Two ranks or two runs at the same step have equal counters.",
    less_sure=(Certainty.LIKELY,),
)


class Expected(str, Enum):
    """What --expect may ask of a layer."""

    FROZEN = "frozen"
    IDENTICAL = "identical"
    TRAINED = "trained"
    FOLDED = "folded"


STATES: Mapping[Expected, frozenset[State]] = {
    Expected.FROZEN: frozenset({State.IDENTICAL, State.ROUNDED}),
    Expected.IDENTICAL: frozenset({State.IDENTICAL}),
    Expected.TRAINED: frozenset({State.TRAINED}),
    Expected.FOLDED: frozenset({State.FOLDED}),
}
"""The states that meet an expectation."""

FEW = 3
"""Layers of one state of which the findings say how far each moved."""

HARMLESS = frozenset({"affine-only", "bias-in-mean", "few-roundings"})
"""The causes under which both files compute the same in evaluation mode, up to rounding."""

MISTAKES = frozenset(
    {
        "weight-neutral",
        "bias-neutral",
        "kernel-transposed",
        "kernel-flipped",
        "channels-exchanged",
        "outputs-permuted",
    }
)
"""The causes of weights that differ as no training makes them."""

TOOK_IN = frozenset({State.TRAINED, State.STATISTICS})
"""The states of a layer whose statistics took batches in."""

RULES_OF: Mapping[State, Rule] = {
    State.STATISTICS: STATISTICS_ALONE,
    State.WEIGHTS: WEIGHTS_ALONE,
    State.RESET: LOST,
    State.EMPTY: LOST,
    State.LOST: LOST,
    State.IMPOSSIBLE: LOST,
    State.CONVENTION: CONVENTION,
    State.ORDER: ORDER,
    State.FOLDED: FOLDED,
    State.DIFFERENT: DIFFERENT,
    State.COUNTER: DIFFERENT,
}
"""The rule of each state that is more than a line in a table."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One --expect: the state that is asked for, and of which layers, by a function of the name."""

    what: Expected
    means: Callable[[str], bool]

    def fails(self, layer: LayerVersion) -> bool:
        """Whether it is about a layer that is not as it should be; a wrong fold is not."""
        if not self.means(layer.name or layer.other_name):
            return False
        return layer.found.state not in STATES[self.what] or bool(layer.found.numbers.get("fault"))


@dataclass(frozen=True, slots=True)
class Whole:
    """What the layers of two files did together.

    `training` says that some layer's statistics took batches in, `weights` that some weights moved.
    `many` are the states of many layers, of which the findings do not say how far each moved: their
    claims are then one. `copies` are the words by which the names of several layers differ from
    those of the layers whose tensors they took over: "q_net_target" and "q_net".
    """

    training: bool
    weights: bool
    many: frozenset[State] = frozenset()
    copies: frozenset[tuple[str, str]] = frozenset()

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
        )


def change_findings(compared: Comparison, expected: Sequence[Expectation] = ()) -> list[Finding]:
    """What two files show, one finding at most for each layer.

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
            finding = None if asked else finding  # what was asked for is nothing to note
        if unmet is not None:
            many = layer.found.state in whole.many
            finding = _unexpected(layer, unmet.what, finding, many=many)
        if finding is not None:
            numbers = layer.found.numbers
            first = "first" in (numbers.get("missing_in"), numbers.get("in"))
            path = compared.path if first else compared.other_path
            findings.append(replace(finding, path=path))
        elif unrelated:
            apart.append(layer)
    return findings + _apart(apart, compared)


def _apart(layers: Sequence[LayerVersion], compared: Comparison) -> list[Finding]:
    """BN621 of all layers that differ as those of two networks do."""
    if not layers:
        return []
    names = tuple(label(layer.name) for layer in layers)
    by = "" if compared.correlation is None else f" ({compared.correlation:.2g})"
    finding = DIFFERENT.finding(
        names[0],
        f"{layers[0].found.what}{by}",
        {**evidence_of(layers[0]), "layers": names, "correlation": compared.correlation},
        detail="So it is with networks that were trained apart, each from a start of its own.",
        sure=layers[0].found.certainty,
        places=names,
    )
    return [replace(finding, path=compared.other_path)]


def _finding(layer: LayerVersion, whole: Whole) -> Finding | None:
    """The finding of a layer's state, None where it needs none."""
    found = layer.found
    rule = RULES_OF.get(found.state)
    if rule is None or found.numbers.get("cause") == "alone":  # the file has no such part
        return None
    severity, hint, detail = rule.severity, found.hint, found.detail
    if rule is STATISTICS_ALONE and found.numbers.get("cause") == "dead":
        severity = Severity.INFO
        hint = "The layer may not be needed: what it gives does not depend on its input."
    elif rule is STATISTICS_ALONE and not whole.weights:
        detail = f"{detail} No weights moved in any layer.".strip()
        hint = (
            "If update_bn or bncli recalibrate made the second file, nothing needs fixing. "
            "Otherwise call eval() on what is frozen."
        )
    if rule is STATISTICS_ALONE and layer.measures.batches == 0:
        detail = f"{detail} The counter did not move: no batch in train() did this.".strip()
        hint = "Find out what wrote these statistics: another rank, an average, or update_bn."
    if rule is WEIGHTS_ALONE and not _took_nothing_in(layer, whole):
        severity = rule.severity if found.numbers.get("cause") in MISTAKES else Severity.INFO
        hint = found.hint or (
            "Nothing needs fixing if the layer was in eval() on purpose. If neither file was "
            "trained from the other, the weights were converted wrongly."
        )
    if rule is ORDER and found.numbers.get("convolution") == "same order":
        severity = Severity.INFO
        hint = hint or "Nothing needs fixing if the layers behind it take the same order."
    elif (
        rule is ORDER
        and found.numbers.get("cause") in ("other-layer", "twin")
        and copied_words(layer) in whole.copies
    ):
        severity = Severity.INFO
        hint = "Nothing needs fixing if a copy takes over the tensors, as a target network does."
    if rule is CONVENTION and found.numbers.get("cause") in HARMLESS:
        severity, hint = Severity.INFO, hint or "Nothing needs fixing for evaluation."
    if rule is FOLDED and not found.numbers.get("fault"):
        severity, hint = Severity.INFO, "Nothing needs fixing."
    return rule.finding(
        label(layer.name or layer.other_name),
        message_of(layer, far=found.state not in whole.many),
        evidence_of(layer),
        detail=detail,
        hint=hint,
        severity=severity,
        sure=found.certainty,
    )


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
        UNEXPECTED.finding(
            label(layer.name or layer.other_name),
            f"not {wanted.value}: {clause_of(found, many=many)}",
            {**evidence_of(layer), "expected": wanted.value},
            detail=found.detail,
            hint=hint,
            sure=found.certainty,
        ),
        instead_of=None if own is None else (own.code,),
    )
