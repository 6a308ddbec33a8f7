"""Every hypothesis against an input and an output: ranked, and the best said in a sentence.

In each channel BatchNorm is an affine map. So the best affine map of x to y, found by least
squares, tells at once how far every hypothesis is off at the two ends of the channel; those that
come near are then measured on every value.

A hypothesis explains the output where the rest is rounding. How much that may be depends on how
the output was computed, which nobody knows. There are three levels: "tight" allows for the
roundings of each element, as PyTorch's kernels leave them; "loose" also for long running sums in
the output's precision; "single" for statistics in float32 behind an output in float64. The first
level at which anything explains the output decides, and among equals the simpler comes first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.dtypes import DTYPES
from bncli.light import dataclass, np
from bncli.verify.identify.hypotheses import (
    EVAL,
    FRESH,
    IS_INVSTD,
    TRAINING,
    UNCENTERED,
    ChannelMap,
    Hypothesis,
    Known,
    batch_norms,
    channel_map,
)
from bncli.verify.identify.pair import Fit, View, fit, furthest

if TYPE_CHECKING:
    from bncli.model import FloatArray

MEASURED = 12
"""Hypotheses of a view that are measured on every value, beside those that are always."""

LEVELS = 3
"""The levels of tolerance; see above."""

SINGLE = 2.0**-24
"""The unit roundoff of float32, in which half precision is computed too."""

LOST = 64.0
"""Statistics of a batch are taken for mere rounding where std is below this many times u |mean|."""

MOST_EPS = 0.02
"""The largest eps that is fitted to statistics that were used oddly."""

DIGITS = range(1, 7)
"""Digits of a fitted eps: the fewest with which it explains the output."""

TELLING = 0.5
"""The share of the output's own size that a tolerance has to be below, in one channel at least: a
hypothesis that fits within more than that explains nothing."""

CLOSE_CALL = (2.0, 0.1)
"""Factor and addend of the share of the tolerance within which two hypotheses are equally good."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One hypothesis, measured: the largest difference, and its share of each level's tolerance.

    `channel` is where the largest difference is, `level` the first that the hypothesis reaches,
    `len(shares)` for none. `plain` is PyTorch's own way with the expected eps, in either mode.
    `tells` says of each level whether its tolerance is narrow enough to explain anything. One that
    `fits` is within it, and `explains` the output if that tells.
    """

    hypothesis: Hypothesis
    max_abs_diff: float
    channel: int
    shares: tuple[float, ...]
    oddness: int
    plain: bool = False
    explains: bool = False
    fits: bool = False
    tells: tuple[bool, ...] = (True,) * LEVELS

    @property
    def told(self) -> bool:
        """Whether it leaves only rounding, by a tolerance that is narrow enough to tell."""
        return self.level < LEVELS and self.tells[self.level]

    @property
    def level(self) -> int:
        """The first level at which all the rest may be rounding."""
        return next((n for n, share in enumerate(self.shares) if share <= 1), len(self.shares))


@dataclass(frozen=True, slots=True)
class Seen:
    """A view, its fit, and what is known of the layer in it."""

    view: View
    fit: Fit
    known: Known

    @classmethod
    def of(cls, view: View, known: Known) -> Seen:
        """Look at the tensors in this way."""
        return cls(view, fit(view), known)

    def tolerated(self, made: ChannelMap, *, training: bool) -> tuple[FloatArray, ...]:
        """What rounding may leave in each channel if `made` is the truth, level by level.

        PyTorch's folded form x * alpha + (bias - mean * alpha) rounds at the size of both products.
        Their size is taken from the output and not from `made`, which may be far off.
        """
        view, stats, y_stats = self.view, self.fit.stats, self.fit.y_stats
        kind = DTYPES[view.y_dtype or view.y.dtype]
        u = SINGLE if kind.unit_roundoff > 2.0**-53 else 2 * kind.unit_roundoff
        half = kind.unit_roundoff if kind.unit_roundoff > SINGLE else 0.0
        with np.errstate(all="ignore"):
            std = np.sqrt(stats.var)
            # Where no digit of the deviations is left, the output does not tell the slope.
            lost = std <= LOST * u * np.abs(stats.mean)
            plain = np.abs(self._weight()) / np.sqrt(stats.var + self.known.eps)
            unknown = lost if training else stats.var == 0
            scale = np.where(unknown, plain if training else np.abs(made.scale), self.fit.slope)
            scale, center = np.abs(scale), np.abs(made.center)
            size = np.maximum(np.abs(stats.min), np.abs(stats.max))
            apart = np.maximum(np.abs(stats.max - stats.mean), np.abs(stats.min - stats.mean))
            largest = np.maximum(np.abs(y_stats.min), np.abs(y_stats.max))
            element = 4 * scale * (size + center) + 2 * (largest + np.abs(made.bias))
            tight = u * element + kind.unit_roundoff * largest + 2 * kind.tiniest
            # Statistics that were kept in half precision, or summed one after the other: values
            # that differ by less than the sum's last place are rounded in the same direction again
            # and again, others up and down.
            walk = np.full(len(std), 4 * u)
            if training:
                drifts = std <= u * view.count * np.abs(stats.mean)
                walk = np.where(drifts, u * view.count, 2.7 * u * np.sqrt(view.count))
            walk += 2 * half
            mean_error = walk * (center + std)
            # var / (var + eps) is at most 1, and the mean's error enters the variance squared.
            relative = walk + scale**2 * mean_error**2
            loose = tight + scale * (mean_error + relative * apart)
            single = loose + SINGLE * element
        return tight, loose, single

    def _weight(self) -> FloatArray:
        """The weight of each channel, 1 where it is not known."""
        weight = self.known.weight
        return np.ones(self.view.num_features) if weight is None else weight

    def screened(self, made: ChannelMap) -> FloatArray:
        """How far the map is from the fitted one at the ends of each channel."""
        stats, y_stats = self.fit.stats, self.fit.y_stats
        found = np.zeros(self.view.num_features)
        with np.errstate(all="ignore"):
            for end in (stats.min, stats.max):
                fitted = y_stats.mean + self.fit.slope * (end - stats.mean)
                apart = np.abs(fitted - (end - made.center) * made.scale - made.bias)
                found = np.maximum(found, np.where(np.isnan(apart), np.inf, apart))
        found[~self.fit.ok] = 0.0
        return found

    def measured(self, hypotheses: list[Hypothesis]) -> list[Candidate]:
        """The hypotheses, measured on every value."""
        maps = [channel_map(item, self.known, self.fit.stats) for item in hypotheses]
        apart = furthest(self.view, maps, self.fit.ok)
        return [
            self.judged(item, made, row)
            for item, made, row in zip(hypotheses, maps, apart, strict=True)
        ]

    def judged(self, hypothesis: Hypothesis, made: ChannelMap, apart: FloatArray) -> Candidate:
        """A candidate, given the largest difference of each channel."""
        shares, tells = [], []
        ok, y_stats = self.fit.ok, self.fit.y_stats
        with np.errstate(all="ignore"):
            largest = np.maximum(np.abs(y_stats.min), np.abs(y_stats.max))
            for limit in self.tolerated(made, training=hypothesis.mode == TRAINING):
                telling = ok & ((limit < TELLING * largest) | (apart == 0))
                tells.append(bool(telling.any()))
                share = np.where(apart == 0, 0.0, apart / limit)
                shares.append(float(np.where(np.isnan(share), np.inf, share).max()))
        channel = int(apart.argmax())
        return Candidate(
            hypothesis,
            float(apart[channel]),
            channel,
            tuple(shares),
            hypothesis.oddness(self.known),
            hypothesis.is_expected(replace(self.known, training=None)),
            tells=tuple(tells),
        )


def candidates(seen: Seen, hypotheses: list[Hypothesis] | None = None) -> list[Candidate]:
    """The hypotheses of a view that come nearest, and the plain ones, all measured."""
    known, stats = seen.known, seen.fit.stats
    if hypotheses is None:
        hypotheses = list(batch_norms(known, seen.view.name, seen.view.count))
    first: dict[tuple[object, ...], tuple[float, int, Hypothesis]] = {}
    for item in sorted(hypotheses, key=lambda item: item.oddness(known)):
        made = channel_map(item, known, stats)
        screened = seen.judged(item, made, seen.screened(made))
        # Two that are the same map in one mode and with one eps are one hypothesis, in its simpler
        # words. Where modes or values of eps are the same map, the data do not tell them apart.
        with np.errstate(all="ignore"):
            constant = made.bias - made.center * made.scale
        eps = None if item.statistics == IS_INVSTD else item.eps  # which has no part in that one
        same = item.mode, item.ddof, eps, made.scale.tobytes(), constant.tobytes()
        first.setdefault(tuple(map(hash, same)), (screened.shares[0], screened.oddness, item))
    ordered = sorted(first.values(), key=lambda entry: entry[:2])
    chosen = [item for _, _, item in ordered[:MEASURED]]
    plain = [item for _, _, item in first.values() if not item.variant and item.eps == known.eps]
    return seen.measured(chosen + [item for item in plain if item not in chosen])


def fitted(seen: Seen) -> list[Candidate]:
    """The plain hypotheses with the eps that fits best, where there is one, and a few others.

    Of those others an eps above MOST_EPS does not count: it could make up for any scale.
    """
    known = seen.known
    ways: list[tuple[str, int | None, str]] = [(EVAL, None, FRESH)]
    if seen.view.count > 1:
        ways += [(TRAINING, ddof, how) for ddof in (0, 1) for how in ("", UNCENTERED)]
    if known.has_statistics:
        ways += [(EVAL, None, ""), (EVAL, None, UNCENTERED)]
    found = []
    for mode, ddof, how in ways:
        plain = Hypothesis(mode, ddof, 0.0, fitted=True, statistics=how, view=seen.view.name)
        eps = _fitted_eps(seen, plain)
        if eps is not None and not (how and eps > MOST_EPS):
            tried = [replace(plain, eps=float(f"{eps:.{digits}g}")) for digits in DIGITS]
            tried.append(replace(plain, eps=eps))
            measured = seen.measured(list(dict.fromkeys(tried)))
            found.append(min(measured, key=lambda item: (item.level, item.shares[0] > 1)))
    return found


def _fitted_eps(seen: Seen, plain: Hypothesis) -> float | None:
    """The eps that the slopes ask for: 1/invstd**2 - var, averaged by how well each tells it.

    An error of the slope counts in proportion to var + eps, so that the weights are its inverse
    square. A slope that is lost in the output's rounding tells none.
    """
    known, stats, y_stats = seen.known, seen.fit.stats, seen.fit.y_stats
    u = max(DTYPES[seen.view.y.dtype].unit_roundoff, 2.0**-53)
    var = stats.unbiased_var if plain.ddof else stats.var
    if plain.statistics == FRESH:
        var = np.ones_like(var)
    elif plain.mode == EVAL and known.running_var is not None:
        var = known.running_var
    weight = np.ones_like(var) if known.weight is None else known.weight
    with np.errstate(all="ignore"):
        invstd = seen.fit.slope / weight
        told = seen.fit.ok & (invstd > 0) & np.isfinite(invstd) & (stats.var > 0)
        largest = np.maximum(np.abs(y_stats.min), np.abs(y_stats.max))
        told &= np.abs(seen.fit.slope) * np.sqrt(stats.var) > LOST * u * largest
        if not told.any():
            return None
        total = 1 / invstd[told] ** 2
        weights = (total.min() / total) ** 2
        eps = float((weights * (total - var[told])).sum() / weights.sum())
    return eps if eps > 0 and np.isfinite(eps) else None


def ranked(found: list[Candidate], *, lenient: bool) -> list[Candidate]:
    """The candidates, best first, each with its verdict.

    `lenient` says that loose statistics are likely: then a plain hypothesis that is only loosely
    right ranks below another plain one that is right, and not below an unusual one.

    A fitted eps has a free number, so that it counts only where nothing else explains the output.
    """
    chosen: list[Candidate] = []
    # A number fitted to the output explains less than one that was known before, and what any
    # output of this size would pass explains nothing. Each group counts where those before it
    # explain nothing.
    for group in (
        [item for item in found if not item.hypothesis.fitted and item.told],
        [item for item in found if item.hypothesis.fitted and item.told],
        [item for item in found if not item.told],
    ):
        level = min((item.level for item in group), default=LEVELS)
        if level < LEVELS:
            chosen = [item for item in group if item.level == level]
            # Sums that are known to be long reach the second level without any mistake.
            if lenient and level == 0 and not any(item.plain for item in chosen):
                chosen += [item for item in group if item.level == 1 and item.plain]
            break
    if chosen and all(item.hypothesis.hides_eps for item in chosen):
        # Another eps in its usual place may do the same to these variances.
        chosen += [item for item in found if item.hypothesis.fitted and item.told]
    # Two that leave about as much rounding are equally good: which of them leaves less is chance,
    # so that the simpler comes first.
    best = min((item.shares[0] for item in chosen), default=0.0)
    near = CLOSE_CALL[0] * best + CLOSE_CALL[1]

    def order(item: Candidate) -> tuple[bool, int, float]:
        plainly = lenient and item.plain
        return (item.shares[0] > near and not plainly, item.oddness, item.max_abs_diff)

    # What is expected and fits, as far as rounding lets one see, ranks before what is unusual.
    unseen = [item for item in found if item.plain and item.level < LEVELS and not item.told]
    if unseen and not any(item.plain for item in chosen):
        chosen = unseen
    explaining = [
        replace(item, fits=True, explains=item.told) for item in sorted(chosen, key=order)
    ]
    rest = sorted(
        (item for item in found if item not in chosen),
        key=lambda item: (item.max_abs_diff, item.oddness),
    )
    return explaining + rest
