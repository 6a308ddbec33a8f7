"""The BatchNorm layers that a graph computes: their eps, their variables, and what is in front.

An operation FusedBatchNorm has them as inputs and attributes. Elsewhere 1/sqrt(variance + eps) is
computed by single operations. Functions are looked into once each, with their arguments as
placeholders, which every call fills.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

from bncli.errors import UnsupportedFileError
from bncli.loaders.tensorflow.graph import CALLS, CHOICES, FUSED, VARIABLES, Graph, Node, Program

LONGEST_WAY = 64
"""Operations that are gone through between a variable and what uses it; a graph may have cycles."""
DEEPEST = 50
"""Calls of functions inside of each other."""
MOST_NORMS = 50_000
MOST_STEPS = 2_000_000
"""Steps from an operation to another, of all ways together; a norm takes some 20."""
DEFAULT_EPS = 1e-4
"""That of the operation FusedBatchNorm, where its node does not say it."""
CONVOLUTIONS = (
    "Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2",
    "MatMul",
)  # fmt: skip
_READS = ("Identity", "ReadVariableOp", "Switch", "RefSwitch", "Enter", "Squeeze", "Reshape",
          "ExpandDims", "StopGradient", "Cast", "Merge")  # fmt: skip
_USERS = ("Mul", "Sub", "Cast", "Reshape", "Identity")
"""The operations of a normalisation that uses what another one gives."""
MOST_USERS = 50
"""How many of what uses one value are looked at."""
_BETWEEN = ("Identity", "Switch", "Squeeze", "ExpandDims", "Reshape", "BatchToSpaceND")


class Place(NamedTuple):
    """A variable by its name, or an argument of a function by its number."""

    variable: str
    argument: int = -1


class Norm(NamedTuple):
    """One use of BatchNorm, and the places of its tensors as far as they show.

    `new_weight` is the weight of the new batch, `channel_axis` that of the input.
    """

    op: str
    eps: float
    new_weight: float | None = None
    channel_axis: int | None = None
    weight: Place | None = None
    bias: Place | None = None
    running_mean: Place | None = None
    running_var: Place | None = None
    kernel: Place | None = None
    kernel_bias: Place | None = None
    front: str = ""


class Update(NamedTuple):
    """An update of a running average, whose new value has this weight."""

    average: Place | None
    new_weight: float


def found_in(program: Program) -> tuple[list[Norm], dict[str, set[float]]]:
    """The uses of BatchNorm, all with variables, and the weights with which averages are updated.

    Raises UnsupportedFileError where there are far too many.
    """
    search = _Search(program)
    found = dict.fromkeys(search.uses(program.main, 0))
    for name, variables in program.captured.items():
        function = program.functions.get(name)
        if function is None:
            continue
        first = len(function.arguments) - len(variables)
        filled = {first + at: Place(variable) for at, variable in enumerate(variables) if variable}
        found |= dict.fromkeys(_filled(search.uses_of(name, 0), filled))
    norms: list[Norm] = []
    updates: dict[str, set[float]] = {}
    for use in found:
        if isinstance(use, Norm):
            norms.append(use)
        elif use.average is not None and use.average.variable:
            updates.setdefault(use.average.variable, set()).add(use.new_weight)
    return norms, updates


def _filled(uses: Iterable[Norm | Update], places: dict[int, Place]) -> Iterator[Norm | Update]:
    """The same, with these places for the arguments; others are not known."""
    for use in uses:
        new: dict[str, Any] = {
            name: places.get(place.argument)
            for name, place in zip(use._fields, use, strict=True)
            if isinstance(place, Place) and not place.variable
        }
        yield use._replace(**new)


class _Search:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._known: dict[str, tuple[Norm | Update, ...]] = {}
        self._left = MOST_NORMS
        self._steps = MOST_STEPS

    def step(self) -> None:
        """Count a step of a way through a graph. Raises UnsupportedFileError after far too many."""
        self._steps -= 1
        if self._steps < 0:
            raise UnsupportedFileError(
                self._program.path, f"its graph takes more than {MOST_STEPS} steps to follow."
            )

    def uses_of(self, name: str, depth: int) -> tuple[Norm | Update, ...]:
        """What a function uses, which is looked at once."""
        if name not in self._known:
            self._known[name] = ()  # for a function that calls itself
            function = self._program.functions.get(name)
            if function is not None and depth < DEEPEST:
                self._known[name] = tuple(dict.fromkeys(self.uses(function, depth)))
        return self._known[name]

    def uses(self, graph: Graph, depth: int) -> Iterator[Norm | Update]:
        """What a graph and the functions that it calls use."""
        for use in self._all_uses(_View(graph, self), depth):
            self._left -= 1
            if self._left < 0:
                raise UnsupportedFileError(
                    self._program.path, f"its graph uses BatchNorm more than {MOST_NORMS} times."
                )
            yield use

    def _all_uses(self, view: _View, depth: int) -> Iterator[Norm | Update]:
        for name, node in view.graph.nodes.items():
            if node.op in FUSED:
                yield view.fused(node)
            elif node.op == "Rsqrt":
                yield from view.unfused(name, node)
            elif node.op in ("AssignSub", "AssignSubVariableOp"):
                yield from view.updated(node)
            elif node.op in CALLS or node.op in CHOICES or node.op in self._program.functions:
                inputs = node.inputs[node.op in CHOICES :]
                for called in _called(node):
                    uses = self.uses_of(called, depth + 1)
                    if uses:
                        places = {at: view.place(given) for at, given in enumerate(inputs)}
                        known = {at: place for at, place in places.items() if place is not None}
                        yield from _filled(uses, known)


def _called(node: Node) -> list[str]:
    if node.op in CALLS:
        names = [node.attributes.get("f")]
    elif node.op in CHOICES:
        names = [node.attributes.get("then_branch"), node.attributes.get("else_branch")]
    else:
        names = [node.op]
    return [name for name in names if isinstance(name, str)]


class _View:
    """A graph, and ways through it from inputs to what gives them."""

    def __init__(self, graph: Graph, search: _Search) -> None:
        self.graph = graph
        self._search = search

    @cached_property
    def users(self) -> dict[str, list[tuple[str, Node]]]:
        """The operations that use what each one gives, with their names."""
        found: dict[str, list[tuple[str, Node]]] = {}
        for name, node in self.graph.nodes.items():
            if node.op in _USERS:
                for given in dict.fromkeys(given.partition(":")[0] for given in node.inputs):
                    found.setdefault(given, []).append((name, node))
        return found

    def node(self, name: str) -> Node | None:
        """The node that gives an input: "name", "name:0" or, in functions, "name:output:0"."""
        self._search.step()
        return self.graph.nodes.get(name.partition(":")[0])

    def place(self, name: str) -> Place | None:
        """The variable or the argument that an input is, maybe read or reshaped."""
        for _ in range(LONGEST_WAY):
            own = name.partition(":")[0]
            if own in self.graph.arguments:
                return Place("", self.graph.arguments[own])
            node = self.node(own)
            if node is None:
                return None
            if node.op in VARIABLES:
                shared = node.attributes.get("shared_name")
                return Place(shared if isinstance(shared, str) and shared else own)
            if node.op not in _READS or not node.inputs:
                return None
            name = node.inputs[0]
        return None

    def number(self, name: str, steps: int = LONGEST_WAY) -> float | None:
        """The one number that an input is: a constant, 1 - x, or one of two of which one is 1."""
        node = self.node(name)
        if node is None or steps <= 0:
            return None
        if node.op == "Const":
            value = node.attributes.get("value")
            return value if isinstance(value, float) else None
        if node.op == "Merge":
            values = {self.number(each, steps // 2) for each in node.inputs[:4]} - {None, 1.0}
            return values.pop() if len(values) == 1 else None
        if node.op == "Sub" and len(node.inputs) >= 2 and self.number(node.inputs[0], 1) == 1:
            value = self.number(node.inputs[1], steps // 2)
            return None if value is None else round(1 - value, 9)
        if node.op in _READS and node.inputs:
            return self.number(node.inputs[0], steps - 1)
        return None

    def fused(self, node: Node) -> Norm:
        """A FusedBatchNorm: x, scale, offset, mean and variance; the last two may be unused."""
        attributes, inputs = node.attributes, node.inputs
        eps = attributes.get("epsilon", DEFAULT_EPS)
        factor = attributes.get("exponential_avg_factor", 1.0)
        layout = str(attributes.get("data_format", "NHWC"))
        weight, bias, mean, var = (
            self.place(inputs[at]) if at < len(inputs) else None for at in range(1, 5)
        )
        training = bool(attributes.get("is_training", 1))
        told = training and isinstance(factor, float) and 0 < factor < 1
        kernel, kernel_bias, front = self.before(inputs[0]) if inputs else (None, None, "")
        return Norm(
            node.op,
            eps if isinstance(eps, float) else DEFAULT_EPS,
            float(factor) if told and isinstance(factor, float) else None,
            layout.index("C") if "C" in layout else None,
            weight, bias, mean, var, kernel, kernel_bias, front,
        )  # fmt: skip

    def unfused(self, name: str, node: Node) -> Iterator[Norm]:
        """What tf.nn.batch_normalization computes: x * inverse + (bias - mean * inverse).

        The inverse is weight/sqrt(variance + eps), or without the weight; without the bias, the
        negative mean is multiplied.
        """
        added = self.node(node.inputs[0]) if node.inputs else None
        if added is None or added.op not in ("Add", "AddV2") or len(added.inputs) < 2:
            return
        for one, other in (added.inputs[:2], added.inputs[1::-1]):
            eps, variance = self.number(other), self.place(one)
            if eps is not None and variance is not None and 0 < eps < 1:
                yield self._around(name, Norm(node.op, eps, running_var=variance))

    def _around(self, inverse: str, norm: Norm) -> Norm:
        """The same with the weight, the bias, the mean, and what is in front, if it shows."""
        products = list(self._products(inverse))
        for name, factor in products:
            if list(self._products(name)) and self.place(factor) is not None:
                norm = norm._replace(weight=self.place(factor))
                products = list(self._products(name))
                break
        for name, factor in products:
            negative = self.node(factor)
            less = next((node for _, node in self._uses(name) if node.op == "Sub"), None)
            if less is not None:
                bias = self.place(less.inputs[0])
                norm = norm._replace(running_mean=self.place(factor), bias=bias)
            elif negative is not None and negative.op == "Neg" and negative.inputs:
                norm = norm._replace(running_mean=self.place(negative.inputs[0]))
            else:
                kernel, kernel_bias, front = self.before(factor)
                norm = norm._replace(kernel=kernel, kernel_bias=kernel_bias, front=front)
        return norm

    def _products(self, name: str) -> Iterator[tuple[str, str]]:
        """The products in which a value is, by name, each with its other factor."""
        for product, node in self._uses(name):
            if node.op == "Mul" and len(node.inputs) == 2:
                one, other = node.inputs
                yield product, one if self._gives(other, name) else other

    def _uses(
        self, name: str, steps: int = 4, seen: set[str] | None = None
    ) -> Iterator[tuple[str, Node]]:
        """What uses a value, maybe of another dtype or shape; each once, if some use each other."""
        seen = {name} if seen is None else seen
        for user, node in self.users.get(name, ())[:MOST_USERS]:
            self._search.step()
            if user in seen:
                continue
            seen.add(user)
            if node.op in ("Cast", "Reshape", "Identity") and steps:
                yield from self._uses(user, steps - 1, seen)
            else:
                yield user, node

    def _gives(self, given: str, name: str) -> bool:
        """Whether an input is this value, maybe of another dtype or shape."""
        for _ in range(6):
            own = given.partition(":")[0]
            if own == name:
                return True
            node = self.node(own)
            if node is None or node.op not in ("Cast", "Reshape", "Identity") or not node.inputs:
                return False
            given = node.inputs[0]
        return False

    def updated(self, node: Node) -> Iterator[Update]:
        """average -= (average - value) * weight."""
        if len(node.inputs) < 2:
            return
        product = self.node(node.inputs[1])
        average = self.place(node.inputs[0])
        if product is None or product.op != "Mul" or average is None:
            return
        for name in product.inputs[:2]:
            weight = self.number(name)
            if weight is not None and 0 < weight < 1:
                yield Update(average, weight)

    def before(self, name: str) -> tuple[Place | None, Place | None, str]:
        """The weight and the bias of the convolution that gives an input, and its operation."""
        bias: Place | None = None
        for _ in range(LONGEST_WAY):
            node = self.node(name)
            if node is None or not node.inputs:
                break
            if node.op in CONVOLUTIONS and len(node.inputs) > 1:
                return self.place(node.inputs[1]), bias, node.op
            if node.op == "BiasAdd" and bias is None and len(node.inputs) > 1:
                bias = self.place(node.inputs[1])
                if bias is None:
                    break
            elif node.op not in _BETWEEN:
                break
            name = node.inputs[0]
        return None, None, ""
