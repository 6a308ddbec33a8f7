"""The layers of one of two files, of which those without a partner yet are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING

from bncli.light import dataclass
from bncli.loaders.names import under
from bncli.state_dict import LayerRefs, announce, is_batch_norm, possible_layers
from bncli.state_dict.names import has_trees, split_any

if TYPE_CHECKING:
    from bncli.model import TensorFile


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a file by name: all that could be matched, and which of them are `judged`.

    `file` has the tensors of `part`, the part of the file that was asked for. `free` has the layers
    without a partner yet.
    """

    file: TensorFile
    every: Mapping[str, LayerRefs]
    judged: frozenset[str]
    part: str
    free: dict[str, LayerRefs] = field(default_factory=dict)

    @classmethod
    def of(cls, file: TensorFile, part: str) -> Layers:
        """Those in a part of a file. Raises MissingTensorError where there is no such part."""
        inside = replace(file, tensors=under(file.path, file.tensors, part))
        possible = possible_layers(inside)
        judged = frozenset(name for name, layer in possible.items() if is_batch_norm(layer))
        trees = any(map(has_trees, inside.tensors))
        with_kernels = {
            split_any(name, trees=trees)[0] for name, ref in inside.tensors.items() if ref.ndim > 1
        }
        every = {
            name: layer
            for name, layer in possible.items()
            if name in judged or name not in with_kernels
        }
        announce(every[name] for name in judged)
        return cls(inside, every, judged, part, dict(every))

    @property
    def left(self) -> list[LayerRefs]:
        """The BatchNorm layers without a partner, in the file's order."""
        return [layer for name, layer in self.free.items() if name in self.judged]

    @property
    def possible(self) -> list[LayerRefs]:
        """Those, and what has running statistics and shows nothing else of what it is."""
        return [
            layer
            for name, layer in self.free.items()
            if name in self.judged or layer.has_statistics
        ]

    def short(self, name: str) -> str:
        """A layer's name inside the part."""
        return name[len(self.part) :].lstrip("./") if self.part else name


def width(layer: LayerRefs) -> tuple[int, ...]:
    """The shape of a layer's tensors: that which most have."""
    return Counter(ref.shape for ref in layer.tensors.values()).most_common(1)[0][0]
