"""Layers that became one scale and one shift for each channel, as graphs multiply and add them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from bncli.changes.pair import coarser
from bncli.changes.states.folded.factors import ULPS
from bncli.changes.states.folded.fits import USUAL_EPS, scale_of
from bncli.dtypes import DTYPES
from bncli.light import np
from bncli.model.changes import Found, State
from bncli.rulebook.interface import in_prose

if TYPE_CHECKING:
    from bncli.changes.pair import Side
    from bncli.model import FloatArray, TensorRef

MOST = 4096
"""How many vectors of a layer's width are read."""


def find(side: Side, vectors: Sequence[TensorRef], where: str) -> Found | None:
    """FOLDED where two of the vectors hold the layer's scale and shift; `where` is their file.

    A scale of 1 and a shift of 0 throughout are met anywhere, and show nothing.
    """
    layer = side.layer
    if not layer.coherent or layer.mean is None or layer.var is None:
        return None
    known = list(_read(vectors, len(layer.mean)))
    beta = np.zeros(len(layer.mean)) if layer.bias is None else layer.bias
    stored = [each for each in layer.dtypes.values() if DTYPES[each].digits]
    for eps in dict.fromkeys((layer.eps, *USUAL_EPS)):
        scale = scale_of(side, "", eps)
        factor = next((ref for ref, v in known if _is(v, (scale,), ref.dtype, stored)), None)
        if factor is None or (scale == 1).all():
            continue
        terms = beta, -layer.mean * scale
        if not np.add(*terms).any():
            continue
        shift = next((ref for ref, v in known if _is(v, terms, ref.dtype, stored)), None)
        if shift is not None:
            return _said(factor, shift, eps, where)
    return None


def _read(vectors: Sequence[TensorRef], channels: int) -> Iterator[tuple[TensorRef, FloatArray]]:
    """The vectors of one value a channel that can be read, float64."""
    fit = (ref for ref in vectors if ref.shape == (channels,) and ref.storage is not None)
    for ref in islice(fit, MOST):
        yield ref, ref.read().astype(np.float64)


def _is(
    values: FloatArray, terms: tuple[FloatArray, ...], dtype: str, stored: Sequence[str]
) -> bool:
    """Whether values are the sum of some terms, within the rounding of the dtypes."""
    for each in stored:
        dtype = coarser(dtype, each)
    kind = DTYPES[dtype]
    size = sum(np.abs(term) for term in terms)
    room = ULPS * (2.0 ** (1 - kind.digits) * size + kind.tiniest)
    with np.errstate(all="ignore"):
        return bool((np.abs(values - sum(terms)) <= room).all())


def _said(factor: TensorRef, shift: TensorRef, eps: float, where: str) -> Found:
    return Found(
        State.FOLDED,
        f"became a scale and a shift, eps {eps:.4g}",
        f"In the {where} file {in_prose(factor.name)} is weight / sqrt(running_var + eps), and "
        f"{in_prose(shift.name)} is bias - running_mean times that.",
        numbers={
            "cause": "scale-and-shift",
            "in": where,
            "convolution": None,
            "scale": factor.name,
            "shift": shift.name,
            "fault": None,
            "eps": eps,
        },
    )
