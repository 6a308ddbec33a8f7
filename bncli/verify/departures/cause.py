"""A difference in words, its fix, and how a candidate for it is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

    The words are a clause without a full stop, the fix is a sentence.
    """

    words: str
    fix: str


Candidates = Sequence[tuple[Cause, Callable[[Block], "FloatArray"]]]
"""Causes, and what each would have made of a block, the likelier first."""


def first_that_fits(
    candidates: Candidates,
    theirs: NDArray[Any],
    allowed: Tolerance,
    channel_axis: int,
) -> Cause | None:
    """The first candidate that explains every value of an array in the user's axes.

    `allowed` is the tolerance of each channel. None where no candidate does.
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
            return None
    return left[0][0] if left else None


def first_of_channels(
    candidates: Mapping[Cause, FloatArray], theirs: FloatArray, allowed: Tolerance
) -> Cause | None:
    """The first candidate that explains one value of each channel, None where none does."""
    with np.errstate(all="ignore"):
        bound = allowed.atol + allowed.rtol * np.abs(theirs)
        for cause, made in candidates.items():
            if bool(_near(made, theirs, bound).all()):
                return cause
    return None


def _near(made: FloatArray, expected: FloatArray, bound: FloatArray) -> NDArray[Any]:
    """Which values are as near as `bound`; the right ones are not, as they failed."""
    same = (made == expected) | (np.isnan(made) & np.isnan(expected))
    return np.asarray(same | (np.abs(made - expected) <= bound))
