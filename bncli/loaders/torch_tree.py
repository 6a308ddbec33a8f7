"""A walk over the records of a pickle: every tensor under the name that state_dict() gives it.

Dictionaries, lists, modules and any other objects are followed, and the keys on the way are
joined by dots. What no tensor hangs on is never entered, so a training run's configuration, its
losses and its tokenizer cost one look. Objects may hold each other in circles and share parts;
the walk is bounded by what the pickle really has.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError
from bncli.loaders.names import quoted
from bncli.loaders.npy import MOST_AXES, contiguous
from bncli.loaders.torch_values import Storage, View, as_view, class_of
from bncli.loaders.unpickler import Dict, Pickle, Record
from bncli.loaders.zip_archive import Packed
from bncli.model import BatchNormModule, FileBytes, TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_REPEATED = 1 << 22
"""A view may name this many elements more than its storage holds (an axis of stride 0 costs no
byte); a larger one is listed as not readable, since reading it would make memory of nothing."""
DEEPEST = 200
LONGEST_NAME = 4_096
BYTES_A_TENSOR = 30
"""A pickle spends at least this many bytes on a tensor, be it by repeating what it remembers."""

Pairs = Sequence[tuple[object, object]]
Region = FileBytes | Packed
"""Where a storage's bytes are."""
Place = Callable[[Storage], Region]
"""Finds the bytes of a storage; raises CorruptFileError where there are none."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The tensors and BatchNorm modules under a root object, by full name."""

    tensors: dict[str, TensorRef] = field(default_factory=dict)
    modules: dict[str, BatchNormModule] = field(default_factory=dict)


def collect(path: Path, pickle: Pickle, place: Place) -> Contents:
    """Every tensor that can be reached from the pickle's object.

    A tensor that several paths lead to is listed under each. `modules` has every module that is
    a BatchNorm or keeps running statistics. Raises CorruptFileError for a view that leaves its
    storage, and for a structure that unfolds to far more tensors than it has.
    """
    return _Walk(path, pickle, place).collect()


class _Walk:
    def __init__(self, path: Path, pickle: Pickle, place: Place) -> None:
        self.path = path
        self.root = pickle.value
        self.most_tensors = 1_000 + pickle.length // BYTES_A_TENSOR
        self.place = place
        self.contents = Contents()
        self.views: dict[int, View] = {}
        self.regions: dict[str, Region] = {}
        self.attributes: dict[int, dict[str, object]] = {}
        self.unique: dict[int, Pairs] = {}
        self.edges = 0

    def collect(self) -> Contents:
        """Follow, in the file's order, everything that leads to a tensor."""
        leads = self._leads()
        steps = 10_000 + 8 * self.edges
        letters = 4_000_000 + 400 * len(leads)
        entered: set[int] = set()
        above: list[int] = []
        stack: list[tuple[object, str, str, int]] = [(self.root, "", "", 0)]
        while stack:
            node, prefix, key, depth = stack.pop()
            del above[depth:]
            if id(node) in above:
                continue
            above.append(id(node))
            name = f"{prefix}.{key}" if prefix and key else prefix or key
            letters -= len(name)
            if letters < 0 or depth > DEEPEST or len(name) > LONGEST_NAME:
                raise self._unfolds()
            view = self.views.get(id(node))
            if view is not None:
                name = self._free(name)
                self.contents.tensors[name] = self._ref(name, view)
                continue
            if isinstance(node, Record):
                if id(node) in entered and self._is_program_object(node):
                    continue
                entered.add(id(node))
                self._note_module(name, node)
            inside = []
            for child_key, child in self._items(node):
                steps -= 1
                if id(child) in leads:
                    inside.append((child, name, child_key, depth + 1))
                if steps < 0:
                    raise self._unfolds()
            stack.extend(reversed(inside))
        return self.contents

    def _leads(self) -> set[int]:
        """The identities of all objects from which a tensor or a BatchNorm can be reached."""
        nodes: list[object] = [self.root]
        number = {id(self.root): 0}
        last_edge = array("l", [-1])  # of each node: its newest edge from a parent, ...
        parents, older = array("l"), array("l")  # ... of each edge: the parent, the edge before
        ends = []
        at = 0
        while at < len(nodes):
            node = nodes[at]
            view = self._view(node)
            if view is not None:
                self.views[id(node)] = view
                if len(self.views) > self.most_tensors:
                    raise self._unfolds()
                ends.append(at)
            elif isinstance(node, Record) and self._norm_name(node):
                ends.append(at)
            for child in () if view else _children(node):
                self.edges += 1
                if not isinstance(child, Dict | Record | list | tuple):
                    continue
                index = number.setdefault(id(child), len(nodes))
                if index == len(nodes):
                    nodes.append(child)
                    last_edge.append(-1)
                parents.append(at)
                older.append(last_edge[index])
                last_edge[index] = len(parents) - 1
            at += 1
        leads = {id(nodes[end]) for end in ends}
        while ends:
            edge = last_edge[ends.pop()]
            while edge >= 0:
                parent = parents[edge]
                if id(nodes[parent]) not in leads:
                    leads.add(id(nodes[parent]))
                    ends.append(parent)
                edge = older[edge]
        return leads

    def _view(self, node: object) -> View | None:
        try:
            return as_view(node)
        except (ValueError, TypeError, IndexError) as error:
            fact = "too few arguments" if isinstance(error, IndexError) else error
            raise CorruptFileError(
                self.path,
                f"one of its tensors is not described as PyTorch does ({fact}); it is damaged or"
                " was made to do harm, so download or save it again.",
            ) from error

    def _items(self, node: object) -> Iterator[tuple[str, object]]:
        """What a node holds, by the keys that lead there."""
        if isinstance(node, Dict):
            yield from ((_key(key), value) for key, value in self._pairs(node))
        elif isinstance(node, list | tuple):
            yield from ((str(index), value) for index, value in enumerate(node))
        elif isinstance(node, Record) and self._is_module(node):
            yield from self._module_items(node)
        elif isinstance(node, Record):
            cls = class_of(node)
            if cls is not None and cls.name == "OrderedDict":
                for arg in node.args:
                    yield from _listed_pairs(arg)
            else:
                yield from ((str(index), value) for index, value in enumerate(node.args))
            yield from ((str(index), value) for index, value in enumerate(node.elements))
            yield from ((_key(key), value) for key, value in self._pairs(node))
            for part in _state_parts(node):
                if isinstance(part, Dict | list | tuple):
                    yield from self._items(part)
                else:
                    yield "state", part

    def _pairs(self, node: Dict | Record) -> Pairs:
        """The items of a dictionary; of those with the same text for a key, the last."""
        pairs = self.unique.get(id(node))
        if pairs is None:
            last = {key: at for at, (key, _) in enumerate(node.pairs) if isinstance(key, str)}
            pairs = [
                (key, value)
                for at, (key, value) in enumerate(node.pairs)
                if not isinstance(key, str) or last[key] == at
            ]
            self.unique[id(node)] = pairs
        return pairs

    def _module_items(self, record: Record) -> Iterator[tuple[str, object]]:
        """The parameters, the buffers that state_dict() keeps, and the modules inside."""
        hidden = _texts(self._attribute(record, "_non_persistent_buffers_set"))
        yield from self._named(self._attribute(record, "_parameters")).items()
        for name, buffer in self._named(self._attribute(record, "_buffers")).items():
            if name not in hidden:
                yield name, buffer
        yield from self._named(self._attribute(record, "_modules")).items()

    def _named(self, node: object) -> dict[str, object]:
        """The items of a dictionary of any kind that have a text for a key; kept by identity."""
        named = self.attributes.get(id(node))
        if named is None:
            named = {}
            if isinstance(node, Record):
                for arg in node.args:
                    named.update(_listed_pairs(arg))
            if isinstance(node, Dict | Record):
                named.update((k, v) for k, v in node.pairs if isinstance(k, str))
                self.attributes[id(node)] = named
        return named

    def _attribute(self, record: Record, key: str) -> object:
        """An attribute that the record was given; None where it has none of that name."""
        for part in reversed(_state_parts(record)):
            if isinstance(part, Dict) and key in (named := self._named(part)):
                return named[key]
        return None

    def _is_module(self, record: Record) -> bool:
        """Whether the record is a torch.nn.Module."""
        return bool(record.states) and all(
            isinstance(self._attribute(record, key), Dict | Record)
            for key in ("_parameters", "_buffers", "_modules")
        )

    def _is_program_object(self, record: Record) -> bool:
        """Whether the record is no part of a state_dict, so that it is entered once only.

        Programs' own objects refer to each other freely, and would unfold without end.
        """
        return not (record.pairs or record.args or _is_script(record) or self._is_module(record))

    def _norm_name(self, record: Record) -> str:
        """The class name of a module that is a BatchNorm or keeps running statistics, else ""."""
        cls = class_of(record)
        if cls is None or not record.states:
            return ""
        if self._is_module(record):
            buffers = self._named(self._attribute(record, "_buffers"))
            if "running_mean" in buffers and "running_var" in buffers:
                # Without tracking, the buffers are None.
                named = "Norm" in cls.name or buffers["running_mean"] is not None
                return cls.name if named else ""
            is_norm = "BatchNorm" in cls.name and self._attribute(record, "eps") is not None
            return cls.name if is_norm else ""
        if _is_script(record) and all(
            self._attribute(record, key) is not None for key in ("running_mean", "running_var")
        ):
            return cls.name
        return ""

    def _note_module(self, name: str, record: Record) -> None:
        """Keep what the file says of a BatchNorm module beside its tensors."""
        class_name = self._norm_name(record)
        if not class_name:
            return

        def number(key: str) -> float | None:
            value = self._attribute(record, key)
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53:
                return float(value)
            return value if isinstance(value, float) else None

        def flag(key: str) -> bool | None:
            value = self._attribute(record, key)
            return value if isinstance(value, bool) else None

        self.contents.modules[name] = BatchNormModule(
            class_name,
            eps=number("eps"),
            momentum=number("momentum"),
            affine=flag("affine"),
            track_running_stats=flag("track_running_stats"),
            training=flag("training"),
        )

    def _free(self, name: str) -> str:
        """The name, or one with a number behind it where two paths spell the same."""
        if name not in self.contents.tensors:
            return name
        number = len(self.contents.tensors)
        while f"{name} ({number})" in self.contents.tensors:
            number += 1
        return f"{name} ({number})"

    def _ref(self, name: str, view: View) -> TensorRef:
        """The view as a place in the file, after checking that it stays in its storage."""
        shape, strides, storage = view.shape, view.strides, view.storage
        unreadable = view.unreadable
        if not unreadable and len(shape) != len(strides):
            raise self._broken(name, "has another number of strides than of axes")
        if not unreadable and len(shape) > MOST_AXES:
            unreadable = f"it has {len(shape)} axes"
        if not unreadable and storage is not None and storage.location == "meta":
            unreadable = "it was on the meta device and has no values"
        if unreadable or storage is None:
            return TensorRef(name, self.path, shape, view.dtype, strides, None, unreadable)

        itemsize = DTYPES[view.dtype].itemsize
        room = storage.nbytes // itemsize
        extent, steps = 1, 0
        for size, step in zip(shape, strides, strict=True):
            extent *= max(size, 1)
            steps += (size - 1) * step
        count = 0 if 0 in shape else steps + 1
        if count and view.offset + count > room:
            raise self._broken(name, f"reaches outside of its storage of {room} elements")
        if extent > max(MOST_REPEATED, 4 * room):
            unreadable = f"its shape spreads {room} stored elements over {extent}"
            return TensorRef(name, self.path, shape, view.dtype, strides, None, unreadable)
        # An axis that is never stepped along may have any stride, even one that overflows.
        strides = tuple(
            step if size > 1 and count else dense
            for size, step, dense in zip(shape, strides, contiguous(shape), strict=True)
        )
        region = self._region(storage)
        available = region.nbytes if isinstance(region, FileBytes) else region.size
        start = storage.offset * storage.itemsize
        if start + storage.nbytes > available:
            raise self._broken(
                name, f"has a storage of {start + storage.nbytes} bytes, of which {available} exist"
            )
        if count:
            start += view.offset * itemsize
        nbytes = count * itemsize
        place: FileBytes | Callable[[], NDArray[Any]]
        if isinstance(region, FileBytes):
            place = replace(region, offset=region.offset + start, nbytes=nbytes)
        else:
            place = partial(_inflate, region, view.dtype, start, nbytes)
        return TensorRef(name, self.path, shape, view.dtype, strides, place)

    def _region(self, storage: Storage) -> Region:
        region = self.regions.get(storage.key)
        if region is None:
            region = self.regions[storage.key] = self.place(storage)
        return region

    def _broken(self, name: str, fact: str) -> CorruptFileError:
        return CorruptFileError(
            self.path,
            f"its tensor {quoted(name) or 'at the top'} {fact}; the file is damaged or was made to"
            " do harm, so download or save it again.",
        )

    def _unfolds(self) -> CorruptFileError:
        return CorruptFileError(
            self.path,
            "its objects hold each other more often or more deeply than those of a checkpoint; it"
            " was made to do harm.",
        )


def _inflate(packed: Packed, dtype: str, start: int, nbytes: int) -> NDArray[Any]:
    """The elements of a compressed storage, as a flat array of the stored dtype."""
    import numpy as np

    data = packed.read()[start : start + nbytes]
    kind = np.dtype(DTYPES[dtype].stored).newbyteorder(packed.byteorder)
    return np.frombuffer(data, kind) if data else np.empty(0, kind)


def _is_script(record: Record) -> bool:
    """Whether the record is an object of TorchScript, whose attributes are its state."""
    cls = class_of(record)
    return cls is not None and cls.module.startswith("__torch__")


def _state_parts(record: Record) -> tuple[object, ...]:
    """The states that a record was given; a class with slots has them in a pair."""
    parts: tuple[object, ...] = ()
    for state in record.states:
        if isinstance(state, tuple) and len(state) == 2 and any(isinstance(p, Dict) for p in state):
            parts += state
        else:
            parts += (state,)
    return parts


def _listed_pairs(arg: object) -> Iterator[tuple[str, object]]:
    """The items of OrderedDict([[key, value], ...]), which is how Python 2 pickles one."""
    for pair in arg if isinstance(arg, list) else ():
        if isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str):
            yield pair[0], pair[1]


def _texts(node: object) -> set[str]:
    """The texts in a set, as set([...]) or as the set's own opcodes."""
    if not isinstance(node, Record):
        return set()
    first = node.args[0] if node.args else ()
    texts = list(node.elements) + (first if isinstance(first, list) else [])
    return {text for text in texts if isinstance(text, str)}


def _children(node: object) -> Iterator[object]:
    """Everything that a node holds directly."""
    if isinstance(node, list | tuple):
        yield from node
    elif isinstance(node, Dict | Record):
        for _, value in node.pairs:
            yield value
        if isinstance(node, Record):
            yield from node.args
            yield from node.elements
            yield from node.states


def _key(key: object) -> str:
    """A dictionary's key as a part of a name."""
    if isinstance(key, str):
        return key
    if isinstance(key, int):
        return str(key)
    if isinstance(key, tuple) and all(isinstance(part, str | int) for part in key[:8]):
        return f"({', '.join(str(part) for part in key[:8])})"
    return "?"
