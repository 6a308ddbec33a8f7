"""A walk over the records of a pickle: every tensor under the name that state_dict() gives it.

Dictionaries, lists, modules and any other objects are followed, and the keys on the way are
joined by dots. What no tensor hangs on is never entered, so a training run's configuration, its
losses and its tokenizer cost one look. Objects may hold each other in circles and share parts;
the walk is bounded by what the pickle really has.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError
from bncli.files.file_bytes import FileBytes
from bncli.files.reading import open_again, read_at
from bncli.loaders.names import quoted
from bncli.loaders.npy import MOST_AXES, contiguous
from bncli.loaders.torch_values import NO_TENSOR, Inline, Storage, View, as_view, class_of
from bncli.loaders.unpickler import Blob, Dict, Pickle, Record
from bncli.loaders.zip_archive import Packed
from bncli.model import BatchNormModule, TensorFile, TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_REPEATED = 1 << 22
"""A view may name this many elements more than its storage holds (an axis of stride 0 costs no
byte); a larger one is listed as not readable, since reading it would make memory of nothing."""
DEEPEST = 200
LONGEST_NAME = 4_096
MOST_ATTRIBUTES = 4
"""A module's attributes are its state, or one of the first arguments of what makes it again."""
MOST_READ_AGAIN = 64
"""The tensors of a file may together name this many times the bytes that it stores, and the bytes
of one repeated view besides; those beyond are listed as not readable."""
READ_TOO_OFTEN = "the tensors before it already repeat what the file stores too often"
MOST_INFLATED = 1 << 26
"""What is kept of inflated storages; of a larger one alone, all that its tensors use."""
NEAR = 1 << 16
"""Pieces of a storage with no more bytes than this between them are kept as one."""
WEIGHTS_RATIO = 16
"""Weights are never compressed as well as this; what is may cost far more time than its bytes."""
BYTES_A_TENSOR = 30
"""A pickle spends at least this many bytes on a tensor, be it by repeating what it remembers."""

Pairs = Sequence[tuple[object, object]]
Region = FileBytes | Packed
"""Where a storage's bytes are."""
Place = Callable[[Storage], Region]
"""Finds the bytes of a storage; raises CorruptFileError where there are none."""


_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Contents:
    """The tensors and BatchNorm modules under a root object, by full name.

    `skipped` has the arrays of text or objects, which are no tensors, with the reason.
    """

    tensors: dict[str, TensorRef] = field(default_factory=dict)
    modules: dict[str, BatchNormModule] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def file(self, path: Path, container: str) -> TensorFile:
        """The contents as those of a file."""
        return TensorFile(path, container, self.tensors, self.modules, self.skipped)


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
        self.data = pickle.data
        self.contents = Contents()
        self.views: dict[int, View] = {}
        self.regions: dict[str, Region] = {}
        self.attributes: dict[int, dict[str, object]] = {}
        self.unique: dict[int, Pairs] = {}
        self.texts: dict[int, set[str]] = {}
        self.numbers: dict[str, int] = {}
        self.inflated = _Inflated()
        self.inline: dict[int, int] = {}
        self.readable = 8 * MOST_REPEATED
        self.edges = 0
        self.steps = 10_000 + pickle.length // 4

    def collect(self) -> Contents:
        """Follow, in the file's order, everything that leads to a tensor."""
        leads = self._leads()
        self.steps += 8 * self.edges
        letters = 4_000_000 + 400 * len(leads)
        entered: set[int] = set()
        circular: set[int] = set()
        above: list[int] = []
        stack: list[tuple[object, str, str, int]] = [(self.root, "", "", 0)]
        while stack:
            node, prefix, key, depth = stack.pop()
            del above[depth:]
            if id(node) in above:
                circular.update(above[above.index(id(node)) :])
                continue
            above.append(id(node))
            name = f"{prefix}.{key}" if prefix and key else prefix or key
            letters -= len(name)
            if letters < 0 or depth > DEEPEST or len(name) > LONGEST_NAME:
                raise self._unfolds()
            view = self.views.get(id(node))
            if view is not None and view.dtype == NO_TENSOR:
                self.contents.skipped[name] = view.unreadable
                continue
            if view is not None:
                name = self._free(name)
                self.contents.tensors[name] = self._ref(name, view)
                continue
            if isinstance(node, Record):
                # Programs' own objects refer to each other freely. Those that hold each other in
                # circles would unfold without end, so they are entered on the first path only.
                if id(node) in entered and id(node) in circular and not self._is_module(node):
                    continue
                entered.add(id(node))
                self._note_module(name, node)
            inside = []
            for child_key, child in self._items(node):
                self._spend(1)
                if id(child) in leads:
                    inside.append((child, name, child_key, depth + 1))
            stack.extend(reversed(inside))
        return self.contents

    def _spend(self, steps: int) -> None:
        """Count work that sharing may repeat."""
        self.steps -= steps
        if self.steps < 0:
            raise self._unfolds()

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
                f"one of its tensors is not described as PyTorch does ({fact}); it is damaged,"
                " so download or save it again.",
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
                    self._spend(len(arg) if isinstance(arg, list) else 0)
                    yield from _listed_pairs(arg)
            elif cls is not None and cls.name == "OptimizedModule":
                # What torch.compile makes of a module: (the module, a context).
                yield from (("_orig_mod", module) for module in node.args[:1])
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
                pair
                for at, pair in enumerate(node.pairs)
                if not isinstance(pair[0], str) or last[pair[0]] == at
            ]
            self.unique[id(node)] = pairs
        return pairs

    def _module_items(self, record: Record) -> Iterator[tuple[str, object]]:
        """The parameters, the buffers that state_dict() keeps, and the modules inside."""
        hidden = self._texts(self._attribute(record, "_non_persistent_buffers_set"))
        yield from self._named(self._attribute(record, "_parameters")).items()
        for name, buffer in self._named(self._attribute(record, "_buffers")).items():
            self._spend(1)
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
                    self._spend(len(arg) if isinstance(arg, list) else 0)
                    named.update(_listed_pairs(arg))
            if isinstance(node, Dict | Record):
                named.update((k, v) for k, v in node.pairs if isinstance(k, str))
                self.attributes[id(node)] = named
        return named

    def _texts(self, node: object) -> set[str]:
        """The texts in a set, as set([...]) or as the set's own opcodes; kept by identity."""
        if not isinstance(node, Record):
            return set()
        texts = self.texts.get(id(node))
        if texts is None:
            first = node.args[0] if node.args else ()
            items = first if isinstance(first, list) else []
            self._spend(len(items))
            texts = {t for part in (node.elements, items) for t in part if isinstance(t, str)}
            self.texts[id(node)] = texts
        return texts

    def _attribute(self, record: Record, key: str, absent: object = None) -> object:
        """An attribute that the record was given; `absent` where it has none of that name."""
        for part in reversed((*record.args[:MOST_ATTRIBUTES], *_state_parts(record))):
            if isinstance(part, Dict) and key in (named := self._named(part)):
                return named[key]
        return absent

    def _is_module(self, record: Record) -> bool:
        """Whether the record is a torch.nn.Module."""
        return all(
            isinstance(self._attribute(record, key), Dict | Record)
            for key in ("_parameters", "_buffers", "_modules")
        )

    def _norm_name(self, record: Record) -> str:
        """The class name of a module that is a BatchNorm or keeps running statistics, else ""."""
        cls = class_of(record)
        if cls is None:
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
            has_momentum=self._attribute(record, "momentum", absent=_ABSENT) is not _ABSENT,
        )

    def _free(self, name: str) -> str:
        """The name, or one with a number behind it where two paths spell the same."""
        if name not in self.contents.tensors:
            return name
        number = max(len(self.contents.tensors), self.numbers.get(name, 0))
        while f"{name} ({number})" in self.contents.tensors:
            self._spend(1)
            number += 1
        self.numbers[name] = number + 1
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
        if view.inline is not None and not unreadable:
            return self._inline(name, view, view.inline)
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
        cost = extent * itemsize if count else 0
        if (
            isinstance(region, Packed)
            and region.size > max(MOST_INFLATED, WEIGHTS_RATIO * region.packed)
            and region.offset in self.inflated.spans
        ):
            cost += region.size // 2  # it may not be kept, and has to be inflated again
        if not self._may_read(cost):
            return TensorRef(name, self.path, shape, view.dtype, strides, None, READ_TOO_OFTEN)
        if count:
            start += view.offset * itemsize
        nbytes = count * itemsize
        if isinstance(region, FileBytes):
            bytes_ = replace(region, offset=region.offset + start, nbytes=nbytes)
            return TensorRef(name, self.path, shape, view.dtype, strides, bytes_)
        if count:
            self.inflated.will_use(region, start, start + nbytes)
        place = partial(_inflate, self.inflated, region, view.dtype, start, count)
        origin = region.offset, start
        return TensorRef(name, self.path, shape, view.dtype, strides, place, origin=origin)

    def _region(self, storage: Storage) -> Region:
        region = self.regions.get(storage.key)
        if region is None:
            region = self.regions[storage.key] = self.place(storage)
            if isinstance(region, FileBytes):
                self.readable += MOST_READ_AGAIN * region.nbytes
            else:
                self.readable += MOST_READ_AGAIN * region.packed + region.size
        return region

    def _inline(self, name: str, view: View, inline: Inline) -> TensorRef:
        """A NumPy array, whose bytes are in the pickle."""
        nbytes = DTYPES[view.dtype].itemsize
        extent = 1
        for size in view.shape:
            nbytes *= size
            extent *= max(size, 1)
        raw = inline.raw
        stored = raw.stop - raw.start if isinstance(raw, Blob) else 4 * len(raw)
        if id(raw) not in self.inline:
            self.inline[id(raw)] = len(self.inline)
            self.readable += MOST_READ_AGAIN * stored
        plain = isinstance(raw, Blob) and not inline.encoded
        if nbytes > stored or (plain and nbytes != stored):
            raise self._broken(name, f"should have {nbytes} bytes and has {stored}")
        place: FileBytes | Callable[[], NDArray[Any]] | None
        unreadable = ""
        if nbytes == 0 and extent > MOST_REPEATED:
            place, unreadable = None, "its shape is none that NumPy can have"
        elif not self._may_read(nbytes):
            place, unreadable = None, READ_TOO_OFTEN
        elif isinstance(raw, Blob) and plain and not isinstance(self.data, bytes):
            place = FileBytes(self.path, raw.start, nbytes, inline.byteorder)
        else:
            data = self.data if isinstance(self.data, bytes) else self.path
            place = partial(_decoded, self.path, data, inline, view.dtype, nbytes)
        return TensorRef(
            name, self.path, view.shape, view.dtype, view.strides, place, unreadable,
            origin=(-1, self.inline[id(raw)]),  # the bytes have no place of their own
        )  # fmt: skip

    def _may_read(self, nbytes: int) -> bool:
        """Count the bytes of a tensor as it will be read; False where that is too much."""
        if nbytes > self.readable:
            return False
        self.readable -= nbytes
        return True

    def _broken(self, name: str, fact: str) -> CorruptFileError:
        return CorruptFileError(
            self.path,
            f"its tensor {quoted(name) or 'at the top'} {fact}; the file is damaged, so download or"
            " save it again.",
        )

    def _unfolds(self) -> CorruptFileError:
        return CorruptFileError(
            self.path,
            "its objects hold each other more often or more deeply than those of a checkpoint,"
            " and to follow them would take far more time than its size; save the weights alone, as"
            " model.state_dict() gives them.",
        )


class _Inflated:
    """Compressed storages of a file as they were last read: so much of each as its tensors use.

    Many tensors may share a storage, and inflating it for each could take hours.
    """

    def __init__(self) -> None:
        self.spans: dict[int, set[tuple[int, int]]] = {}
        self.kept: dict[int, list[tuple[int, bytearray]]] = {}
        self.size = 0

    def will_use(self, packed: Packed, start: int, stop: int) -> None:
        """Note that a tensor needs these bytes of the storage, at least one."""
        self.spans.setdefault(packed.offset, set()).add((start, stop))

    def read(self, packed: Packed, start: int) -> tuple[bytearray, int]:
        """The bytes that were noted around `start`, and the place of the first in the storage."""
        runs = self.kept.get(packed.offset)
        if runs is None:
            wanted = _joined(self.spans[packed.offset])
            size = sum(stop - first for first, stop in wanted)
            while self.kept and self.size + size > MOST_INFLATED:
                dropped = self.kept.pop(next(iter(self.kept)))
                self.size -= sum(len(data) for _, data in dropped)
            runs = self.kept[packed.offset] = _cut(packed, wanted)
            self.size += size
        first, data = runs[bisect_right(runs, start, key=itemgetter(0)) - 1]
        return data, first


def _joined(spans: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans in order, those that are near each other as one."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1] + NEAR:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined


def _cut(packed: Packed, wanted: list[tuple[int, int]]) -> list[tuple[int, bytearray]]:
    """The wanted bytes of a storage, each run with its place."""
    runs = [(start, bytearray()) for start, _ in wanted]
    at = here = 0
    for chunk in packed.chunks():
        while here < len(wanted) and wanted[here][0] < at + len(chunk):
            start, stop = wanted[here]
            runs[here][1].extend(chunk[max(start - at, 0) : stop - at])
            if stop > at + len(chunk):
                break
            here += 1
        at += len(chunk)
    return runs


def _inflate(
    inflated: _Inflated, packed: Packed, dtype: str, start: int, count: int
) -> NDArray[Any]:
    """The elements of a compressed storage, as a flat array of the stored dtype."""
    import numpy as np

    kind = np.dtype(DTYPES[dtype].stored).newbyteorder(packed.byteorder)
    if not count:
        return np.empty(0, kind)
    data, first = inflated.read(packed, start)
    return np.frombuffer(data, kind, count, start - first)


def _decoded(
    path: Path, data: Path | bytes, inline: Inline, dtype: str, nbytes: int
) -> NDArray[Any]:
    """The elements of a NumPy array, as a flat array of the stored dtype.

    `data` is what the pickle was read from, the path where that was the file.
    """
    import numpy as np

    raw = inline.raw
    if isinstance(raw, str):
        # The strings of Python 2 were taken for UTF-8 where they could be.
        codec = "latin-1" if inline.encoded or len(raw) == nbytes else "utf-8"
        stored = raw.encode(codec, "replace")
    else:
        if isinstance(data, Path):
            with open_again(data) as file:
                stored = bytes(read_at(file, data, raw.start, raw.stop - raw.start))
        else:
            stored = data[raw.start : raw.stop]
        if inline.encoded:
            stored = stored.decode("utf-8", "replace").encode("latin-1", "replace")
    if len(stored) != nbytes:
        raise CorruptFileError(
            path,
            f"one of its NumPy arrays should have {nbytes} bytes and has {len(stored)}; it is"
            " damaged, so download or save it again.",
        )
    kind = np.dtype(DTYPES[dtype].stored).newbyteorder(inline.byteorder)
    return np.frombuffer(stored, kind) if stored else np.empty(0, kind)


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
