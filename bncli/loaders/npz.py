"""NumPy's .npz: a ZIP archive of .npy members, stored as they are or deflated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import jax_trees
from bncli.loaders.deflated import Packed
from bncli.loaders.interface import Source
from bncli.loaders.names import quoted
from bncli.loaders.npy import Header, flat_array, parse_header
from bncli.loaders.registry import CHECKPOINTS
from bncli.loaders.zip_archive import STORED, Member, ZipArchive
from bncli.model import TensorFile, TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL = 1 << 18
"""An array of so many bytes is read along with its header where it lies elsewhere."""
MOST_BEGUN = 1 << 10
"""What of a larger one is read, which is more than its header takes."""
LOCAL_EXTRA = 64
"""Bytes of a member's own header that are not known before it is read."""


def detect(source: Source) -> bool:
    """Whether the file is an archive with .npy members, or an empty one, as np.savez() gives.

    A statistics file is none: its arrays say nothing without its header.
    """
    archive = source.archive
    if archive is None or source.is_statistics:
        return False
    return not archive.members or any(map(_is_array, archive.members))


def open_tensors(source: Source) -> TensorFile:
    """The arrays by their member's name without ".npy"; a deflated one is inflated when read.

    Names as JAX spells the paths through its trees, ['params']['bn']['scale'], come joined by "/".
    What else is in the archive, such as the folders that zip adds, is left out; a member that is
    called like a checkpoint is listed as skipped.
    """
    archive = source.archive
    assert archive is not None
    stems = (name.removesuffix(".npy") for name in archive.members if _is_array(name))
    names = jax_trees.plain_names(stems)
    tensors = {}
    source.announce(begins(archive))
    for member in archive.members.values():
        if not _is_array(member.name):
            continue
        name = names[member.name.removesuffix(".npy")]
        tensors[name] = _tensor(source, archive, member, name)
    others = (name for name in archive.members if name.endswith(CHECKPOINTS))
    skipped = dict.fromkeys(
        (name for name in others if not name.endswith(".npy")),
        "it is not an array but another file inside the archive; unzip it and name it",
    )
    tensors, layers, modules = jax_trees.unstacked(tensors)
    return TensorFile(source.path, "npz", tensors, modules, skipped, layers)


def begins(archive: ZipArchive) -> Iterator[tuple[int, int]]:
    """Where the headers of all arrays are, as ranges; of small arrays all is read at once."""
    for member in archive.members.values():
        if _is_array(member.name):
            size = member.packed if member.packed <= SMALL else min(member.packed, MOST_BEGUN)
            yield member.header, min(member.least + LOCAL_EXTRA + size, archive.directory)


def _is_array(name: str) -> bool:
    """Whether a member is an array by its name, and not what macOS writes beside one."""
    return name.endswith(".npy") and not name.rpartition("/")[2].startswith("._")


def _tensor(source: Source, archive: ZipArchive, member: Member, name: str) -> TensorRef:
    if problem := archive.problem(member):
        return TensorRef(name, source.path, (), "object", (), None, f"it is {problem}")
    storage: FileBytes | Callable[[], NDArray[Any]]
    if member.method == STORED:
        plain = archive.plain(member)
        header = parse_header(
            source.path, lambda n: source.read(plain.offset, min(n, member.size)), member.name
        )
        storage = replace(
            plain,
            offset=plain.offset + header.start,
            nbytes=_nbytes(header),
            byteorder=header.byteorder,
        )
    else:
        packed = archive.packed(member)
        begun = packed.head(MOST_BEGUN)  # inflated once, not for each look at it
        header = parse_header(
            source.path,
            lambda n: begun[:n] if n <= len(begun) or len(begun) < MOST_BEGUN else packed.head(n),
            member.name,
        )
        storage = flat_array(partial(_elements, packed, header), header)
    if header.problem:
        return TensorRef(
            name, source.path, header.shape, "object", header.strides, None,
            f"it holds {header.problem}",
        )  # fmt: skip
    _check_length(source.path, member, header)
    return TensorRef(name, source.path, header.shape, header.dtype, header.strides, storage)


def read_array(archive: ZipArchive, member: Member) -> tuple[Header, bytes]:
    """The header of a member that is an array, and all of its bytes, read and inflated once.

    The elements begin at `Header.start`. There are no bytes where they cannot be had. Raises
    CorruptFileError.
    """
    if problem := archive.problem(member):
        return Header((), "object", "little", False, 0, problem), b""
    data = archive.bytes_of(member, member.size)
    header = parse_header(archive.path, lambda n: data[:n], member.name)
    if not header.problem:
        _check_length(archive.path, member, header)
    return header, data


def _check_length(path: Path, member: Member, header: Header) -> None:
    """Raise CorruptFileError where the member is shorter than its header says."""
    if header.start + header.nbytes > member.size:
        raise CorruptFileError(
            path,
            f"{quoted(member.name)}: its header promises {header.nbytes} bytes of elements, but"
            f" {member.size - header.start} are there; save it again.",
        )


def _nbytes(header: Header) -> int:
    return header.numel * DTYPES[header.dtype].itemsize if header.dtype in DTYPES else 0


def _elements(packed: Packed, header: Header) -> bytearray:
    """The bytes behind the header, and none of what may follow them."""
    data = packed.read()
    del data[header.start + header.nbytes :]
    del data[: header.start]
    return data
