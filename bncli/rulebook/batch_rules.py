"""BN0xx, the rules: what they mean. `bncli.rulebook.batch` applies them."""

from __future__ import annotations

from bncli.report import Severity
from bncli.rulebook.interface import Rule

NOT_FINITE = Rule(
    "BN001",
    "not-finite",
    Severity.ERROR,
    "the input holds NaN or Inf",
    "Find the step that produced it. A NaN or Inf that reaches running_mean or running_var stays "
    "there.",
    symptom="The loss turns NaN from one step to the next; or evaluation gives NaN, long after the "
    "batch that caused it.",
    arithmetic="The mean and the variance of values that include a NaN are NaN, and Inf - Inf is "
    "NaN. The update running = (1 - m) * running + m * batch then keeps the NaN for good.",
    certainty="Certain: every NaN and Inf is counted.",
    lookalike="A NaN in one channel does not affect the other channels of this layer, but the next "
    "layer mixes them.",
    seen=("pytorch/pytorch#115500", "pytorch/pytorch#96798"),
)
ILL_CONDITIONED = Rule(
    "BN002",
    "ill-conditioned",
    Severity.WARNING,
    "|mean| is so large relative to std that float32 loses digits",
    "Subtract a constant from the input, or normalise in float64.",
    symptom="Two correct implementations differ in the third digit, and one-pass variances come "
    "out as 0 or negative.",
    arithmetic="float32 holds a value near the mean to within |mean| * 2^-24, which becomes "
    "|mean|/std * 2^-24 after the division by std. From |mean|/std = 1000 on, that is 6e-5 or "
    "more. In the one-pass formula E[x^2] - E[x]^2, the relative error grows with the square of "
    "that ratio.",
    certainty="Certain that the digits are lost; whether they matter depends on the network.",
    lookalike="A constant channel (BN009) has no std to compare with.",
    seen=("pytorch/pytorch#40302", "pytorch/pytorch#5410", "tenstorrent/tt-metal#45968"),
)
BELOW_EPS = Rule(
    "BN003",
    "variance-below-eps",
    Severity.WARNING,
    "the variance is below eps, so eps sets the scale instead of the data",
    "Check that the channel still carries a signal. If it does, scale the input up or lower eps.",
    symptom="The normalised channel has a standard deviation well below 1.",
    arithmetic="The output's variance is var / (var + eps): one half where var equals eps, about "
    "a hundredth where var is a hundredth of eps.",
    certainty="Certain for the eps that was used.",
    lookalike="A channel whose values are all equal is BN009. In a checkpoint, this is BN401.",
    seen=("pytorch/vision#2599",),
)
OVERFLOW = Rule(
    "BN004",
    "overflow",
    Severity.WARNING,
    "the squared deviations overflow the dtype in which PyTorch adds them up",
    "Scale the input down.",
    symptom="A finite input gives a constant output and an infinite running_var.",
    arithmetic="The sum of (x - mean)^2 over the channel exceeds the largest number of the dtype, "
    "3.4e38 in float32, so the variance is Inf and 1/sqrt(Inf) is 0.",
    certainty="Certain for sums in that dtype, which is float32 unless the layer is in float64. "
    "bncli adds in float64.",
    lookalike="Inf in the input itself is BN001.",
    seen=("pytorch/pytorch#178123",),
)
FRESH_STATISTICS = Rule(
    "BN005",
    "fresh-running-statistics",
    Severity.WARNING,
    "evaluation uses a new module's running_mean 0 and running_var 1",
    "Pass --state, or --running-mean and --running-var.",
    symptom="The output is the input, scaled by a factor just below 1.",
    arithmetic="(x - 0) / sqrt(1 + eps) equals x to within a relative eps/2.",
    certainty="Certain: no statistics were given.",
    lookalike="A checkpoint whose statistics are 0 and 1 is reported as BN101 to BN104.",
)
NOT_POSITIVE = Rule(
    "BN006",
    "running-variance-not-positive",
    Severity.ERROR,
    "running_var + eps is not positive, so the output is not finite",
    "Find out how running_var was computed; a variance is never negative.",
    symptom="Evaluation gives NaN or Inf.",
    arithmetic="1/sqrt(running_var + eps) is NaN if the sum is negative, and Inf if it is 0.",
    certainty="Certain for the eps that was used.",
    lookalike="inspect-checkpoint names the likely cause by its pattern (BN203, BN205).",
    seen=("facebookresearch/detectron2#2413", "google/flax#1491"),
)
MOMENTUM = Rule(
    "BN007",
    "momentum-out-of-range",
    Severity.WARNING,
    "momentum is outside 0 to 1, so the update extrapolates",
    "Give a momentum from 0 to 1. PyTorch's is the weight of the new batch; that of Keras, Flax "
    "and ONNX is the weight of the old value, so their 0.9 is PyTorch's 0.1.",
    symptom="The running statistics swing, or running_var becomes negative.",
    arithmetic="running = (1 - momentum) * running + momentum * batch is an average only for 0 <= "
    "momentum <= 1.",
    certainty="Certain that the update is not an average.",
    lookalike="0.9 and 0.99 are within the range and often follow the other convention; the update "
    "then forgets all but the last batches (BN701).",
    seen=("huggingface/transformers#19454", "gmalivenko/pytorch2keras#70"),
)
FEW_VALUES = Rule(
    "BN008",
    "few-values",
    Severity.INFO,
    "with fewer than 8 values per channel, the batch variance is mostly noise",
    "Use a larger batch, or a normalisation that does not depend on the batch.",
    symptom="Training is noisy, and evaluation differs from it.",
    arithmetic="The variance of n independent normal values has a relative standard deviation of "
    "sqrt(2/(n - 1)), which exceeds one half for n < 9; the rule reports n < 8.",
    certainty="Certain for independent values. Correlated values, such as neighbouring pixels, "
    "carry even less information.",
    lookalike="A single value per channel is refused in training, as PyTorch refuses it.",
    seen=("pytorch/pytorch#7716",),
)
CONSTANT = Rule(
    "BN009",
    "constant",
    Severity.INFO,
    "all values of a channel are equal, so its variance is 0",
    "Check that the channel still carries a signal.",
    symptom="The channel carries no information, usually because a dead activation precedes it.",
    arithmetic="min equals max, so x - mean is 0 everywhere.",
    certainty="Certain for this batch.",
    lookalike="A batch of padding, or of one repeated sample, makes a healthy channel constant "
    "too.",
    seen=("pytorch/pytorch#5410",),
)
INPUTS_DIFFER = Rule(
    "BN010",
    "inputs-differ",
    Severity.WARNING,
    "the inputs' means differ by more than chance would explain",
    "Shuffle the samples if the inputs are sorted by class or domain. If this is only a note, the "
    "cause may be correlated values, such as neighbouring pixels, which shuffling does not change.",
    symptom="The model is good in training and bad in evaluation: running_var holds the variance "
    "within batches and misses the variance between them.",
    arithmetic="var = within + between, by the law of total variance. The ratio of the two, each "
    "divided by its degrees of freedom, is computed twice. From single values, it is about 1 if "
    "they are independent; above 30, it is reported as a note. From sample means (axis 0), it is "
    "about 1 for any shuffled samples; above 3, and above the level that chance exceeds in one "
    "channel in a million, it is reported as a warning.",
    certainty="Certain that the inputs differ; if it is a warning, also that shuffled samples "
    "would not. Correlated values, such as neighbouring pixels, raise the ratio of single values "
    "even when the samples are shuffled.",
    lookalike="With very many values even a harmless difference is significant, so look at the "
    "size of between_var.",
    seen=("pytorch/pytorch#5406", "pytorch/pytorch#4741"),
    milder=Severity.INFO,
)
STATE_NOT_FINITE = Rule(
    "BN011",
    "state-not-finite",
    Severity.ERROR,
    "a weight, bias or running statistic is NaN or Inf",
    "Find out where these values come from. No later batch removes a NaN from the running "
    "statistics.",
    symptom="The output is NaN or constant, whatever the input.",
    arithmetic="NaN * x is NaN, and (1 - m) * NaN + m * batch is NaN too.",
    certainty="Certain.",
    lookalike="inspect-checkpoint names the cause by its pattern (BN201, BN202).",
    seen=("pytorch/pytorch#1206", "pytorch/pytorch#10008"),
)
GRADIENT_NOT_FINITE = Rule(
    "BN012",
    "gradient-not-finite",
    Severity.ERROR,
    "the upstream gradient holds NaN or Inf",
    "Look at the loss, and at the layers between it and this one.",
    symptom="weight.grad, bias.grad and the input's gradient are NaN in whole channels, and so are "
    "the weights after the next step of the optimizer.",
    arithmetic="sum(g) and sum(g * x_hat) run over a channel and enter the gradient of each of its "
    "elements, so one NaN reaches them all.",
    certainty="Certain.",
    lookalike="A NaN in the input gives the same gradients, and is reported as BN001.",
)
