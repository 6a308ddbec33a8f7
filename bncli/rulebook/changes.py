"""BN611 to BN616, BN620, BN621: what happened to layers between two files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING

from bncli.light import dataclass
from bncli.model.changes import State
from bncli.report import Certainty, Severity
from bncli.rulebook.interface import Rule

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
    "bias, or whose weight is 1 and bias 0 in both files, the weights of the convolution or "
    "linear layer before it are the same. It is a note where bias is so far below 0 in every "
    "channel that a ReLU behind the layer gives 0.",
    certainty="Certain as a fact, or likely where the match of the layers is. What it "
    "costs depends on how far the statistics moved.",
    lookalike="update_bn and bncli recalibrate do this on purpose, to all layers.",
    less_sure=(Certainty.LIKELY,),
    milder=Severity.INFO,
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
    "between the two files, while running_mean and running_var are the same bit for bit, or up "
    "to the rounding of a dtype. It is a warning if other layers' statistics moved, or if the "
    "layer's counter did: then the network was in train(), and this layer took nothing in (its "
    "momentum is 0, it was in eval(), or the buffers that were saved are not those that were "
    "trained); or if no training does this: a weight that is 1 or a bias that is 0 in every "
    "channel, a kernel that is transposed or flipped, input and output channels that are "
    "exchanged, output channels in another order. Otherwise it is a note.",
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
    arithmetic="In the second file, the statistics are exactly 0 and 1 (initial) or 0 and 0 "
    "(never filled) in every channel, or one of the two is; or a tensor of the layer holds NaN, "
    "Inf or, as a variance, a negative value, or the counter does; and in the first file that is "
    "not so. Or one of the two files lacks tensors of the layer; a layer that is missing as a "
    "whole counts if the convolution before it is there and did not take it in. Among many "
    "files, statistics of 0 and 1 or 0 and 0 count where another file's are not, unless training "
    "begins there; NaN, Inf and negative variances count in each file.",
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
    "mean and variance exchanged, a common factor. It holds within the rounding of the dtype. Or "
    "all tensors are equal, and the files store another eps. It is a note where both files give "
    "the same outputs in evaluation, up to rounding.",
    certainty="Certain where one formula alone explains the numbers within their rounding, with "
    "an n or an eps that is known. Likely where several do, where its number is not a usual one, "
    "or where it holds up to a scatter that is small beside what it explains.",
    lookalike="A common factor on the means and its square on the variances come from an input "
    "that was scaled. It is reported here, and named so.",
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
    arithmetic="The same values stand in other channels, by one permutation in all tensors of "
    "the layer, or only in some of them, or by several; or they are those of another layer of "
    "either file.",
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
    "the layer was folded",
    "Fold the layer again, with the convolution's bias and the layer's mean.",
    symptom="There is none, or the folded model gives other outputs.",
    arithmetic="In one file, the convolution holds weight * w / sqrt(var + eps) in every output "
    "channel, with the layer's numbers in the other file, and the layer is gone or does nothing. "
    "Its bias should then be (b - mean) * w / sqrt(var + eps) + bias. Where no convolution took "
    "the layer in, two tensors of the other file may be its scale and its shift. It is a warning "
    "if the bias is another one, if the weight was multiplied by a wrong scale (without w or eps, "
    "with another eps, without the root) or along the wrong axis, or if the layer is still there "
    "as it was and is applied twice; otherwise a note.",
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
    "same bits, both for the layer and the convolution before it; trained asks for weights and "
    "statistics that moved, and for a counter, where there is one, that moved with them; folded "
    "for a layer that was folded into the convolution before it, with the right bias.",
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
    arithmetic="Statistics and weights moved, but the counter did not, fell or is 0; or only the "
    "counter changed; or the weights of the two files, or those before one layer, are not "
    "correlated, as of networks that were trained apart; or the layers have different sizes, or "
    "could not be read.",
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


@dataclass(frozen=True, slots=True)
class Expectation:
    """One --expect: the state that is asked for, and of which layers, by a function of the name."""

    what: Expected
    means: Callable[[str], bool]

    def fails(self, layer: LayerVersion) -> bool:
        """Whether it means a layer that is not as asked; a wrong fold never is."""
        if not self.means(layer.name or layer.other_name):
            return False
        return layer.found.state not in STATES[self.what] or bool(layer.found.numbers.get("fault"))
