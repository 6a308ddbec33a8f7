"""Large checkpoints that take no room: their large tensors are holes in the file."""

from __future__ import annotations

import json
import struct
import zlib
from io import BytesIO
from math import prod
from pathlib import Path

import numpy as np

LARGE = 40_000_000
"""Bytes of a large tensor, about."""


def layers(count: int, *, channels: int = 512, large: int = 1) -> dict[str, object]:
    """Layers of as many `large` tensors, each a shape, and a BatchNorm layer's arrays behind."""
    chance = np.random.default_rng(0)
    tensors: dict[str, object] = {}
    for i in range(count):
        for k in range(large):
            tensors[f"l{i}.conv{k}.weight"] = (channels, LARGE // 4 // channels)
        for name in ("weight", "bias", "running_mean", "running_var"):
            values = chance.uniform(0.5, 1.5, channels).astype(np.float32)
            tensors[f"l{i}.bn.{name}"] = values
        tensors[f"l{i}.bn.num_batches_tracked"] = np.array(5000 + i)
    return tensors


def write_safetensors(path: Path, tensors) -> None:
    header, at = {}, 0
    for name, value in tensors.items():
        shape, dtype, nbytes = _described(value)
        code = {"f4": "F32", "i8": "I64"}[dtype]
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            _put(file, value)
        file.truncate()


def write_torch_zip(path: Path, tensors) -> None:
    """As `torch.save` writes it, but without checksums, which a hole has none of."""
    import torch

    state = {
        name: torch.empty(value) if isinstance(value, tuple) else torch.from_numpy(value)
        for name, value in tensors.items()
    }
    with torch.serialization.skip_data():
        torch.save(state, path)
    reader = torch._C.PyTorchFileReader(str(path))
    places = [reader.get_record_offset(f"data/{k}") for k in range(len(state))]
    del reader
    with path.open("r+b") as file:
        for place, value in zip(places, tensors.values(), strict=True):
            if not isinstance(value, tuple):
                file.seek(place)
                file.write(value.tobytes())


def write_npz(path: Path, tensors) -> None:
    """As `np.savez` writes it; the checksums of the holes are wrong."""
    entries = []
    with path.open("wb") as file:
        for tensor, value in tensors.items():
            shape, dtype, nbytes = _described(value)
            head = BytesIO()
            np.lib.format.write_array_header_1_0(
                head, {"descr": f"<{dtype}", "fortran_order": False, "shape": tuple(shape)}
            )
            begin = head.getvalue()
            crc = zlib.crc32(begin + (b"" if isinstance(value, tuple) else value.tobytes()))
            name, size = f"{tensor}.npy".encode(), len(begin) + nbytes
            sizes = crc, size, size, len(name)
            entries.append((sizes, file.tell(), name))
            file.write(struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, *sizes, 0) + name)
            file.write(begin)
            _put(file, value)
        start = file.tell()
        for sizes, at, name in entries:
            file.write(
                struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, *sizes, 0, 0, 0, 0, 0, at)
                + name
            )
        count, length = len(entries), file.tell() - start
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, length, start, 0))


def write_onnx(path: Path, tensors, data: str = "") -> None:
    """A chain of convolutions and BatchNorm layers; in a file `data` beside it if one is named."""
    from onnx import helper

    names = [name.removesuffix(".running_mean") for name in tensors if "running_mean" in name]
    nodes, value = [], "x"
    for name in names:
        leaves = ("weight", "bias", "running_mean", "running_var")
        inputs = [value, *(f"{name}.{leaf}" for leaf in leaves)]
        nodes.append(helper.make_node("BatchNormalization", inputs, [f"{name}.y"], name))
        value = f"{name}.y"
    with path.open("wb") as file, path.with_name(data or "unused").open("wb") as other:
        initializers = []
        size = 0
        for name, tensor in tensors.items():
            shape, dtype, nbytes = _described(tensor)
            head = b"".join(_field(1, dim) for dim in shape)
            head += _field(2, {"f4": 1, "i8": 7}[dtype]) + _field(8, name.encode())
            if data:
                pairs = {"location": data, "offset": str(other.tell()), "length": str(nbytes)}
                for key, text in pairs.items():
                    entry = _field(1, key.encode()) + _field(2, text.encode())
                    head += _field(13, entry)
                head += _field(14, 1)
                _put(other, tensor)
                initializers.append((_tag(5, len(head)) + head, None))
            else:
                head += _tag(9, nbytes)
                initializers.append((_tag(5, len(head) + nbytes) + head, tensor))
                size += nbytes
            size += len(initializers[-1][0])
        if data:
            other.truncate()
        front = b"".join(_field(1, node.SerializeToString()) for node in nodes) + _field(2, b"net")
        shape = helper.make_tensor_value_info("x", 1, ["n", 512, "h"]).SerializeToString()
        result = helper.make_tensor_value_info(value, 1, ["n", 512, "h"]).SerializeToString()
        end = _field(11, shape) + _field(12, result)
        file.write(_field(1, 8) + _tag(7, len(front) + size + len(end)) + front)
        for head, tensor in initializers:
            file.write(head)
            if tensor is not None:
                _put(file, tensor)
        file.write(end + _field(8, _field(2, 17)))


def _described(value) -> tuple[list[int], str, int]:
    shape = list(value if isinstance(value, tuple) else value.shape)
    dtype = "f4" if isinstance(value, tuple) else value.dtype.str[1:]
    return shape, dtype, prod(shape) * int(dtype[1:])


def _put(file, value) -> None:
    if isinstance(value, tuple):
        file.seek(prod(value) * 4, 1)
    else:
        file.write(value.tobytes())


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _tag(number: int, length: int) -> bytes:
    return _varint(number << 3 | 2) + _varint(length)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _tag(number, len(value)) + value


WRITERS = {
    "net.safetensors": write_safetensors,
    "net.pt": write_torch_zip,
    "net.npz": write_npz,
    "net.onnx": write_onnx,
}
