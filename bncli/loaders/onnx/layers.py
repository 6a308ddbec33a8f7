"""BatchNormalization nodes become layers: their tensors, their arguments, what is in front."""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Mapping
from dataclasses import field

from bncli.light import dataclass
from bncli.loaders.names import quoted
from bncli.loaders.onnx.graph import NORM, Found, Walk
from bncli.loaders.onnx.messages import Attribute, Node
from bncli.model import BatchNormModule, StoredFront, StoredLayer, TensorRef
from bncli.running_stats.frameworks import convention
from bncli.state_dict.names import split, split_any

PARAMETERS = ("weight", "bias", "running_mean", "running_var")
"""What the inputs of a node are from its second on, by PyTorch's names."""
_CONVOLUTIONS = ("Conv", "ConvTranspose", "QLinearConv", "ConvInteger", "FusedConv")
_OTHER_NORMS = (
    "InstanceNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization",
)  # fmt: skip
_EPSILON, _MOMENTUM = 1e-5, 0.9
"""What ONNX's specification gives a node that does not say it."""
_NOW, _NO_SPATIAL, _NO_IS_TEST = 14, 9, 7
"""The opsets from which training_mode says how a node runs; from which it knows no other channels
than those of axis 1; and from which its outputs say whether it trains."""


@dataclass(slots=True)
class Layers:
    """What `TensorFile` has of a model's layers."""

    stored: dict[str, StoredLayer] = field(default_factory=dict)
    modules: dict[str, BatchNormModule] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def described(walk: Walk) -> Layers:
    """The layers in the order of the graph, under names of which each is one layer's alone.

    A model may use one layer several times, with a node for each.
    """
    layers = Layers()
    names = _Names(walk)
    fronts: dict[str, StoredFront] = {}
    seen: set[tuple[object, ...]] = set()
    for found in walk.norms:
        given = walk.attributes(found)
        tensors = {
            leaf: full
            for leaf, name in zip(PARAMETERS, found.node.inputs[1:5], strict=False)
            if (full := found.scope.tensor(name))
        }
        why = _unusable(walk, found, given)
        if why:
            name = names.free(found.node.label or NORM)
            layers.skipped[name] = why
            layers.stored[name] = StoredLayer(tensors)
            continue
        module = _module(walk.model.opset, found.node, given)
        # Exporters keep equal tensors once, so that two layers may share them; not their names.
        places = (walk.tensors[full].storage for full in tensors.values())
        layer = (module, *found.scope.home(found.node.inputs[1]), *places)
        if layer in seen:
            continue
        seen.add(layer)
        name = names.of(found)
        for leaf, own in zip(PARAMETERS[:2], found.node.inputs[1:3], strict=True):
            if leaf not in tensors:
                like, why = tensors["running_mean"], f"it {_origin(found, own)}"
                tensors[leaf] = walk.unknown(f"{name}.{leaf}", like, why)
        counter = f"{name}.num_batches_tracked"
        if counter in walk.tensors:
            tensors["num_batches_tracked"] = counter
        layers.modules[name] = module
        layers.stored[name] = StoredLayer(tensors)
        front = _front(walk, found, walk.tensors[tensors["running_mean"]].numel)
        if front is not None:
            fronts[name] = front
    claimed = Counter(front.weight for front in fronts.values())
    for name, front in fronts.items():
        if claimed[front.weight] == 1:  # one for several layers is in front of none alone
            layers.stored[name] = StoredLayer(layers.stored[name].tensors, front)
    return layers


def without_layers(operators: Mapping[str, int]) -> str:
    """Why a model has no layer that can be judged, where its nodes let it be seen; else ""."""
    if norms := operators.get(NORM):
        many = f"{norms} {NORM} node{'s' * (norms > 1)}"
        return f"its graph has {many}, without statistics for each channel in the file"
    convolutions = sum(operators.get(op, 0) for op in _CONVOLUTIONS)
    if not convolutions:
        return ""
    have = f"{convolutions} convolution{'s' * (convolutions > 1)}"
    others = [f"{operators[op]} {op}" for op in _OTHER_NORMS if operators.get(op)]
    if others:
        return f"its graph has {have}, {', '.join(others)} and no BatchNormalization node"
    return (
        f"its graph has {have} and no BatchNormalization node (an export in evaluation mode usually"
        " folds BatchNorm into the convolutions)"
    )


def _unusable(walk: Walk, found: Found, given: Mapping[str, Attribute]) -> str:
    """Why a node is not a layer that can be judged; "" where it is, which takes its statistics."""
    inputs = found.node.inputs[1:5]
    if len(inputs) < len(PARAMETERS):
        return f"it has {len(found.node.inputs)} inputs instead of 5"
    for said, name in zip(("mean", "variance"), inputs[2:], strict=True):
        if found.scope.tensor(name) is None:
            return f"its {said} {_origin(found, name)}"
    if walk.model.opset < _NO_SPATIAL and _number(given, "spatial", 1) == 0:
        return "it has statistics for each value of a sample (spatial 0), not for each channel"
    return ""


def _origin(found: Found, name: str) -> str:
    """Where the value of a node's parameter comes from that is not in the file."""
    made = found.scope.maker(name)
    if made is None:
        return "is an input of the graph without a value in the file"
    return f"is computed by {quoted(made[1].op)} when the model runs"


def _number(given: Mapping[str, Attribute], name: str, default: float) -> float:
    number = given[name].number if name in given else None
    return default if number is None else number


def _module(opset: int, node: Node, given: Mapping[str, Attribute]) -> BatchNormModule:
    """The arguments of a node, by the version of ONNX's operators."""
    if opset >= _NOW:
        training = _number(given, "training_mode", 0) != 0
    elif opset >= _NO_IS_TEST:
        training = any(node.outputs[1:])
    else:
        training = _number(given, "is_test", 0) == 0
    row = "onnx" if opset >= _NOW else "onnx-9"
    momentum = float(_number(given, "momentum", _MOMENTUM))
    return BatchNormModule(
        class_name=NORM,
        eps=float(_number(given, "epsilon", _EPSILON)),
        momentum=convention(row).new_weight(momentum),
        stated_momentum=momentum,
        training=training,
        convention=row,
        affine=True,
        channel_axis=1,
    )


class _Names:
    """Names for layers: by those of their tensors, else of their node, else of its output."""

    def __init__(self, walk: Walk) -> None:
        self._used: set[str] = set()
        self._numbers: Counter[str] = Counter()
        prefixes = {tuple(_own(found)): _prefix(_own(found)) for found in walk.norms}
        self._shared = {name for name, uses in Counter(prefixes.values()).items() if uses > 1}

    def of(self, found: Found) -> str:
        """The name of a layer, not used before."""
        own = _own(found)
        candidates = [_pair(own), _prefix(own), _scope(found.node.name)]
        candidates += [found.node.name, *found.node.outputs[:1]]
        if candidates[1] in self._shared:  # "bn" of bn_scale1 and bn_scale2
            candidates[1] = ""
        likely = [name for name in candidates if name]
        name = next((name for name in likely if name not in self._used), "")
        return self.free(name or (likely[0] if likely else NORM))

    def free(self, name: str) -> str:
        """The name, with a number behind it where it is used already."""
        free = name
        while free in self._used:
            self._numbers[name] += 1
            free = f"{name}#{self._numbers[name] + 1}"
        self._used.add(free)
        return free


def _own(found: Found) -> list[str]:
    """The names of a node's parameters, those of a function's by the names where it is called."""
    return [found.scope.home(name)[1] for name in found.node.inputs[1:5]]


def _pair(names: list[str]) -> str:
    """The layer that the names of both statistics tell, as PyTorch's or Keras' do."""
    layers = {split(name) for name in names[2:4]}
    (layer, leaf), *others = layers
    return layer if leaf and others and others[0][0] == layer and others[0][1] else ""


def _prefix(names: list[str]) -> str:
    """What the names begin with alike, up to a mark between words; "" where numbers follow."""
    common = os.path.commonprefix(names)  # noqa: RUF071 (names, whose letters are compared)
    cut = max(common.rfind(mark) for mark in "./_")
    tails = {name[cut + 1 :] for name in names}
    if cut < 1 or len(tails) < len(PARAMETERS) or any(tail.isdecimal() for tail in tails):
        return ""
    return common[:cut].rstrip("./_")


def _scope(name: str) -> str:
    """The path of a module by the name that PyTorch gives its node; "" for other names.

    /layer1/layer1.0/bn1/BatchNormalization is the node of layer1.0.bn1.
    """
    above, _, last = name.rpartition("/")
    if not above.startswith("/") or not last.startswith(NORM):
        return ""
    path: list[str] = []
    for part in above[1:].split("/"):
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path)


def _front(walk: Walk, found: Found, channels: int) -> StoredFront | None:
    """The convolution or linear layer whose output a node normalises, if its weight is known."""
    made = found.scope.maker(found.node.inputs[0])
    if made is None:
        return None
    scope, node = made
    bias = ""
    if node.is_own("Add") and len(node.inputs) == 2:  # a bias of its own
        known = [name for name in node.inputs if scope.tensor(name)]
        other = [name for name in node.inputs if name not in known]
        made = scope.maker(other[0]) if len(known) == len(other) == 1 else None
        if made is None or not made[1].is_own("MatMul"):
            return None
        bias = scope.tensor(known[0]) or ""
        scope, node = made
    axis = _output_axis(walk, Found(node, scope))
    if axis is None or len(node.inputs) < 2:
        return None
    weight = scope.tensor(node.inputs[1])
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = scope.tensor(node.inputs[2]) or ""
        if not bias:
            return None
    if weight is None or not _fits(walk.tensors, weight, bias, axis, channels):
        return None
    return StoredFront(split_any(weight)[0] or node.label or weight, weight, bias or None, axis)


def _output_axis(walk: Walk, found: Found) -> int | None:
    """The axis of a weight that is that of its layer's outputs; None where there is none."""
    node = found.node
    if node.is_own("Conv"):
        return 0
    if node.is_own("MatMul"):
        return 1
    if node.is_own("ConvTranspose"):
        return 1 if _number(walk.attributes(found), "group", 1) == 1 else None
    if node.is_own("Gemm"):
        given = walk.attributes(found)
        if _number(given, "alpha", 1) == _number(given, "beta", 1) == 1:
            return 0 if _number(given, "transB", 0) else 1
    return None


def _fits(
    tensors: Mapping[str, TensorRef], weight: str, bias: str, axis: int, channels: int
) -> bool:
    shape = tensors[weight].shape
    fits = len(shape) > 1 and shape[axis] == channels
    return fits and (not bias or tensors[bias].shape == (channels,))
