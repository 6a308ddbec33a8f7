"""What a graph says of the BatchNorm layers whose variables a checkpoint holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import inf
from typing import Final

from bncli.loaders.tensorflow.norms import Norm, Place
from bncli.model import BatchNormModule, StoredFront, StoredLayer, TensorRef
from bncli.running_stats.frameworks import convention
from bncli.state_dict.names import split

LEAVES: Final = ("weight", "bias", "running_mean", "running_var")
FUSED, UNFUSED = "tf-fused", "tf-unfused"
"""The conventions of the operation, which keeps the unbiased variance, and of single operations."""
OUTPUTS = {
    "MatMul": 1, "Conv2D": 3, "Conv3D": 4, "Conv2DBackpropInput": 2, "Conv3DBackpropInputV2": 3,
}  # fmt: skip
"""The axis of the output channels in an operation's weight. Of a depthwise convolution, they are
the last two axes together."""


class Described:
    """The layers of a graph by name: their modules, and the tensors of those that it tells all of.

    `tensors` are those of the checkpoint. Variables that `shared` names are left out, as several
    have the name. What uses of one layer tell differently is not told.
    """

    def __init__(
        self,
        norms: Collection[Norm],
        updates: Mapping[str, Collection[float]],
        tensors: Mapping[str, TensorRef],
        shared: Collection[str],
    ) -> None:
        self._tensors, self._shared, self._updates = tensors, shared, updates
        self.modules: dict[str, BatchNormModule] = {}
        self.layers: dict[str, StoredLayer] = {}
        self.skipped: dict[str, str] = {}
        uses: dict[str, list[Norm]] = {}
        for norm in norms:
            for name in self._layers_of(norm):
                uses.setdefault(name, []).append(norm)
        for name, its in uses.items():
            self.modules[name] = self._module(name, its)
            stored = self._stored(its)
            if stored is not None:
                self.layers[name] = stored
        order = {name: at for at, name in enumerate(tensors)}
        self.layers = dict(
            sorted(self.layers.items(), key=lambda item: order[item[1].tensors["running_var"]])
        )

    def _name(self, place: Place | None) -> str:
        """The name of the tensor in a place, "" where there is none in the checkpoint."""
        if place is None or place.variable in self._shared:
            return ""
        return place.variable if place.variable in self._tensors else ""

    def _vectors(self, norm: Norm) -> dict[str, str]:
        """The names of the tensors that a use has, by PyTorch's names, of one axis and one size."""
        names = {leaf: self._name(getattr(norm, leaf)) for leaf in LEAVES}
        found = {leaf: name for leaf, name in names.items() if name}
        shapes = {self._tensors[name].shape for name in found.values()}
        return found if len(shapes) == 1 and len(next(iter(shapes))) == 1 else {}

    def _layers_of(self, norm: Norm) -> Iterator[str]:
        """The names of the layers that may be meant: where its tensors are."""
        names = self._vectors(norm)
        statistics = [names[leaf] for leaf in ("running_var", "running_mean") if leaf in names]
        layers = dict.fromkeys(map(_layer, statistics or names.values()))
        if len(layers) == 1:
            yield from layers

    def _module(self, name: str, uses: list[Norm]) -> BatchNormModule:
        fused = any(use.op != "Rsqrt" for use in uses)
        weights = {use.new_weight for use in uses if use.new_weight is not None}
        for use in uses:
            for place in (use.running_mean, use.running_var):
                weights |= set(self._updates.get("" if place is None else place.variable, ()))
        for leaf in ("moving_mean", "moving_variance"):  # uses in training do not show them
            weights |= set(self._updates.get(f"{name}/{leaf}", ()))
        eps = {use.eps for use in uses}
        if unusable := [number for number in eps if not 0 <= number < inf]:
            self.skipped[f"eps of {name}"] = f"the graph gives {unusable[0]}, which is not an eps"
            eps.clear()
        axes = {use.channel_axis for use in uses if use.channel_axis is not None}
        row = convention(FUSED if fused else UNFUSED)
        new_weight = weights.pop() if len(weights) == 1 else None
        return BatchNormModule(
            class_name=next((use.op for use in uses if use.op != "Rsqrt"), "BatchNormalization"),
            eps=eps.pop() if len(eps) == 1 else None,
            momentum=new_weight,
            has_momentum=new_weight is not None,
            stated_momentum=None if new_weight is None else row.momentum_of(new_weight),
            convention=row.name,
            channel_axis=axes.pop() if len(axes) == 1 else None,
        )

    def _stored(self, uses: list[Norm]) -> StoredLayer | None:
        """The tensors of a layer, where a use has both statistics and all such agree."""
        told: dict[tuple[tuple[str, str], ...], None] = {}
        fronts: dict[StoredFront | None, None] = {}
        for use in uses:
            names = self._vectors(use)
            if {"running_mean", "running_var"} <= names.keys():
                told[tuple(names.items())] = None
                width = self._tensors[names["running_var"]].numel
                fronts[self._front(use, width)] = None
        if len(told) != 1:
            return None
        known = [front for front in fronts if front is not None]
        return StoredLayer(dict(next(iter(told))), known[0] if len(known) == 1 else None)

    def _front(self, use: Norm, width: int) -> StoredFront | None:
        weight, bias = self._name(use.kernel), self._name(use.kernel_bias)
        if not weight or (use.kernel_bias is not None and not bias):
            return None
        shape = self._tensors[weight].shape
        axis = OUTPUTS.get(use.front)
        if use.front == "DepthwiseConv2dNative" and len(shape) == 4 and 1 in shape[2:]:
            axis = 2 if shape[3] == 1 else 3
        if axis is None or axis >= len(shape) or shape[axis] != width:
            return None
        if bias and self._tensors[bias].shape != (width,):
            return None
        return StoredFront(weight.rpartition("/")[0], weight, bias or None, axis)


def _layer(name: str) -> str:
    """The layer to which a tensor belongs by its name: what is before its own name."""
    layer, leaf = split(name)
    return layer if leaf else name.rpartition("/")[0]
