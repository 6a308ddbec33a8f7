"""What the tensors of a checkpoint are called: by their keys, or by the graph of objects in it.

TensorFlow 1 stores a variable under its name. TensorFlow 2 stores it under its place in the tree
of objects (`layer_with_weights-1/gamma`), and the tree with the variables' names beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bncli.errors import FileError
from bncli.loaders.beside import check_link
from bncli.loaders.interface import check_regular, open_source
from bncli.loaders.protobuf import BYTES, Wire
from bncli.loaders.tensorflow.bundle import STRING, Bundle, Stored
from bncli.loaders.tensorflow.slices import PART_KEY

OBJECT_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"
ATTRIBUTE = "/.ATTRIBUTES/"
CHECKSUM = 4
"""The bytes of the checksum between a text's length and the text."""
VALUE = "VARIABLE_VALUE"
OPTIMIZERS = frozenset(("optimizer", "_optimizer", ".OPTIMIZER_SLOT", "keras_api"))
"""Objects whose variables keep the names of their places: what they are called by themselves is
like the names of weights."""


def names_of(bundle: Bundle) -> tuple[dict[bytes, str], frozenset[str]]:
    """The name of each tensor by its key, and the variables' names that several share.

    A variable that the tree names is called so; others by their place in it.
    """
    places = {
        key: _place(key.decode("utf-8", "backslashreplace"))
        for key in bundle.stored
        if not key.startswith(PART_KEY) and key != OBJECT_GRAPH
    }
    full = {
        key: name
        for key, name in _full_names(bundle)
        if key in places and not OPTIMIZERS.intersection(places[key].split("/"))
    }
    keys: dict[str, list[bytes]] = {}
    for key, name in full.items():
        keys.setdefault(name, []).append(key)
    taken = set(places.values())
    shared = {
        name
        for name, its in keys.items()
        if len({_contents(bundle.stored[key]) for key in its}) > 1
        or any(name in taken and places[key] != name for key in its)
    }
    names = dict(places)
    for name, its in keys.items():
        if name not in shared:
            names[its[0]] = name  # Keras 3 stores a variable twice
    return names, frozenset(shared)


def _contents(stored: Stored) -> tuple[object, ...]:
    """What two variables have in common where they hold the same; else it is of this one alone."""
    own = id(stored) if stored.crc is None else None
    return stored.dtype, stored.shape, stored.size, stored.crc, own


def _place(key: str) -> str:
    """The key without what says which attribute of an object it is."""
    place, cut, attribute = key.rpartition(ATTRIBUTE)
    return place if cut and attribute == VALUE else key


def _full_names(bundle: Bundle) -> Iterator[tuple[bytes, str]]:
    """The keys that the tree of objects names, each with the variable's own name."""
    stored = bundle.stored.get(OBJECT_GRAPH)
    if stored is None or stored.dtype != STRING or stored.slices:
        return
    path = bundle.shard(stored.shard)
    try:
        check_link(bundle.path, path)
        check_regular(path)
        yield from list(_attributes(path, stored.offset, stored.offset + stored.size))
    except FileError:  # damaged: the tensors still have their keys
        return


def _attributes(path: Path, start: int, stop: int) -> Iterator[tuple[bytes, str]]:
    """The same, of the text that lies between two offsets: its length, a checksum, the tree."""
    with open_source(path) as source:
        wire = Wire(source)
        head = source.read(start, min(10, stop - start))
        digits = next((at + 1 for at, byte in enumerate(head) if byte < 0x80), len(head))
        for node in wire.fields(start + digits + CHECKSUM, stop):
            if node.number == 1 and node.wire == BYTES:
                for each in wire.fields(node.start, node.stop):
                    if each.number == 2 and each.wire == BYTES:
                        attribute = {
                            part.number: part for part in wire.fields(each.start, each.stop)
                        }
                        if 2 in attribute and 3 in attribute:
                            key = wire.bytes(attribute[3].start, attribute[3].stop)
                            if full := wire.text(attribute[2]):
                                yield key, full
