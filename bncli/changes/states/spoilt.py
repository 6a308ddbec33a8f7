"""Statistics that the second file cannot have from training: impossible, 0 and 1, or all 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.changes.pair import Files, LayerPair, Side, as_dtype
from bncli.light import np
from bncli.model.changes import Found, State
from bncli.report import Certainty
from bncli.rulebook.interface import examples, name_channels, odd_values
from bncli.rulebook.layers import channels_of, plain_count
from bncli.rulebook.origin import LEAST_NORMAL
from bncli.state_dict import VECTORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bncli.report import Value


AGAIN = "Take the statistics from the first file, or re-estimate them with bncli recalibrate."
"""The fix where the second file's statistics say nothing."""
MOST_LISTED = 3
"""Channels that a claim lists; of more it says how many there are."""
COUNT = "Take the counter from the first file: with momentum=None, the next update depends on it."
"""The fix where its counter counts nothing."""


def find(pair: LayerPair, files: Files) -> Found | None:  # noqa: ARG001  # as every `find`
    """IMPOSSIBLE, RESET or EMPTY, where the first file's layer is not so, too."""
    if pair.statistics is None:
        return _impossible(pair)
    if _zero(pair.b) and not _zero(pair.a) and not _may_have_decayed(pair):
        what = "running_mean and running_var are 0 in the second file"
        return _empty(pair, what, {"cause": "zero"})
    if initial(pair.b) and not initial(pair.a):
        what = f"running_mean is 0 and running_var {pair.b.layer.initial_var:g} in the second file"
        if _untrained(pair):
            return Found(
                State.RESET,
                what,
                "Weight, bias and the counter are those of a new layer, too.",
                numbers={"cause": "untrained"},
                hint="If the second file is the start of the training, give it first. Otherwise "
                "look for names that load_state_dict(strict=False) left out.",
            )
        return Found(State.RESET, what, numbers={"cause": "initial"}, hint=AGAIN)
    return _half(pair) or _impossible(pair)


def _half(pair: LayerPair) -> Found | None:
    """One of the two statistics alone is 0, or the variance 1, in every channel of several."""
    for leaf, value, state in (
        ("running_var", 0.0, State.EMPTY),
        ("running_var", 1.0, State.RESET),
        ("running_mean", 0.0, State.RESET),
    ):
        ours, theirs = pair.a.vector(leaf), pair.b.vector(leaf)
        if ours is None or theirs is None or len(theirs) < 2 or _may_have_decayed(pair):
            continue
        if (theirs == value).all() and not (ours == value).any():
            what = f"{leaf} is {value:g} in every channel of the second file"
            numbers = {"cause": "half", "tensor": leaf}
            if state is State.EMPTY:
                return _empty(pair, what, numbers)
            return Found(state, what, numbers=numbers, hint=AGAIN)
    return None


def _empty(pair: LayerPair, what: str, numbers: Mapping[str, Value]) -> Found:
    """EMPTY, which is less sure where batches were counted: a large momentum forgets in a few."""
    if not pair.measures.batches or pair.measures.batches < 0:
        return Found(State.EMPTY, what, numbers=numbers, hint=AGAIN)
    said = f"With momentum {pair.b.layer.momentum:g}, " if pair.b.layer.momentum else ""
    return Found(
        State.EMPTY,
        what,
        f"{said}{plain_count(pair.measures.batches)} batches of a constant input do not lead "
        "there; with a larger one they may.",
        Certainty.LIKELY,
        numbers,
        AGAIN,
    )


def _may_have_decayed(pair: LayerPair) -> bool:
    """Whether the batches that were counted may have left a variance of 0, by a constant input.

    Each multiplies the variance by 1 - momentum, until it is below what the dtype keeps.
    """
    batches, momentum, var = pair.measures.batches, pair.b.layer.momentum, pair.a.layer.var
    if not batches or batches < 0 or momentum is None or var is None:
        return False
    least = LEAST_NORMAL.get(pair.b.layer.dtypes.get("running_var", ""), 2.0**-126)
    return momentum >= 1 or float((1 - momentum) ** batches * np.abs(var).max(initial=0)) < least


def initial(side: Side) -> bool:
    """Whether the statistics are exactly those of a new layer, 0 and 1, in every channel."""
    mean, var = side.layer.mean, side.layer.var
    return (
        mean is not None
        and var is not None
        and not mean.any()
        and bool((var == side.layer.initial_var).all())
    )


def _zero(side: Side) -> bool:
    """Whether both statistics are exactly 0 in every channel, where no new layer's are."""
    mean, var = side.layer.mean, side.layer.var
    if side.layer.initial_var == 0:
        return False
    return mean is not None and var is not None and not mean.any() and not var.any()


def _untrained(pair: LayerPair) -> bool:
    """Whether the second file's layer has the initial weight, bias and counter, the first not."""
    new, old = (
        side.counter == 0
        and side.layer.weight is not None
        and bool((side.layer.weight == 1).all())
        and (side.layer.bias is None or not side.layer.bias.any())
        for side in (pair.b, pair.a)
    )
    return new and not old


def _impossible(pair: LayerPair) -> Found | None:
    """IMPOSSIBLE for a vector with values that the first has not, or a counter that is none."""
    raw = pair.b.layer.state.num_batches_tracked
    if pair.a.counter is not None and pair.b.counter is None and raw is not None:
        what = f"num_batches_tracked became {plain_count(raw)}"
        numbers: dict[str, Value] = {"cause": "counter", "tensor": "num_batches_tracked"}
        return Found(State.IMPOSSIBLE, what, numbers=numbers, hint=COUNT)
    odd = {leaf: new for leaf in VECTORS if (new := _new(pair, leaf)) is not None}
    if not odd:
        return None
    leaf, new = next(iter(odd.items()))
    ours, theirs = pair.a.vector(leaf), pair.b.vector(leaf)
    assert ours is not None
    assert theirs is not None
    dtype = pair.b.layer.dtypes[leaf]
    overflow = bool(np.array_equal(as_dtype(ours, dtype)[new], theirs[new]))
    return Found(
        State.IMPOSSIBLE,
        _became(pair, odd),
        f"Its values are too large for {dtype}." if overflow else "",
        numbers={
            "cause": "overflow" if overflow else "impossible",
            "tensor": leaf,
            "tensors": list(odd),
            "channels": channels_of(new),
        },
        hint=_fix(leaf, dtype if overflow else ""),
    )


def _new(pair: LayerPair, leaf: str) -> NDArray[np.bool_] | None:
    """The channels in which the second file alone has an impossible value; None for none."""
    ours, theirs = pair.a.vector(leaf), pair.b.vector(leaf)
    if ours is None or theirs is None:
        return None
    new: NDArray[np.bool_] = is_odd(leaf, theirs) & ~is_odd(leaf, ours)
    return new if new.any() else None


def _became(pair: LayerPair, odd: Mapping[str, NDArray[np.bool_]]) -> str:
    """What the tensors became: "weight and bias became NaN in 7 of 8 channels"."""
    values = {leaf: found for leaf in odd if (found := pair.b.vector(leaf)) is not None}
    if all(np.isnan(values[leaf][new]).all() for leaf, new in odd.items()):
        channels = np.logical_or.reduce([*odd.values()])
        total, number = len(channels), int(channels.sum())
        where = f"{number} of {total} channels"
        if number <= MOST_LISTED or number == total:
            where = name_channels(np.flatnonzero(channels).tolist(), total)
        return f"{examples([*odd], len(VECTORS))} became NaN in {where}"
    leaf, new = next(iter(odd.items()))
    others = [each for each in odd if each != leaf]
    also = f"; so did {examples(others)}" if others else ""
    return f"{leaf} became {odd_values(values[leaf], new)}{also}"


def _fix(leaf: str, narrow: str) -> str:
    """What to do about a tensor that became impossible, by its rounding to a dtype if any."""
    if narrow:
        return f"Keep {leaf} in float32 where the weights are {narrow}."
    if leaf in ("weight", "bias"):
        return "Take an earlier checkpoint: training does not lead back from NaN or Inf."
    return AGAIN


def is_odd(leaf: str, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values are NaN, infinite or, of a variance, negative."""
    odd: NDArray[np.bool_] = ~np.isfinite(values)
    return odd | (values < 0) if leaf == "running_var" else odd
