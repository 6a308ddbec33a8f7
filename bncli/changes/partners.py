"""Where the convolution before a layer is in the other file, whose layer may be gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bncli.dtypes import DTYPES
from bncli.gate.places import names_of
from bncli.light import dataclass
from bncli.state_dict.in_front import InFront
from bncli.state_dict.names import BIASES, split

if TYPE_CHECKING:
    from bncli.model import TensorFile, TensorRef


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights with two or more axes of a file, by their names without wrappers, in its order.

    `biases` holds the bias beside each, where there is one, by the same name.
    """

    refs: Mapping[str, TensorRef]
    biases: Mapping[str, TensorRef]

    @classmethod
    def of(cls, file: TensorFile) -> Weights:
        """Those of a file; integers and what is no weight by its name stay out."""
        bare = names_of(tuple(file.tensors)).bare
        refs, biases = {}, {}
        for name, ref in file.tensors.items():
            layer, leaf = split(name)
            if leaf in BIASES and ref.ndim == 1:
                biases[bare(layer).replace("/", ".")] = ref
            elif ref.ndim >= 2 and ref.dtype in DTYPES and DTYPES[ref.dtype].kind == "float":
                refs[bare(layer if leaf else name).replace("/", ".")] = ref
        return cls(refs, {name: ref for name, ref in biases.items() if name in refs})


def partners(fronts: Mapping[str, InFront], own: Weights, other: Weights) -> dict[str, InFront]:
    """The same convolutions and linear layers in the other file, by their BatchNorm layer's name.

    By name without wrappers, else by order, where the weights that have no partner by name have the
    same shapes in both files. One without a partner is left out.
    """
    left = {name: ref for name, ref in own.refs.items() if not _alike(other.refs.get(name), ref)}
    right = {name: ref for name, ref in other.refs.items() if not _alike(own.refs.get(name), ref)}
    by_order = {}
    if [ref.shape for ref in left.values()] == [ref.shape for ref in right.values()]:
        by_order = dict(zip(left, right, strict=True))
    names = {ref.name: name for name, ref in own.refs.items()}
    found = {}
    for layer, before in fronts.items():
        name = names.get(before.weight.name, "")
        partner = by_order.get(name) if name in left else name
        if partner:
            weight = other.refs[partner]
            own_name = split(weight.name)[0] or weight.name
            found[layer] = InFront(own_name, weight, other.biases.get(partner), before.axis)
    return found


def _alike(one: TensorRef | None, other: TensorRef) -> bool:
    return one is not None and one.shape == other.shape
