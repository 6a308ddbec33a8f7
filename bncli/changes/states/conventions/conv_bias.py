"""The bias of the convolution in front of a layer, taken into running_mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.changes.states.conventions.fitting import Room, shown, vector
from bncli.changes.states.folded.biases import bias_of
from bncli.light import np
from bncli.model.changes import Found, State

if TYPE_CHECKING:
    from bncli.changes.pair import LayerPair, Side
    from bncli.model import FloatArray

INPUTS, STEPS = 2, 1
"""Both means and the bias were rounded, and so was their difference."""


def find(pair: LayerPair, moved: tuple[str, ...]) -> Found | None:
    """CONVENTION where the means differ by a bias that one file alone has before the layer."""
    if moved != ("running_mean",):
        return None
    a, b = (vector(side.layer, "running_mean") for side in (pair.a, pair.b))
    biases = _bias(pair.a, len(a)), _bias(pair.b, len(b))
    for has, lacks, with_bias, without in (
        (biases[0], biases[1], a, b),
        (biases[1], biases[0], b, a),
    ):
        if has is None or (lacks is not None and lacks.any()):
            continue
        room = Room(pair.dtype("running_mean"), INPUTS, STEPS)(np.abs(with_bias) + np.abs(has))
        near = np.abs(without - (with_bias - has)) <= room
        if near.all() and shown(with_bias, without, room):
            return _said(pair, first=with_bias is a)
    return None


def _said(pair: LayerPair, *, first: bool) -> Found:
    before = (pair.a if first else pair.b).before
    assert before is not None
    where, other = ("first", "second") if first else ("second", "first")
    return Found(
        State.CONVENTION,
        f"the bias of {before.name} is in the {other} file's mean",
        f"The {where} file has the bias, and its running_mean is larger by it. Both compute the "
        f"same, if the {other} file's layer before it adds no bias.",
        numbers={"cause": "bias-in-mean", "odd_file": other},
    )


def _bias(side: Side, channels: int) -> FloatArray | None:
    """The bias of the convolution or linear layer in front, None where it has none that is read."""
    before = side.before
    if before is None or (before.bias is not None and before.bias.storage is None):
        return None
    return bias_of(before, channels).values
