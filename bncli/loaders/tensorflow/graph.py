"""TensorFlow's graphs, as far as they tell of BatchNorm: nodes, functions, and what these capture.

A MetaGraphDef has a graph (field 2) with a library of functions, and since TensorFlow 2 a tree of
saved objects (field 7), which says which variables each function captures. Nothing of it is run.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import NamedTuple

from bncli.light import dataclass
from bncli.loaders.interface import Source
from bncli.loaders.protobuf import BYTES, FIXED32, VARINT, Field, Wire, shortest

MOST_FIELDS = 2_000_000
"""How many fields of a graph are looked at: those of some 150 thousand operations."""
META_GRAPH, GRAPH, OBJECTS = 2, 2, 7
"""The fields of a SavedModel's graphs, of a MetaGraphDef's graph, and of its saved objects."""
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
CHOICES = ("If", "StatelessIf")
VARIABLES = ("VarHandleOp", "Variable", "VariableV2")
FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_TOLD = frozenset((*CALLS, *CHOICES, *VARIABLES, *FUSED, "Const"))
"""The operations whose attributes are read."""
_TEXT, _INT, _FLOAT, _BOOL, _TENSOR, _FUNCTION = 2, 3, 4, 5, 8, 10
"""The fields of an AttrValue."""
_SCALARS = {1: "<f", 2: "<d"}
"""The formats of TensorFlow's float32 and float64."""


class Node(NamedTuple):
    """An operation, the names of its inputs, and its attributes as far as they matter."""

    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, float | str | None]


@dataclass(slots=True)
class Graph:
    """A graph or a function: nodes by name, and a function's arguments by their places."""

    nodes: dict[str, Node] = field(default_factory=dict)
    arguments: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Program:
    """A graph with its functions, and the variables that functions capture as their last inputs."""

    path: Path
    main: Graph = field(default_factory=Graph)
    functions: dict[str, Graph] = field(default_factory=dict)
    captured: dict[str, tuple[str, ...]] = field(default_factory=dict)


def program_of(source: Source, *, saved_model: bool) -> Program:
    """The program in a SavedModel's file, or in that of one MetaGraphDef.

    Raises CorruptFileError, and UnsupportedFileError where there is far too much of it.
    """
    reader = _Reader(Wire(source, MOST_FIELDS))
    program = Program(source.path)
    graphs = [Field(0, BYTES, 0, source.start, source.size)]
    if saved_model:
        graphs = list(reader.inside(graphs[0], META_GRAPH))
    for meta in graphs:
        for graph in reader.inside(meta, GRAPH):
            reader.add_graph(program, graph)
        for objects in reader.inside(meta, OBJECTS):
            program.captured |= reader.captured(objects)
    return program


class _Reader:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def inside(self, message: Field, *numbers: int) -> Iterator[Field]:
        """The fields of bytes with these numbers in a message."""
        for each in self.wire.fields(message.start, message.stop):
            if each.wire == BYTES and each.number in numbers:
                yield each

    def add_graph(self, program: Program, graph: Field) -> None:
        """A GraphDef: nodes (1) and a library (2), whose functions are field 1."""
        for each in self.inside(graph, 1, 2):
            if each.number == 1:
                self.add_node(program.main, each)
                continue
            for function in self.inside(each, 1):
                self.add_function(program, function)

    def add_function(self, program: Program, function: Field) -> None:
        """A FunctionDef: its signature (1) with its name and arguments, and its nodes (3)."""
        name, made = "", Graph()
        for each in self.inside(function, 1, 3):
            if each.number == 3:
                self.add_node(made, each)
                continue
            for part in self.inside(each, 1, 2):
                if part.number == 1:
                    name = self.wire.text(part)
                else:
                    argument = next((self.wire.text(text) for text in self.inside(part, 1)), "")
                    made.arguments[argument] = len(made.arguments)
        program.functions[name] = made

    def add_node(self, graph: Graph, node: Field) -> None:
        """A NodeDef: name (1), operation (2), inputs (3), attributes (5)."""
        name, op = "", ""
        inputs: list[str] = []
        attributes: dict[str, float | str | None] = {}
        for each in self.inside(node, 1, 2, 3, 5):
            if each.number == 1:
                name = self.wire.text(each)
            elif each.number == 2:
                op = self.wire.text(each)
            elif each.number == 3:
                inputs.append(self.wire.text(each))
            elif op in _TOLD:
                key, value = self.attribute(each)
                attributes[key] = value
        graph.nodes[name] = Node(op, tuple(inputs), attributes)

    def attribute(self, entry: Field) -> tuple[str, float | str | None]:
        """The name and the value of an attribute; None for a value that does not matter."""
        key, value = "", None
        for each in self.inside(entry, 1, 2):
            if each.number == 1:
                key = self.wire.text(each)
            else:
                value = self.value(each)
        return key, value

    def value(self, message: Field) -> float | str | None:
        for each in self.wire.fields(message.start, message.stop):
            if each.number == _TEXT and each.wire == BYTES:
                return self.wire.bytes(each.start, min(each.stop, each.start + 1024)).decode(
                    "utf-8", "replace"
                )
            if each.number in (_INT, _BOOL) and each.wire == VARINT:
                return each.value
            if each.number == _FLOAT and each.wire == FIXED32:
                return _float(self.wire.bytes(each.start, each.stop), "<f")
            if each.number == _TENSOR and each.wire == BYTES:
                return self.scalar(each)
            if each.number == _FUNCTION and each.wire == BYTES:
                return next((self.wire.text(name) for name in self.inside(each, 1)), None)
        return None

    def scalar(self, tensor: Field) -> float | None:
        """The value of a TensorProto of one float: its bytes (4), or a list of them (5, 6)."""
        dtype, data = 0, b""
        for each in self.wire.fields(tensor.start, tensor.stop):
            if each.number == 1:
                dtype = each.value
            elif each.number in (4, 5, 6) and each.stop - each.start <= 8:
                data = self.wire.bytes(each.start, each.stop)
        form = _SCALARS.get(dtype)
        return None if form is None or len(data) != struct.calcsize(form) else _float(data, form)

    def captured(self, objects: Field) -> dict[str, tuple[str, ...]]:
        """A SavedObjectGraph: the objects (1), and by name (2) what functions capture of them.

        A variable's name is field 6 of field 7 of an object; "" for another object.
        """
        names: list[str] = []
        captured: dict[str, list[int]] = {}
        for each in self.inside(objects, 1, 2):
            if each.number == 1:
                names.append(
                    next(
                        (
                            self.wire.text(name)
                            for variable in self.inside(each, 7)
                            for name in self.inside(variable, 6)
                        ),
                        "",
                    )
                )
                continue
            function, bound = "", []
            for part in self.inside(each, 1, 2):
                if part.number == 1:
                    function = self.wire.text(part)
                    continue
                for number in self.wire.fields(part.start, part.stop):
                    if number.number == 2:
                        bound += self.wire.varints(number)
            captured[function] = bound
        return {
            function: tuple(names[at] if at < len(names) else "" for at in bound)
            for function, bound in captured.items()
        }


def _float(data: bytes, form: str) -> float:
    """The shortest decimal that is this number in its own precision: what was typed."""
    (value,) = struct.unpack(form, data)
    return shortest(data) if form == "<f" else float(value)
