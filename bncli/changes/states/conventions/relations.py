"""The conventions under which one layer's tensors are another's, as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from bncli.changes.states.conventions.bessel import said_of_ratio
from bncli.changes.states.conventions.fitting import EPS, Fit, Relation, Room, Terms, middle, vector
from bncli.changes.states.conventions.words import (
    Words,
    said_of_constant,
    said_of_input,
    said_of_mean,
    said_of_scale,
)
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from bncli.model import FloatArray
    from bncli.model.changes import Found
    from bncli.rulebook.layers import Layer


WAY_OFF = 0.25
"""What rounding never changes a variance by, relatively, in dtypes of 8 digits and more."""


def _weight(layer: Layer) -> FloatArray | float:
    return 1.0 if layer.weight is None else layer.weight


def _var(layer: Layer) -> FloatArray:
    assert layer.var is not None
    return layer.var


def _mean(layer: Layer) -> FloatArray:
    assert layer.mean is not None
    return layer.mean


def _bias(layer: Layer) -> FloatArray | float:
    return 0.0 if layer.bias is None else layer.bias


def _scale(layer: Layer, eps: float) -> FloatArray:
    result: FloatArray = _weight(layer) / np.sqrt(_var(layer) + eps)
    return result


def _shift(layer: Layer, eps: float) -> tuple[FloatArray | float, FloatArray]:
    return _bias(layer), -_mean(layer) * _scale(layer, eps)


def usual_eps(
    solve: Callable[[Layer, Layer], FloatArray], plain: Layer, odd: Layer, room: Room
) -> Sequence[Iterable[float]]:
    """The layers' own eps, 0 and the usual; then what the channel of the least variance gives.

    Only those that may be that channel's, since each costs a pass over all channels.
    """
    del room
    var = _var(plain)
    solved = np.where(var > 0, solve(plain, odd), np.nan)
    least = np.argmin(np.where(np.isfinite(solved), var, np.inf))
    found, beside = float(solved[least]), float(var[least])
    usual = [plain.eps, odd.eps, 0.0, *EPS]
    return [eps for eps in usual if abs(eps - found) <= WAY_OFF * (beside + eps)], [found]


def _constants(plain: Layer, odd: Layer, room: Room) -> Sequence[Iterable[float]]:
    """What to add to a variance: an eps, the difference of two, or what the channels give."""
    apart = _var(odd) - _var(plain)
    constant = middle(apart, room(np.maximum(_var(odd), _var(plain))))
    if not np.isfinite(constant):
        return ()
    sign = 1 if constant > 0 else -1
    own = sorted({plain.eps, odd.eps}, reverse=True)
    usual = [sign * eps for eps in (*own, *EPS)]
    differences = [sign * (more - less) for more in EPS for less in EPS if more > less]
    return usual, differences, [constant]


def _factor(cause: str, leaves: tuple[str, ...], powers: tuple[int, ...]) -> Relation:
    """Each tensor is the other's times a power of one number, which is not 1."""

    def formula(layer: Layer, k: float) -> tuple[Terms, ...]:
        pairs = zip(leaves, powers, strict=True)
        return tuple((vector(layer, leaf) * k**power,) for leaf, power in pairs)

    def candidates(plain: Layer, odd: Layer, room: Room) -> Sequence[Iterable[float]]:
        before, after = vector(plain, leaves[0]), vector(odd, leaves[0])
        return ([middle(after / before, np.abs(room(np.abs(after)) / before))],)

    return Relation(cause, leaves, formula, candidates, steps=max(powers), once=True)


@dataclass(frozen=True, slots=True)
class Convention:
    """A relation, and what turns its fit into a state."""

    relation: Relation
    say: Callable[[Fit], Found]


VAR, MEAN, WEIGHT, BIAS = ("running_var",), ("running_mean",), ("weight",), ("bias",)
BOTH = ("running_mean", "running_var")
SCALE = "weight / sqrt(running_var + eps)"
SHIFT = f"bias - running_mean * {SCALE}"

CONVENTIONS = (
    Convention(_factor("ratio", VAR, (1,)), said_of_ratio),
    Convention(
        Relation(
            "eps-in-variance",
            VAR,
            lambda layer, c: ((_var(layer), c),),
            _constants,
            steps=1,
            once=True,
        ),
        said_of_constant,
    ),
    Convention(
        Relation(
            "inverse-std",
            VAR,
            lambda layer, eps: ((1 / np.sqrt(_var(layer) + eps),),),
            partial(usual_eps, lambda plain, odd: 1 / _var(odd) ** 2 - _var(plain)),
            steps=6,  # an addition, and a reciprocal root, which GPUs have within 2 ulps
        ),
        Words(
            "running_var holds the inverse standard deviation",
            ("1 / sqrt(running_var + eps)",),
            "running_var by 1 / running_var**2 - eps",
        ).say,
    ),
    Convention(
        Relation(
            "std",
            VAR,
            lambda layer, eps: ((np.sqrt(_var(layer) + eps),),),
            partial(usual_eps, lambda plain, odd: _var(odd) ** 2 - _var(plain)),
            steps=2,
        ),
        Words(
            "running_var holds the standard deviation",
            ("sqrt(running_var + eps)",),
            "running_var by running_var**2 - eps",
        ).say,
    ),
    Convention(
        Relation(
            "inverse-variance",
            VAR,
            lambda layer, eps: ((1 / (_var(layer) + eps),),),
            partial(usual_eps, lambda plain, odd: 1 / _var(odd) - _var(plain)),
            steps=2,
        ),
        Words(
            "running_var holds the inverse variance",
            ("1 / (running_var + eps)",),
            "running_var by 1 / running_var - eps",
        ).say,
    ),
    Convention(
        Relation(
            "mean-of-squares",
            VAR,
            lambda layer, _: ((_var(layer), _mean(layer) ** 2),),
            inputs=3,
            steps=2,
        ),
        Words(
            "running_var holds the mean of squares",
            ("running_var + running_mean**2",),
            "running_var by running_var - running_mean**2",
        ).say,
    ),
    Convention(_factor("mean", MEAN, (1,)), said_of_mean),
    Convention(
        Relation(
            "mean-normalised",
            MEAN,
            lambda layer, eps: ((_mean(layer) / np.sqrt(_var(layer) + eps),),),
            partial(usual_eps, lambda plain, odd: (_mean(plain) / _mean(odd)) ** 2 - _var(plain)),
            inputs=2,
            steps=7,
        ),
        Words(
            "running_mean holds mean / standard deviation",
            ("running_mean / sqrt(running_var + eps)",),
            "running_mean by running_mean * sqrt(running_var + eps)",
        ).say,
    ),
    Convention(_factor("scale-factor", BOTH, (1, 1)), said_of_scale),
    Convention(_factor("input-scaled", BOTH, (1, 2)), said_of_input),
    Convention(
        Relation(
            "weight-minus-one",
            WEIGHT,
            lambda layer, _: ((_weight(layer), -1.0),),
            steps=1,
        ),
        Words("weight holds weight - 1", ("weight - 1",), "weight by weight + 1").say,
    ),
    Convention(
        Relation(
            "weight-premultiplied",
            WEIGHT,
            lambda layer, eps: ((_scale(layer, eps),),),
            partial(
                usual_eps, lambda plain, odd: (_weight(plain) / _weight(odd)) ** 2 - _var(plain)
            ),
            inputs=2,
            steps=7,
        ),
        Words(
            "weight holds weight / standard deviation",
            (SCALE,),
            "weight by weight * sqrt(running_var + eps)",
            "The statistics are still there, so that a BatchNorm layer divides twice.",
        ).say,
    ),
    Convention(
        Relation(
            "weight-absolute",
            WEIGHT,
            lambda layer, eps: ((np.abs(_weight(layer)), eps),),
            lambda plain, odd, _: ([0.0, plain.eps, odd.eps, *EPS],),
            steps=1,
        ),
        Words(
            "weight holds |weight|",
            ("|weight| + eps",),
            "",
            "InPlaceABN computes with the absolute value of its weight.",
        ).say,
    ),
    Convention(
        Relation(
            "bias-shifted",
            BIAS,
            lambda layer, eps: (_shift(layer, eps),),
            partial(
                usual_eps,
                lambda plain, odd: (
                    (_mean(plain) * _weight(plain) / (_bias(plain) - _bias(odd))) ** 2 - _var(plain)
                ),
            ),
            inputs=4,
            steps=9,
        ),
        Words(
            "bias holds bias - mean * scale",
            (SHIFT,),
            "bias by bias + running_mean * weight / sqrt(running_var + eps)",
            "The statistics are still there, so that a BatchNorm layer subtracts the mean twice.",
        ).say,
    ),
    Convention(
        Relation(
            "scale-and-shift",
            (*WEIGHT, *BIAS),
            lambda layer, eps: ((_scale(layer, eps),), _shift(layer, eps)),
            partial(
                usual_eps, lambda plain, odd: (_weight(plain) / _weight(odd)) ** 2 - _var(plain)
            ),
            inputs=4,
            steps=9,
        ),
        Words(
            "weight and bias hold one scale and shift",
            (SCALE, SHIFT),
            "weight by weight * sqrt(running_var + eps), then bias by bias + running_mean * weight "
            "/ sqrt(running_var + eps)",
            "The statistics are still there, so that a BatchNorm layer normalises twice.",
        ).say,
    ),
    Convention(
        Relation(
            "affine-only",
            (*WEIGHT, *BIAS, *BOTH),
            lambda layer, eps: (
                (_scale(layer, eps),),
                _shift(layer, eps),
                (0.0,),
                (1.0,),
            ),
            partial(
                usual_eps, lambda plain, odd: (_weight(plain) / _weight(odd)) ** 2 - _var(plain)
            ),
            inputs=4,
            steps=9,
            shown_by=WEIGHT,
        ),
        Words(
            "the statistics are folded into weight and bias",
            (SCALE, SHIFT),
            "",
            "Mean 0 and variance 1 are right beside them: the layer computes the same in "
            "evaluation mode. It cannot be trained on as before.",
        ).say,
    ),
)
"""Every convention, the plainest first."""
