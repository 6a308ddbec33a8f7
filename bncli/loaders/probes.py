"""Probes that tell what unreadable files are: bounded, and certain before they say yes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from bncli.errors import FileError
from bncli.loaders.interface import Source, open_source

SEARCHED = 1 << 22
"""How many of the first bytes are searched for a word that tells who wrote the file."""
MOST_FIELDS = 1_000  # each is a read of its own


def begins(*starts: bytes, at: int = 0) -> Callable[[Source], bool]:
    """Whether one of these stands at a place near the begin of the file."""
    return lambda source: source.head[at:].startswith(starts)


def holds(*words: bytes) -> Callable[[Source], bool]:
    """Whether one of these stands anywhere in the first bytes of the file."""

    def found(source: Source) -> bool:
        first = source.head_of(SEARCHED)
        return any(word in first for word in words)

    return found


def named(suffix: str) -> Callable[[Source], bool]:
    """Whether the file is called so; for formats whose content begins with nothing of its own."""
    return lambda source: source.path.name.endswith(suffix)


def beside(suffix: str, word: bytes) -> Callable[[Source], bool]:
    """Whether it is a .bin beside a file of its name with another suffix, which has this word."""

    def found(source: Source) -> bool:
        other = source.path.with_suffix(suffix)
        if source.path.suffix != ".bin" or not other.is_file():
            return False
        try:
            with open_source(other) as graph:
                return word in graph.head
        except FileError:
            return False

    return found


def is_xml(word: bytes) -> Callable[[Source], bool]:
    """Whether XML begins here, with this element among its first bytes."""

    def found(source: Source) -> bool:
        text = source.head.removeprefix(b"\xef\xbb\xbf").lstrip()
        return text.startswith((b"<?xml", word)) and word in text

    return found


def is_tensorflow_js(source: Source) -> bool:
    """The model.json of TensorFlow.js, or the weights that it lists, which go by their name."""
    if re.fullmatch(r"group\d+-shard\d+of\d+(\.bin)?", source.path.name):
        return True
    return source.head.lstrip().startswith(b"{") and holds(b'"weightsManifest"')(source)


def is_program(source: Source) -> bool:
    """Whether it is a program or a library, of any system."""
    if source.head.startswith((b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")):
        return True
    at = int.from_bytes(source.head[0x3C:0x40], "little")
    return source.head[:2] == b"MZ" and source.head[at : at + 4] == b"PE\0\0"


def is_blank(source: Source) -> bool:
    """Whether the first and the last bytes are all 0."""
    last = source.read(max(source.start, source.size - 4096), min(4096, source.size - source.start))
    return not any(source.head) and not any(last)


def is_html(source: Source) -> bool:
    """Whether a web page begins here."""
    text = source.head[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or (
        text.startswith((b"<?xml", b"<!--")) and b"<html" in text
    )


def is_pickle(head: bytes) -> bool:
    """Whether a pickle begins here: it names its protocol, or has one of the oldest begins."""
    named = head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}
    return named or OLDEST_PICKLES.match(head) is not None


OLDEST_PICKLES = re.compile(
    rb"(?:\((?:dp|lp|p)\d+\n|ccopy_reg\n|ccollections\n|[\]}]q\0|L1195470371460388013)"
)
"""How pickles of protocols 0 and 1 begin that hold a dictionary, a list, a tuple or an object, or
the magic number of torch.save."""


def is_tar(source: Source) -> bool:
    """Whether the first 512 bytes are a tar header."""
    return is_tar_header(source.head)


def is_tar_header(head: bytes) -> bool:
    """Whether these bytes begin with a tar header: its checksum is right."""
    head = head[:512]
    digits = head[148:156].strip(b" \0")
    if len(head) < 512 or not re.fullmatch(rb"[0-7]{1,7}", digits):
        return False
    return int(digits, 8) == sum(head[:148]) + 8 * 0x20 + sum(head[156:])


def is_torch_tar(source: Source) -> bool:
    """Whether it is what PyTorch before 0.2 wrote."""
    name = source.head[:100].rstrip(b"\0")
    return is_tar(source) and name in {b"sys_info", b"pickle", b"storages", b"tensors"}


def is_hdf5(source: Source) -> bool:
    """Whether HDF5's signature stands at the begin, or behind a block of the user's."""
    return any(
        source.read(source.start + at, 8) == b"\x89HDF\r\n\x1a\n"
        for at in (0, 512, 1024, 2048)
        if source.start + at + 8 <= source.size
    )


def is_matlab4(source: Source) -> bool:
    """Whether the file begins with the header of a matrix of MATLAB 4, and its name."""
    if len(source.head) < 22:
        return False
    for order in "<>":
        kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5i", source.head)
        digits = f"{kind:04d}" if 0 <= kind < 5000 else "9999"
        thousands, _, precision, text = map(int, digits)
        if (
            thousands == (order == ">")
            and digits[1] == "0"
            and precision <= 5
            and text <= 2
            and rows >= 0
            and columns >= 0
            and imaginary in {0, 1}
            and 2 <= length <= 64
        ):
            name = source.head[20 : 20 + length]
            nbytes = (8, 4, 4, 2, 2, 1)[precision] * rows * columns * (1 + imaginary)
            fits = 20 + length + nbytes <= source.size
            return fits and re.fullmatch(rb"[A-Za-z]\w*\0", name) is not None
    return False


def is_msgpack(source: Source) -> bool:
    """Whether it is a table of MessagePack: the mark of a table, and a text for its first key."""
    head = source.head
    at = 1 if head[:1] and 0x81 <= head[0] <= 0x8F else {0xDE: 3, 0xDF: 5}.get(head[0], 0)
    if not at or len(head) <= at + 1:
        return False
    if 0xA1 <= head[at] <= 0xBF:
        key = head[at + 1 : at + 1 + (head[at] & 0x1F)]
    elif head[at] == 0xD9:
        key = head[at + 2 : at + 2 + head[at + 1]]
    else:
        return False
    try:
        return bool(key) and key.decode().isprintable()
    except UnicodeDecodeError:
        return False


def is_paddle_stream(source: Source) -> bool:
    """Whether it begins as Paddle writes a tensor: two versions and no levels, a dtype, sizes."""
    size = int.from_bytes(source.head[16:20], "little")
    message = source.head[20 : 20 + size]
    return (
        not any(source.head[:16])
        and 4 <= size <= 64
        and len(message) == size
        and (message[0], message[2]) == (0x08, 0x10)
    )


def is_darknet(source: Source) -> bool:
    """Whether it is called .weights and begins with a version of Darknet (0.1 or 0.2)."""
    if not source.path.name.endswith(".weights") or len(source.head) < 20:
        return False
    major, minor, revision = struct.unpack_from("<3i", source.head)
    return major == 0 and minor in {1, 2} and 0 <= revision <= 9


def is_tensorflow_data(source: Source) -> bool:
    """Whether it is called like the data of a TensorFlow checkpoint, which begin with no mark."""
    return re.search(r"\.data-\d{5}-of-\d{5}$", source.path.name) is not None


def is_cut_tensorflow_index(source: Source) -> bool:
    """Whether it is called .index, and begins as that of a TensorFlow checkpoint: its header.

    That is an entry with no key and a short message, whose first field is a number.
    """
    head = source.head[:4]
    return source.path.name.endswith(".index") and head[:2] == b"\0\0" and head[3:] == b"\x08"


def is_tensorflow_meta(source: Source) -> bool:
    """Whether it is called .meta and is what TensorFlow 1 has beside a checkpoint: a graph (2)."""
    if not source.path.name.endswith(".meta") or source.head[:1] != b"\x0a":
        return False
    fields = protobuf_fields(source)
    return fields is not None and (fields.get(1), fields.get(2)) == (2, 2)


def varint(data: bytes, at: int = 0) -> tuple[int, int]:
    """A number of up to 64 bits in 7 bits a byte, and where it ends; (-1, ...) where it is none."""
    value = 0
    for width, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * width)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + width + 1
    return -1, len(data)


def protobuf_fields(source: Source) -> dict[int, int] | None:
    """The fields of a protobuf message and their wire types; None where it is none.

    Every field must be well-formed and the last must end with the file. Of a message with very
    many fields, the first are enough.
    """
    fields: dict[int, int] = {}
    at = 0
    for _ in range(MOST_FIELDS):
        if at == source.size:
            return fields
        piece = source.read(at, min(20, source.size - at))
        tag, used = varint(piece, 0)
        wire = tag & 7
        if tag < 8 or wire not in {0, 1, 2, 5}:
            return None
        if wire in {0, 2}:
            value, used = varint(piece, used)
            if value < 0:
                return None
            used += value if wire == 2 else 0
        else:
            used += 8 if wire == 1 else 4
        fields[tag >> 3] = wire
        at += used
        if at > source.size:
            return None
    return fields


def is_saved_model(source: Source) -> bool:
    """A SavedModel's own file: its schema's version is 1, and graphs (2) follow."""
    return source.head[:3] == b"\x08\x01\x12" and protobuf_fields(source) == {1: 0, 2: 2}


def is_core_ml(source: Source) -> bool:
    """A Core ML model: a version (1), a description (2), and a kind of model from 200 on."""
    if source.head[:1] != b"\x08":
        return False
    fields = protobuf_fields(source)
    return (
        fields is not None
        and (fields.get(1), fields.get(2)) == (0, 2)
        and any(field >= 200 and wire == 2 for field, wire in fields.items())
    )


def is_caffe(source: Source) -> bool:
    """A NetParameter: a name (1), and layers as field 100, or as field 2 in the oldest."""
    if source.head[:1] != b"\x0a" or not source.path.name.endswith(".caffemodel"):
        return False
    fields = protobuf_fields(source)
    return fields is not None and 2 in {fields.get(100), fields.get(2)}


def is_protobuf_list(source: Source) -> bool:
    """Messages as field 1 from the first byte to the last, which begin with a name."""
    if source.head[:1] != b"\x0a":
        return False
    _, at = varint(source.head, 1)
    fields = protobuf_fields(source)
    return source.head[at : at + 1] == b"\x0a" and fields is not None and fields.get(1) == 2
