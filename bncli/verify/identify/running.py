"""Which convention updated these running statistics: the batch's weight and the variance's divisor.

Every framework computes running = (1 - a) * running + a * batch, whatever it calls a or 1 - a. So
a follows from any channel that moved; what enters running_var tells the frameworks apart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES, decode, encode
from bncli.light import dataclass, np
from bncli.running_stats.frameworks import CONVENTIONS
from bncli.verify.identify.parts import SQUARES, WITHIN, shard_statistics
from bncli.verify.identify.said import Said, apart
from bncli.verify.identify.updates import (
    APART,
    AVERAGE,
    FITTED,
    MOST_BATCHES,
    NO_UPDATE,
    STD,
    TOGETHER,
    USUAL,
    WEIGHTS,
    Update,
    oddness,
    usual_updates,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import ChannelStats, FloatArray, RunningStats

LOOSE = 1
"""The level of tolerance that also allows for long running sums."""


@dataclass(frozen=True, slots=True)
class MeasuredUpdate:
    """One way to update, its largest difference, and its shares of the two tolerances."""

    update: Update
    max_abs_diff: float
    channel: int
    quantity: str
    shares: tuple[float, ...]
    oddness: int
    explains: bool = False

    @property
    def level(self) -> int:
        """The first level at which all the rest may be rounding."""
        return next((n for n, share in enumerate(self.shares) if share <= 1), len(self.shares))


@dataclass(frozen=True, slots=True)
class UpdateIdentification:
    """The ways best first, and the best of them in a sentence; see `Identification`.

    `nothing` says that no buffer moved, though the usual updates would have moved one.
    """

    ways: tuple[MeasuredUpdate, ...]
    said: Said
    confident: bool
    expected: bool
    tried: int
    nothing: bool = False

    @property
    def best(self) -> str:
        """The answer in sentences."""
        return self.said.text


@dataclass(frozen=True, slots=True)
class Observed:
    """A batch's statistics, and the buffers before and after it, kept in `dtype`.

    `shards` are the statistics of each INPUT, where there are several.
    """

    stats: ChannelStats
    before: RunningStats
    after: RunningStats
    dtype: str
    shards: tuple[ChannelStats, ...] = ()

    def batch_mean(self, way: Update) -> FloatArray:
        """What enters running_mean."""
        if way.part is not None:
            return self.shards[way.part].mean
        if way.variant in TOGETHER:
            return shard_statistics(self.shards, way.variant).mean
        return self.stats.mean

    def batch_variance(self, way: Update) -> FloatArray:
        """What enters running_var."""
        row = next(row for row in CONVENTIONS if row.variance == way.variance)

        def divided(stats: ChannelStats) -> FloatArray:
            return np.asarray(stats.var * row.variance_factor(stats.count), np.float64)

        with np.errstate(all="ignore"):
            if way.part is not None:
                return divided(self.shards[way.part])
            if way.variant == WITHIN:
                return np.asarray(np.mean([divided(part) for part in self.shards], axis=0))
            if way.variant == SQUARES:
                return divided(shard_statistics(self.shards, SQUARES))
            var = divided(self.stats)
            return np.sqrt(var) if way.variant == STD else var + way.kept_eps

    def measured(self, way: Update) -> MeasuredUpdate:
        """How far the update is from what was observed, and from what rounding may leave."""
        u = DTYPES[self.dtype].unit_roundoff
        sums = 2.0**-24 if u > 2.0**-53 else u
        walk = 2.7 * sums * np.sqrt(self.stats.count)
        std = np.sqrt(self.stats.var)
        # PyTorch sums float64 in float64, one value after another; three walks were seen.
        var_error = (6 if u <= 2.0**-53 else 1) * walk * self.stats.var
        var_error += 4 * sums * np.abs(self.stats.mean) * std
        worst = (-1.0, 0, "running_mean")
        shares = [0.0, 0.0]
        mean_weight = way.weight if way.mean_weight is None else way.mean_weight
        with np.errstate(all="ignore"):
            for quantity, weight, batch, error in (
                (
                    "running_mean",
                    mean_weight,
                    self.batch_mean(way),
                    walk * (np.abs(self.stats.mean) + std),
                ),
                ("running_var", way.weight, self.batch_variance(way), var_error),
            ):
                old, new = getattr(self.before, quantity), getattr(self.after, quantity)
                apart = np.abs((1 - weight) * old + weight * batch - new)
                apart = np.where(np.isfinite(apart), apart, np.inf)
                sizes = np.abs(weight * batch) + np.abs((1 - weight) * old)
                tight = u * (4 * sizes + abs(weight) * np.abs(old)) + 2 * DTYPES[self.dtype].tiniest
                apart[~self.finite] = 0.0
                for level, limit in enumerate((tight, tight + abs(weight) * error)):
                    shares[level] = max(shares[level], float((apart / limit).max()))
                channel = int(apart.argmax())
                if apart[channel] > worst[0]:
                    worst = (float(apart[channel]), channel, quantity)
        return MeasuredUpdate(way, *worst, tuple(shares), oddness(way))

    @property
    def unmoved(self) -> bool:
        """Whether the buffers after the batch are those before it, in the dtype of both."""
        held = [
            decode(encode(getattr(side, name)[self.finite], self.dtype), self.dtype)
            for name in ("running_mean", "running_var")
            for side in (self.before, self.after)
        ]
        return bool((held[0] == held[1]).all() and (held[2] == held[3]).all())

    @property
    def finite(self) -> NDArray[Any]:
        """The channels in which all numbers are finite."""
        found = np.isfinite(self.stats.mean) & np.isfinite(self.stats.unbiased_var)
        for buffers in (self.before, self.after):
            found &= np.isfinite(buffers.running_mean) & np.isfinite(buffers.running_var)
        return np.asarray(found)

    def told_weight(self, quantity: str, batch: FloatArray) -> float | None:
        """The weight of the batch that fits one buffer best, None where nothing tells it."""
        ok = self.finite
        old, new = getattr(self.before, quantity)[ok], getattr(self.after, quantity)[ok]
        way = batch[ok] - old
        with np.errstate(all="ignore"):
            # A rounding counts in proportion to the buffer's size.
            weights = 1 / np.maximum(np.abs(old) + np.abs(new), 1e-30) ** 2
            told = float((weights * way * (new - old)).sum() / (weights * way * way).sum())
        return told if np.isfinite(told) else None


def identify_update(observed: Observed) -> UpdateIdentification:
    """Try every convention on the channels in which all numbers are finite."""
    if not observed.finite.any():
        nothing = Said("nothing was compared: every channel holds NaN or Inf")
        return UpdateIdentification((), nothing, confident=False, expected=False, tried=0)
    ways = usual_updates(len(observed.shards))
    found = [observed.measured(way) for way in ways]
    if not any(item.level <= LOOSE for item in found):
        found += [observed.measured(way) for way in _told(observed)]
    level = min(item.level for item in found)
    chosen = [item for item in found if item.level == level and level <= LOOSE]
    if observed.unmoved and level <= LOOSE:
        # A step too small for the buffers' dtype leaves them unchanged too, and tells no weight.
        usual = [item for item in found if item.level <= LOOSE and item.update.weight >= WEIGHTS[1]]
        chosen = usual + [item for item in found if item.update == NO_UPDATE]
    # An eps that is lost in rounding beside the variance is not a different update.
    plain = {item.update for item in chosen}
    chosen = [
        item
        for item in chosen
        if not item.update.kept_eps or replace(item.update, variant="", kept_eps=0.0) not in plain
    ]
    explaining = [
        replace(item, explains=True)
        for item in sorted(chosen, key=lambda item: (item.oddness, item.max_abs_diff))
    ]
    rest = sorted(
        (item for item in found if item not in chosen), key=lambda item: item.max_abs_diff
    )
    order = explaining + rest
    return UpdateIdentification(
        ways=tuple(order),
        said=_said(observed, order),
        confident=len(explaining) == 1,
        expected=any(
            item.update.variance == "unbiased"
            and not item.update.is_none
            and (item.update.variant in ("", FITTED) or item.update.variant.startswith(AVERAGE))
            for item in explaining
        ),
        tried=len(found),
        nothing=order[0].explains and order[0].update.is_none,
    )


def _told(observed: Observed) -> list[Update]:
    """The weights that follow from the buffers, as such and as the average of k batches."""
    mean_weight = observed.told_weight("running_mean", observed.stats.mean)
    ways = []
    for variance in ("unbiased", "biased"):
        plain = Update(0.0, variance)
        weight = observed.told_weight("running_var", observed.batch_variance(plain))
        for told in (mean_weight, weight):
            if not told:
                continue
            ways += [
                Update(float(f"{told:.{digits}g}"), variance, FITTED) for digits in (1, 2, 3, 6)
            ]
            batches = round(1 / told) if 1 / MOST_BATCHES < told <= 1 else 0
            if batches > 1:
                ways.append(Update(1 / batches, variance, f"{AVERAGE} {batches} batches"))
        if mean_weight is not None and weight is not None:
            ways += [
                Update(
                    float(f"{weight:.{digits}g}"),
                    variance,
                    f"{APART} {mean_weight:.{digits}g}",
                    float(f"{mean_weight:.{digits}g}"),
                )
                for digits in (1, 2, 3, 6)
            ]
    return list(dict.fromkeys(ways))


def _said(observed: Observed, order: list[MeasuredUpdate]) -> Said:
    """The best way, what another divisor would leave, and what remains in doubt."""
    best = order[0]
    said = best.update.words
    if not best.explains:
        return Said(
            f"none of {len(order)} conventions explains the update",
            f"the nearest, {said}, is off by up to {best.max_abs_diff:.2g} in {best.quantity}, "
            f"channel {best.channel}",
        )
    if best.update.is_none:
        usual = next(item for item in order if item.update == USUAL)
        return Said(
            "nothing was updated: the buffers did not change, as in eval mode or at momentum 0",
            f"with momentum {USUAL.weight:g}, {usual.quantity} would "
            f"{apart(usual.max_abs_diff)} in channel {usual.channel}",
        )
    claim = f"the update has {said} (largest difference {best.max_abs_diff:.2g})"
    other = next(
        (
            item
            for item in order
            if item.update.weight == best.update.weight
            and item.update.ddof != best.update.ddof
            and item.update.variant in ("", best.update.variant)
        ),
        None,
    )
    contrast = []
    if best.update.frameworks:
        *names, last = best.update.frameworks
        verb = "updates" if len(best.update.frameworks) == 1 else "update"
        names = [", ".join(names), last] if names else [last]
        contrast.append(f"{' and '.join(names)} {verb} in this way")
    if other is not None and not other.explains:
        contrast.append(
            f"with {other.update.variance_words}, {other.quantity} would "
            f"{apart(other.max_abs_diff)} in channel {other.channel}"
        )
    return Said(claim, "; ".join(contrast), _doubt(observed, order, other))


def _doubt(observed: Observed, order: list[MeasuredUpdate], other: MeasuredUpdate | None) -> str:
    """What else explains the update, and what would decide; "" where nothing else does.

    `other` is the same update with the other divisor.
    """
    best = order[0]
    remaining = [item for item in order[1:] if item.explains]
    if not remaining:
        return ""
    verb = "fits" if len(remaining) == 1 else "fit"
    names = " and ".join(item.update.words for item in remaining[:2])
    more = f" and {len(remaining) - 2} more" if len(remaining) > 2 else ""
    text = f"{names}{more} {verb} as well"
    if other is not None and other.explains:
        u = DTYPES[observed.dtype].unit_roundoff
        with np.errstate(all="ignore"):
            part = best.update.weight * observed.stats.var / (observed.stats.count * u)
            part = part / (4 * (observed.after.running_var + best.update.weight))
            part[~observed.finite] = 0.0
        count = max(2, int(observed.stats.count * float(np.nan_to_num(part).max()) / 2))
        return f"{text}: a batch of at most {count} values per channel would decide"
    return f"{text}: a batch further from the running statistics would decide"
