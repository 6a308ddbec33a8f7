"""What else explains an output beside the best hypothesis, and what data would decide."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.verify.identify.halves import SAME_EPS
from bncli.verify.identify.hypotheses import (
    BATCH,
    EVAL,
    SWAPPED,
    TRAINING,
    Hypothesis,
    channel_map,
    eps_text,
)
from bncli.verify.identify.search import LEVELS, Candidate, Seen

if TYPE_CHECKING:
    from bncli.verify.identify.halves import EpsRange

MOST_NAMED = 2
"""Other hypotheses that a sentence names, beside other values of eps."""


def doubt_of(order: list[Candidate], seen: Seen, eps_range: EpsRange | None) -> str:
    """What else explains the output, and what would decide; "" where nothing else does."""
    best = order[0]
    remaining = [item for item in order[1:] if item.explains]
    told = ""
    if eps_range is not None:
        told = (
            f"{seen.view.y.dtype} has too few digits to tell which eps it is: the same output in "
            "float32 would"
        )
        remaining = [
            item for item in remaining if not differ_in_eps(item.hypothesis, best.hypothesis)
        ]
    if not remaining:
        return told
    like = [item for item in remaining if differ_in_eps(item.hypothesis, best.hypothesis)]
    unlike = [item.hypothesis.words for item in remaining if item not in like]
    parts = unlike[:MOST_NAMED]
    if like:
        parts.insert(0, "eps " + _listed([eps_text(item.hypothesis.eps) for item in like]))
    if len(unlike) > MOST_NAMED:
        parts.append(f"{len(unlike) - MOST_NAMED} more")
    verb = "fits" if len(remaining) == 1 else "fit"
    others = f"{_listed(parts)} {verb} as well: {_decider(best, remaining, seen)}"
    return "; ".join(filter(None, (told, others)))


def differ_in_eps(one: Hypothesis, other: Hypothesis) -> bool:
    """Whether two hypotheses are the same apart from eps."""
    return replace(one, eps=0.0, fitted=False) == replace(other, eps=0.0, fitted=False)


def nearly_same(one: Candidate, other: Candidate) -> bool:
    """Whether two hypotheses are the same apart from a tiny difference in eps."""
    a, b = one.hypothesis, other.hypothesis
    near = abs(a.eps - b.eps) <= SAME_EPS * max(a.eps, b.eps)
    return near and replace(a, eps=0.0) == replace(b, eps=0.0)


def _decider(best: Candidate, remaining: list[Candidate], seen: Seen) -> str:
    """What data would tell the best hypothesis from the remaining ones."""
    one = best.hypothesis
    variances: list[float] = []
    counts: list[float] = []
    needs: list[str] = []
    for item in remaining:
        two = item.hypothesis
        told = _told_apart(best, item, seen)
        if _is_constant(one, seen) and _is_constant(two, seen):
            needs.append("a layer with a weight that is not 0")
        elif differ_in_eps(one, two):
            # A tiny difference in eps needs the smallest variance, and matters least.
            if told is not None and not (nearly_same(best, item) and variances):
                variances.append(told)
        elif {one.ddof, two.ddof} == {0, 1} and one.mode == two.mode:
            if told is not None:
                counts.append(told)
        elif {one.mode, two.mode} == {TRAINING, EVAL}:
            needs.append("a batch whose statistics differ from the running ones")
        elif seen.view.shape[0] == 1 and one.mode != two.mode:
            needs.append("a batch of several samples")
        elif one.outside == two.outside:
            needs.append("an input and a state in which the two differ")
    if variances:
        needs.insert(0, f"a channel with a variance below {min(variances):.1g}")
    if counts:
        needs.insert(0, f"a batch of at most {max(2, int(min(counts)))} values per channel")
    needs = needs or ["an input in which the two differ"]
    return f"{_listed(list(dict.fromkeys(needs))[:2])} would decide"


def _is_constant(hypothesis: Hypothesis, seen: Seen) -> bool:
    """Whether BatchNorm multiplies every channel by 0 under the hypothesis."""
    if hypothesis.mode not in (TRAINING, EVAL):
        return False
    return not channel_map(hypothesis, seen.known, seen.fit.stats).scale[seen.fit.ok].any()


def _told_apart(best: Candidate, other: Candidate, seen: Seen) -> float | None:
    """The variance, or the count where divisors differ, below which two certainly differ.

    Both effects grow as the variance or the count falls: in proportion to its inverse. Where the
    variance is not above 0, nothing is told.
    """
    one, two = best.hypothesis, other.hypothesis
    if one.mode not in (TRAINING, EVAL) or two.mode not in (TRAINING, EVAL):
        return None
    if any(item.mode == TRAINING and item.statistics not in BATCH for item in (one, two)):
        return None  # whose statistics are those of parts
    first, second = (channel_map(item, seen.known, seen.fit.stats) for item in (one, two))
    stats = seen.fit.stats
    with np.errstate(all="ignore"):
        limit = seen.tolerated(first, training=one.mode == TRAINING)[min(best.level, LEVELS - 1)]
        share = np.max(
            [
                np.abs((end - first.center) * (first.scale - second.scale))
                for end in (stats.min, stats.max)
            ],
            axis=0,
        )
        share /= limit
    stored = seen.known.running_mean if one.statistics == SWAPPED else seen.known.running_var
    var = stats.var if one.mode == TRAINING or stored is None else stored
    share[~seen.fit.ok | ~np.isfinite(share) | ~(var > 0)] = 0.0
    clearest = int(share.argmax())
    if not share[clearest] > 0:
        return None
    if differ_in_eps(one, two):
        return float(var[clearest] * share[clearest] / 2)
    return float(seen.view.count * share[clearest] / 2)


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
