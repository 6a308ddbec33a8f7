"""Outputs that were taken after an activation: a ReLU is tried, others are suspected."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.verify.identify.hypotheses import AFTER_RELU, TRAINING, Hypothesis, channel_map
from bncli.verify.identify.search import Seen

if TYPE_CHECKING:
    from bncli.model import FloatArray


def after_relu(base: Seen) -> Seen | None:
    """The tensors with every map behind a ReLU; None where the output does not look like it.

    It has 0 as its least value, and positive ones.
    """
    low, high = (values[base.fit.ok] for values in (base.fit.y_stats.min, base.fit.y_stats.max))
    if not (low.min(initial=np.inf) == 0 and high.max(initial=0) > 0):
        return None
    view = replace(base.view, name=AFTER_RELU, relu=True)
    return replace(base, view=view, fit=replace(base.fit, slope=_slope_of_positive(base)))


def lacks_negatives(base: Seen) -> bool:
    """Whether the output has no negative value, where BatchNorm would have given some."""
    ok, stats = base.fit.ok, base.fit.stats
    if (base.fit.y_stats.min[ok] < 0).any():
        return False
    mode = base.known.likelier_mode
    plain = Hypothesis(mode, 0 if mode == TRAINING else None, base.known.eps)
    if mode != TRAINING and not base.known.has_statistics:
        return False
    made = channel_map(plain, base.known, stats)
    with np.errstate(all="ignore"):
        ends = [(end - made.center) * made.scale + made.bias for end in (stats.min, stats.max)]
    return bool((np.min(ends, axis=0) < 0)[ok].any())


def _slope_of_positive(base: Seen) -> FloatArray:
    """Least squares of the positive values of the output on the input, 0 for fewer than two."""
    view, stats = base.view, base.fit.stats
    axes = tuple(axis for axis in range(len(view.shape)) if axis != view.channel_axis)
    sums = np.zeros((5, view.num_features))
    with np.errstate(all="ignore"):
        for block, given, wanted in view.read():
            x = given.astype(np.float64) - view.at(stats.mean, block)
            y = wanted.astype(np.float64)
            told = y > 0
            parts = (told, x * told, y * told, x * x * told, x * y * told)
            for row, part in enumerate(parts):
                sums[row, block[view.channel_axis]] += part.sum(axes)
        number, x_sum, y_sum, squares, products = sums
        slope = (products - x_sum * y_sum / number) / (squares - x_sum**2 / number)
    return np.where(np.isfinite(slope), slope, 0.0)
