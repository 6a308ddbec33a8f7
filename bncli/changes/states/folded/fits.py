"""By which formula a layer was folded into a convolution, from the factors of its channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.dtypes import DTYPES
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from bncli.changes.pair import Side
    from bncli.changes.states.folded.factors import Factors
    from bncli.model import FloatArray

USUAL_EPS = (1e-5, 1e-3, 1e-6, 2e-5, 4e-5, 1e-4, 1e-2, 1e-7, 1e-8)
"""What frameworks and models take, the most usual first."""
MOST_EPS = 0.1
"""A fitted eps above it would explain factors that have nothing to do with the layer."""
SCALES = {
    "": "",
    "weight": "the layer's weight was left out",
    "eps-outside-root": "eps was added to the standard deviation",
    "root": "the root of the variance was not taken",
    "multiplied": "multiplied by the standard deviation",
}
"""What the convolution may have been multiplied by, by fault; the first is right."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One explanation of the factors: a formula of `SCALES` (its fault) and what fits it.

    `eps` are those that fit, of which the first is taken. `scale` has shape (channels,). It is
    `weak` where a factor of 1, or one for all channels, explains the weight, too.
    """

    fault: str
    eps: tuple[float, ...]
    scale: FloatArray
    fitted: bool = False
    weak: bool = False


def fit_of(side: Side, these: Factors, dtype: str) -> Fit | None:
    """The plainest explanation of the factors; None for none, or where they show too little."""
    live, moved = int(these.live.sum()), int(these.moved.sum())
    weak = moved < min(live, 2) or not moved or (live > 1 and these.one_for_all)
    if live == 1 and these.elements < 4:
        return None
    layer = side.layer
    if layer.weight_unknown:
        return None
    own = (layer.eps,) if not layer.eps_assumed else ()
    usual = tuple(dict.fromkeys((*own, layer.eps, *USUAL_EPS)))
    for fault in [""] if weak else SCALES:
        if fault == "weight" and layer.weight is None:
            continue
        scales = {eps: scale_of(side, fault, eps) for eps in (*usual, 0.0)}
        fitting = [eps for eps, s in scales.items() if these.include(s, _room(side, eps, dtype))]
        if fitting:
            return _known(fault, fitting, scales, own, weak=weak)
        if fault == "" and not weak and (eps := _fitted(side, these)) is not None:
            scale = scale_of(side, "", eps)
            if these.include(scale, _room(side, eps, dtype)):
                return Fit("eps" if own else "", (eps,), scale, fitted=True)
    return None


def _known(
    fault: str,
    fitting: list[float],
    scales: dict[float, FloatArray],
    own: tuple[float, ...],
    *,
    weak: bool,
) -> Fit:
    """The fit with one of the usual values of eps, of which some may be excluded."""
    if own and own[0] in fitting:
        fitting = [own[0]]
    elif fault == "" and fitting == [0.0]:
        fault = "eps-left-out"
    elif fault == "" and own:
        fault = "eps"
    return Fit(fault, tuple(fitting), scales[fitting[0]], weak=weak)


def scale_of(side: Side, fault: str, eps: float) -> FloatArray:
    """What the convolution is multiplied by, by a formula of `SCALES`, shape (channels,)."""
    var = side.layer.var
    assert var is not None
    weight = np.ones(len(var)) if side.layer.weight is None else side.layer.weight
    with np.errstate(all="ignore"):
        if fault == "weight":
            result = 1 / np.sqrt(var + eps)
        elif fault == "eps-outside-root":
            result = weight / (np.sqrt(var) + eps)
        elif fault == "root":
            result = weight / (var + eps)
        elif fault == "multiplied":
            result = weight * np.sqrt(var + eps)
        else:
            result = weight / np.sqrt(var + eps)
    return np.asarray(result, np.float64)


def _room(side: Side, eps: float, dtype: str) -> FloatArray:
    """The relative error of a scale where the variance underflows in a dtype, for each channel."""
    assert side.layer.var is not None
    with np.errstate(all="ignore"):
        return np.asarray(DTYPES[dtype].tiniest / np.abs(side.layer.var + eps), np.float64)


def _fitted(side: Side, these: Factors) -> float | None:
    """The one eps that all factors agree on; None where there is none, or no three channels.

    From low <= w / sqrt(var + eps) <= high, eps lies between (w/high)^2 - var and (w/low)^2 - var.
    """
    var = side.layer.var
    assert var is not None
    weight = np.ones(len(var)) if side.layer.weight is None else side.layer.weight
    use = these.moved & (weight != 0)
    if use.sum() < 3:
        return None
    with np.errstate(all="ignore"):
        ends = [(weight / factor) ** 2 - var for factor in (these.low, these.high)]
    least = float(np.minimum(*ends)[use].max())
    most = float(np.maximum(*ends)[use].min())
    return (least + most) / 2 if 0 < most <= MOST_EPS and least <= most else None
