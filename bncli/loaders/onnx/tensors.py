"""The tensors of an ONNX file: their elements raw, in typed fields, or in a file beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError
from bncli.files.file_bytes import FileBytes
from bncli.light import dataclass, np
from bncli.loaders.interface import open_source
from bncli.loaders.names import quoted
from bncli.loaders.npy import MOST_AXES, contiguous
from bncli.loaders.onnx.messages import Messages, Place
from bncli.loaders.onnx.outside import Outside
from bncli.loaders.protobuf import BYTES, Wire, signed
from bncli.model import TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CODES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64",
    15: "complex128", 16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz",
    19: "float8_e5m2", 20: "float8_e5m2fnuz", 24: "float8_e8m0fnu",
}  # fmt: skip
_UNREAD = {
    8: "string", 21: "uint4", 22: "int4", 23: "float4_e2m1", 25: "uint2", 26: "int2",
    27: "float6_e2m3", 28: "float6_e3m2",
}  # fmt: skip
_PLAIN = {4: ("float32", "complex64"), 10: ("float64", "complex128")}
"""The fields of numbers of fixed size, and what is in them."""
_VARINTS = {7: ("int64",), 11: ("uint32", "uint64")}
"""Those of varints; the field of int32, 5, has all the others."""
_STRINGS, _INT32, _RAW = 6, 5, 9
_ELEMENTS = {*_PLAIN, *_VARINTS, _STRINGS, _INT32, _RAW}
LONGEST_DIMS = 64
BLOCK = 1 << 20
"""How many bytes of varints are decoded at a time."""


@dataclass(slots=True)
class Description:
    """What a TensorProto says. `parts` are the places of its elements by the number of the field;
    `nbytes` how much each takes; only the first place of each is kept.
    """

    name: str = ""
    dims: list[int] = field(default_factory=list)
    code: int = 0
    parts: dict[int, Place] = field(default_factory=dict)
    nbytes: dict[int, int] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    is_outside: bool = False


def describe(messages: Messages, place: Place) -> Description:
    """Read a TensorProto without its elements."""
    said = Description()
    for part in messages.wire.fields(*place):
        number = part.number
        if number == 1:
            if part.value > 10 * LONGEST_DIMS and part.wire == BYTES:
                raise messages.wire.corrupt()
            said.dims += map(signed, messages.wire.varints(part))
            if len(said.dims) > LONGEST_DIMS:
                raise messages.wire.corrupt()
        elif number == 2:
            said.code = part.value
        elif number == 8:
            said.name = messages.text(part)
        elif number in _ELEMENTS:
            said.parts.setdefault(number, (part.start, part.stop))
            said.nbytes[number] = said.nbytes.get(number, 0) + part.stop - part.start
        elif number == 13 and part.wire == BYTES:
            entry = {1: "", 2: ""}
            for text in messages.wire.fields(part.start, part.stop):
                if text.number in entry:
                    entry[text.number] = messages.text(text)
            said.external[entry[1]] = entry[2]
        elif number == 14:
            said.is_outside = part.value == 1
    return said


@dataclass(frozen=True, slots=True)
class Tensors:
    """Makes `TensorRef`s of the TensorProtos of a file."""

    messages: Messages
    outside: Outside

    @property
    def path(self) -> Path:
        """The file."""
        return self.messages.source.path

    def ref(self, name: str, said: Description, place: Place) -> TensorRef:
        """The tensor under a name, its elements not read."""
        shape, numel = self._shape(name, said.dims)
        dtype = _CODES.get(said.code)
        if dtype is None or len(shape) > MOST_AXES:
            known = dtype or _UNREAD.get(said.code, f"onnx {said.code}")
            why = f"the dtype {known} is not read" if not dtype else f"it has {len(shape)} axes"
            return TensorRef(name, self.path, shape, known, contiguous(shape), None, why)
        nbytes = numel * DTYPES[dtype].itemsize
        storage: FileBytes | Callable[[], NDArray[Any]] | None
        why = ""
        if said.is_outside:
            storage = self.outside.place(name, said.external, nbytes)
        elif _RAW in said.parts:
            storage = self._plain(name, numel, said.parts[_RAW], nbytes)
        else:
            storage = self._typed(name, dtype, numel, said, place)
            if storage is None:
                why = "its values are not in the file"
        return TensorRef(name, self.path, shape, dtype, contiguous(shape), storage, why)

    def sparse(self, said: Description) -> TensorRef:
        """A tensor of which only some elements are stored, by the description of these."""
        known = _CODES.get(said.code, _UNREAD.get(said.code, f"onnx {said.code}"))
        return TensorRef(said.name, self.path, (), known, (), None, "it is sparse")

    def _shape(self, name: str, dims: list[int]) -> tuple[tuple[int, ...], int]:
        numel = 1
        for size in dims:
            numel *= size
            if size < 0 or numel >= 1 << 62:
                raise CorruptFileError(
                    self.path,
                    f"its tensor {quoted(name)} has an impossible shape; download or export the"
                    " model again.",
                )
        return tuple(dims), numel

    def _plain(self, name: str, numel: int, part: Place, nbytes: int) -> FileBytes:
        start, stop = part
        if stop - start != nbytes:
            raise self._wrong_size(name, numel, stop - start)
        return FileBytes(self.path, start, nbytes)

    def _typed(
        self, name: str, dtype: str, numel: int, said: Description, place: Place
    ) -> FileBytes | Callable[[], NDArray[Any]] | None:
        """The elements in the field that is for them; None where they are not there."""
        number = next(
            (number for number, fit in (_PLAIN | _VARINTS).items() if dtype in fit), _INT32
        )
        have = said.nbytes.get(number, 0)
        if not have:
            return None if numel else FileBytes(self.path, 0, 0)
        if number in _PLAIN:
            if have != numel * DTYPES[dtype].itemsize:
                raise self._wrong_size(name, numel, have)
            start, stop = said.parts[number]
            if stop - start == have:
                return FileBytes(self.path, start, have)
        elif not numel <= have <= 10 * numel:  # a varint has 1 to 10 bytes
            raise self._wrong_size(name, numel, have)
        return partial(_elements, self.path, place, number, name, dtype, numel)

    def _wrong_size(self, name: str, numel: int, nbytes: int) -> CorruptFileError:
        return _wrong_size(self.path, name, numel, nbytes)


def _wrong_size(path: Path, name: str, numel: int, nbytes: int) -> CorruptFileError:
    return CorruptFileError(
        path,
        f"its tensor {quoted(name)} of {numel} elements cannot take {nbytes} bytes; download or"
        " export the model again.",
    )


def _elements(
    path: Path, place: Place, number: int, name: str, dtype: str, numel: int
) -> NDArray[Any]:
    """The elements of a typed field, which may come in parts, as a flat array of stored bits."""
    stored = np.dtype(DTYPES[dtype].stored)
    with open_source(path) as source:
        wire = Wire(source)
        parts = [wire.bytes(f.start, f.stop) for f in wire.fields(*place) if f.number == number]
    data = b"".join(parts)
    if number in _PLAIN:
        if len(data) != numel * stored.itemsize:
            raise _wrong_size(path, name, numel, len(data))
        return np.frombuffer(data, stored.newbyteorder("<"))
    out = np.empty(numel, stored)
    done = 0
    bits = np.dtype(f"{'i' if stored.kind == 'i' else 'u'}{stored.itemsize}")
    for numbers in varints(data):
        narrow = numbers.astype(bits)
        fits = np.array_equal(narrow.astype(np.int64), numbers.view(np.int64))
        if numbers.size > numel - done or not (fits or bits.itemsize == 8):
            raise CorruptFileError(
                path,
                f"the elements of its tensor {quoted(name)} are more than {numel} numbers or too"
                f" large for {dtype}; download or export the model again.",
            )
        out[done : done + numbers.size] = narrow.view(stored)
        done += numbers.size
    if done != numel:
        raise _wrong_size(path, name, numel, len(data))
    return out


def varints(data: bytes) -> Iterator[NDArray[np.uint64]]:
    """The numbers in a run of varints, block by block; one that is not ended is left out."""
    at = 0
    while at < len(data):
        block = np.frombuffer(data, np.uint8, min(BLOCK, len(data) - at), at)
        ends = np.flatnonzero(block < 0x80)
        if not ends.size:
            return
        starts = np.concatenate(([0], ends[:-1] + 1))
        widths = ends - starts + 1
        numbers: NDArray[np.uint64] = np.zeros(ends.size, np.uint64)
        for width in range(min(int(widths.max()), 10)):
            there = widths > width
            piece = (block[starts[there] + width] & 0x7F).astype(np.uint64)
            numbers[there] |= piece << np.uint64(7 * width)
        yield numbers
        at += int(ends[-1]) + 1


def of_numbers(path: Path, numbers: tuple[float, ...], *, scalar: bool) -> TensorRef:
    """The float32 tensor that a Constant node's value_float or value_floats is."""
    shape = () if scalar else (len(numbers),)
    return TensorRef("", path, shape, "float32", contiguous(shape), partial(_array, numbers))


def _array(numbers: tuple[float, ...]) -> NDArray[Any]:
    return np.array(numbers, "f4")


def cast(ref: TensorRef, code: int) -> TensorRef | None:
    """The tensor as another float dtype that has all its values; None where that is unsure."""
    wanted = _CODES.get(code, "")
    if wanted == ref.dtype:
        return ref
    old, new = DTYPES.get(ref.dtype), DTYPES.get(wanted)
    if old is None or new is None or ref.storage is None or wanted not in {"float32", "float64"}:
        return None
    if old.kind != "float" or old.digits > new.digits or old.largest > new.largest:
        return None
    values = partial(_cast, ref, DTYPES[wanted].stored)
    return TensorRef(ref.name, ref.path, ref.shape, wanted, contiguous(ref.shape), values)


def _cast(ref: TensorRef, stored: str) -> NDArray[Any]:
    return ref.read().reshape(-1).astype(stored)
