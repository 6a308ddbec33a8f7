"""NumPy's .npy: a header in one line of Python, then the elements."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.light import dataclass, np
from bncli.loaders.interface import STANDARD_INPUT, Source
from bncli.loaders.names import quoted
from bncli.model import TensorFile, TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 1 << 16
"""Plain arrays need a hundred bytes; only structured dtypes need a long header."""
MOST_AXES = 32

_KEY = re.compile(r"""\s*(['"])(descr|fortran_order|shape)\1\s*:\s*""", re.ASCII)
_COMMA = re.compile(r"\s*,?")
_VALUES = {
    "descr": re.compile(r"""(['"])(?P<value>[^'"\\]*)\1"""),
    "fortran_order": re.compile(r"(?P<value>True|False)"),
    "shape": re.compile(r"\((?P<value>(?:\s*\d{1,19}L?\s*,)*(?:\s*\d{1,19}L?)?)\s*\)", re.ASCII),
}
_NAMES = {
    "f2": "float16", "f4": "float32", "f8": "float64",
    "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64",
    "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
    "b1": "bool", "c8": "complex64", "c16": "complex128",
}  # fmt: skip
_KINDS = {
    "O": "Python objects, which could only be restored by running the file's pickle",
    "U": "text", "S": "text", "a": "text", "V": "raw bytes of no known dtype",
    "M": "dates", "m": "time spans", "f": "floats wider than float64",
    "c": "complex numbers wider than complex128",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says. `problem` says why the elements cannot be read, "" where they can."""

    shape: tuple[int, ...]
    dtype: str
    byteorder: Literal["little", "big"]
    fortran_order: bool
    start: int
    problem: str = ""

    @property
    def numel(self) -> int:
        """The number of elements."""
        product = 1
        for size in self.shape:
            product *= size
        return product

    @property
    def nbytes(self) -> int:
        """The number of bytes that the elements take."""
        return self.numel * DTYPES[self.dtype].itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """Steps between neighbours along each axis, in elements."""
        return contiguous(self.shape, fortran_order=self.fortran_order)


def kind_said(kind: str, dtype: str) -> str:
    """What an array holds that is none of numbers, by the letter of its kind."""
    return _KINDS.get(kind, f"elements of the unknown dtype {quoted(dtype)}")


def contiguous(shape: tuple[int, ...], *, fortran_order: bool = False) -> tuple[int, ...]:
    """The strides, in elements, of a dense tensor: last axis fastest, or first with Fortran."""
    strides, step = [], 1
    for size in shape if fortran_order else reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(strides if fortran_order else reversed(strides))


def detect(source: Source) -> bool:
    """Whether the file begins as .npy does."""
    return source.head.startswith(MAGIC)


def open_tensors(source: Source) -> TensorFile:
    """The one tensor of the file, named ""; its elements stay in the file until they are read."""
    header = parse_header(source.path, source.head_of)
    if header.problem:
        raise UnsupportedFileError(
            source.path, f"it holds {header.problem}; save a numeric array with np.save."
        )
    there = source.size - source.start - header.start
    if header.nbytes > there:
        raise CorruptFileError(
            source.path,
            f"its header promises {header.nbytes} bytes of elements, but {there} are there; it is"
            " cut short, so download or save it again.",
        )
    place = FileBytes(source.path, source.start + header.start, header.nbytes, header.byteorder)
    return _file(source.path, header, place)


def from_stream(stream: BinaryIO, head: bytes) -> TensorFile:
    """The one tensor of an .npy that is piped in, and of which `head` was read already."""

    def head_of(count: int) -> bytes:
        nonlocal head
        head += stream.read(count - len(head))
        return head

    header = parse_header(STANDARD_INPUT, head_of)
    if header.problem:
        raise UnsupportedFileError(
            STANDARD_INPUT, f"it holds {header.problem}; save a numeric array with np.save."
        )
    elements = bytearray()
    while len(elements) < header.nbytes:  # in pieces: a lying header must not cost memory
        piece = stream.read(min(header.nbytes - len(elements), 1 << 24))
        if not piece:
            break
        elements += piece
    if len(elements) < header.nbytes:
        raise CorruptFileError(
            STANDARD_INPUT,
            f"its header promises {header.nbytes} bytes of elements, but {len(elements)} came;"
            " the program that writes to the pipe stopped early.",
        )
    return _file(STANDARD_INPUT, header, flat_array(lambda: elements, header))


def flat_array(read: Callable[[], bytes | bytearray], header: Header) -> Callable[[], NDArray[Any]]:
    """A function that gives the elements as a flat array, for `TensorRef.storage`."""

    def flat() -> NDArray[Any]:
        dtype = np.dtype(DTYPES[header.dtype].stored).newbyteorder(header.byteorder)
        data = read()
        return np.frombuffer(data, dtype) if data else np.empty(0, dtype)

    return flat


def parse_header(path: Path, head_of: Callable[[int], bytes], member: str = "") -> Header:
    """What the header says; `head_of(n)` gives the first n bytes, fewer at the end of the file.

    `member` is the name inside an archive, for the sentence. Raises CorruptFileError.
    """

    def corrupt(fact: str) -> CorruptFileError:
        where = f"{quoted(member)}: " if member else ""
        return CorruptFileError(path, f"{where}{fact}; it is damaged, so save it again.")

    head = head_of(12)
    if len(head) < 12 or not head.startswith(MAGIC) or head[6] not in {1, 2, 3}:
        raise corrupt("it begins as .npy but has no header of version 1, 2 or 3")
    if head[6] == 1:
        start, length = 10, struct.unpack_from("<H", head, 8)[0]
    else:
        start, length = 12, struct.unpack_from("<L", head, 8)[0]
    if length > LONGEST_HEADER:
        raise corrupt(f"its .npy header claims {length} bytes, far more than an array needs")
    text = head_of(start + length)[start:]
    if len(text) < length:
        raise corrupt("its .npy header is cut short")
    fields = _fields(text.decode("utf-8" if head[6] == 3 else "latin-1", "replace"))
    if fields is None:
        raise corrupt("its .npy header cannot be read")
    shape = tuple(int(size) for size in re.findall("[0-9]+", fields["shape"]))
    if len(shape) > MOST_AXES:
        raise corrupt(f"its .npy header names {len(shape)} axes")
    return _checked(shape, fields, start + length, corrupt)


def _fields(text: str) -> dict[str, str] | None:
    """The values of the header's three keys, as text; None where it is not such a dictionary.

    A structured dtype, which is a list, comes back as the descr "list".
    """
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    fields: dict[str, str] = {}
    at, end = 1, len(text) - 1
    while key := _KEY.match(text, at, end):
        name, at = key[2], key.end()
        if name == "descr" and text[at : at + 1] in {"[", "("}:
            return {"descr": "list", "shape": "", "fortran_order": "False"}
        value = _VALUES[name].match(text, at, end)
        if value is None or name in fields:
            return None
        fields[name], at = value["value"], value.end()
        comma = _COMMA.match(text, at, end)
        at = comma.end() if comma else at
    return fields if len(fields) == 3 and not text[at:end].strip() else None


def _checked(
    shape: tuple[int, ...],
    fields: dict[str, str],
    start: int,
    corrupt: Callable[[str], CorruptFileError],
) -> Header:
    """The header with its dtype understood, its shape within reason."""
    descr = fields["descr"]
    fortran_order = fields["fortran_order"] == "True"
    if descr == "list":
        return Header((), "object", "little", False, start, "records of several fields")
    order, kind = (descr[0], descr[1:]) if descr[:1] in set("<>=|") else ("=", descr)
    byteorder: Literal["little", "big"] = "little"
    if order == ">" or (order == "=" and sys.byteorder == "big"):
        byteorder = "big"
    name = _NAMES.get({"?": "b1"}.get(kind, kind))
    if name is None:
        return Header(shape, "object", byteorder, fortran_order, start, kind_said(kind[:1], descr))
    extent = DTYPES[name].itemsize
    for size in shape:
        extent *= max(size, 1)
    if extent >= 1 << 62:
        raise corrupt(f"its .npy header claims the shape {shape}, more than any file holds")
    return Header(shape, name, byteorder, fortran_order, start)


def _file(
    path: Path, header: Header, storage: FileBytes | Callable[[], NDArray[Any]]
) -> TensorFile:
    ref = TensorRef("", path, header.shape, header.dtype, header.strides, storage)
    return TensorFile(path, "npy", {"": ref})
