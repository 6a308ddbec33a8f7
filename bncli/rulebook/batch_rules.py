"""BN0xx, the rules: what they mean. `bncli.rulebook.batch` applies them."""

from __future__ import annotations

from bncli.report import Severity
from bncli.rulebook.interface import Rule

NOT_FINITE = Rule(
    "BN001",
    "not-finite",
    Severity.ERROR,
    "A channel holds NaN or Inf: its statistics, and its whole output in training, are lost.",
    "Look at what produced the input; a NaN that reaches running_mean or running_var stays there.",
    symptom="The loss is NaN from one step to the next, or evaluation is, long after the batch "
    "that did it.",
    arithmetic="A mean and a variance over values of which one is NaN are NaN, and Inf - Inf is "
    "NaN. The update running = (1 - m) * running + m * batch then keeps the NaN for good.",
    certainty="Certain.",
    lookalike="A NaN in one channel touches no other channel of this layer; the next layer mixes "
    "them.",
    seen=("pytorch/pytorch#115500", "pytorch/pytorch#96798"),
)
ILL_CONDITIONED = Rule(
    "BN002",
    "ill-conditioned",
    Severity.WARNING,
    "|mean| is so large against std that float32 loses the digits of the normalised values.",
    "Subtract a constant from the input, or normalise in float64.",
    symptom="Two correct implementations differ in the third digit, and one-pass variances come "
    "out as 0 or below.",
    arithmetic="A float32 value near the mean is known to |mean| * 2^-24, which is |mean|/std * "
    "2^-24 after the division by std. From |mean|/std = 1000 on that is 6e-5 or more; E[x^2] - "
    "E[x]^2 loses the square of the ratio.",
    certainty="Certain that the digits are not there; whether they matter is the network's affair.",
    lookalike="A constant channel (BN009) has no std to compare with.",
    seen=("pytorch/pytorch#40302", "pytorch/pytorch#5410", "tenstorrent/tt-metal#45968"),
)
BELOW_EPS = Rule(
    "BN003",
    "variance-below-eps",
    Severity.WARNING,
    "The variance is below eps, so that eps and not the data sets the scale.",
    "Check that the channel is alive, scale the input up, or lower eps.",
    symptom="The normalised channel has a standard deviation well below 1.",
    arithmetic="The output's variance is var / (var + eps): a half where var is eps, a hundredth "
    "where var is a hundredth of eps.",
    certainty="Certain for the eps at hand.",
    lookalike="A channel of equal values is BN009. In a checkpoint the same is BN401.",
    seen=("pytorch/vision#2599",),
)
OVERFLOW = Rule(
    "BN004",
    "overflow",
    Severity.WARNING,
    "The squared deviations overflow the dtype that PyTorch adds them in: its output is the bias.",
    "Scale the input down.",
    symptom="A finite input gives an output that is constant, and a running_var that is infinite.",
    arithmetic="The sum of (x - mean)^2 over the channel is beyond 3.4e38, float32's largest, so "
    "that the variance is Inf and 1/sqrt(Inf) is 0.",
    certainty="Certain for sums in float32; bncli's own are in float64.",
    lookalike="Inf in the input itself is BN001.",
    seen=("pytorch/pytorch#178123",),
)
FRESH_STATISTICS = Rule(
    "BN005",
    "fresh-running-statistics",
    Severity.WARNING,
    "Evaluation without a state uses a fresh module's running_mean 0 and running_var 1.",
    "Give --state, or --running-mean and --running-var.",
    symptom="The output is the input, scaled by almost 1.",
    arithmetic="(x - 0) / sqrt(1 + eps) is x to within eps/2.",
    certainty="Certain.",
    lookalike="A checkpoint whose own statistics are 0 and 1 is BN101 to BN104.",
)
NOT_POSITIVE = Rule(
    "BN006",
    "running-variance-not-positive",
    Severity.ERROR,
    "running_var + eps is not above 0: the output is not finite.",
    "Look at how running_var was made; a variance is never negative.",
    symptom="NaN or Inf in evaluation.",
    arithmetic="1/sqrt(running_var + eps) is NaN below 0 and Inf at 0.",
    certainty="Certain.",
    lookalike="inspect-checkpoint names the likely cause by its pattern (BN203, BN205).",
    seen=("facebookresearch/detectron2#2413", "google/flax#1491"),
)
MOMENTUM = Rule(
    "BN007",
    "momentum-out-of-range",
    Severity.WARNING,
    "momentum is the weight of the new batch; outside [0, 1] the update extrapolates.",
    "Keras, Flax and ONNX name the weight of the old value instead: their 0.9 is 0.1 here.",
    symptom="Running statistics that swing, or a negative running_var.",
    arithmetic="running = (1 - momentum) * running + momentum * batch is an average only for 0 <= "
    "momentum <= 1.",
    certainty="Certain that it is no average.",
    lookalike="0.9 or 0.99 is within the range and often the other convention; the update then "
    "forgets all but the last batches.",
    seen=("huggingface/transformers#19454", "gmalivenko/pytorch2keras#70"),
)
FEW_VALUES = Rule(
    "BN008",
    "few-values",
    Severity.INFO,
    "Fewer than 8 values a channel: the batch variance is mostly noise.",
    "Use a larger batch, or a normalisation that does not need one.",
    symptom="Training is noisy, and evaluation differs from it.",
    arithmetic="The relative standard deviation of the variance of n normal values is sqrt(2/(n - "
    "1)): more than a half below n = 9.",
    certainty="Certain for values that are independent; neighbouring pixels are worth fewer still.",
    lookalike="One value a channel is refused, as PyTorch refuses it.",
    seen=("pytorch/pytorch#7716",),
)
CONSTANT = Rule(
    "BN009",
    "constant",
    Severity.INFO,
    "All values of a channel are equal: its variance is 0, and in training its output the bias.",
    "Check that the channel is alive.",
    symptom="A channel that carries nothing, usually behind a dead activation.",
    arithmetic="min equals max, so that x - mean is 0 everywhere.",
    certainty="Certain for this batch.",
    lookalike="A batch of padding or of one repeated sample does the same to a live channel.",
    seen=("pytorch/pytorch#5410",),
)
INPUTS_DIFFER = Rule(
    "BN010",
    "inputs-differ",
    Severity.WARNING,
    "The inputs' means lie further apart than those of shuffled batches would.",
    "Batches sorted by class or domain do this, and so do values that go together, such as pixels.",
    symptom="Good in training, bad in evaluation: running_var holds the variance within batches "
    "and misses the one between them.",
    arithmetic="var = within + between, by the law of total variance. The ratio of the two, each "
    "over its degrees of freedom, is about 1 for independent values; beyond 30 it is a note. With "
    "the means of samples (axis 0) in place of values it is about 1 for shuffled samples of any "
    "kind; above 3, and beyond what chance leaves once in a million channels, it is a warning.",
    certainty="Certain that the inputs differ; as a warning, that shuffling did not make it. "
    "Values that go together, as neighbouring pixels do, raise the ratio by values anyhow.",
    lookalike="Very large inputs make a harmless difference significant: look at between_var "
    "itself.",
    seen=("pytorch/pytorch#5406", "pytorch/pytorch#4741"),
)
STATE_NOT_FINITE = Rule(
    "BN011",
    "state-not-finite",
    Severity.ERROR,
    "A weight, bias or running statistic of the layer is NaN or Inf.",
    "Look at where the checkpoint came from; no batch mends a NaN in the running statistics.",
    symptom="The output is NaN or constant whatever comes in.",
    arithmetic="NaN * x is NaN, and (1 - m) * NaN + m * batch is NaN too.",
    certainty="Certain.",
    lookalike="inspect-checkpoint names the cause by its pattern (BN201, BN202).",
    seen=("pytorch/pytorch#1206", "pytorch/pytorch#10008"),
)
GRADIENT_NOT_FINITE = Rule(
    "BN012",
    "gradient-not-finite",
    Severity.ERROR,
    "The upstream gradient holds NaN or Inf: the gradients of its channels are lost.",
    "Look at the loss and at the layers behind this one.",
    symptom="weight.grad, bias.grad and the input's gradient are NaN in whole channels, and after "
    "the next step of the optimizer so are the weights.",
    arithmetic="sum(g) and sum(g * x_hat) run over a channel and enter the gradient of each of its "
    "elements, so that one NaN reaches all of them.",
    certainty="Certain.",
    lookalike="NaN in the input makes the same gradients; that is BN001.",
)
