"""A difference in words, its fix, and how a candidate for it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import along, blocks
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray
    from bncli.verify.closeness import Tolerance

Block = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a quantity differs: `words` such as "eps is outside the root", and what to change.

    The words are a clause without a full stop, the fix is a sentence. `others` are the causes that
    fit the same values as well, and `decider` is what would tell them apart, such as "other
    running statistics"; both are empty where nothing else fits.
    """

    words: str
    fix: str
    others: tuple[Cause, ...] = ()
    decider: str = ""

    @property
    def fitting(self) -> frozenset[str]:
        """The words of all that fits."""
        return frozenset((self.words, *(other.words for other in self.others)))

    def begun_with(self, words: str) -> Cause:
        """The one of these words, of what fits, said alone; the others fit still."""
        every = [replace(each, others=(), decider="") for each in (self, *self.others)]
        first = next(each for each in every if each.words == words)
        return replace(first, others=tuple(each for each in every if each is not first))

    @property
    def said(self) -> str:
        """The words, with those of what fits as well, of which a few are named."""
        if not self.decider:
            return self.words
        named = [self.words, *(other.words for other in self.others[:MOST_NAMED])]
        more = len(self.others) - MOST_NAMED
        return ", or ".join([*named, *([f"{more} more"] if more > 0 else [])])

    @property
    def advice(self) -> str:
        """The fix, or what would decide where several causes fit."""
        if not self.decider:
            return self.fix
        fit = "Both fit" if len(self.others) == 1 else "All of these fit"
        return f"{fit} this comparison: compare with {self.decider} to tell which it is."


MOST_NAMED = 2
"""Causes that a sentence names beside the first that fits."""


def agreed(causes: Sequence[Cause]) -> list[Cause]:
    """The causes of one quantity in several modes, begun with what alone fits in all of them.

    One mistake in the code is the best reading of all modes together. Where no single one fits in
    each, the causes are as they were.
    """
    common = frozenset[str].intersection(*(cause.fitting for cause in causes))
    if len(causes) < 2 or len(common) != 1:
        return list(causes)
    (words,) = common
    return [cause.begun_with(words) for cause in causes]


def in_doubt(causes: Iterable[Cause], decider: str) -> Cause | None:
    """The first of causes that all fit, with the others in its doubt; None where there is none."""
    by_words: dict[str, Cause] = {}
    for cause in causes:
        by_words.setdefault(cause.words, cause)
    if not by_words:
        return None
    first, *others = by_words.values()
    return replace(first, others=tuple(others), decider=decider) if others else first


Candidates = Sequence[tuple[Cause, Callable[[Block], "FloatArray"]]]
"""Causes, and what each would have made of a block, the likelier first."""


def all_that_fit(
    candidates: Candidates,
    theirs: NDArray[Any],
    allowed: Tolerance,
    channel_axis: int,
) -> list[Cause]:
    """The candidates that explain every value of an array in the user's axes.

    `allowed` is the tolerance of each channel.
    """
    left = list(candidates)
    for block in blocks(theirs.shape):
        channels, expected = block[channel_axis], theirs[block].astype(np.float64)
        with np.errstate(all="ignore"):
            bound = along(allowed.atol[channels], theirs.ndim, channel_axis) + along(
                allowed.rtol[channels], theirs.ndim, channel_axis
            ) * np.abs(expected)
            left = [
                (cause, made)
                for cause, made in left
                if bool(_near(made(block), expected, bound).all())
            ]
        if not left:
            break
    return [cause for cause, _ in left]


def all_of_channels(
    candidates: Mapping[Cause, FloatArray], theirs: FloatArray, allowed: Tolerance
) -> list[Cause]:
    """The candidates that explain one value of each channel."""
    with np.errstate(all="ignore"):
        bound = allowed.atol + allowed.rtol * np.abs(theirs)
        return [
            cause for cause, made in candidates.items() if bool(_near(made, theirs, bound).all())
        ]


def _near(made: FloatArray, expected: FloatArray, bound: FloatArray) -> NDArray[Any]:
    """Which values are as near as `bound`; the right ones are not, as they failed."""
    same = (made == expected) | (np.isnan(made) & np.isnan(expected))
    return np.asarray(same | (np.abs(made - expected) <= bound))
