"""safetensors: the length of a header, the header as JSON, the elements."""

from __future__ import annotations

from typing import Any, NoReturn

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders.interface import Source, lean_json
from bncli.loaders.names import quoted
from bncli.loaders.npy import MOST_AXES, contiguous
from bncli.model import TensorFile, TensorRef

LONGEST_HEADER = 100_000_000
"""The library's own limit."""
FREE_HEADER = 1 << 24
"""A header may be so long whatever it describes; a longer one needs elements to describe."""
BYTES_A_HEADER_BYTE = 4
"""How many bytes of elements there must be for each byte of a header beyond that."""
FREE_MARKS, MARK_WIDTH = 1 << 20, 4
"""How closely the header's JSON may be packed (`lean_json`): that of a tensor has 3 in 13 bytes."""

_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16",
    "U32": "uint32", "I32": "int32", "U64": "uint64", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "C64": "complex64",
}  # fmt: skip
_SUB_BYTE_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


def detect(source: Source) -> bool:
    """Whether the file begins with a length that a header can have, and a brace."""
    begins = source.head[8:].lstrip(b" \t\r\n").startswith(b"{")
    return begins and _header_length(source) <= LONGEST_HEADER


def open_tensors(source: Source) -> TensorFile:
    """The tensors in the order of their bytes in the file."""
    length = _header_length(source)
    begin = source.start + 8 + length
    if begin > source.size:
        raise CorruptFileError(
            source.path,
            f"its safetensors header should take {length} bytes, but"
            f" {source.size - source.start - 8} are there; it is cut short, so download or copy it"
            " again.",
        )
    if length > FREE_HEADER + (source.size - begin) // BYTES_A_HEADER_BYTE:
        raise CorruptFileError(
            source.path,
            f"its safetensors header of {length} bytes is too long for the {source.size - begin}"
            " bytes of elements that it describes; save the file again.",
        )
    entries = _parse(source, source.read(begin - length, length))
    refs = [_ref(source, begin, name, entry) for name, entry in entries.items()]
    refs.sort(key=lambda placed: placed[:2])
    end = 0
    for first, last, ref in refs:
        if first != end:
            raise _corrupt(
                source, f"its tensor {quoted(ref.name)} should begin at {end}, not at {first}"
            )
        end = last
    if begin + end != source.size:
        raise CorruptFileError(
            source.path,
            f"its safetensors header describes {end} bytes of elements, but"
            f" {source.size - begin} are there; it is cut short or damaged, so"
            " download or copy it again.",
        )
    return TensorFile(source.path, "safetensors", {ref.name: ref for _, _, ref in refs})


def _header_length(source: Source) -> int:
    return int.from_bytes(source.head[:8], "little")


def _parse(source: Source, text: bytes) -> dict[str, dict[str, Any]]:
    """The header's table without its __metadata__; JSON as strict as the library's own."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise _corrupt(source, "its header describes a tensor twice")
        for key, value in pairs:
            key.encode()  # a lone surrogate is a ValueError
            if isinstance(value, str):
                value.encode()
        return table

    def constant(name: str) -> NoReturn:
        raise ValueError(name)

    try:
        table = lean_json(
            text, FREE_MARKS, MARK_WIDTH, object_pairs_hook=unique, parse_constant=constant
        )
    except ValueError as error:
        fact = "its header is not valid JSON, or has far more values than its tensors need"
        raise _corrupt(source, fact) from error
    if not isinstance(table, dict):
        raise _corrupt(source, "its header is not a table")
    metadata = table.pop("__metadata__", None)
    if metadata is not None and not _texts(metadata):
        raise _corrupt(source, "its __metadata__ is not a table of strings")
    return table


def _ref(source: Source, begin: int, name: str, entry: object) -> tuple[int, int, TensorRef]:
    """One tensor with the place of its first byte and behind its last, from `begin` on."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise _corrupt(source, f"its tensor {quoted(name)} has an invalid description")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (isinstance(code, str) and _sizes(shape) and _sizes(offsets) and len(offsets) == 2):
        raise _corrupt(source, f"its tensor {quoted(name)} has an invalid description")
    first, last = offsets
    numel = 1
    for size in shape:
        numel *= size
        if numel >= 1 << 62:
            raise _corrupt(source, f"its tensor {quoted(name)} has an impossible shape")
    dtype = _DTYPES.get(code)
    if dtype is not None:
        bits = 8 * DTYPES[dtype].itemsize
    elif code in _SUB_BYTE_BITS:
        bits = _SUB_BYTE_BITS[code]
    else:
        raise _corrupt(source, f"its tensor {quoted(name)} has the unknown dtype {quoted(code)}")
    if last < first or (last - first) * 8 != numel * bits:
        raise _corrupt(
            source,
            f"its tensor {quoted(name)} of {numel} elements cannot take {last - first} bytes",
        )
    shape = tuple(shape)
    if dtype is None or len(shape) > MOST_AXES:
        why = f"the dtype {code} is not read" if dtype is None else f"it has {len(shape)} axes"
        unread = TensorRef(
            name, source.path, shape, dtype or code.lower(), contiguous(shape), None, why
        )
        return first, last, unread
    place = FileBytes(source.path, begin + first, last - first)
    return first, last, TensorRef(name, source.path, shape, dtype, contiguous(shape), place)


def _texts(value: object) -> bool:
    """Whether the value is a table of text; its keys always are."""
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _sizes(value: object) -> bool:
    """Whether the value is a list of sizes."""
    return isinstance(value, list) and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 62
        for size in value
    )


def _corrupt(source: Source, fact: str) -> CorruptFileError:
    return CorruptFileError(
        source.path, f"{fact}; the safetensors file is damaged, so download or save it again."
    )
