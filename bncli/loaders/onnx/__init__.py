"""ONNX: a protobuf message with the graph of a model, its tensors in it or in files beside it.

`messages` reads the few messages that matter, `tensors` makes their tensors `TensorRef`s,
`outside` finds the files beside the model, `graph` walks the nodes, and `layers` makes their
BatchNormalization layers. Nothing of it is run.
"""

from __future__ import annotations

from bncli.loaders.interface import Source
from bncli.loaders.probes import varint
from bncli.loaders.protobuf import BYTES, VARINT
from bncli.model import TensorFile

_BEFORE = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES}
"""What stands before the graph in a ModelProto, each with its wire type."""
_GRAPH = 7


def detect(source: Source) -> bool:
    """Whether the file begins as a ModelProto: its version is a number, and then comes a graph.

    The graph may end behind the end of the file, which is then one that was cut short.
    """
    if source.head[:1] != b"\x08":
        return False
    at = source.start
    for _ in range(len(_BEFORE) + 1):
        piece = source.read(at, min(20, source.size - at))
        tag, used = varint(piece, 0)
        value, used = varint(piece, used)
        number, wire = tag >> 3, tag & 7
        if value < 0:
            return False
        if number == _GRAPH:
            return wire == BYTES
        if _BEFORE.get(number) != wire:
            return False
        at += used + (value if wire == BYTES else 0)
        if at >= source.size:
            return False
    return False


def open_tensors(source: Source) -> TensorFile:
    """The initializers and constants of the graph, by name, and its BatchNormalization layers.

    Of a node that has another's output for a statistic, or a graph's input without a value,
    `skipped` says so; a weight or bias like that is an unreadable tensor.
    """
    from bncli.loaders.onnx.graph import Walk
    from bncli.loaders.onnx.layers import described, without_layers
    from bncli.loaders.onnx.messages import read_model

    walk = Walk(source, read_model(source))
    layers = described(walk)
    return TensorFile(
        source.path,
        "onnx",
        walk.tensors,
        layers.modules,
        layers.skipped,
        layers.stored,
        "" if layers.modules else without_layers(walk.operators),
        walk.told_biases(),
    )
