"""A walk over the nodes of a graph, of the graphs in it, and of the functions that it calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import field, replace

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.light import dataclass
from bncli.loaders.interface import Source
from bncli.loaders.names import quoted
from bncli.loaders.onnx.messages import Attribute, Graph, Model, Node, Place
from bncli.loaders.onnx.outside import Outside
from bncli.loaders.onnx.tensors import Tensors, cast, describe, of_numbers
from bncli.loaders.protobuf import BYTES
from bncli.model import TensorRef

MOST_DEPTH = 32
"""How deep graphs and functions may lie in each other."""
MOST_WALKED = 300_000
"""How many nodes are walked over, those of a function once for each call."""
NAMES_A_NODE = 8
"""Further inputs and outputs of a node count as a node for each so many."""
MOST_LAYERS = 20_000
"""How many BatchNormalization nodes are looked at."""
MOST_STEPS = 16
"""How many nodes that change nothing may stand between two others."""
NORM = "BatchNormalization"
_WITH_GRAPHS = {"If", "Loop", "Scan", "SequenceMap"}


@dataclass(slots=True, eq=False)
class Scope:
    """The names of one graph, or of one call of a function.

    `tensors` has the full name in the file of each tensor by its name here, and `makers` the node
    that gives each other value. What is not here is in `outer`, unless this is a function: that
    knows only its `given`, the names in `outer` of its parameters.
    """

    where: str = ""
    outer: Scope | None = None
    given: dict[str, str] | None = None
    arguments: dict[str, Attribute] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)
    makers: dict[str, Node] = field(default_factory=dict)
    inputs: frozenset[str] = frozenset()
    depth: int = 0

    def home(self, name: str) -> tuple[Scope, str]:
        """The scope in which a value comes to be, and its name there."""
        scope = self
        while name not in scope.tensors and name not in scope.makers and scope.outer is not None:
            if scope.given is not None:
                if name not in scope.given:
                    break
                name = scope.given[name]
            elif name in scope.inputs:
                break
            scope = scope.outer
        return scope, name

    def tensor(self, name: str) -> str | None:
        """The full name of a tensor; None where the value is none of the file's."""
        scope, own = self.home(name)
        return scope.tensors.get(own)

    def maker(self, name: str) -> tuple[Scope, Node] | None:
        """The node that gives a value, other than one that passes it on, and its scope."""
        scope = self
        for _ in range(MOST_STEPS):
            scope, name = scope.home(name)
            node = scope.makers.get(name)
            if node is None or not (node.is_own("Identity") and len(node.inputs) == 1):
                return None if node is None else (scope, node)
            name = node.inputs[0]
        return None


@dataclass(frozen=True, slots=True)
class Found:
    """A BatchNormalization node where it stands."""

    node: Node
    scope: Scope


class Walk:
    """All tensors of a model, its BatchNormalization nodes, and how often it has each operator."""

    def __init__(self, source: Source, model: Model) -> None:
        self.model = model
        self.messages = model.messages
        self.path = source.path
        self.tensors: dict[str, TensorRef] = {}
        self.norms: list[Found] = []
        self.operators: Counter[str] = Counter()
        self.biases: dict[str, str | None] = {}
        self.bare: dict[str, list[str]] = {}
        self.added: set[str] = set()
        self._make = Tensors(self.messages, Outside(source.path))
        self._bodies: dict[tuple[str, str], Graph] = {}
        self._numbers: Counter[str] = Counter()
        self._walked = 0
        self._graph(model.graph, Scope())

    def unknown(self, name: str, like: str, why: str) -> str:
        """Add a tensor of a layer that is not in the file, shaped as `like` is; its full name."""
        full = self._fresh(name)
        other = self.tensors[like]
        self.tensors[full] = TensorRef(
            full, self.path, other.shape, other.dtype, other.strides, None, why
        )
        return full

    def attributes(self, found: Found) -> dict[str, Attribute]:
        """The attributes of a node, those of the function's call in their places."""
        own = self.messages.attributes(found.node)
        given = found.scope.arguments
        passed = {name: given[each.of] for name, each in own.items() if each.of in given}
        return {name: each for name, each in own.items() if not each.of} | passed

    def _graph(self, place: Place, scope: Scope) -> None:
        graph = self.messages.graph(place)
        scope.inputs = frozenset(graph.inputs)
        for at in graph.tensors:
            said = describe(self.messages, at)
            if said.name:  # one without a name is used by no node
                self._add(scope, said.name, self._make.ref(said.name, said, at))
        for at in graph.sparse:
            for part in self.messages.wire.fields(*at):
                if part.number == 1 and part.wire == BYTES:
                    said = describe(self.messages, (part.start, part.stop))
                    if said.name:
                        self._add(scope, said.name, self._make.sparse(said))
        self._nodes(graph, scope)

    def _add(self, scope: Scope, name: str, ref: TensorRef) -> None:
        """A tensor by its name in its graph; in the file it may need the graph's name too."""
        if name in scope.tensors:
            raise CorruptFileError(
                self.path,
                f"its graph gives the name {quoted(name)} to two tensors; export the model again.",
            )
        full = name if name not in self.tensors else self._fresh(f"{scope.where}/{name}")
        scope.tensors[name] = full
        self.tensors[full] = replace(ref, name=full)

    def _fresh(self, name: str) -> str:
        """The name, with a number behind it where there is such a tensor."""
        full = name
        while full in self.tensors:
            self._numbers[name] += 1
            full = f"{name}#{self._numbers[name] + 1}"
        return full

    def _nodes(self, graph: Graph, scope: Scope) -> None:
        for node in graph.nodes:
            self._walked += 1 + (len(node.inputs) + len(node.outputs)) // NAMES_A_NODE
            if self._walked > MOST_WALKED:
                raise UnsupportedFileError(
                    self.path,
                    f"its functions are called for more than {MOST_WALKED} nodes;"
                    " name the checkpoint that it was made from.",
                )
            for output in filter(None, node.outputs):
                scope.makers.setdefault(output, node)
            called = (node.domain, node.op)
            if called in self.model.functions:
                self._call(node, scope)
                continue
            self.operators[node.op] += 1
            if node.domain not in {"", "ai.onnx"}:
                continue
            if node.op == NORM:
                if len(self.norms) == MOST_LAYERS:
                    raise UnsupportedFileError(
                        self.path,
                        f"it has more than {MOST_LAYERS} BatchNormalization nodes;"
                        " name the checkpoint that it was made from.",
                    )
                self.norms.append(Found(node, scope))
            elif node.op in {"Constant", "Identity", "Cast"}:
                self._constant(node, scope)
            elif node.op in {"Add", "Sum"}:
                self.added.update(node.inputs)
            elif node.op in {"Conv", "ConvTranspose", "Gemm"}:
                self._bias(node, scope)
            elif node.op in _WITH_GRAPHS:
                for name, each in self.messages.attributes(node).items():
                    for place in each.graphs:
                        self._graph(place, self._inside(scope, f"{node.label}/{name}"))

    def _bias(self, node: Node, scope: Scope) -> None:
        """Keep which tensor is the bias beside a weight, "" where the node takes none.

        It is None where nodes use several with it, or one whose values are not in the file.
        """
        named = (*node.inputs[1:3], "", "")[:2]
        weight, bias = (scope.tensor(name) or "" for name in named)
        told = None if named[1] and not bias else bias
        if weight and self.biases.setdefault(weight, told) != told:
            self.biases[weight] = None
        if not named[1]:
            self.bare.setdefault(weight, []).extend(node.outputs)

    def told_biases(self) -> dict[str, str]:
        """The bias beside each weight, "" where nothing is added: an Add may follow a node."""
        return {
            weight: bias
            for weight, bias in self.biases.items()
            if bias or (bias == "" and self.added.isdisjoint(self.bare.get(weight, ())))
        }

    def _inside(self, scope: Scope, name: str) -> Scope:
        """The scope of a graph or a call in another."""
        if scope.depth >= MOST_DEPTH:
            raise UnsupportedFileError(
                self.path,
                f"its graphs or functions lie more than {MOST_DEPTH} deep in each other;"
                " name the checkpoint that it was made from.",
            )
        where = f"{scope.where}/{name}" if scope.where else name
        return Scope(where[-200:], scope, depth=scope.depth + 1)

    def _call(self, node: Node, scope: Scope) -> None:
        """Walk over the nodes of a function for one call of it."""
        key = (node.domain, node.op)
        if key not in self._bodies:
            self._bodies[key] = self.messages.function(self.model.functions[key])
        body = self._bodies[key]
        inside = self._inside(scope, node.label)
        inside.given = dict(zip(body.inputs, node.inputs, strict=False))
        inside.arguments = self.attributes(Found(node, scope))
        self._nodes(body, inside)
        for inner, output in zip(body.outputs, node.outputs, strict=False):
            full = inside.tensor(inner)
            if full is not None and output and output not in scope.tensors:
                scope.tensors[output] = full

    def _constant(self, node: Node, scope: Scope) -> None:
        """Add what a Constant node holds, or what an Identity or Cast gives of a tensor."""
        name = next(iter(node.outputs), "")
        if not name or name in scope.tensors:
            return
        if node.op == "Identity":
            full = scope.tensor(node.inputs[0]) if node.inputs else None
            if full is not None:
                self._add(scope, name, self.tensors[full])
            return
        given = self.attributes(Found(node, scope))
        if node.op == "Cast":
            full = scope.tensor(node.inputs[0]) if node.inputs else None
            to = given.get("to")
            if full is not None and to is not None and isinstance(to.number, int):
                ref = cast(self.tensors[full], to.number)
                if ref is not None:
                    self._add(scope, name, ref)
            return
        for kind, value in given.items():
            if kind == "value" and value.tensor is not None:
                said = describe(self.messages, value.tensor)
                self._add(scope, name, self._make.ref(name, said, value.tensor))
            elif kind == "value_float" and value.number is not None:
                self._add(scope, name, of_numbers(self.path, (value.number,), scalar=True))
            elif kind == "value_floats" and value.numbers is not None:
                self._add(scope, name, of_numbers(self.path, value.numbers, scalar=False))
            else:
                continue
            return
