"""PyTorch's tensors and storages among the records of a pickle, and NumPy's arrays.

The pickles of `torch.save` and of TorchScript hold calls of a dozen rebuilding functions of
PyTorch and of two of NumPy. Their arguments say all that there is to know, so the functions are
read, not called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from bncli.dtypes import DTYPES
from bncli.light import dataclass
from bncli.loaders.names import quoted
from bncli.loaders.npy import contiguous
from bncli.loaders.pickle_records import Blob, Dict, Global, Persistent, Record

MOST_SIZES = 64
"""PyTorch's own limit on axes."""
MOST_PARTS = 16  # of a sparse tensor, which has 3 or 4
MOST_WRAPPERS = 8  # a parameter of a subclass from another device has 3; each is followed

STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64", "UntypedStorage": "uint8", "_UntypedStorage": "uint8",
    "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
}  # fmt: skip
NUMPY_DTYPES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "i8": "int64", "i4": "int32",
    "i2": "int16", "i1": "int8", "u8": "uint64", "u4": "uint32", "u2": "uint16", "u1": "uint8",
    "b1": "bool", "c16": "complex128", "c8": "complex64",
}  # fmt: skip
"""Arrays of anything else, such as texts and objects, are listed and not read."""
NO_TENSOR = "object"
"""The dtype of a NumPy array of text or objects."""
HOLDERS = (Dict, Record, list, tuple)
QUANTISED_SIZES = {"qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1}


@dataclass(frozen=True, slots=True)
class Storage:
    """A flat run of elements that tensors are views of, as a persistent id describes it.

    `dtype` is "uint8" for an untyped storage. `offset` is where it begins inside the storage
    `key`, in elements: storages of the oldest files may be views themselves.
    """

    key: str
    dtype: str
    numel: int
    location: str
    offset: int = 0

    @property
    def itemsize(self) -> int:
        """The number of bytes of an element."""
        if self.dtype in DTYPES:
            return DTYPES[self.dtype].itemsize
        return QUANTISED_SIZES[self.dtype]

    @property
    def nbytes(self) -> int:
        """The number of bytes of all elements."""
        return self.numel * self.itemsize


@dataclass(frozen=True, slots=True)
class Inline:
    """The elements of a NumPy array, which lie in the pickle itself.

    As a text they are bytes that were pickled as Latin-1 or by Python 2; a `Blob` that is
    `encoded` is such a text in UTF-8.
    """

    raw: Blob | str
    encoded: bool
    byteorder: Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as a rebuilding function describes it: `strides` and `offset` in elements."""

    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...] = ()
    offset: int = 0
    storage: Storage | None = None
    inline: Inline | None = None
    unreadable: str = ""


def parse_storage(reference: object) -> Storage | None:
    """The storage that a persistent id names; None where it is something else or malformed."""
    pid = reference.pid if isinstance(reference, Persistent) else None
    if not (isinstance(pid, tuple) and len(pid) in {5, 6} and _is_text(pid[0], "storage")):
        return None
    _, kind, key, location, numel, *view = pid
    if isinstance(key, int):
        key = str(key)
    if not (
        isinstance(kind, Global)
        and kind.name in STORAGE_DTYPES
        and isinstance(key, str)
        and isinstance(location, str)
        and _is_size(numel)
    ):
        return None
    storage = Storage(key, STORAGE_DTYPES[kind.name], numel, location)
    if view and view[0] is not None:
        # The storage is a part of another: its own key, the offset, the number of elements.
        if not (isinstance(view[0], tuple) and len(view[0]) == 3):
            return None
        _, offset, count = view[0]
        if not (_is_size(offset) and _is_size(count) and offset + count <= numel):
            return None
        storage = replace(storage, numel=count, offset=offset)
    return storage


def class_of(record: Record) -> Global | None:
    """The class of a record, also where the file keeps the class's source text beside it."""
    cls = record.cls
    if isinstance(cls, Persistent) and isinstance(cls.pid, tuple) and len(cls.pid) > 1:
        cls = cls.pid[1]
    return cls if isinstance(cls, Global) else None


def as_view(node: object) -> View | None:
    """The tensor that a record stands for; None where it is none.

    Raises ValueError, TypeError or IndexError where the record is malformed.
    """
    array = _numpy(node) if isinstance(node, Record) else None
    if array is not None:
        return array
    for _ in range(MOST_WRAPPERS):
        name = _torch_name(node)
        if not name or not isinstance(node, Record):
            return None
        if name in _WRAPPERS:
            if not node.args:
                return None  # a parameter that was never given values
            node = node.args[0]
        elif name in _SUBCLASSES:
            function, _, args = node.args[:3]
            if not isinstance(args, tuple):
                raise TypeError("a tensor subclass without arguments")
            node = Record(function, args)
        else:
            rebuild = _REBUILDERS.get(name)
            return None if rebuild is None else rebuild(node.args)
    raise ValueError("a tensor that is wrapped too often")


def _torch_name(node: object) -> str:
    """The name of the function or class of PyTorch that a record calls, else ""."""
    cls = class_of(node) if isinstance(node, Record) else None
    return cls.name if cls is not None and cls.module.startswith("torch") else ""


def _plain(args: Sequence[Any]) -> View:
    """(storage, offset, size, stride, requires_grad, hooks, metadata)."""
    storage = parse_storage(args[0])
    if storage is None:
        raise ValueError("a malformed reference to a storage")
    unreadable = ""
    if storage.dtype in QUANTISED_SIZES:
        unreadable = "it is quantised"
    elif len(args) > 6 and (flags := _true_flags(args[6])):
        unreadable = f"it is stored with the flag {flags}"
    return View(
        as_sizes(args[2]),
        storage.dtype,
        as_sizes(args[3]),
        _size(args[1]),
        storage,
        unreadable=unreadable,
    )


def _typed(args: Sequence[Any]) -> View:
    """(untyped storage, offset, size, stride, requires_grad, hooks, dtype, metadata)."""
    view = _plain(args[:6])
    dtype = _dtype_name(args[6])
    unreadable = "" if dtype in DTYPES else f"the dtype {quoted(dtype)} is not read"
    if len(args) > 7 and (flags := _true_flags(args[7])):
        unreadable = f"it is stored with the flag {flags}"
    return replace(view, dtype=dtype, unreadable=unreadable)


def _quantised(args: Sequence[Any]) -> View:
    return replace(_plain(args), unreadable="it is quantised")


def _sparse(args: Sequence[Any]) -> View:
    """(layout, parts): indices, values and the size, with a flag behind them in some versions."""
    parts = args[1]
    if not isinstance(parts, tuple) or len(parts) > MOST_PARTS:
        raise TypeError("a sparse tensor without its parts")
    size: tuple[int, ...] = ()
    dtype = "unknown"
    for part in parts:
        rebuild = _DENSE.get(_torch_name(part))
        if rebuild is not None:
            dtype = rebuild(part.args).dtype  # the values come last
        elif isinstance(part, Record | tuple):
            size = as_sizes(part)
    return View(size, dtype, contiguous(size), unreadable="it is sparse")


def _meta(args: Sequence[Any]) -> View:
    """(dtype, size, stride, requires_grad)."""
    why = "it was on the meta device and has no values"
    return View(as_sizes(args[1]), _dtype_name(args[0]), as_sizes(args[2]), unreadable=why)


def _wrapper(args: Sequence[Any]) -> View:
    """(class, dtype, size, stride, ...)."""
    why = "it is a tensor subclass with parts of its own"
    return View(as_sizes(args[2]), _dtype_name(args[1]), as_sizes(args[3]), unreadable=why)


def _nested(args: Sequence[Any]) -> View:
    """(buffer, sizes, strides, offsets), each a tensor."""
    rebuild = _DENSE.get(_torch_name(args[0]))
    dtype = rebuild(args[0].args).dtype if rebuild is not None else "unknown"
    return View((), dtype, unreadable="it is a nested tensor, whose parts differ in shape")


def _from_numpy(args: Sequence[Any]) -> View:
    """(NumPy array, dtype, device, requires_grad)."""
    why = "it is kept as a pickled NumPy array"
    return View((), _dtype_name(args[1]), unreadable=why)


def _numpy(record: Record) -> View | None:
    """The NumPy array that a record stands for; None where it is none.

    One of Python objects that hold others is none either: they are followed, as in a list.
    """
    cls = class_of(record)
    if cls is None or cls.module not in _NUMPY_MODULES:
        return None
    if cls.name == "_reconstruct" and record.states:
        state = record.states[-1]  # (version, shape, dtype, Fortran order?, bytes)
        if not isinstance(state, tuple) or len(state) != 5:
            return None
        _, shape, kind, fortran, raw = state
    elif cls.name == "_frombuffer" and len(record.args) == 4:
        raw, kind, shape, order = record.args
        fortran = _is_text(order, "F")
    else:
        return None
    dtype, byteorder = _numpy_dtype(kind)
    if not dtype:
        if isinstance(raw, list) and any(isinstance(item, HOLDERS) for item in raw):
            return None
        why = "it is a NumPy array of text or Python objects"
        return View(as_sizes(shape), NO_TENSOR, unreadable=why)
    sizes = as_sizes(shape)
    strides = contiguous(sizes[::-1])[::-1] if fortran is True else contiguous(sizes)
    inline = _numpy_bytes(raw, byteorder)
    if inline is None:
        why = "its bytes are not kept as NumPy keeps them"
        return View(sizes, dtype, strides, unreadable=why)
    return View(sizes, dtype, strides, inline=inline)


_NUMPY_MODULES = {
    f"{package}.{module}"
    for package in ("numpy.core", "numpy._core")
    for module in ("multiarray", "numeric")
}


def _numpy_dtype(kind: object) -> tuple[str, Literal["little", "big"]]:
    """PyTorch's name for a pickled dtype, "" for one that no tensor has; its byte order."""
    cls = class_of(kind) if isinstance(kind, Record) else None
    if not isinstance(kind, Record) or cls is None or cls.name != "dtype" or not kind.args:
        return "", "little"
    code, state = kind.args[0], kind.states[-1] if kind.states else ()
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else ""
    dtype = NUMPY_DTYPES.get(code.lstrip("<>=|"), "") if isinstance(code, str) else ""
    return dtype, "big" if _is_text(order, ">") else "little"


def _numpy_bytes(raw: object, byteorder: Literal["little", "big"]) -> Inline | None:
    if isinstance(raw, Record):
        cls = class_of(raw)
        name = cls.name if cls is not None else ""
        if name == "encode" and len(raw.args) == 2 and isinstance(raw.args[0], str | Blob):
            return Inline(raw.args[0], True, byteorder)  # how protocol 2 spells bytes
        if name == "bytes" and not raw.args:
            return Inline("", True, byteorder)  # ... and none
        if name == "bytearray" and len(raw.args) == 1:
            raw = raw.args[0]
    return Inline(raw, False, byteorder) if isinstance(raw, str | Blob) else None


_DENSE: dict[str, Callable[[Sequence[Any]], View]] = {
    "_rebuild_tensor": _plain,
    "_rebuild_tensor_v2": _plain,
    "_rebuild_tensor_v3": _typed,
}
_REBUILDERS: dict[str, Callable[[Sequence[Any]], View]] = {
    **_DENSE,
    "_rebuild_qtensor": _quantised,
    "_rebuild_sparse_tensor": _sparse,
    "_rebuild_sparse_csr_tensor": _sparse,
    "_rebuild_nested_tensor": _nested,
    "_rebuild_meta_tensor_no_storage": _meta,
    "_rebuild_wrapper_subclass": _wrapper,
    "_rebuild_device_tensor_from_numpy": _from_numpy,
    "_rebuild_xla_tensor": _from_numpy,
}
"""Functions of PyTorch that make a tensor, by name; each reads the arguments."""

_WRAPPERS = {
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
    "_rebuild_device_tensor_from_cpu_tensor",
    "Parameter",
    "Buffer",
    "Variable",
}
"""Functions and classes whose first argument is a tensor that they pass on."""

_SUBCLASSES = {"_rebuild_from_type", "_rebuild_from_type_v2"}
"""(function, class, arguments, state): another of these functions, for a subclass."""


def _is_text(value: object, text: str) -> bool:
    return isinstance(value, str) and value == text


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _size(value: object) -> int:
    if not isinstance(value, int) or not _is_size(value):
        raise ValueError("a size that is not a number")
    return value


def as_sizes(value: object) -> tuple[int, ...]:
    """A tuple of sizes, perhaps as torch.Size(...)."""
    if isinstance(value, Record) and len(value.args) == 1:
        value = value.args[0]
    if not isinstance(value, tuple | list) or len(value) > MOST_SIZES:
        raise ValueError("sizes that are not a tuple")
    return tuple(_size(item) for item in value)


def _dtype_name(value: object) -> str:
    if not isinstance(value, Global) or not value.module.startswith("torch"):
        raise TypeError("an invalid dtype")
    return value.name


def _true_flags(metadata: object) -> str:
    """The names of what is set in a tensor's metadata, such as a lazy conjugation."""
    pairs = metadata.pairs if isinstance(metadata, Dict) else ()
    return ", ".join(quoted(k) for k, v in pairs[:MOST_PARTS] if v is True and isinstance(k, str))
