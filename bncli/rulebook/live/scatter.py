"""How far a layer's batches are from each other, and what dropout does to its variance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.model.capture import Propagation, WatchedLayer
from bncli.running_stats.chance import f_quantile
from bncli.running_stats.scatter import CHANCE, MOST_APART

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model import FloatArray
    from bncli.model.capture import InputSums

MATTERS = 0.1
"""The standard deviation between batches beyond chance, in that of all values, from which it is
worth a word: the outputs of a layer of weight 1 move as much."""

SMALL_SHARE = 0.05
"""The share of the variance between batches that chance may have before batches are too small."""


@dataclass(frozen=True, slots=True)
class BatchScatter:
    """How far batches are from each other; medians over the channels.

    `f_ratio` is the variance between the batches over the one that their samples leave to chance,
    and `border` what chance does not reach; None and Inf where there is one batch, or one sample a
    batch. `apart` is the standard deviation between batches beyond chance, in that of all values.
    `between` is the share of the variance between batches in that of all values, None for one
    batch, and `chance` the share that it has in shuffled batches of the same samples, whose means
    scatter by that of the samples over `size`, the samples a batch; 0 where that is not known.
    """

    f_ratio: float | None
    border: float
    apart: float
    between: float | None
    chance: float = 0.0
    size: float = 0.0

    @property
    def needed(self) -> int:
        """The samples a batch at which chance would leave SMALL_SHARE."""
        return math.ceil(self.chance * self.size / SMALL_SHARE)

    @property
    def differ(self) -> bool:
        """Whether the batches differ more than chance, and enough to matter."""
        return self.f_ratio is not None and self.f_ratio > self.border and self.apart > MATTERS


def batch_scatter(seen: InputSums) -> BatchScatter:
    """How far the batches of a layer are from each other.

    A sample's mean is taken to scatter at least as much as that of independent values.
    """
    batches, inner = seen.batches, seen.samples - seen.batches
    unknown = BatchScatter(None, math.inf, 0.0, None)
    with np.errstate(all="ignore"):
        varied = np.isfinite(seen.var) & (seen.var > 0)
        if batches < 2 or not varied.any():
            return unknown
        var = seen.var[varied]
        share = seen.between[varied] / (var * seen.values)
        if inner < 1:
            return BatchScatter(None, math.inf, 0.0, float(np.median(share)))
        least = seen.within[varied] / seen.values * (seen.samples / seen.values)
        spread = np.maximum(seen.sample_squares[varied] / inner, least)
        between = seen.between[varied] * (seen.samples / seen.values) / (batches - 1)
        of_chance = spread * (batches / seen.samples)
        ratio = float(np.median(between / spread))
        excess = np.maximum(between - spread, 0.0) * (batches / seen.samples) / var
        return BatchScatter(
            f_ratio=ratio if math.isfinite(ratio) else None,
            border=max(MOST_APART, f_quantile(CHANCE, batches - 1, inner)),
            apart=math.sqrt(float(np.median(excess))),
            between=float(np.median(share)),
            chance=float(np.median(of_chance / (seen.within[varied] / seen.values + of_chance))),
            size=seen.samples / batches,
        )


@dataclass(frozen=True, slots=True)
class DropoutEffect:
    """The variance in the training propagation over that with dropout on: the median channel.

    `one_way` says that it is on the same side of 1 in all channels. `stored` is the variance with
    dropout on over the stored one, the median channel's.
    """

    ratio: float
    one_way: bool
    stored: float


def dropout_effect(layer: WatchedLayer, stored: FloatArray) -> DropoutEffect | None:
    """What dropout does to a layer's variance; None where it was not captured.

    `stored` is running_var + eps.
    """
    training = layer.seen.get(Propagation.TRAINING)
    trained = layer.seen.get(Propagation.AS_TRAINED)
    if training is None or trained is None:
        return None
    with np.errstate(all="ignore"):
        ratio = (training.var + layer.eps) / (trained.var + layer.eps)
        fit = (trained.batch_var + layer.eps) / stored
    known = np.isfinite(ratio) & np.isfinite(fit) & (fit > 0)
    if not known.any():
        return None
    ratio = ratio[known]
    one_way = bool((ratio < 1).all() or (ratio > 1).all())
    return DropoutEffect(float(np.median(ratio)), one_way, float(np.median(fit[known])))


def first_seen(layer: WatchedLayer, order: Sequence[Propagation]) -> InputSums | None:
    """What a layer saw in the first of these propagations that ran."""
    return next((layer.seen[each] for each in order if each in layer.seen), None)
