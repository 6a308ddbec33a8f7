"""Layers that were folded into the convolution or linear layer before them, rightly or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from bncli.changes.contents import orders, turned
from bncli.changes.pair import Files, LayerPair, Side
from bncli.changes.states.folded import scale_shift
from bncli.changes.states.folded.biases import SAYS, BiasFold, bias_of, fold_of_bias
from bncli.changes.states.folded.factors import Factors, factors
from bncli.changes.states.folded.fits import SCALES, Fit, fit_of, scale_of
from bncli.dtypes import COMPUTE_DTYPES, DTYPES
from bncli.errors import TensorError
from bncli.light import dataclass, np
from bncli.model.changes import Found, Same, State
from bncli.report import Certainty
from bncli.rulebook.interface import in_prose

if TYPE_CHECKING:
    from bncli.model import TensorRef
    from bncli.report import Value
    from bncli.state_dict.in_front import InFront

ENOUGH = 3
"""Channels whose bias shows that the layer was folded, where their weights do not."""


def find(pair: LayerPair, files: Files) -> Found | None:  # noqa: ARG001  # as every `find`
    """FOLDED where a file's layer does nothing, and its convolution does what the layer did.

    Or where the layer is still there as it was: then it is applied twice.
    """
    if pair.before is Same.SAME or not pair.coherent:
        return None
    if pair.before is Same.MOVED and pair.of(*pair.same) is not Same.MOVED:
        return _twice(pair)
    for held, left, where in ((pair.a, pair.b, "second"), (pair.b, pair.a, "first")):
        if does_nothing(left) and not does_nothing(held):
            return _found(held, left.before, where, left)
    return None


def _twice(pair: LayerPair) -> Found | None:
    """FOLDED where the convolution took the layer in, and the layer is as it was."""
    for held, other, where in ((pair.a, pair.b, "second"), (pair.b, pair.a, "first")):
        found = None if does_nothing(held) else _found(held, other.before, where)
        if found is not None:
            others = found.numbers["faults"]
            assert isinstance(others, list)
            faults = ["twice", *others]
            return replace(
                found,
                what=f"folded into {in_prose(str(found.numbers['convolution']))}, still applied",
                detail=f"{found.detail} The {where} file applies the layer twice.",
                numbers={**found.numbers, "fault": faults[0], "faults": faults},
                hint=f"Leave the layer out of the {where} file, or give it mean 0, variance 1, "
                "weight 1 and bias 0.",
            )
    return None


def gone(
    side: Side, after: InFront | None, files: Files, vectors: Sequence[TensorRef] = ()
) -> Found | None:
    """FOLDED for a layer that one file lacks, by the convolution `after` that the other has.

    Among `vectors` its bias is looked for by its values, where no name tells it; and where no
    convolution took the layer in, its scale and shift are.
    """
    where = "second" if files.layers.get(side.refs.name) is side.refs else "first"
    found = _found(side, after, where, vectors=vectors)
    return found or scale_shift.find(side, vectors, where)


def does_nothing(side: Side) -> bool:
    """Whether the statistics are 0 and 1, or 1 - eps, and the weight undoes what eps adds.

    A bias may be left, which is added as a convolution's would be.
    """
    mean, var, weight = side.layer.mean, side.layer.var, side.layer.weight
    if mean is None or var is None or mean.any():
        return False
    with np.errstate(all="ignore"):
        scale = (1.0 if weight is None else weight) / np.sqrt(var + side.layer.eps)
    # With a variance of 1 or a weight of sqrt(1 + eps) alone, the scale is off by half of eps;
    # 1 - eps and sqrt(1 + eps) are rounded by up to 2**-9 in bfloat16.
    stored = [DTYPES[dtype].digits for dtype in side.layer.dtypes.values()]
    digits = min(filter(None, stored), default=53)
    return bool((np.abs(scale - 1) <= side.layer.eps + 2.0**-digits).all())


def _found(
    side: Side,
    after: InFront | None,
    where: str,
    left: Side | None = None,
    vectors: Sequence[TensorRef] = (),
) -> Found | None:
    """The state, where the weights in `after` are those before `side`, times its scale."""
    before, layer = side.before, side.layer
    if before is None or after is None or not layer.coherent:
        return None
    assert layer.mean is not None
    old, channels = before.weight, len(layer.mean)
    if after.bias is not None or after.bare:
        vectors = ()
    vectors = [ref for ref in vectors if ref.shape == (channels,)]
    tried = product(
        _dtypes(side, before, after), _layouts(old, after.weight, before.axis, channels)
    )
    try:
        for dtype, (new, axis) in tried:
            these = factors(old, new, axis, channels, dtype)
            fit = None if these is None else fit_of(side, these, dtype)
            if these is not None and fit is not None:
                found = _said(_Fold(side, after, where, left, dtype, axis, these, fit, vectors))
                if found is not None:
                    return found
    except TensorError:  # values that cannot be had show nothing
        return None
    return None


def _dtypes(side: Side, before: InFront, after: InFront) -> list[str]:
    """The dtypes in which it may have been folded, that with most digits first; empty for none.

    That is the result's or one with fewer digits, where something else is stored in it.
    """
    stored = {before.weight.dtype, after.weight.dtype, *side.layer.dtypes.values(), "float32"}
    if not {before.weight.dtype, after.weight.dtype} <= set(COMPUTE_DTYPES):
        return []
    most = DTYPES[after.weight.dtype].digits
    known = [DTYPES[dtype] for dtype in stored & set(COMPUTE_DTYPES)]
    fit = sorted((kind for kind in known if kind.digits <= most), key=lambda kind: -kind.digits)
    return [kind.name for kind in fit]


def _layouts(
    old: TensorRef, new: TensorRef, axis: int, channels: int
) -> Iterator[tuple[TensorRef, int]]:
    """The new weight with its axes as the old one's, and the axis over which it was folded.

    That of the output channels comes first, then, in the layout of another framework, the same,
    then others of that size, over which one may have folded by mistake.
    """
    if old.shape == new.shape:
        yield new, axis
    if old.shape != new.shape or old.ndim == 2:
        for order in orders(old.shape, new.shape):
            yield turned(new, order), axis
    if old.shape == new.shape:
        yield from ((new, i) for i, n in enumerate(old.shape) if n == channels and i != axis)


@dataclass(frozen=True, slots=True)
class _Fold:
    """A fold that was found: where, how, and what of the layer is left (None where it is gone)."""

    side: Side
    after: InFront
    where: str
    left: Side | None
    dtype: str
    axis: int
    factors: Factors
    fit: Fit
    vectors: Sequence[TensorRef] = ()
    """What may be the bias that no name tells."""

    @property
    def axis_of_outputs(self) -> int:
        """The axis over which it should have been folded."""
        assert self.side.before is not None
        return self.side.before.axis


def _said(fold: _Fold) -> Found | None:
    """The state as a person reads it, with the bias looked at; None where both show too little."""
    side, fit, after = fold.side, fold.fit, fold.after
    assert side.before is not None
    folds = _biases(fold)
    # Where the weight does not tell two values of eps apart, the bias may.
    right = [eps for eps, bias in folds.items() if not bias.fault]
    left = tuple(right) or fit.eps
    eps, bias = left[0], folds[left[0]]
    if fit.weak and (fit.fault or bias.fault or bias.told < ENOUGH):
        return None
    wrong_axis = fold.axis != fold.axis_of_outputs and not _may_be_transposed(side.before)
    faults = {fit.fault: SCALES.get(fit.fault, ""), bias.fault: bias.says}
    if fit.fault == "eps-left-out":
        faults[fit.fault] = "eps was left out"
    elif fit.fault == "eps":
        faults[fit.fault] = f"with eps {eps:.4g}, where the layer has {side.layer.eps:g}"
    if wrong_axis:
        faults = {"axis": f"along axis {fold.axis}, over its inputs", **faults}
    faults = {fault: says for fault, says in faults.items() if fault}
    single = len(left) == 1
    numbers: dict[str, Value] = {
        "cause": "folded",
        "in": fold.where,
        "convolution": after.name,
        "fault": next(iter(faults), None),
        "faults": list(faults),
        "eps": eps if single else None,
        "eps_fits": list(left),
        "axis": fold.axis,
        "residual": _residual(fold, eps),
        "dtype": fold.dtype,
        "bias_off": bias.off,
        "bias_known": bias.known,
    }
    what = f"folded into {in_prose(after.name)}"
    if faults:
        what = f"{what}, but {next(iter(faults.values()))}"
    elif fit.fitted:
        what = f"{what}, eps {eps:.4g} (fitted)"
    elif single:
        what = f"{what}, eps {eps:.4g}"
    if not bias.known:
        what = f"{what}; its bias was not found"
    detail = _detail(fold, left, faults, bias)
    hint = (
        ""
        if set(faults) <= set(SAYS)
        else "Fold the layer again, with weight / sqrt(running_var + eps)."
    )
    # A square weight may be that of a transposed convolution, whose kernel has an odd size.
    sure = Certainty.LIKELY if wrong_axis else Certainty.CERTAIN
    return Found(State.FOLDED, what, detail, sure, numbers, hint)


def _biases(fold: _Fold) -> dict[float, BiasFold]:
    """What became of the bias by each eps that the weight leaves open.

    Of the vectors among which it is looked for it is the one that is right. Where none is, it is
    not known what became of it.
    """
    side, fit = fold.side, fold.fit
    assert side.before is not None
    added = None if fold.left is None else fold.left.layer.bias
    old = bias_of(side.before, len(fit.scale))
    folds: dict[float, BiasFold] = {}
    for ref in fold.vectors or (fold.after.bias,):
        new = bias_of(replace(fold.after, bias=ref), len(fit.scale))
        folds = {
            eps: fold_of_bias(
                side.layer, scale_of(side, fit.fault, eps), old, new, added, fold.dtype
            )
            for eps in fit.eps
        }
        if not all(bias.fault for bias in folds.values()):
            return folds
    return dict.fromkeys(fit.eps, BiasFold(known=False)) if fold.vectors else folds


def _detail(fold: _Fold, eps: tuple[float, ...], faults: dict[str, str], bias: BiasFold) -> str:
    """The sentences that support it."""
    formula = {
        "weight": "1 / sqrt(running_var + eps)",
        "eps-outside-root": "weight / (sqrt(running_var) + eps)",
        "root": "weight / (running_var + eps)",
        "multiplied": "weight * sqrt(running_var + eps)",
        "eps-left-out": "weight / sqrt(running_var)",
    }.get(fold.fit.fault, "weight / sqrt(running_var + eps)")
    other = "first" if fold.where == "second" else "second"
    times = f"the weight before the layer is that of the {other} file times {formula}"
    where = f"Along axis {fold.axis}" if fold.axis != fold.axis_of_outputs else "In every channel"
    sentences = [f"{where}, {times}, within the rounding of {fold.dtype}."]
    if len(eps) > 1:
        fitting = [f"{each:g}" for each in eps]
        sentences.append(f"eps {', '.join(fitting[:-1])} and {fitting[-1]} fit equally.")
    if not bias.known:
        sentences.append("No tensor of its width is the bias that it needs.")
    if bias.off:
        sentences.append(f"The bias is off by up to {bias.off:.3g} in channel {bias.worst}.")
    if len(faults) > 1:
        more = list(faults.values())[1:]
        sentences.append(f"Also, {' and '.join(more)}.")
    if fold.left is not None and fold.left.layer.var is not None:
        weight = fold.left.layer.weight
        plain = (fold.left.layer.var == 1).all() and (weight is None or (weight == 1).all())
        rest = ", and divides by sqrt(1 + eps)" if plain else ""
        sentences.append(f"The layer is still there{rest}.")
    return " ".join(sentences)


def _residual(fold: _Fold, eps: float) -> float | None:
    """How far the factors are from the formula, relative, in the worst channel that is not 0."""
    use = fold.factors.moved
    scale = scale_of(fold.side, fold.fit.fault, eps)[use]
    middle = (fold.factors.low[use] + fold.factors.high[use]) / 2
    with np.errstate(all="ignore"):
        off = np.abs(middle / scale - 1)
    off = off[np.isfinite(off)]
    return float(off.max()) if off.size else None


def _may_be_transposed(before: InFront) -> bool:
    """Whether a square weight may be that of a transposed convolution, which a file does not say.

    Those have kernels of an even size, or are called so.
    """
    name, kernel = before.name.lower(), before.weight.shape[2:]
    return any(word in name for word in ("up", "trans", "deconv", "tconv")) or any(
        size % 2 == 0 for size in kernel
    )
