"""The datasets of an HDF5 file as tensors, by their paths; no link out of the file is followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from bncli.dtypes import DTYPES
from bncli.files.file_bytes import FileBytes
from bncli.light import dataclass, np
from bncli.loaders.hdf5.chunks import Chunked
from bncli.loaders.hdf5.region import Region, little_memory
from bncli.loaders.names import Text, quoted
from bncli.loaders.npy import MOST_AXES, contiguous
from bncli.model import TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_OBJECTS = 200_000
MOST_DEPTH = 64
LONGEST_NAME = 1024
BYTES_AN_OBJECT = 24
"""An object takes more than that of a file."""
LONGEST_TEXT = 1 << 24
"""Bytes of an attribute, and characters of all of them."""
MOST_COMPACT = 1 << 24

Order = Literal["little", "big"]

_FLOATS = {
    # sign, where the exponent begins, its bits, where the mantissa begins, its bits; the bias
    (2, 15, 10, 5, 0, 10, 15): "float16",
    (2, 15, 7, 8, 0, 7, 127): "bfloat16",
    (4, 31, 23, 8, 0, 23, 127): "float32",
    (8, 63, 52, 11, 0, 52, 1023): "float64",
}


@dataclass(slots=True)
class Objects:
    """What is in an HDF5 file: its tensors by path, in its order; what was not read, and why.

    `texts` has the texts that were asked for, by the group's path and the attribute; `links` the
    places in the file that names stand for which are links to them, "" for one outside.
    """

    tensors: dict[str, TensorRef] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    texts: dict[tuple[str, str], str | list[str]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    compact: int = 0
    read_texts: int = 0


def read_objects(region: Region, file: Any, wanted: frozenset[str]) -> Objects:
    """All datasets of an `h5py.File`, and of the attributes of its groups those that are wanted.

    Raises CorruptFileError where there are more than a file of its size can hold.
    """
    found = Objects()
    most = min(MOST_OBJECTS, region.size // BYTES_AN_OBJECT)
    for number, (path, node) in enumerate(_walk(region, file, found, most)):
        if number > most:
            raise region.corrupt("it has more names than a file of its size can hold")
        if _is_dataset(node):
            _add(region, found, path, node)
        else:
            for name in wanted:
                text = _text(region, found, node, name)
                if text is not None:
                    found.texts[path, name] = text
    for name, target in found.links.items():
        if target in found.tensors:
            found.tensors[name] = replace(found.tensors[target], name=name)
        else:
            found.skipped[name] = "it is a link to " + (
                "a name in the file that is not there"
                if target
                else "another file, which is not followed"
            )
    return found


def _is_dataset(node: Any) -> bool:
    from h5py import h5d

    return isinstance(node, h5d.DatasetID)


def _walk(region: Region, file: Any, found: Objects, most: int) -> Iterator[tuple[str, Any]]:
    """Every group and dataset with its path, each group once, in the order of their names."""
    from h5py import h5d, h5g, h5l, h5o

    seen: set[int] = set()
    text = Text(region.path)
    waiting: list[tuple[str, Any, bytes, int]] = [("", h5g.open(file.id, b"/"), b".", 0)]
    while waiting:
        path, parent, own, depth = waiting.pop()
        node = h5o.open(parent, own)  # not before: each that is open takes kilobytes
        if isinstance(node, h5d.DatasetID):
            yield path, node
            continue
        place = h5o.get_info(node).addr
        if not isinstance(node, h5g.GroupID) or place in seen:
            continue
        if depth > MOST_DEPTH:
            raise region.corrupt("its groups are nested without an end")
        seen.add(place)
        yield path, node
        children = []
        for name in _names(region, node, most):
            full = f"{path}/{name.decode('utf-8')}" if path else name.decode("utf-8")
            text.take(full)
            kind = node.links.get_info(name).type
            if kind == h5l.TYPE_HARD:
                children.append((full, node, name, depth + 1))
            else:
                soft = kind == h5l.TYPE_SOFT
                found.links[full] = _target(path, node.links.get_val(name)) if soft else ""
        waiting += reversed(children)


def _target(path: str, link: bytes) -> str:
    """The full name that a link in a group at `path` stands for."""
    text = link.decode("utf-8", "replace")
    parts = (text if text.startswith("/") else f"{path}/{text}").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _names(region: Region, group: Any, most: int) -> list[bytes]:
    """The names in a group, in its order."""
    names: list[bytes] = []
    excess: list[bytes] = []

    def note(name: bytes) -> bool | None:
        if len(names) >= most or len(name) > LONGEST_NAME:
            excess.append(name)
            return True
        names.append(name)
        return None

    group.links.iterate(note)
    if excess:
        raise region.corrupt("it has more or longer names than a file of its size can hold")
    return names


def _add(region: Region, found: Objects, path: str, dataset: Any) -> None:
    """One dataset: a tensor, or a line on why it is none."""
    from h5py import h5d

    shape = dataset.shape
    dtype, order = _dtype(dataset)
    if shape is None or not dtype:
        found.skipped[path] = "it holds no numbers" if shape is not None else "it is empty"
        return
    shape = tuple(map(int, shape))
    numel = 1
    for size in shape:
        numel *= size
    if numel >= 1 << 62:
        raise region.corrupt(f"its {quoted(path)} has an impossible shape")
    kind = np.dtype(DTYPES[dtype].stored).newbyteorder("<" if order == "little" else ">")
    nbytes = numel * kind.itemsize
    made = dataset.get_create_plist()
    layout, problem = made.get_layout(), ""
    storage: FileBytes | Callable[[], NDArray[Any]] | None = None
    if len(shape) > MOST_AXES:
        problem = f"it has {len(shape)} axes"
    elif layout == h5d.VIRTUAL or made.get_external_count():
        problem = "its values lie in other files, which are not opened"
    elif numel == 0:
        storage = partial(_nothing, kind)
    elif layout == h5d.COMPACT:
        problem, storage = _compact(found, dataset, kind, shape, nbytes)
    elif not dataset.get_storage_size():
        problem = "no values were written into it"
    elif layout == h5d.CHUNKED:
        filters = tuple(made.get_filter(at)[0] for at in range(made.get_nfilters()))
        chunked = Chunked(region, f"/{path}".encode(), kind, shape, made.get_chunk(), filters)
        problem = chunked.problem(dataset.get_storage_size())
        storage = None if problem else chunked.read
    else:
        offset = dataset.get_offset()
        if offset is None:
            problem = "no values were written into it"
        elif offset < 0 or offset + nbytes > region.size:
            raise region.corrupt(
                f"its {quoted(path)} of {nbytes} bytes reaches outside the file's {region.size}"
            )
        else:
            storage = region.storage(offset, nbytes, kind, order)
    found.tensors[path] = TensorRef(
        path, region.path, shape, dtype, contiguous(shape), storage, problem
    )


def _nothing(kind: np.dtype[Any]) -> NDArray[Any]:
    return np.empty(0, kind)


def _compact(
    found: Objects, dataset: Any, kind: np.dtype[Any], shape: tuple[int, ...], nbytes: int
) -> tuple[str, Callable[[], NDArray[Any]] | None]:
    """The values of a small dataset that lie in its own header."""
    from h5py import h5s

    found.compact += nbytes
    if nbytes > dataset.get_storage_size() or found.compact > MOST_COMPACT:
        return "it is larger than such a dataset can be", None
    values = np.empty(shape, kind)
    dataset.read(h5s.ALL, h5s.ALL, values, dataset.get_type())
    flat = values.reshape(-1)
    return "", lambda: flat


def _dtype(dataset: Any) -> tuple[str, Order]:
    """The dtype of a dataset as `bncli.dtypes` has it, and its byte order; "" for no numbers."""
    from h5py import h5t

    kind = dataset.get_type()
    size = kind.get_size()
    if isinstance(kind, h5t.TypeOpaqueID):
        return ("bfloat16" if size == 2 and _is_bfloat16(dataset) else ""), "little"
    if isinstance(kind, h5t.TypeEnumID):
        return ("bool" if kind.dtype == np.dtype(bool) and size == 1 else ""), "little"
    if isinstance(kind, h5t.TypeCompoundID):
        whole = size in (8, 16) and kind.dtype.kind == "c"
        name = f"complex{8 * size}" if whole and kind.dtype.itemsize == size else ""
        return name, "big" if name and kind.dtype.str[0] == ">" else "little"
    if not isinstance(kind, h5t.TypeFloatID | h5t.TypeIntegerID):
        return "", "little"
    if size > 1 and kind.get_order() not in (h5t.ORDER_LE, h5t.ORDER_BE):
        return "", "little"
    order: Order = "big" if size > 1 and kind.get_order() == h5t.ORDER_BE else "little"
    if isinstance(kind, h5t.TypeFloatID):
        whole = kind.get_offset() == 0 and kind.get_precision() == 8 * size
        name = _FLOATS.get((size, *kind.get_fields(), kind.get_ebias()), "") if whole else ""
        return name, order
    if kind.get_precision() != 8 * size or kind.get_offset():
        return "", order
    sign = "int" if kind.get_sign() == h5t.SGN_2 else "uint"
    name = f"{sign}{8 * size}"
    return (name if name in DTYPES else ""), order


def _is_bfloat16(dataset: Any) -> bool:
    """Whether Keras wrote it, which says so in an attribute."""
    from h5py import h5a

    return h5a.exists(dataset, b"dtype") and _value(dataset, b"dtype") == "bfloat16"


def _text(region: Region, found: Objects, node: Any, name: str) -> str | list[str] | None:
    """An attribute of a group that is a text, or a list of texts; the list is empty for others."""
    from h5py import h5a

    if not h5a.exists(node, name.encode()):
        return None
    value = _value(node, name.encode()) or []
    found.read_texts += len(value) if isinstance(value, str) else sum(map(len, value))
    if found.read_texts > LONGEST_TEXT:
        raise region.corrupt("its attributes are longer than those of any model")
    return value


def _value(node: Any, name: bytes) -> str | list[str] | None:
    from h5py import h5a, h5t

    attribute = h5a.open(node, name)
    kind = attribute.get_type()
    if not isinstance(kind, h5t.TypeStringID) or attribute.get_storage_size() > LONGEST_TEXT:
        return None
    shape = attribute.shape
    if shape is None or len(shape) > 1 or (shape and shape[0] > MOST_OBJECTS):
        return None
    if kind.is_variable_str():
        value = np.empty(shape, attribute.dtype)
    else:
        size = kind.get_size() * (shape[0] if shape else 1)
        if size > attribute.get_storage_size():
            return None
        value = np.empty(shape, f"S{kind.get_size()}")
    with little_memory():
        attribute.read(value)
    texts = value.reshape(-1).tolist()
    if (
        sum(len(each) for each in texts if isinstance(each, bytes)) > LONGEST_TEXT
    ):  # many may be one and the same long text
        return None
    decoded = [_decoded(each) for each in texts]
    return decoded if shape else decoded[0]


def _decoded(text: object) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
