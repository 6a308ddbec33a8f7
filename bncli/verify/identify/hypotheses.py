"""The ways in which an output may have been made from an input: data, a line of words each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.light import dataclass, np

if TYPE_CHECKING:
    from bncli.model import ChannelStats, FloatArray

EPS = (1e-5, 1e-3, 1e-6, 1.001e-5, 2e-5, 1e-8, 0.0)
"""The values of eps that frameworks use, the most common first."""

RMS_EPS = (2.0**-23, 2.0**-52)
"""PyTorch's own for RMSNorm, by the dtype: float32's and narrower ones', and float64's."""

TRAINING, EVAL = "training", "eval"

TRAILING = ("LayerNorm", "RMSNorm")
"""The norms whose weight has the shape of the last axes."""

SWAPPED = "running_mean and running_var swapped"
IS_INVSTD = "running_var taken for invstd"
INVSTD_STORED = "invstd taken for running_var"
FRESH = "statistics 0 and 1"
UNCENTERED = "mean not subtracted"
UNSCALED = "not divided by the standard deviation"
KEPT_EPS = "eps added into running_var"
BATCH = ("", UNCENTERED, UNSCALED)
"""How the batch's statistics may have been used."""

STORED = ("", SWAPPED, IS_INVSTD, INVSTD_STORED, UNCENTERED, UNSCALED, KEPT_EPS)
"""How the stored statistics may have been used; `FRESH`, those of a new layer, in their place."""

NO_WEIGHT, NO_BIAS, NO_AFFINE = "weight ignored", "bias ignored", "weight and bias ignored"
AFFINE = ("", NO_WEIGHT, NO_BIAS, NO_AFFINE)
"""How weight and bias may have been used."""

HELD = "statistics in"
"""How the words of a hypothesis with statistics in half precision begin."""

AFTER_RELU = "after a ReLU"
"""What is odd about an output that was taken behind the activation."""

OUTSIDE = "eps outside the root"
FITTED = "fitted eps"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the layer: arrays of shape (num_features,), None for what is not.

    `eps` is the one that is expected, `eps_origin` where it is from, "" for a flag. `training` is
    the expected mode, None for either.
    `trailing_weight` and `trailing_bias` are a LayerNorm's, in the shape of the last axes.
    """

    weight: FloatArray | None = None
    bias: FloatArray | None = None
    running_mean: FloatArray | None = None
    running_var: FloatArray | None = None
    eps: float = 1e-5
    eps_origin: str = ""
    training: bool | None = None
    trailing_weight: FloatArray | None = None
    trailing_bias: FloatArray | None = None

    @property
    def trailing(self) -> int:
        """The number of last axes that `trailing_weight` or `trailing_bias` has, 0 without."""
        given = self.trailing_bias if self.trailing_weight is None else self.trailing_weight
        return 0 if given is None else given.ndim

    @property
    def has_statistics(self) -> bool:
        """Whether evaluation is possible."""
        return self.running_mean is not None and self.running_var is not None

    @property
    def likelier_mode(self) -> str:
        """The mode to think of first: the expected one, or else the one for what is known."""
        if self.training is None:
            return EVAL if self.has_statistics else TRAINING
        return TRAINING if self.training else EVAL

    def taken(self, channels: list[int]) -> Known:
        """The state with its channels in this order."""

        def take(values: FloatArray | None) -> FloatArray | None:
            return None if values is None else values[channels]

        return replace(
            self,
            weight=take(self.weight),
            bias=take(self.bias),
            running_mean=take(self.running_mean),
            running_var=take(self.running_var),
        )


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One way to make the output.

    `mode` is "training", "eval" or the name of another norm. `ddof` is 0 for the biased and 1 for
    the unbiased batch variance, None where none was computed. `statistics` and `affine` say what
    is odd about the use of the stored tensors, `view` what is odd about the tensors themselves.
    """

    mode: str
    ddof: int | None
    eps: float
    outside: bool = False
    fitted: bool = False
    statistics: str = ""
    affine: str = ""
    view: str = ""

    @property
    def variant(self) -> str:
        """What is unusual, "" for nothing; eps and ddof are said elsewhere."""
        parts: tuple[str, ...] = (
            OUTSIDE if self.outside else "",
            FITTED if self.fitted else "",
            self.statistics,
            self.affine,
            self.view,
        )
        return ", ".join(filter(None, parts))

    @property
    def words(self) -> str:
        """The hypothesis as a person says it: "eval mode with eps 1e-3"."""
        if self.mode in (TRAINING, EVAL):
            said = f"{self.mode} mode with "
            if self.ddof == 1:
                said += "the unbiased variance and "
        else:
            said = f"{self.mode} with "
        said += f"eps {eps_text(self.eps)}"
        return f"{said} ({self.variant})" if self.variant else said

    @property
    def way(self) -> str:
        """The hypothesis after "computed": "in eval mode with eps 1e-3"."""
        return f"{'in' if self.mode in (TRAINING, EVAL) else 'by'} {self.words}"

    @property
    def label(self) -> str:
        """The hypothesis in a table: "eval mode, eps 1e-3"."""
        parts = [f"{self.mode} mode" if self.mode in (TRAINING, EVAL) else self.mode]
        if self.ddof == 1:
            parts.append("unbiased variance")
        said = ", ".join([*parts, f"eps {eps_text(self.eps)}"])
        return f"{said} ({self.variant})" if self.variant else said

    @property
    def hides_eps(self) -> bool:
        """Whether another eps alone may look like it."""
        return self.outside or self.statistics.startswith(HELD)

    def oddness(self, known: Known) -> int:
        """How far it is from the expected; the plain hypothesis has 0."""
        listed = [known.eps, *(eps for eps in EPS if eps != known.eps)]
        eps_rank = listed.index(self.eps) if self.eps in listed else len(listed)
        if self.mode == "RMSNorm" and self.eps in RMS_EPS:
            eps_rank = 0
        return (
            eps_rank
            + 8 * (self.mode != known.likelier_mode)
            + 10 * (self.ddof == 1)
            + 15 * self.outside
            + 20 * (bool(self.statistics) + bool(self.affine))
            + 30 * (self.mode not in (TRAINING, EVAL))
            + 40 * bool(self.view)
            + 80 * self.fitted
        )

    def is_expected(self, known: Known) -> bool:
        """Whether it is PyTorch's own way, with the expected eps, in a mode that is expected.

        A weight over the last axes is that of a norm of each sample. Where no statistics are
        known, evaluation is expected to have used a new layer's.
        """
        if self.mode in TRAILING and known.trailing and not known.has_statistics:
            usual = self.eps == known.eps or (self.mode == "RMSNorm" and self.eps in RMS_EPS)
            return usual and not (self.fitted or self.affine or self.view)
        mode = self.mode in (TRAINING, EVAL) and (known.weight is not None or not known.trailing)
        if known.training is not None:
            mode = mode and self.mode == (TRAINING if known.training else EVAL)
        plain = replace(self, statistics="") if self._uses_the_default(known) else self
        return mode and self.ddof in (0, None) and not plain.variant and self.eps == known.eps

    def _uses_the_default(self, known: Known) -> bool:
        """Whether it is evaluation with what a new layer has, and nothing else is known."""
        return self.statistics == FRESH and not known.has_statistics


@dataclass(frozen=True, slots=True)
class ChannelMap:
    """y = (x - center) * scale + bias; arrays of shape (num_features,)."""

    center: FloatArray
    scale: FloatArray
    bias: FloatArray


def batch_norms(known: Known, view: str, count: int = 2) -> Iterator[Hypothesis]:
    """Every hypothesis in which BatchNorm made the output, of `count` values per channel."""
    ways: list[tuple[str, int | None, str]] = [(EVAL, None, FRESH)]
    if count > 1:  # of one value a channel PyTorch makes no statistics
        ways += [(TRAINING, ddof, statistics) for ddof in (0, 1) for statistics in BATCH]
    if known.has_statistics:
        ways += [(EVAL, None, statistics) for statistics in STORED]
    listed = [known.eps, *(eps for eps in EPS if eps != known.eps)]
    for mode, ddof, statistics in ways:
        for eps in listed:
            if statistics == KEPT_EPS and 2 * eps in (0.0, *EPS):
                continue  # the same as another eps, which is simpler
            if statistics == UNSCALED and (eps != known.eps or ddof == 1):
                continue  # neither matters there
            for way in affine_ways(known):
                plain = Hypothesis(mode, ddof, eps, statistics=statistics, affine=way, view=view)
                yield plain
                if eps > 0 and statistics not in (IS_INVSTD, UNSCALED, KEPT_EPS):
                    yield replace(plain, outside=True)


def affine_ways(known: Known) -> list[str]:
    """How weight and bias may have been used, of `AFFINE`."""
    return [
        way
        for way in AFFINE
        if not (way in (NO_WEIGHT, NO_AFFINE) and known.weight is None)
        and not (way in (NO_BIAS, NO_AFFINE) and known.bias is None)
    ]


def plain_batch_norms(known: Known, view: str, count: int = 2) -> Iterator[Hypothesis]:
    """Those in which only the view is unusual."""
    for hypothesis in batch_norms(known, view, count):
        if not (hypothesis.outside or hypothesis.statistics or hypothesis.affine):
            yield hypothesis


def channel_map(hypothesis: Hypothesis, known: Known, stats: ChannelStats) -> ChannelMap:
    """What BatchNorm does to each channel under the hypothesis; `stats` are the input's."""
    ones, zeros = np.ones(stats.num_features), np.zeros(stats.num_features)
    with np.errstate(all="ignore"):
        if hypothesis.mode == TRAINING:
            center = stats.mean
            var = stats.unbiased_var if hypothesis.ddof else stats.var
        elif hypothesis.statistics == FRESH:
            center, var = zeros, ones
        else:
            if known.running_mean is None or known.running_var is None:
                raise ValueError("evaluation needs running_mean and running_var")
            center, var = known.running_mean, known.running_var
            if hypothesis.statistics == SWAPPED:
                center, var = var, center
            elif hypothesis.statistics == INVSTD_STORED:
                var = 1 / np.sqrt(var + known.eps)
            elif hypothesis.statistics == KEPT_EPS:
                var = var + hypothesis.eps
        if hypothesis.statistics == UNCENTERED:
            center = zeros
        if hypothesis.statistics == IS_INVSTD:
            invstd = var
        elif hypothesis.statistics == UNSCALED:
            invstd = ones
        elif hypothesis.outside:
            invstd = 1 / (np.sqrt(var) + hypothesis.eps)
        else:
            invstd = 1 / np.sqrt(var + hypothesis.eps)
        weight = ones if known.weight is None else known.weight
        bias = zeros if known.bias is None else known.bias
        if hypothesis.affine in (NO_WEIGHT, NO_AFFINE):
            weight = ones
        if hypothesis.affine in (NO_BIAS, NO_AFFINE):
            bias = zeros
        return ChannelMap(center, invstd * weight, bias)


def eps_text(eps: float) -> str:
    """eps as people write it: 1e-5 and 1e-3, not 1e-05 and 0.001."""
    if not 0 < eps < 0.01:
        return f"{eps:g}"
    mantissa, _, exponent = f"{eps:.5e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
