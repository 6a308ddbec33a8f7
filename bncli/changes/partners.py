"""Where the convolution before a layer is in the other file, whose layer may be gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.changes.contents import orders, turned
from bncli.changes.pair import coarser
from bncli.changes.states.folded.factors import factors
from bncli.dtypes import COMPUTE_DTYPES, DTYPES
from bncli.errors import TensorError
from bncli.gate.places import names_of
from bncli.light import dataclass
from bncli.state_dict.in_front import OUT_FIRST, OUT_LAST, InFront
from bncli.state_dict.names import BIASES, split, split_any

if TYPE_CHECKING:
    from bncli.model import TensorFile, TensorRef


FEWEST = 4
"""Values of a channel that show whether they are others times one factor."""
MOST_TRIES = 2048
"""How many pairs of weights are looked at; a pair that does not fit costs a millisecond."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights with two or more axes of a file, by their names without wrappers, in its order.

    `biases` holds the bias beside each, by names or by the file's graph, by the same name, `bare`
    are those beside which the graph has none, and `vectors` what may be a bias that nothing tells,
    or a scale for each channel: each with one axis.
    """

    refs: Mapping[str, TensorRef]
    biases: Mapping[str, TensorRef]
    vectors: Sequence[TensorRef] = ()
    bare: frozenset[str] = frozenset()

    @classmethod
    def of(cls, file: TensorFile) -> Weights:
        """Those of a file; integers and what is no weight by its name stay out."""
        bare = names_of(tuple(file.tensors)).bare
        refs, biases, vectors = {}, {}, []
        for name, ref in file.tensors.items():
            layer, leaf = _parts(name)
            if not leaf and ref.dtype in COMPUTE_DTYPES and ref.numel == max(ref.shape, default=1):
                vectors.append(_flat(ref))
            if leaf in BIASES and ref.ndim == 1:
                biases[bare(layer).replace("/", ".")] = ref
            elif ref.ndim >= 2 and ref.dtype in DTYPES and DTYPES[ref.dtype].kind == "float":
                refs[bare(layer).replace("/", ".")] = ref
        beside = {name: ref for name, ref in biases.items() if name in refs}
        every = {ref.name: ref for ref in file.tensors.values()} if file.biases else {}
        for name, ref in refs.items():
            told = every.get(file.biases.get(ref.name, ""))
            if told is not None and told.numel == max(told.shape, default=1):
                beside[name] = _flat(told)
        bare_ones = {name for name, ref in refs.items() if file.biases.get(ref.name) == ""}
        beside = {name: ref for name, ref in beside.items() if name not in bare_ones}
        return cls(refs, beside, vectors, frozenset(bare_ones))


def partners(fronts: Mapping[str, InFront], own: Weights, other: Weights) -> dict[str, InFront]:
    """The same convolutions and linear layers in the other file, by their BatchNorm layer's name.

    By name without wrappers, in any framework's layout, or by order, where the weights that have no
    partner by name have the same shapes in both files. Where the values are not the same up to a
    factor for each output channel, one is looked for whose values are: exporters name weights by
    counting. One without a partner is left out.
    """
    left = {name: ref for name, ref in own.refs.items() if not _alike(other.refs.get(name), ref)}
    right = {name: ref for name, ref in other.refs.items() if not _alike(own.refs.get(name), ref)}
    by_order = {}
    if [sorted(ref.shape) for ref in left.values()] == [sorted(x.shape) for x in right.values()]:
        by_order = dict(zip(left, right, strict=True))
    names = {ref.name: name for name, ref in own.refs.items()}
    free = dict(other.refs)
    tries = iter(range(MOST_TRIES))
    chosen: dict[str, str] = {}
    for layer, before in fronts.items():
        name = names.get(before.weight.name, "")
        first = name if name in own.refs and name not in left else by_order.get(name)
        some = list(free) if first is None or first not in free else [first, *free]
        fits = (each for each in some if _scaled(before, free[each], tries))
        partner = next(fits, first)
        if partner is not None:
            chosen[layer] = partner
            if partner != first:
                del free[partner]
    found = {}
    for layer, partner in chosen.items():
        weight = other.refs[partner]
        own_name = _parts(weight.name)[0] or weight.name
        bias, axis = other.biases.get(partner), fronts[layer].axis
        found[layer] = InFront(own_name, weight, bias, axis, bare=partner in other.bare)
    return found


def _flat(ref: TensorRef) -> TensorRef:
    """A tensor of which one axis at most is longer than 1, with that axis alone."""
    steps = zip(ref.shape, ref.strides, strict=True)
    step = next((step for size, step in steps if size > 1), 1)
    return replace(ref, shape=(ref.numel,), strides=(step,))


def _parts(name: str) -> tuple[str, str]:
    """A layer's name and what it calls a tensor; all of it and "" where that is not known."""
    layer, leaf = split(name)
    if not leaf:
        layer, leaf = split_any(name)
        if leaf not in (*OUT_FIRST, *OUT_LAST, "b"):
            return name, ""
    return layer, leaf


def _alike(one: TensorRef | None, other: TensorRef) -> bool:
    """Whether two weights have one shape, perhaps in the layouts of two frameworks."""
    return one is not None and next(iter(layouts(other, one)), None) is not None


def _scaled(before: InFront, there: TensorRef, tries: Iterator[int]) -> bool:
    """Whether a weight is that before a layer, times a factor for each output channel.

    Weights with one value a channel show nothing. No more pairs are read than there are `tries`.
    """
    weight = before.weight
    channels = weight.shape[before.axis]
    if weight.numel < FEWEST * channels or not {weight.dtype, there.dtype} <= set(COMPUTE_DTYPES):
        return False
    dtype = coarser(weight.dtype, there.dtype)
    for each in layouts(weight, there):
        if next(tries, None) is None:
            return False
        try:
            found = factors(weight, each, before.axis, channels, dtype)
            if found is not None and found.live.any():
                return True
        except TensorError:  # values that cannot be had show nothing
            return False
    return False


def layouts(weight: TensorRef, there: TensorRef) -> Iterator[TensorRef]:
    """Another weight with its axes as those of a weight: as it is, or as frameworks turn them."""
    if weight.shape == there.shape:
        yield there
    for order in orders(weight.shape, there.shape):
        yield turned(there, order)
