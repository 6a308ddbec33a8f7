"""Pickles and archives made by hand, opcode by opcode, for what no pickler would write."""

import io
import json
import struct
import zipfile

PROTO = b"\x80\x02"
STOP = b"."
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"


def name(module, attribute):
    """A class or function by GLOBAL."""
    return f"c{module}\n{attribute}\n".encode()


def text(value):
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def blob(value):
    return b"B" + struct.pack("<I", len(value)) + value


def integer(value):
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tup(*parts):
    return b"(" + b"".join(parts) + b"t"


def call(function, *args):
    return function + tup(*args) + b"R"


def dictionary(**items):
    return b"}(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def ordered(**items):
    return (
        name("collections", "OrderedDict")
        + b")R("
        + (b"".join(text(k) + v for k, v in items.items()) + b"u")
    )


def pid(key="0", numel=4, kind="FloatStorage", location="cpu", *more):
    return tup(
        text("storage"), name("torch", kind), text(key), text(location), integer(numel), *more
    )


def tensor(size=(4,), stride=(1,), offset=0, reference=None):
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        (pid() if reference is None else reference) + b"Q",
        integer(offset),
        tup(*(integer(n) for n in size)),
        tup(*(integer(n) for n in stride)),
        FALSE,
        ordered(),
    )


def whole(value):
    return PROTO + value + STOP


def zipped(members, compression=zipfile.ZIP_STORED):
    """An archive of {name: bytes}."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return out.getvalue()


def torch_zip(value, storages=None, **more):
    """A PyTorch archive around the opcodes of one value."""
    storages = {"0": bytes(16)} if storages is None else storages
    return zipped(
        {
            "a/data.pkl": whole(value),
            "a/byteorder": b"little",
            **{f"a/data/{key}": data for key, data in storages.items()},
            "a/version": b"3\n",
            **more,
        }
    )


def torch_legacy(value, storages=None):
    """The five parts around the opcodes of one value; {key: (number of elements, bytes)}."""
    storages = {"0": (4, bytes(16))} if storages is None else storages
    return (
        whole(integer(0x1950A86A20F9469CFC6C))
        + whole(b"M" + struct.pack("<H", 1001))
        + whole(dictionary(little_endian=TRUE))
        + whole(value)
        + whole(b"](" + b"".join(text(key) for key in storages) + b"e")
        + b"".join(struct.pack("<q", count) + data for count, data in storages.values())
    )


def safetensors(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def npy(header, data=b"", version=1):
    raw = header.encode() if isinstance(header, str) else header
    size = struct.pack("<H" if version == 1 else "<I", len(raw))
    return b"\x93NUMPY" + bytes([version, 0]) + size + raw + data
