"""Statistics that the second file cannot have from training: impossible, 0 and 1, or all 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.changes.pair import Files, LayerPair, Side, as_dtype
from bncli.light import np
from bncli.model.changes import Found, State
from bncli.rulebook.interface import odd_values
from bncli.rulebook.layers import channels_of
from bncli.state_dict import VECTORS

if TYPE_CHECKING:
    from numpy.typing import NDArray


AGAIN = "Take the statistics from the first file, or re-estimate them with bncli recalibrate."
"""The fix where the second file's statistics say nothing."""


def find(pair: LayerPair, files: Files) -> Found | None:  # noqa: ARG001  # as every `find`
    """IMPOSSIBLE, RESET or EMPTY, where the first file's layer is not so, too."""
    if pair.statistics is None:
        return _impossible(pair)
    if all_zero(pair.b) and not all_zero(pair.a):
        what = "mean and variance are 0 in the second file"
        return Found(State.EMPTY, what, numbers={"cause": "zero"}, hint=AGAIN)
    if initial(pair.b) and not initial(pair.a):
        what = "mean 0 and variance 1 in the second file"
        if _untrained(pair):
            return Found(
                State.RESET,
                what,
                "Weight, bias and the counter are those of a new layer, too.",
                numbers={"cause": "initial"},
                hint="If the second file is the start of the training, give it first. Otherwise "
                "look for names that load_state_dict(strict=False) left out.",
            )
        return Found(State.RESET, what, numbers={"cause": "initial"}, hint=AGAIN)
    return _impossible(pair)


def initial(side: Side) -> bool:
    """Whether the statistics are exactly 0 and 1 in every channel."""
    mean, var = side.layer.mean, side.layer.var
    return mean is not None and var is not None and not mean.any() and bool((var == 1).all())


def all_zero(side: Side) -> bool:
    """Whether both statistics are exactly 0 in every channel."""
    mean, var = side.layer.mean, side.layer.var
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
    for leaf in VECTORS:
        ours, theirs = pair.a.vector(leaf), pair.b.vector(leaf)
        if ours is None or theirs is None:
            continue
        new = _odd(leaf, theirs) & ~_odd(leaf, ours)
        if not new.any():
            continue
        dtype = pair.b.layer.dtypes[leaf]
        overflow = bool(np.array_equal(as_dtype(ours, dtype)[new], theirs[new]))
        return Found(
            State.IMPOSSIBLE,
            f"{leaf} became {odd_values(theirs, new)}",
            f"Its values are too large for {dtype}." if overflow else "",
            numbers={
                "cause": "overflow" if overflow else "impossible",
                "tensor": leaf,
                "channels": channels_of(new),
            },
            hint=_fix(leaf, dtype if overflow else ""),
        )
    return None


def _fix(leaf: str, narrow: str) -> str:
    """What to do about a tensor that became impossible, by its rounding to a dtype if any."""
    if narrow:
        return f"Keep {leaf} in float32 where the weights are {narrow}."
    if leaf in ("weight", "bias"):
        return "Take an earlier checkpoint: training does not lead back from NaN or Inf."
    return AGAIN


def _odd(leaf: str, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values are NaN, infinite or, of a variance, negative."""
    odd: NDArray[np.bool_] = ~np.isfinite(values)
    return odd | (values < 0) if leaf == "running_var" else odd
