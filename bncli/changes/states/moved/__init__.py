"""What moved: all of a layer, its statistics alone, or its weights alone; else it is another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.changes.correlation import cosine_of, is_weight, judged, out_first
from bncli.changes.pair import Files, LayerPair, Side
from bncli.changes.states.moved.converted import converted
from bncli.light import np
from bncli.model.changes import Found, Same, State
from bncli.report import Certainty
from bncli.rulebook.layers import plain_count

if TYPE_CHECKING:
    from bncli.report import Value

DEAD_BELOW = 6
"""How many times |weight| below 0 a bias keeps an output negative: of numbers that are spread
normally, one in 10^9 lies further than that from their mean."""


def find(pair: LayerPair, files: Files) -> Found:
    """TRAINED, STATISTICS, WEIGHTS or DIFFERENT; it explains whatever is left."""
    own = affine_moved(pair)
    before = None if pair.before is None else pair.before is Same.MOVED
    if pair.statistics is not Same.MOVED:
        return _weights(pair, own=own)
    if own is False or (own is None and before is False):
        return _statistics(pair.b, own=own, before=before)
    return _both(pair, files)


def affine_moved(pair: LayerPair) -> bool | None:
    """Whether weight or bias moved; None where there is nothing that training would move.

    Weights that are 1 and biases that are 0 in both files say no more than missing ones.
    """
    if pair.affine is None or (_begins(pair.a) and _begins(pair.b)):
        return None
    return pair.affine is Same.MOVED


def _begins(side: Side) -> bool:
    weight, bias = side.layer.weight, side.layer.bias
    return (weight is None or bool((weight == 1).all())) and (bias is None or not bias.any())


def _weights(pair: LayerPair, *, own: bool | None) -> Found:
    """WEIGHTS: of the layer, or only those before it."""
    batches = pair.measures.batches
    moving = bool(batches and batches > 0)
    kept = "the statistics did not move"
    leaves = [leaf for leaf in ("weight", "bias") if pair.same.get(leaf) is Same.MOVED]
    what = (
        f"{' and '.join(leaves)} moved, {kept}"
        if own
        else f"only the weights in front moved, {kept}"
    )
    cause = "own" if own else "before"
    numbers: dict[str, Value] = {"cause": cause, "own_moved": own, "counted": moving}
    if not moving:
        certain = converted(pair)
        if certain is not None:
            return certain
        return Found(State.WEIGHTS, what, numbers=numbers)
    return Found(
        State.WEIGHTS,
        what,
        f"The layer counted {plain_count(batches or 0)} batch{'es' * (batches != 1)}, and the "
        "statistics were not taken in.",
        numbers=numbers,
    )


def _statistics(side: Side, *, own: bool | None, before: bool | None) -> Found:
    """STATISTICS: the layer is frozen and not in evaluation mode, or was estimated again."""
    which = "weight and bias" if own is False else "the weights in front"
    detail = "The weights in front moved." if before else ""
    if before is False and own is False:
        detail = "The weights in front did not change either."
    if own is False and _dead(side):
        return Found(
            State.STATISTICS,
            "the statistics moved, weight and bias did not",
            "bias is so far below 0 in every channel that a ReLU behind the layer gives 0 for "
            "practically any input, and no gradient reaches its weights.",
            numbers={"cause": "dead", "before_moved": before},
        )
    return Found(
        State.STATISTICS,
        f"the statistics moved, {which} did not",
        detail,
        numbers={"cause": "own" if own is False else "before", "before_moved": before},
    )


def _dead(side: Side) -> bool:
    """Whether all that the layer gives is negative or 0, so that nothing passes a ReLU."""
    weight, bias = side.layer.weight, side.layer.bias
    if weight is None or bias is None:
        return False
    return bool((bias <= -DEAD_BELOW * np.abs(weight)).all())


def _before_unrelated(pair: LayerPair) -> bool:
    """Whether the weights in front of the two have nothing in common, and are enough to tell."""
    if pair.before is not Same.MOVED or pair.a.before is None or pair.b.before is None:
        return False
    one, two = (out_first(near.weight, near.axis) for near in (pair.a.before, pair.b.before))
    if one.shape != two.shape or not (is_weight(one) and is_weight(two)):
        return False
    found = cosine_of(one, two)
    return found is not None and judged([found])[1] is False


def _both(pair: LayerPair, files: Files) -> Found:
    """TRAINED where the counter and the weights allow it, else DIFFERENT."""
    if files.related is False:
        what = "the weights of the two files are not correlated"
        return Found(State.DIFFERENT, what, numbers={"cause": "unrelated"})
    if _before_unrelated(pair):
        return Found(
            State.DIFFERENT,
            "the weights before it are not correlated with the first file's",
            "Those of other layers are." if files.related else "",
            numbers={"cause": "unrelated-before"},
            hint="Find out whether the layer was built anew, or is another network's.",
        )
    a, b = pair.a.counter, pair.b.counter
    if a is None or b is None or (a == 0 and b == 0):
        what = "statistics and weights moved"
        return Found(
            State.TRAINED, what, certainty=Certainty.LIKELY, numbers={"cause": "uncounted"}
        )
    batches = b - a
    if batches == 0:
        return Found(
            State.DIFFERENT,
            f"statistics and weights moved, the counter stays {plain_count(b)}",
            numbers={"cause": "same-count"},
            hint="Nothing needs fixing if one of the two is an average: averages keep the counter.",
        )
    if b == 0:
        return Found(
            State.DIFFERENT,
            f"statistics and weights moved, the counter is 0, after {plain_count(a)}",
            "Averages of weights often leave the counter at 0.",
            numbers={"cause": "count-reset"},
            hint="Nothing needs fixing if the second file is such an average.",
        )
    if batches < 0:
        return Found(
            State.TRAINED,
            f"the counter is {plain_count(-batches)} batch{'es' * (batches != -1)} lower in the "
            "second file",
            "The first file may be the later one, or the second an average that left the counter "
            "behind.",
            Certainty.LIKELY,
            {"cause": "backwards"},
        )
    # Two fine-tunings of one network, of different lengths, look the same.
    what = f"for {plain_count(batches)} batch{'es' if batches != 1 else ''}"
    return Found(State.TRAINED, what, certainty=Certainty.LIKELY, numbers={"cause": "trained"})
