"""The messages of an ONNX file of which something is needed: model, graph, node, attribute."""

from __future__ import annotations

import struct
from dataclasses import field
from typing import NamedTuple

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.light import dataclass
from bncli.loaders.interface import Source
from bncli.loaders.protobuf import BYTES, FIXED32, VARINT, Field, Wire, shortest, signed

MOST_NODES = 200_000
"""How many nodes, and how many tensors, are looked at; networks have thousands."""
MOST_ATTRIBUTES = 500_000
"""How many arguments of nodes are kept, by where they lie."""
MOST_TEXT = 1 << 25
"""How many bytes of names are kept."""
MOST_NUMBERS = 1 << 20
"""How many numbers are kept that are arguments of nodes."""
_WITH_OPSETS = 3
"""The version of the format since which a model says of which version its operators are."""

Place = tuple[int, int]
"""Where a message begins and ends in the file."""


class Node(NamedTuple):
    """One operation. `attributes` are where they lie in the file."""

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[Place, ...]

    @property
    def label(self) -> str:
        """Its name, else that of its first output."""
        return self.name or next(filter(None, self.outputs), "")

    def is_own(self, op: str) -> bool:
        """Whether it is an operator of this name of ONNX itself."""
        return self.op == op and self.domain in {"", "ai.onnx"}


class Attribute(NamedTuple):
    """One argument of a node, in the fields that are read; `of` is that of a function it passes."""

    number: int | float | None = None
    numbers: tuple[float, ...] | None = None
    tensor: Place | None = None
    graphs: tuple[Place, ...] = ()
    of: str = ""


@dataclass(slots=True)
class Graph:
    """A graph, or the body of a function: its nodes, where its tensors lie, names of its inputs."""

    nodes: list[Node] = field(default_factory=list)
    tensors: list[Place] = field(default_factory=list)
    sparse: list[Place] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Model:
    """A model: its graph, the versions of its operators by domain, its functions."""

    messages: Messages
    graph: Place = (0, 0)
    opsets: dict[str, int] = field(default_factory=dict)
    functions: dict[tuple[str, str], Place] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators; the first where none is said."""
        return self.opsets.get("", self.opsets.get("ai.onnx", 1))


class Messages:
    """The reader of one file; raises CorruptFileError, and UnsupportedFileError for too many."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.wire = Wire(source)
        self._names: dict[str, str] = {}
        self._text = self._nodes = self._numbers = self._attributes = 0

    def text(self, field: Field) -> str:
        """A name, which is kept once."""
        text = self.wire.text(field)
        kept = self._names.setdefault(text, text)
        if kept is text:
            self._text += len(text)
            if self._text > MOST_TEXT:
                raise UnsupportedFileError(
                    self.source.path,
                    f"its names take more than {MOST_TEXT >> 20} MB;"
                    " name the checkpoint that it was made from.",
                )
        return kept

    def count(self) -> None:
        """Count one more node or tensor."""
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise UnsupportedFileError(
                self.source.path,
                f"it has more than {MOST_NODES} nodes and tensors;"
                " name the checkpoint that it was made from.",
            )

    def graph(self, place: Place) -> Graph:
        """A GraphProto."""
        graph = Graph()
        for part in self.wire.fields(*place):
            if part.wire != BYTES:
                continue
            if part.number == 1:
                graph.nodes.append(self._node((part.start, part.stop)))
            elif part.number in {5, 15}:
                self.count()
                kind = graph.tensors if part.number == 5 else graph.sparse
                kind.append((part.start, part.stop))
            elif part.number == 11:
                self.count()
                for named in self.wire.fields(part.start, part.stop):
                    if named.number == 1:
                        graph.inputs.append(self.text(named))
        return graph

    def function(self, place: Place) -> Graph:
        """A FunctionProto, whose inputs and outputs are names."""
        graph = Graph()
        for part in self.wire.fields(*place):
            if part.wire == BYTES and part.number == 7:
                graph.nodes.append(self._node((part.start, part.stop)))
            elif part.number in {4, 5}:
                self.count()
                (graph.inputs if part.number == 4 else graph.outputs).append(self.text(part))
        return graph

    def _node(self, place: Place) -> Node:
        self.count()
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: list[Place] = []
        texts = {3: "", 4: "", 7: ""}
        for part in self.wire.fields(*place):
            if part.number == 1:
                inputs.append(self.text(part))
            elif part.number == 2:
                outputs.append(self.text(part))
            elif part.number == 5:
                self._attributes += 1
                if self._attributes > MOST_ATTRIBUTES:
                    raise UnsupportedFileError(
                        self.source.path,
                        f"its nodes have more than {MOST_ATTRIBUTES} attributes;"
                        " name the checkpoint that it was made from.",
                    )
                attributes.append((part.start, part.stop))
            elif part.number in texts:
                texts[part.number] = self.text(part)
        name, op, domain = texts.values()
        return Node(op, domain, name, tuple(inputs), tuple(outputs), tuple(attributes))

    def attributes(self, node: Node) -> dict[str, Attribute]:
        """The attributes of a node by name."""
        return dict(map(self._attribute, node.attributes))

    def _attribute(self, place: Place) -> tuple[str, Attribute]:
        name = of = ""
        number: int | float | None = None
        numbers: list[float] = []
        tensor: Place | None = None
        graphs: list[Place] = []
        kind = 0
        for part in self.wire.fields(*place):
            where = part.start, part.stop
            if part.number == 1:
                name = self.text(part)
            elif part.number == 2 and part.wire == FIXED32:
                number = shortest(self.wire.bytes(*where))
            elif part.number == 3 and part.wire == VARINT:
                number = signed(part.value)
            elif part.number == 5 and part.wire == BYTES:
                tensor = where
            elif part.number in {6, 11} and part.wire == BYTES:
                self.count()
                graphs.append(where)
            elif part.number == 7:
                numbers += self._floats(part)
            elif part.number == 20:
                kind = part.value
            elif part.number == 21:
                of = self.text(part)
        # What is 0 need not be written; the type says that it is there.
        if number is None and kind in {1, 2}:
            number = 0
        return name, Attribute(
            number, tuple(numbers) if numbers or kind == 6 else None, tensor, tuple(graphs), of
        )

    def _floats(self, part: Field) -> list[float]:
        count = (part.stop - part.start) // 4
        if count * 4 != part.stop - part.start:
            raise self.wire.corrupt()
        self._numbers += count
        if self._numbers > MOST_NUMBERS:
            raise UnsupportedFileError(
                self.source.path,
                f"its constants list more than {MOST_NUMBERS} numbers one by one;"
                " name the checkpoint that it was made from.",
            )
        return list(struct.unpack(f"<{count}f", self.wire.bytes(part.start, part.stop)))


def read_model(source: Source) -> Model:
    """A ModelProto, its graph not read yet."""
    messages = Messages(source)
    model = Model(messages)
    version = 0
    for part in messages.wire.fields(source.start, source.size):
        if part.number == 1:
            version = part.value
        if part.wire != BYTES:
            continue
        place = part.start, part.stop
        if part.number == 7:
            model.graph = place
        elif part.number == 8:
            messages.count()
            _opset(messages, place, model.opsets)
        elif part.number == 25:
            messages.count()
            names = {1: "", 10: ""}
            for named in messages.wire.fields(*place):
                if named.number in names:
                    names[named.number] = messages.text(named)
            model.functions[names[10], names[1]] = place
    if not any(model.graph) or (not model.opsets and version >= _WITH_OPSETS):
        missing = "opset_import" if any(model.graph) else "graph"
        raise CorruptFileError(
            source.path,
            f"it has no {missing}, which every ONNX model has; it is cut short, so download or"
            " export it again.",
        )
    return model


def _opset(messages: Messages, place: Place, opsets: dict[str, int]) -> None:
    domain, version = "", 1
    for part in messages.wire.fields(*place):
        if part.number == 1:
            domain = messages.text(part)
        elif part.number == 2:
            version = part.value
    opsets[domain] = version
