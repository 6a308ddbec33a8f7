"""Writing tensors and text so that a crash leaves the old file intact."""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import FileError, UsageError
from bncli.files.reading import current
from bncli.light import np
from bncli.paths import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

STORAGES = {
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
}
"""The classes that PyTorch's zip format names a tensor's dtype by."""
EXISTS = "it exists already; name another file, or let --force replace it."
THERE = "it exists already; add --resume to use what it holds, or name another file."
"""The same of a part of a whole."""

UNFINISHED: set[Path] = set()
"""Temporary files and folders of this process, whose makers remove them."""


def remove_unfinished() -> None:
    """Remove what is temporary, where the process is about to end on the spot."""
    import shutil

    for path in tuple(UNFINISHED):
        with suppress(OSError):  # Windows removes no file that is open
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def replacing(
    path: Path, *, new: bool = False, mode: int = 0o666, sync: bool = True, exists: str = EXISTS
) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` when the block ends well, and vanishes when not.

    `new` refuses a file that is there already, however late it came, and says `exists`. A file that
    was not there gets the permissions `mode`, as far as the umask lets it. `sync` waits until the
    bytes are on the disk, so that a power failure leaves the old file or the new one. Raises
    FileError where the file cannot be written or was read by this call, and where a file elsewhere
    has changed while it was read, so that nothing is made of two versions of it.
    """
    refuse_elsewhere(path)
    if current().has_read(path, renewing=True):  # whoever writes, and whatever was forgotten
        raise FileError(
            path, "bncli read it in this call and does not overwrite it; name another file."
        )
    target = Path(os.path.realpath(path))  # through a link, so that the link stays one
    check_writable(str(path))
    if new:
        check_new(path, exists)
    import tempfile

    try:
        handle, name = tempfile.mkstemp(prefix=_temporary(target), dir=target.parent)
    except OSError as error:
        raise FileError(path, f"cannot be written ({error.strerror}).") from error
    UNFINISHED.add(Path(name))
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        current().check_unchanged()
        Path(name).chmod(_mode(target, mode))
        if new:
            _move_to_new(Path(name), target)
        else:
            Path(name).replace(target)
    except FileExistsError as error:
        raise FileError(path, exists) from error
    except OSError as error:
        raise FileError(path, f"cannot be written ({error.strerror}).") from error
    finally:
        with suppress(OSError):  # Windows removes no file that may only be read
            Path(name).unlink(missing_ok=True)
        UNFINISHED.discard(Path(name))


def _temporary(target: Path) -> str:
    """How the name begins under which a file or folder is written: short enough to go on."""
    return f".{target.name[:40]}."


def _move_to_new(path: Path, target: Path) -> None:
    """Rename a file. Raises FileExistsError where one has the name, unlike a rename on POSIX."""
    try:
        target.hardlink_to(path)  # the other name is removed afterwards
    except FileExistsError:
        raise
    except OSError as error:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError from error
        path.rename(target)


def check_new(path: Path, exists: str = EXISTS) -> None:
    """Raise FileError, with the sentence `exists`, where there is a file of that name."""
    refuse_elsewhere(path)
    if path.exists():
        raise FileError(path, exists)


def check_new_folder(folder: Path) -> None:
    """Raise FileError where `folder` can be no new folder; one that is empty counts as new."""
    refuse_elsewhere(folder)
    try:
        if not folder.parent.is_dir():
            raise FileError(
                folder, f"cannot be written: the folder '{folder.parent}' does not exist."
            )
        if folder.exists() and not folder.is_dir():
            raise FileError(folder, "cannot be written: it is a file; name a folder.")
        if folder.exists() and any(folder.iterdir()):
            raise FileError(folder, "cannot be written: it is not empty; name another folder.")
    except OSError as error:
        raise FileError(folder, f"cannot be written ({error.strerror}).") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that gets the name `folder` when the block ends well, and vanishes when not.

    The block fills it under another name. Raises FileError where that cannot be, with the name
    that the file was to have, and where a file elsewhere has changed while it was read.
    """
    import shutil
    import tempfile

    check_new_folder(folder)
    target = Path(os.path.realpath(folder))
    try:
        made = Path(tempfile.mkdtemp(prefix=_temporary(target), dir=target.parent))
    except OSError as error:
        raise FileError(folder, f"cannot be written ({error.strerror}).") from error
    UNFINISHED.add(made)
    try:
        yield made
        current().check_unchanged()
        made.chmod(target.stat().st_mode & 0o7777 if target.exists() else 0o777 & ~umask())
        with suppress(FileNotFoundError):
            target.rmdir()  # where it has to be empty, and Windows renames onto no other folder
        made.rename(target)
    except FileError as error:
        if made not in error.path.parents:
            raise
        raise FileError(folder / error.path.relative_to(made), error.problem) from error
    except OSError as error:
        raise FileError(folder, f"cannot be written ({error.strerror}).") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
        UNFINISHED.discard(made)


def _mode(target: Path, mode: int) -> int:
    """The permissions of the old file, or those that a new file gets."""
    if target.exists():
        return target.stat().st_mode & 0o7777
    return mode & 0o777 & ~umask()


def umask() -> int:
    """The permissions that no new file gets."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def refuse_elsewhere(path: Path | str) -> None:
    """Raise FileError for a URL."""
    if is_remote(path):
        raise FileError(path, "bncli writes local files only; write one, and upload that.")


def check_writable(path: str) -> None:
    """Raise FileError, before any work is done, where a file cannot be written to `path`."""
    refuse_elsewhere(path)
    folder = Path(path).parent
    try:
        os.path.realpath(path)  # fails where the current folder is gone
        if not folder.is_dir():
            raise FileError(path, f"cannot be written: the folder '{folder}' does not exist.")
        if Path(path).is_dir():
            raise FileError(path, "cannot be written: it is a folder.")
        if Path(path).exists() and not Path(path).is_file():
            raise FileError(path, "cannot be written: it is not a regular file.")
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise FileError(path, f"cannot be written ({error.strerror}).") from error


def refuse_overwriting(path: str, flag: str, *, renewing: bool = False) -> None:
    """Raise UsageError where `path` is one of the files that this call has read.

    `renewing` as in `bncli.files.reading.Reading.has_read`.
    """
    if current().has_read(path, renewing=renewing):
        raise UsageError(f"{flag} {path}: this would overwrite an input; name another file.")


def tensor_suffix(path: str, dtype: str, flag: str) -> str:
    """The suffix of the file, .npy or .pt. Raises UsageError for any other."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".npy", ".pt"):
        raise UsageError(f"{flag} {path}: the suffix picks the format; use .npy or .pt.")
    if suffix == ".npy" and dtype == "bfloat16":
        raise UsageError(f"{flag} {path}: .npy has no bfloat16; use .pt.")
    return suffix


def save_tensor(
    path: Path, shape: tuple[int, ...], dtype: str, pieces: Iterable[NDArray[Any]]
) -> None:
    """Write a tensor as .npy or as a .pt that `torch.load` opens, by the suffix of `path`.

    `pieces` are its stored bits in C order, piece by piece, so that all of it never has to be
    in memory. Raises FileError where the file cannot be written.
    """
    with replacing(path) as stream:
        if path.suffix.lower() == ".npy":
            _npy_header(stream, shape, dtype)
            for piece in pieces:
                stream.write(_little_endian(piece))
        else:
            _pt(stream, shape, dtype, pieces)


def _little_endian(piece: NDArray[Any]) -> bytes:
    return piece.astype(piece.dtype.newbyteorder("<"), copy=False).tobytes()


def _npy_header(stream: IO[bytes], shape: tuple[int, ...], dtype: str) -> None:
    descr = np.lib.format.dtype_to_descr(np.dtype(DTYPES[dtype].stored).newbyteorder("<"))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(stream, header)


def _pt(
    stream: IO[bytes],
    shape: tuple[int, ...],
    dtype: str,
    pieces: Iterable[NDArray[Any]],
) -> None:
    """PyTorch's zip format: a pickle that describes the tensor, and its storage beside it."""
    import zipfile

    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", _pickled(shape, dtype))
        archive.writestr("archive/byteorder", "little")
        with archive.open("archive/data/0", "w", force_zip64=True) as storage:
            for piece in pieces:
                storage.write(_little_endian(piece))
        archive.writestr("archive/version", "3\n")


def _pickled(shape: tuple[int, ...], dtype: str) -> bytes:
    """The pickle (protocol 2) of one contiguous tensor, as `torch.save` would write it.

    torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict()), where the
    storage is the persistent id ("storage", class, "0", "cpu", number of elements).
    """
    strides: list[int] = []
    numel = 1
    for size in reversed(shape):
        strides.insert(0, numel)
        numel *= size
    return b"".join(
        (
            b"\x80\x02",
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"(",
            b"(",
            _text("storage"),
            b"ctorch\n" + STORAGES[dtype].encode() + b"\n",
            _text("0"),
            _text("cpu"),
            _integer(numel),
            b"tQ",  # the tuple is a persistent id
            _integer(0),
            b"(" + b"".join(map(_integer, shape)) + b"t",
            b"(" + b"".join(map(_integer, strides)) + b"t",
            b"\x89",
            b"ccollections\nOrderedDict\n)R",
            b"tR.",
        )
    )


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)
