"""The graph of a torch.export program: which tensors its batch_norm nodes take, with what eps.

A node has its arguments by the names of the operator's schema, and the inputs of the graph that
are parameters, buffers or constants have the names of these in the graph's signature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from bncli.light import dataclass
from bncli.loaders.names import Text
from bncli.loaders.torch_nodes import (
    Node,
    inputs_of,
    listed,
    nodes_of,
    operands_of,
    signature_of,
    table,
    tensor_name,
)
from bncli.model import BatchNormModule, StoredFront, StoredLayer, TensorRef

NORMS = {
    "batch_norm", "_batch_norm_impl_index", "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional", "_native_batch_norm_legit_no_training",
    "native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_with_update",
    "_batch_norm_with_update_functional", "_batch_norm_no_update",
}  # fmt: skip
"""The operators of PyTorch that are a BatchNorm."""
INSTANCE_NORMS = {"instance_norm", "cudnn_instance_norm"}
INSTANCE_NORM = "its graph runs it as an InstanceNorm"
ALWAYS = {"_batch_norm_with_update": True, "_batch_norm_with_update_functional": True}
NEVER = {"_native_batch_norm_legit_no_training": False, "_batch_norm_no_update": False}
"""Operators whose name says whether they normalise with the batch, as no argument does."""
EPS = ("eps", "epsilon")
MOMENTUM = ("momentum", "exponential_average_factor")
SAME = {
    "detach", "detach_", "alias", "clone", "contiguous", "lift_fresh_copy", "to", "_to_copy",
    "lift_fresh", "view_as",
}  # fmt: skip
"""Operators that give their first argument as it is, perhaps in another dtype."""
TURNED = {"permute", "t", "transpose", "numpy_T"}
"""Operators that turn the weight of a linear layer over."""
CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution", "_convolution"}
TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
VECTORS = ("running_mean", "running_var", "weight", "bias")
COUNTER = "num_batches_tracked"
MOST_GRAPHS = 10_000
"""How many branches and bodies of loops a program may have."""


@dataclass(slots=True)
class _Names:
    """What the values of one graph are, by their names there.

    `tensors` has the full names of the tensors; `makers` the node that made each other value.
    """

    tensors: dict[str, str] = field(default_factory=dict)
    makers: dict[str, Node] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Found:
    """What `TensorFile` has of a program's layers.

    `unknown` are tensors of layers that the program computes.
    """

    modules: dict[str, BatchNormModule] = field(default_factory=dict)
    layers: dict[str, StoredLayer] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, TensorRef] = field(default_factory=dict)
    without_layers: str = ""


def layers_of(program: Any, tensors: Mapping[str, TensorRef]) -> Found:
    """The BatchNorm layers of a program by name: their modules, and their tensors.

    What is not as the schema has it is left out. Raises UnsupportedFileError where the layers'
    names are far too long.
    """
    return _Search(tensors).found(program)


class _Search:
    """The layers of one program."""

    def __init__(self, tensors: Mapping[str, TensorRef]) -> None:
        self.tensors = tensors
        self.first: dict[tuple[object, ...], str] = {}
        for full, ref in tensors.items():
            if ref.place is not None:
                self.first.setdefault((_leaf(full), ref.place), full)
        self.result = Found()
        self.modules, self.layers = self.result.modules, self.result.layers
        self.owners: dict[tuple[str, ...], str] = {}
        self.text = Text(next((ref.path for ref in tensors.values()), Path()))
        self.convolutions = 0
        self.norms = 0

    def found(self, program: Any) -> Found:
        """What `layers_of` gives."""
        module = table(program).get("graph_module")
        graph = table(module).get("graph")
        names = dict(signature_of(table(module).get("signature")))
        waiting: list[tuple[Any, dict[str, str]]] = [(graph, names)]
        for _ in range(MOST_GRAPHS):
            if not waiting:
                break
            graph, names = waiting.pop()
            waiting += self._read(graph, _Names(names))
        self._drop_shared_fronts()
        self._name_twins()
        has_buffers = any(name.endswith("running_mean") for name in self.tensors)
        if self.convolutions and not self.norms and not has_buffers:
            self.result.without_layers = (
                "its graph has convolutions and no batch_norm (there was none, or it was folded"
                " into the convolutions before the export)"
            )
        return self.result

    def _read(self, graph: Any, names: _Names) -> Iterator[tuple[Any, dict[str, str]]]:
        """Follow the nodes of a graph in order; the graphs inside, with the tensors they get."""
        nodes = list(nodes_of(graph))
        for node in nodes:
            names.uses.update(inputs_of(node.args))
        for node in nodes:
            for output in node.outputs:
                names.makers[output] = node
            first = names.tensors.get(next(inputs_of(node.args), ""))
            if node.operator in SAME and first is not None and node.outputs:
                names.tensors[node.outputs[0]] = first
            elif node.operator in NORMS:
                self.norms += 1
                self._add(node, names)
            elif node.operator in INSTANCE_NORMS:
                self._skip(node, names, INSTANCE_NORM)
            self.convolutions += node.operator in CONVOLUTIONS
            yield from _inside(node, names)

    def _add(self, node: Node, names: _Names) -> None:
        """Add the layer that a node is, if the program has tensors of it."""
        values = {leaf: node.tensor(leaf) for leaf in VECTORS}
        maker = names.makers.get(values["running_mean"])
        if maker is not None and maker.operator == "repeat":  # once for each sample
            self._skip(node, names, INSTANCE_NORM)
            return
        full = {leaf: names.tensors.get(value, "") for leaf, value in values.items()}
        full = {leaf: self._first(name) for leaf, name in full.items() if name in self.tensors}
        # What training makes of the statistics is what the next use of the layer takes.
        for leaf, output in zip(VECTORS[:2], node.outputs[3:5], strict=False):
            if leaf in full:
                names.tensors[output] = full[leaf]
        if not full or tuple(full.values()) in self.owners:
            return
        given = {leaf: value for leaf, value in values.items() if value and leaf not in full}
        for leaf in VECTORS[:2]:
            if leaf in given:
                self._skip(node, names, f"its {leaf} {_origin(given[leaf], names)}")
                return
        name = self._name(node, full)
        counter = f"{name}.{COUNTER}" if name else COUNTER
        if counter in self.tensors:
            full[COUNTER] = counter
        self.text.take(name, 2)
        self.owners[tuple(full[leaf] for leaf in VECTORS if leaf in full)] = name
        self.modules[name] = _module(node, values)
        front = self._front(node, names, full)
        like = self.tensors[next(iter(full.values()))]
        for leaf, value in given.items():
            unknown = f"{name}.{leaf} ({value})"
            self.text.take(unknown)
            full[leaf] = unknown
            self.result.unknown[unknown] = replace(
                like, name=unknown, storage=None, unreadable=f"it {_origin(value, names)}"
            )
        self.layers[name] = StoredLayer(full, front)

    def _skip(self, node: Node, names: _Names, why: str) -> None:
        """Leave out a node with statistics, so that its tensors' names do not make it a layer."""
        full = {}
        for leaf in VECTORS:
            value = node.tensor(leaf)
            maker = names.makers.get(value)
            source = next(inputs_of(maker.args), "") if maker is not None else value
            name = names.tensors.get(value, names.tensors.get(source, ""))
            if name in self.tensors:
                full[leaf] = self._first(name)
        if node.tensor("running_mean"):
            name = self._name(node, full) if full else node.label
            self.result.skipped[name] = why
            self.layers[name] = StoredLayer(full)

    def _first(self, full: str) -> str:
        """The first of the names that modules which share a tensor give it."""
        place = self.tensors[full].place
        return full if place is None else self.first[_leaf(full), place]

    def _name(self, node: Node, full: Mapping[str, str]) -> str:
        """The layer's name: where its tensors are, if they have PyTorch's names; else the node's.

        The node's name stands behind the module in which the first tensor is.
        """
        parents = {name.removesuffix(leaf) for leaf, name in full.items() if _ends(name, leaf)}
        named = len(parents) == 1 and all(_ends(name, leaf) for leaf, name in full.items())
        if named and (parent := parents.pop().removesuffix(".")) not in self.layers:
            return parent
        module = next(iter(full.values())).rpartition(".")[0]
        name = f"{module}.{node.label}" if module else node.label
        return name if name not in self.layers else f"{name} ({len(self.layers)})"

    def _front(self, node: Node, names: _Names, full: Mapping[str, str]) -> StoredFront | None:
        """The convolution or linear layer whose output goes to the node and nowhere else."""
        value = node.tensor("input")
        maker = names.makers.get(value)
        if maker is None or names.uses[value] != 1:
            return None
        axis, bias = 0, maker.tensor("bias")
        if maker.operator in TRANSPOSED or maker.flag("transposed"):
            weight, axis = maker.tensor("weight"), 1
        elif maker.operator in CONVOLUTIONS or maker.operator == "linear":
            weight = maker.tensor("weight")
        elif maker.operator in {"mm", "addmm"}:
            turned = names.makers.get(maker.tensor("mat2"))
            weight = turned.tensor("self") if turned and turned.operator in TURNED else ""
            bias = maker.tensor("self") if maker.operator == "addmm" else ""
        else:
            return None
        ref = self.tensors.get(names.tensors.get(weight, ""))
        of_bias = names.tensors.get(bias)
        channels = self.tensors[next(iter(full.values()))].numel
        if ref is None or ref.ndim < 2 or ref.shape[axis] != channels:
            return None
        if bias and of_bias not in self.tensors:
            return None
        return StoredFront(ref.name.rpartition(".")[0], ref.name, of_bias, axis)

    def _drop_shared_fronts(self) -> None:
        """Leave out what would be in front of two layers."""
        claimed = Counter(each.front.weight for each in self.layers.values() if each.front)
        for name, each in self.layers.items():
            if each.front is not None and claimed[each.front.weight] > 1:
                self.layers[name] = StoredLayer(each.tensors)

    def _name_twins(self) -> None:
        """Say of each other name of a layer's tensors, which two modules share, what it is."""
        for full in self.tensors:
            parent, _, leaf = full.rpartition(".")
            owner = self._first(full).rpartition(".")[0]
            if leaf in VECTORS and parent not in self.layers and owner in self.layers:
                self.modules.setdefault(parent, self.modules[owner])


def _origin(value: str, names: _Names) -> str:
    """Where a value comes from that is not a tensor of the program."""
    maker = names.makers.get(value)
    if maker is None:
        return "is not a parameter or buffer whose values can be read"
    return f"is computed by {maker.operator} when the program runs"


def _module(node: Node, values: Mapping[str, str]) -> BatchNormModule:
    """What the arguments of a node say of its module.

    A momentum of 0 in evaluation may be what stands there for None, the cumulative average.
    """
    training = {**ALWAYS, **NEVER}.get(node.operator, node.flag("training"))
    momentum = node.number(MOMENTUM)
    if momentum == 0 and not training:
        momentum = None
    tracks = bool(values["running_mean"])
    return BatchNormModule(
        node.class_name,
        eps=node.number(EPS),
        momentum=momentum,
        affine=bool(values["weight"] or values["bias"]),
        track_running_stats=tracks,
        training=training if tracks else None,
        has_momentum=momentum is not None,
        channel_axis=1,
    )


def _inside(node: Node, names: _Names) -> Iterator[tuple[Any, dict[str, str]]]:
    """The graphs that a node runs: branches, bodies; each with the tensors that it is given."""
    said = [table(table(arg).get("as_graph")) for arg in node.args.values()]
    graphs = [table(each.get("graph")) for each in said if each]
    if not graphs:
        return
    operands: list[str] = []
    for arg in node.args.values():
        if isinstance(arg, dict) and "as_graph" in arg:
            operands = []  # the predicate stands before
        else:
            operands += operands_of(arg)
    for graph in graphs:
        inputs = [tensor_name(each) for each in listed(graph.get("inputs"))]
        given = zip(inputs, operands, strict=False) if len(inputs) == len(operands) else ()
        yield (
            graph,
            {inner: names.tensors[outer] for inner, outer in given if outer in names.tensors},
        )


def _leaf(full: str) -> str:
    return full.rpartition(".")[2]


def _ends(name: str, leaf: str) -> bool:
    return name == leaf or name.endswith(f".{leaf}")
