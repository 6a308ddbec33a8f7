"""How far the weights of files are from each other: one after the other, or all from one start."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from bncli.changes.many.common import Common, read
from bncli.light import np

if TYPE_CHECKING:
    from bncli.model import FloatArray

STAR = 0.4
"""The least share of a step that is turned back, in three of four tensors, for files to come from
one start.

Of three files, (d01 + d12 - d02) / 2 is the squared way that the middle one is away from the way
between the others, d being squared distances. For files of equal length from one start it is half a
step. For a random walk it is 0, and less where training goes on in one direction."""
LONGEST_GAP = 50
"""The number of batches between two files up to which that tells them apart: weights that wander
around one place are turned back just so, but take longer to. In series that were really trained
(learning rates from 1e-5 to 0.5, a cosine, weight decay up to 0.02) it was at most 0.38 over 5 to
40 batches, and 0.43 over 100."""
ABOUT_EQUAL = 4.0
"""The largest squared distance over the smallest, up to which all files are about equally far from
each other. In a run whose weights were thrown back once it was 16."""
ORDERED = 0.9
"""The least share of threes of files in order for an order to be shown by the weights alone: a
third are by chance."""
DISORDERED = 0.7
"""The share up to which the weights do not bear out the order of the counters. In ordinary training
it is above, but for weights that wander around one place."""
FEWEST_IN_ORDER = 4
"""How many files it takes to see that distances grow along an order: of three, one in three orders
does."""


def distances(common: Common) -> FloatArray:
    """The squared distances of the files' weights, shape (tensors, files, files).

    Those of each tensor add up to 1; tensors that do not move are left out. Raises FileError.
    """
    values = read([*common.tensors("weight", "bias"), *common.before()])
    found = []
    for _, _, where in values.parts:
        some = values.each[:, where]
        apart = np.square(some[:, None] - some[None]).sum(-1)
        if np.isfinite(apart).all() and apart.any():
            found.append(apart / apart.sum())
    files = len(common.files)
    return np.stack(found) if found else np.empty((0, files, files))


def turned_back(apart: FloatArray) -> float:
    """The mean share of a step that each file is away from the way between two others.

    It is that in the lower quarter of the tensors; 0 where there are none.
    """
    files = apart.shape[1]
    triples = list(combinations(range(files), 3))
    if not len(apart) or not triples:
        return 0.0
    steps = np.mean([apart[:, at, at + 1] for at in range(files - 1)], axis=0)
    away = np.mean(
        [(apart[:, i, j] + apart[:, j, k] - apart[:, i, k]) / 2 for i, j, k in triples], axis=0
    )
    shares = sorted((away[steps > 0] / steps[steps > 0]).tolist())
    return float(shares[len(shares) // 4]) if shares else 0.0


def about_equal(apart: FloatArray) -> bool:
    """Whether the files are all about equally far from each other, in the sum over the tensors."""
    whole = apart.sum(0)
    pairs = [whole[pair] for pair in combinations(range(apart.shape[1]), 2)]
    return bool(pairs) and 0 < max(pairs) <= ABOUT_EQUAL * min(pairs)


def ordered(apart: FloatArray) -> float | None:
    """In how many threes of files the first and the last are furthest apart, as a share.

    None where there are too few files to say, or nothing moves.
    """
    files, whole = apart.shape[1], apart.sum(0)
    if files < FEWEST_IN_ORDER or not len(apart):
        return None
    triples = list(combinations(range(files), 3))
    right = [whole[i, k] > max(whole[i, j], whole[j, k]) for i, j, k in triples]
    return float(np.mean(right))
