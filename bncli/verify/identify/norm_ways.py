"""The norms that keep samples apart, as hypotheses: which axes, which eps, which weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import along
from bncli.dtypes import DTYPES, decode, encode
from bncli.light import dataclass, np
from bncli.norms import GROUP, INSTANCE, LAYER, RMS, describe
from bncli.verify.identify.hypotheses import (
    EPS,
    HELD,
    NO_AFFINE,
    NO_BIAS,
    NO_WEIGHT,
    RMS_EPS,
    Hypothesis,
    affine_ways,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray
    from bncli.norms import Norm, NormStatistics
    from bncli.verify.identify.hypotheses import Known
    from bncli.verify.identify.pair import View

MOST_GROUPINGS = 12
"""Numbers of groups that are tried."""

HALVES = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One norm with one eps, and how weight and bias are used.

    `weight` and `bias` broadcast against the tensor, None where there is none; `held` is the dtype
    that the mean and invstd were rounded to, "" for none that is coarser than float32.
    """

    norm: Norm
    hypothesis: Hypothesis
    weight: FloatArray | None
    bias: FloatArray | None
    held: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What its statistics depend on, which eps is not."""
        return self.norm.name, self.norm.axes, self.norm.groups

    def with_eps(self, eps: float, *, fitted: bool) -> Way:
        """The same with another eps."""
        return replace(
            self,
            norm=replace(self.norm, eps=eps),
            hypothesis=replace(self.hypothesis, eps=eps, fitted=fitted),
        )

    def output(self, x: NDArray[Any], statistics: NormStatistics) -> FloatArray:
        """What it makes of some samples, float64."""
        block = tuple(slice(0, size) for size in x.shape)
        if self.held:
            mean = decode(encode(statistics.mean, self.held), self.held)
            # float16 rounds invstd too, bfloat16 does not; the tolerance allows for either.
            made = (x.astype(np.float64) - statistics.at(mean, block)) * statistics.at(
                statistics.invstd, block
            )
        else:
            made = statistics.output(x, block)
        if self.weight is not None:
            made = made * self.weight
        return made if self.bias is None else made + self.bias

    def held_error(self, statistics: NormStatistics, walk: float) -> FloatArray:
        """How far a rounded mean may lie off, in the shape `Norm.kept`; `walk` is a sum's error.

        Near the middle between two values of `held`, the sum's error says which of them it is.
        """
        mean = statistics.mean
        error = walk * (np.abs(mean) + np.sqrt(statistics.var))
        if not self.held:
            return np.zeros_like(mean)
        ends = [decode(encode(mean + sign * error, self.held), self.held) for sign in (-1, 1)]
        return np.asarray(np.abs(ends[1].astype(np.float64) - ends[0]), np.float64)


def norm_ways(view: View, known: Known) -> Iterator[Way]:
    """Every norm of the family that has more than one value per statistic, with every eps."""
    rms_eps = RMS_EPS[view.y.dtype == "float64"]
    for eps in dict.fromkeys((known.eps, *EPS, rms_eps)):
        for norm, detail in _norms(view, known, eps):
            if norm.count < 2 or (eps == rms_eps and norm.name != RMS):
                continue
            plain = Hypothesis(norm.name, None, eps, statistics=detail, view=view.name)
            for weight, bias, affine in _affine(view, known, norm):
                way = Way(norm, replace(plain, affine=affine), weight, bias)
                yield way
                if norm.name == INSTANCE and view.y.dtype in HALVES:
                    held = replace(way.hypothesis, statistics=f"{HELD} {view.y.dtype}")
                    yield replace(way, hypothesis=held, held=view.y.dtype)


def _affine(
    view: View, known: Known, norm: Norm
) -> Iterator[tuple[FloatArray | None, FloatArray | None, str]]:
    """The weight and bias that a norm may have used, and what is unusual about it."""
    ndim, axis = len(view.shape), view.channel_axis
    weight = None if known.weight is None else along(known.weight, ndim, axis)
    bias = None if known.bias is None else along(known.bias, ndim, axis)
    if known.trailing:
        if norm.name in (LAYER, RMS) and len(norm.axes) == known.trailing:
            yield known.trailing_weight, known.trailing_bias, ""
            yield None, None, NO_AFFINE
            return
        if weight is None and bias is None:
            yield None, None, NO_AFFINE
            return
    for way in affine_ways(known):
        yield (
            None if way in (NO_WEIGHT, NO_AFFINE) else weight,
            None if way in (NO_BIAS, NO_AFFINE) else bias,
            way,
        )


def _norms(view: View, known: Known, eps: float) -> Iterator[tuple[Norm, str]]:
    """The norms with one eps, and the words for what their names leave open.

    One group of all channels is a LayerNorm's statistics, and a group of each an InstanceNorm's.
    With a weight or bias of one value per channel only GroupNorm fits the first, unless the
    channels are last.
    """
    shape, axis = view.shape, view.channel_axis
    ndim, channels = len(shape), shape[axis]
    per_channel = (known.weight is not None or known.bias is not None) and axis != ndim - 1
    groupings = [g for g in range(1, channels) if channels % g == 0][:MOST_GROUPINGS]

    def described(groups: int, normalized: int) -> dict[str, Norm]:
        norms = describe(shape, axis, groups=groups, normalized=normalized, eps=eps, rms_eps=eps)
        return {norm.name: norm for norm in norms}

    for normalized in (ndim - 1, *range(1, ndim - 1)):
        over = "over the last axis" if normalized == 1 else f"over the last {normalized} axes"
        norms = described(1, normalized)
        if not per_channel or normalized == known.trailing:
            yield norms[LAYER], over
        yield norms[RMS], over
    yield described(1, 1)[INSTANCE], ""
    for groups in groupings:
        if groups > 1 or per_channel:
            yield described(groups, 1)[GROUP], "1 group" if groups == 1 else f"{groups} groups"


def rounding(dtype: str) -> float:
    """The unit roundoff of the steps to an output of `dtype`: half precision is made in float32."""
    u = DTYPES[dtype].unit_roundoff
    return 2.0**-24 if u > 2.0**-53 else 2 * u
