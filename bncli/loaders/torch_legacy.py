"""What `torch.save` wrote before PyTorch 1.6: five parts in a row, four of them pickles.

A magic number, a protocol version, notes on the machine, the object, the list of storages; then
the bytes of each storage behind its number of elements, always little-endian.
"""

from __future__ import annotations

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders.interface import Source
from bncli.loaders.names import quoted
from bncli.loaders.pickle_records import Persistent, Pickle
from bncli.loaders.torch_places import Region
from bncli.loaders.torch_tree import collect
from bncli.loaders.torch_values import Storage, parse_storage
from bncli.loaders.unpickler import load
from bncli.model import TensorFile

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_MAGIC_LENGTH = 64
"""The pickle of the magic number is shorter than this in every protocol of Python's pickle."""


def detect(source: Source) -> bool:
    """Whether the file begins with the pickled magic number."""
    if not source.head or source.head[:1] not in {b"\x80", b"L"}:
        return False
    try:
        magic = load(source.path, source.head, 0, min(len(source.head), _MAGIC_LENGTH)).value
    except FileError:
        return False
    return isinstance(magic, int) and magic == MAGIC


def open_tensors(source: Source) -> TensorFile:
    """Every tensor of the saved object, by its path."""
    data = source
    version = load(source.path, data, load(source.path, data, source.start).end)
    if not isinstance(version.value, int) or version.value != PROTOCOL:
        raise UnsupportedFileError(
            source.path,
            "it is written in a protocol that no PyTorch before 1.6 had; save it again with"
            " torch.save.",
        )
    machine = load(source.path, data, version.end)
    saved = load(source.path, data, machine.end)
    regions = _regions(source, saved, load(source.path, data, saved.end))

    def place(storage: Storage) -> Region:
        region = regions.get(storage.key)
        if region is None:
            raise CorruptFileError(
                source.path,
                f"the bytes of its storage {quoted(storage.key)} are missing; it is damaged, so"
                " download or save it again.",
            )
        return region

    contents = collect(source.path, saved, place)
    return contents.file(source.path, "torch-legacy")


def _regions(source: Source, saved: Pickle, listing: Pickle) -> dict[str, FileBytes]:
    """Where the bytes of each storage lie, by its key."""
    itemsizes: dict[str, int] = {}
    for reference in saved.persistents:
        storage = parse_storage(reference)
        if storage is not None:
            itemsizes.setdefault(storage.key, storage.itemsize)
        elif not _is_source_text(reference):
            raise CorruptFileError(
                source.path,
                "it refers to a storage in a way that PyTorch does not; it is damaged or was"
                " not written by PyTorch.",
            )
    keys = listing.value
    if not isinstance(keys, list):
        raise CorruptFileError(
            source.path, "its list of storages is missing; it is damaged, so save it again."
        )
    regions: dict[str, FileBytes] = {}
    at = listing.end
    for key in keys:
        name = str(key) if isinstance(key, str | int) else ""
        if name not in itemsizes or name in regions:
            raise CorruptFileError(
                source.path,
                f"its list of storages has {quoted(name) or 'something'} which no tensor uses or"
                " which occurs twice; it is damaged, so save it again.",
            )
        count = int.from_bytes(source.read(at, 8), "little")
        at += 8
        nbytes = count * itemsizes[name]
        if at + nbytes > source.size:
            raise CorruptFileError(
                source.path,
                f"its storage {quoted(name)} should have {nbytes} bytes, but {source.size - at} are"
                " left; it is cut short, so download or copy it again.",
            )
        regions[name] = FileBytes(source.path, at, nbytes)
        at += nbytes
    return regions


def _is_source_text(reference: Persistent) -> bool:
    """Whether the reference is a module's class with its source text, which is only carried."""
    pid = reference.pid
    return (
        isinstance(pid, tuple) and len(pid) > 1 and isinstance(pid[0], str) and pid[0] == "module"
    )
