"""Which of MXNet's arrays are a BatchNorm layer's, by its symbol or by their names."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from bncli.light import dataclass
from bncli.loaders.mxnet.symbol import Node
from bncli.model import BatchNormModule, StoredFront, StoredLayer, TensorRef
from bncli.running_stats.frameworks import convention

FIXED = "fix_gamma makes it 1, so that what is stored is not used"
EPS, MOMENTUM, AXIS = 1e-3, 0.9, 1
"""The operator's defaults, which a symbol leaves out."""
LEAVES = ("weight", "bias", "running_mean", "running_var")
"""PyTorch's names of the inputs of the operator behind its first."""
ENDS = ("gamma", "beta", "moving_mean", "moving_var")
"""MXNet's."""
FRONTS = {"Convolution": 0, "FullyConnected": 0, "Deconvolution": 1}
"""Operators with a weight, and the axis of it that is that of the outputs."""

_MEAN = re.compile(r"(?P<kind>aux:)?(?P<layer>.+)_(?P<family>moving|running)_mean")
_KIND = re.compile(r"(?:arg|aux):")


@dataclass(frozen=True, slots=True)
class Layers:
    """What is known of the layers, by their names, and which arrays are not used, and why."""

    layers: dict[str, StoredLayer] = field(default_factory=dict)
    modules: dict[str, BatchNormModule] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def layers_of(tensors: Mapping[str, TensorRef], nodes: Sequence[Node] | None) -> Layers:
    """The layers of the symbol's BatchNorm nodes that have statistics among the arrays.

    Without a symbol, those that have them by their names, as MXNet's modules and its exports of
    Gluon call them.
    """
    found = Layers()
    if nodes is None:
        _by_names(tensors, found)
        return found
    full = {_KIND.sub("", name, count=1): name for name in tensors}
    readers = Counter(each for node in nodes for each in node.inputs)
    for node in nodes:
        if "BatchNorm" not in node.op and node.op != "_npx_batch_norm":
            continue
        own = [nodes[each].name for each in node.inputs[1:5]]
        # In the oldest symbols, statistics are no inputs.
        own += [f"{node.name}_{end}" for end in ENDS[len(own) :]]
        refs = {leaf: full[name] for leaf, name in zip(LEAVES, own, strict=True) if name in full}
        if not {"running_mean", "running_var"} <= refs.keys():
            continue
        mean = _MEAN.fullmatch(refs["running_mean"])
        name = mean["layer"] if mean is not None else node.name
        name = name if name not in found.layers else node.name
        if _is_true(node, "fix_gamma", default=True) and "weight" in refs:
            found.skipped[refs.pop("weight")] = FIXED
        source = node.inputs[0] if node.inputs else None
        front = None
        if source is not None and readers[source] == 1:
            width = tensors[refs["running_mean"]].numel
            front = _front(nodes, nodes[source], full, tensors, width)
        found.layers[name] = StoredLayer(refs, front)
        found.modules[name] = _module(node)
    return found


def _module(node: Node) -> BatchNormModule:
    """What a node says of its layer."""
    momentum = _number(node, "momentum", MOMENTUM)
    axis = _number(node, "axis", AXIS)
    row = convention("mxnet")
    return BatchNormModule(
        "BatchNorm",
        eps=_number(node, "eps", EPS),
        momentum=None if momentum is None else row.new_weight(momentum),
        stated_momentum=momentum,
        has_momentum=momentum is not None,
        convention=row.name,
        channel_axis=None if axis is None else int(axis),
        training=False if _is_true(node, "use_global_stats", default=False) else None,
    )


def _number(node: Node, key: str, default: float) -> float | None:
    """An attribute that is a number, None where it is none."""
    try:
        value = float(node.attributes.get(key, default))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _is_true(node: Node, key: str, *, default: bool) -> bool:
    return node.attributes.get(key, str(default)).lower() in {"true", "1"}


def _front(
    nodes: Sequence[Node],
    node: Node,
    full: Mapping[str, str],
    tensors: Mapping[str, TensorRef],
    width: int,
) -> StoredFront | None:
    """The layer in front whose outputs nothing else reads, if it has `width` of them.

    None where one weight serves several outputs, and where weight and bias are not of that shape.
    """
    if node.op not in FRONTS:
        return None
    if node.op == "Deconvolution" and node.attributes.get("num_group", "1") != "1":
        return None  # its axis is that of the outputs of a group
    own = [full.get(nodes[each].name) for each in node.inputs[1:3]]
    weight, bias = (*own, None, None)[:2]
    if weight is None or (len(own) > 1 and bias is None):
        return None
    axis, shape = FRONTS[node.op], tensors[weight].shape
    if len(shape) <= axis or shape[axis] != width:
        return None
    if bias is not None and tensors[bias].shape != (width,):
        return None
    return StoredFront(node.name, weight, bias, axis)


def _by_names(tensors: Mapping[str, TensorRef], found: Layers) -> None:
    """The layers whose names and leaves are joined by "_", and Gluon's own with dots."""
    module = BatchNormModule("BatchNorm", has_momentum=False, convention="mxnet")
    gluon = replace(module, convention="gluon")
    for name in tensors:
        fits = _MEAN.fullmatch(name)
        if fits is not None:
            layer, aux = fits["layer"], fits["kind"] or ""
            arg = "arg:" if aux else ""
            family = fits["family"]
            refs = {
                "weight": f"{arg}{layer}_gamma",
                "bias": f"{arg}{layer}_beta",
                "running_mean": name,
                "running_var": f"{aux}{layer}_{family}_var",
            }
            if refs["running_var"] in tensors:
                refs = {leaf: own for leaf, own in refs.items() if own in tensors}
                found.layers[layer] = StoredLayer(refs)
                found.modules[layer] = module if family == "moving" else gluon
        layer, _, leaf = name.rpartition(".")
        if leaf == "running_mean" and f"{layer}.running_var" in tensors:
            found.modules[layer] = gluon
