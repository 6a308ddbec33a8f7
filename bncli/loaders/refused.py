"""Files that bncli does not read: what each really is, and what to do about it.

The last loader in the list: it takes every file, and always raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.loaders.interface import CHECKPOINTS, Source
from bncli.loaders.names import listed, quoted
from bncli.loaders.unpickler import Dict, Global, Pickle, Record, load

READ = "PyTorch, safetensors and NumPy files"
AS_NPZ = "save the weights with np.savez under PyTorch's names (LAYER.weight, LAYER.running_mean)"
"""What helps with other libraries' weights: their own names would not be found as BatchNorm's."""
LIKELY = (".index.json", *CHECKPOINTS)
"""Ends of file names that a directory's sentence suggests."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file, told by its content, and the sentence for it."""

    looks: Callable[[Source], bool]
    sentence: str | Callable[[Source], str]
    error: type[FileError] = UnsupportedFileError


def detect(source: Source) -> bool:
    """Whether the file can be refused: any can."""
    del source
    return True


def open_tensors(source: Source) -> NoReturn:
    """Raise the sentence for what the file is."""
    if _is_pickle(source.head) or OLDEST_PICKLES.match(source.head):
        _refuse_pickle(source)
    for kind in KINDS:
        if kind.looks(source):
            said = kind.sentence
            raise kind.error(source.path, said if isinstance(said, str) else said(source))
    if text := _text(source):
        raise UnsupportedFileError(
            source.path,
            f"it is text that begins with {quoted(text, 120)!r}; download it again where that is an"
            " answer of the server, and else name the file with the weights.",
        )
    first = " ".join(f"{byte:02x}" for byte in source.head[:8])
    raise UnsupportedFileError(
        source.path, f"its format is not known (it begins with {first}); bncli reads {READ}."
    )


def refuse_directory(path: Path) -> NoReturn:
    """Raise the sentence for a directory: what it is, or which file in it to name."""
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise FileError(
            path, f"it is a directory that cannot be read ({(error.strerror or '').lower()})."
        ) from None
    if "saved_model.pb" in names:
        raise UnsupportedFileError(
            path, f"it is a TensorFlow SavedModel; bncli reads {READ}, so {AS_NPZ}."
        )
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        raise UnsupportedFileError(
            path,
            "it is a checkpoint of torch.distributed; make it one file (python -m"
            " torch.distributed.checkpoint.format_utils dcp_to_torch"
            f" {quoted(path.name) or 'DIRECTORY'} model.pt) and name that.",
        )
    if "data.pkl" in names and "version" in names:
        raise UnsupportedFileError(
            path,
            "it is an unpacked PyTorch archive; put it back together (zip -0 -r model.pt"
            f" {quoted(path.name) or 'DIRECTORY'}) and name that.",
        )
    likely = [name for name in names if name.endswith(LIKELY)]
    likely.sort(key=lambda name: not name.endswith(".index.json"))
    hint = f"name a file in it ({listed(likely)})" if likely else "name a file"
    raise UnsupportedFileError(path, f"it is a directory; {hint}.")


OLDEST_PICKLES = re.compile(rb"(?:\((?:dp|lp|p)\d+\n|ccopy_reg\n|ccollections\n|[\]}]q\0)")
"""How pickles of protocols 0 and 1 begin that hold a dictionary, a list, a tuple or an object."""


def _is_pickle(head: bytes) -> bool:
    """Whether a pickle begins here: it names its protocol, or is a damaged one of torch.save."""
    named = head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}
    return named or head.startswith(b"L1195470371460388013")


def _refuse_pickle(source: Source) -> NoReturn:
    """Raise the sentence for a pickle that torch.save did not write."""
    if not OLDEST_PICKLES.match(source.head) and _is_paddle(load(source.path, source.mapped)):
        raise UnsupportedFileError(
            source.path,
            f"it is a PaddlePaddle pickle; {AS_NPZ}.",
        )
    raise UnsupportedFileError(
        source.path,
        "it is a plain Python pickle, not a file of torch.save; load it where it was made and save"
        " its tensors with torch.save or np.savez.",
    )


def _is_paddle(pickle: Pickle) -> bool:
    """Whether the pickle is a Paddle state_dict: it says so, or is all NumPy arrays by name."""
    root = pickle.value
    if not isinstance(root, Dict | Record):
        return False
    keys = [key for key, _ in root.pairs if isinstance(key, str)]
    if "StructuredToParameterName@@" in keys:
        return True
    # Newer versions pickle each parameter as tuple((its own name, its array)).
    named = [
        value
        for _, value in root.pairs[:8]
        if isinstance(value, Record)
        and isinstance(value.cls, Global)
        and value.cls.name == "tuple"
        and len(value.args) == 1
    ]
    return bool(named) and len(named) == len(root.pairs[:8])


def _text(source: Source) -> str:
    """The first words of a file that is text, "" where it is none."""
    import codecs

    try:
        # The head may end inside of a character.
        text = codecs.utf_8_decode(source.head.removeprefix(b"\xef\xbb\xbf"))[0]
    except UnicodeDecodeError:
        return ""
    words = " ".join(text.split())
    return words if words.isprintable() else ""


def _begins(*starts: bytes, at: int = 0) -> Callable[[Source], bool]:
    return lambda source: source.head[at:].startswith(starts)


def _is_html(source: Source) -> bool:
    text = source.head[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or (
        text.startswith((b"<?xml", b"<!--")) and b"<html" in text
    )


def _is_tar(source: Source) -> bool:
    """Whether the first 512 bytes are a tar header: its checksum is right."""
    head = source.head[:512]
    digits = head[148:156].strip(b" \0")
    if len(head) < 512 or not re.fullmatch(rb"[0-7]{1,7}", digits):
        return False
    return int(digits, 8) == sum(head[:148]) + 8 * 0x20 + sum(head[156:])


def _is_torch_tar(source: Source) -> bool:
    name = source.head[:100].rstrip(b"\0")
    return _is_tar(source) and name in {b"sys_info", b"pickle", b"storages", b"tensors"}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A protobuf number and where it ends; (-1, ...) where it is none."""
    value = 0
    for width in range(10):
        if at + width >= len(data):
            break
        byte = data[at + width]
        value |= (byte & 0x7F) << (7 * width)
        if byte < 0x80:
            return value, at + width + 1
    return -1, len(data)


def _protobuf_fields(source: Source) -> dict[int, int] | None:
    """The fields of a protobuf message and their wire types; None where it is none.

    Every field must be well-formed and the last must end with the file.
    """
    fields: dict[int, int] = {}
    at = 0
    for _ in range(1_000):
        if at == source.size:
            return fields
        piece = source.read(at, min(20, source.size - at))
        tag, used = _varint(piece, 0)
        wire = tag & 7
        if tag < 8 or wire not in {0, 1, 2, 5}:
            return None
        if wire in {0, 2}:
            value, used = _varint(piece, used)
            if value < 0:
                return None
            used += value if wire == 2 else 0
        else:
            used += 8 if wire == 1 else 4
        fields[tag >> 3] = wire
        at += used
        if at > source.size:
            return None
    return None


def _is_onnx(source: Source) -> bool:
    """A ModelProto: ir_version (1) comes as a number, the graph (7) as a message."""
    if source.head[:1] != b"\x08":
        return False
    fields = _protobuf_fields(source)
    return fields is not None and fields.get(1) == 0 and fields.get(7) == 2


def _is_tensorflow(source: Source) -> bool:
    """The table of a TensorFlow checkpoint ends in a magic number; its data goes by the name."""
    if source.size >= 8 and source.read(source.size - 8, 8) == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb":
        return True
    if source.head.startswith(b"model_checkpoint_path:"):
        return True
    return re.search(r"\.data-\d{5}-of-\d{5}$", source.path.name) is not None


def _has_member(*ends: str) -> Callable[[Source], bool]:
    return lambda source: (
        source.archive is not None
        and any(
            name == end or name.endswith(f"/{end}")
            for name in source.archive.members
            for end in ends
        )
    )


def _zip_sentence(source: Source) -> str:
    names = source.archive.members if source.archive is not None else ()
    likely = [name for name in names if name.endswith(CHECKPOINTS)]
    what = (
        f"unzip it and name {listed(likely, ' or ')}"
        if likely
        else "unzip it and name a file in it"
    )
    return f"it is a ZIP archive, but of neither PyTorch nor NumPy; {what}."


KINDS = (
    Kind(
        lambda source: source.size == 0,
        "it is empty; download or copy it again.",
        CorruptFileError,
    ),
    Kind(
        _begins(b"version https://git-lfs"),
        "it is a git-lfs pointer, not the file itself; run git lfs pull.",
    ),
    Kind(
        _is_html,
        "it is an HTML page, not a checkpoint; the download gave a web page, so download it from"
        " the direct link.",
    ),
    Kind(
        lambda source: any(
            source.read(at, min(8, max(0, source.size - at))) == b"\x89HDF\r\n\x1a\n"
            for at in (0, 512, 1024, 2048)
            if at + 8 <= source.size
        ),
        f"it is an HDF5 file, as Keras saves; bncli reads {READ}, so {AS_NPZ}.",
    ),
    Kind(
        _has_member("model.weights.h5"),
        f"it is a Keras archive; bncli reads {READ}, so {AS_NPZ}.",
    ),
    Kind(
        _is_onnx,
        f"it is an ONNX model; bncli reads {READ}, so name the checkpoint that it was made from.",
    ),
    Kind(
        _is_tensorflow,
        f"it is a TensorFlow checkpoint; bncli reads {READ}, so {AS_NPZ}.",
    ),
    Kind(
        _is_torch_tar,
        "it is a tar file of PyTorch before 0.2; load it with an old PyTorch and save it again with"
        " torch.save.",
    ),
    Kind(_is_tar, "it is a tar archive; unpack it and name a file in it."),
    Kind(
        _begins(b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!"),
        "it is a compressed file; decompress it and name what comes out.",
    ),
    Kind(
        _has_member("archive_format", "serialized_exported_program.json", "models/model.json"),
        "it is a torch.export program; save its state_dict with torch.save and name that.",
    ),
    Kind(
        _has_member("model.json"),
        "it is a TorchScript archive of PyTorch before 1.1; load it with torch.jit.load and save"
        " its state_dict with torch.save.",
    ),
    Kind(lambda source: source.archive is not None, _zip_sentence),
    Kind(
        _begins(b"GGUF"),
        f"it is a GGUF file of quantised weights; bncli reads {READ}, so name the original.",
    ),
    Kind(
        _begins(b"TFL3", at=4),
        f"it is a TensorFlow Lite model; bncli reads {READ}, so name what it was made from.",
    ),
    Kind(
        _begins(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF"),
        f"it is a picture or a document; bncli reads {READ}.",
    ),
)
"""What arrives in practice, in the order in which it is asked."""
