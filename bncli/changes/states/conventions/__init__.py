"""One layer's tensors are the other's under another convention, channel by channel."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

from bncli.changes.pair import Files, LayerPair, agree, as_dtype, same_vectors
from bncli.changes.states.conventions import conv_bias
from bncli.changes.states.conventions.bessel import trained
from bncli.changes.states.conventions.fitting import CHANNELS, PROBED, fit, vector
from bncli.changes.states.conventions.relations import CONVENTIONS
from bncli.dtypes import DTYPES
from bncli.light import np
from bncli.model.changes import Found, Same, State
from bncli.report import Certainty
from bncli.rulebook.interface import examples
from bncli.state_dict import VECTORS

FEW = 6
"""How many ulps are too few to tell what moved a value."""


def find(pair: LayerPair, files: Files) -> Found | None:  # noqa: ARG001  # as every `find`
    """CONVENTION; None where no relation holds in every channel, or chance could give it."""
    if not pair.coherent or not _floats(pair) or not _one_moment(pair):
        return None
    moved = tuple(leaf for leaf in VECTORS if pair.same.get(leaf) is Same.MOVED)
    if not moved:
        return None
    swapped = _swapped(pair, moved)
    if swapped is not None:
        return swapped
    fits = [
        (each, found)
        for each in CONVENTIONS
        if each.relation.moves(moved) and (found := fit(each.relation, pair)) is not None
    ]
    if not fits:
        return trained(pair, moved) or conv_bias.find(pair, moved) or _few_roundings(pair, moved)
    # Below one ulp a residual is rounding, and says nothing of which relation fits better.
    best, found = min(fits, key=lambda each: max(1, math.ceil(each[1].residual)))
    said = best.say(found)
    return said if len(fits) == 1 else replace(said, certainty=Certainty.LIKELY)


def _few_roundings(pair: LayerPair, moved: tuple[str, ...]) -> Found | None:
    """A variance larger by some ulps where it differs at all, under an equal mean and counter.

    That is too little to tell a ratio that is near 1 from an eps that was added.
    """
    mean, counter = pair.a.layer.mean, pair.a.counter
    if moved != ("running_var",) or mean is None or counter is None or counter != pair.b.counter:
        return None
    a, b = (vector(side.layer, "running_var") for side in (pair.a, pair.b))
    dtype, changed = pair.dtype("running_var"), a != b
    signs = np.sign(b - a)[changed]
    # Six signs and more are equal by chance in 3 % of cases, beside a mean that is equal, too.
    if changed.sum() < 6 or not (signs == signs[0]).all() or len(np.unique(mean)) < CHANNELS:
        return None
    if not agree(b, a, dtype, FEW).all():
        return None
    which = "larger" if signs[0] > 0 else "smaller"
    return Found(
        State.CONVENTION,
        f"the variance is {which} by a few roundings of {dtype}",
        f"It is {which} in each of the {changed.sum()} channels that differ, and the mean is the "
        "same, as where one file has the unbiased variance or has an eps in it. The difference is "
        "too small to tell which.",
        Certainty.LIKELY,
        {"cause": "few-roundings", "channels": int(changed.sum())},
    )


def _floats(pair: LayerPair) -> bool:
    """Whether all vectors are of a dtype that rounds."""
    sides = (pair.a, pair.b)
    return all(DTYPES[side.layer.dtypes[leaf]].digits for side in sides for leaf in pair.same)


def _one_moment(pair: LayerPair) -> bool:
    """Whether the counters allow that the two are of one moment: equal, lost, or begun anew.

    Zeros alone scale mean and variance by one factor, too, while a layer counts them.
    """
    a, b = pair.a.counter, pair.b.counter
    if a is None or b is None or a == b or 0 in (a, b):
        return True
    for leaf in pair.same:
        one, two = as_dtype(np.array([a, b], np.float64), pair.dtype(leaf))
        if one == two:
            return True
    return False


def _swapped(pair: LayerPair, moved: tuple[str, ...]) -> Found | None:
    """Tensors that hold what others of the layer did, bit for bit or up to the rounding of a dtype.

    Each has to have two different values; where tensors change places, one of them has to.
    """
    sources = product(
        *([other for other in VECTORS if _holds(pair, leaf, other)] for leaf in moved)
    )
    for held in sorted(sources, key=lambda each: set(each) != set(moved)):
        varied = [len(np.unique(vector(pair.b.layer, leaf))) > 1 for leaf in moved]
        places = set(held) == set(moved)
        if not (any(varied) if places else all(varied)):
            continue
        what = f"{moved[0]} is the first file's {held[0]}"
        if len(moved) > 1:
            what = f"{examples(moved, len(VECTORS))} hold other tensors"
        if places:
            verb = "have changed places" if len(moved) > 2 else "are swapped"
            what = f"{examples(moved, len(VECTORS))} {verb}"
        told = [f"{ours} holds {theirs}" for ours, theirs in zip(moved, held, strict=True)]
        return Found(
            State.CONVENTION,
            what,
            f"In the second file {examples(told, len(VECTORS))} of the first.",
            numbers={"cause": "swapped", "tensors": moved, "holds": held},
            hint=f"Give each tensor of the second file its own name: now {examples(told, 4)}.",
        )
    return None


def _holds(pair: LayerPair, leaf: str, other: str) -> bool:
    """Whether a tensor of the second layer is another tensor of the first."""
    a, b = pair.a.layer, pair.b.layer
    ours, theirs = b.vectors[leaf], a.vectors[other]
    if leaf == other or ours is None or theirs is None:
        return False
    some = slice(PROBED)
    if not agree(vector(b, leaf)[some], vector(a, other)[some], "bfloat16", 1).all():
        return False
    return same_vectors(theirs, ours, a.dtypes[other], b.dtypes[leaf]) is not Same.MOVED
