"""Statistics files on disk: written whole or not at all, and opened with suspicion."""

from __future__ import annotations

import json
from io import BytesIO, FileIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError, UsageError
from bncli.files.held import HeldPath
from bncli.files.save import THERE, check_writable, refuse_overwriting, replacing
from bncli.given import is_given
from bncli.light import np
from bncli.loaders import npz
from bncli.loaders.interface import Source, check_regular, open_source
from bncli.loaders.registry import STATISTICS
from bncli.loaders.statistics.columns import Columns, columns
from bncli.loaders.statistics.fields import LARGEST, parsed
from bncli.loaders.statistics.header import capture_of, check_version, header_of
from bncli.loaders.zip_archive import BOMB_RATIO, BOMB_SIZE, ZipArchive
from bncli.paths import as_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model.capture import Capture

LEVEL = 1
"""How hard the arrays are packed: what packs at all is mostly zeros, which any level finds."""
PACKED = 1 << 22
"""Arrays of more bytes are stored as they are: packing takes time, and no honest file is a bomb."""

SMALL = 1 << 22
"""A file of no more bytes is read as a whole."""


def check_statistics_path(path: str, flag: str = "--save-stats") -> None:
    """Raise, before any work is done, where no statistics file can be written to `path`."""
    if Path(path).suffix.lower() != ".npz":
        raise UsageError(f"{flag} {path}: a statistics file is an .npz; name it FILE.npz.")
    check_writable(path)
    refuse_overwriting(path, flag)


def write_statistics(
    path: Path | str, capture: Capture, flag: str = "--save-stats", *, new: bool = False
) -> None:
    """Write a capture to `path`, which is replaced when all is written.

    The same capture gives the same bytes. `new` refuses a file that is there already, such as what
    another task has just written. `source` comes back with lists for its tuples, and with
    the names of numbers that are not finite. Raises UsageError for another suffix than .npz and for
    a file that this call has read, FileError where it cannot be written, and TensorError for a
    layer whose arrays have not one number a channel.
    """
    check_statistics_path(str(path), flag)
    with replacing(Path(path), new=new, exists=THERE) as stream:
        _write(stream, capture)


def statistics_bytes(capture: Capture) -> bytes:
    """The bytes of the file that `write_statistics` writes; raises as it does."""
    stream = BytesIO()
    _write(stream, capture)
    return stream.getvalue()


def _write(stream: IO[bytes], capture: Capture) -> None:
    """Write the file's bytes."""
    import zipfile

    text = json.dumps(header_of(capture), allow_nan=False, indent=1).encode()
    with zipfile.ZipFile(stream, "w") as archive:

        def write(name: str, data: bytes) -> None:
            # Of no time, so that the same capture gives the same bytes.
            info = zipfile.ZipInfo(name)
            method = zipfile.ZIP_DEFLATED if len(data) <= PACKED else zipfile.ZIP_STORED
            archive.writestr(info, data, method, LEVEL)

        write(STATISTICS, text)
        for name, array in columns(capture):
            write(f"{name}.npy", _npy(array))


def open_statistics(path: Path | str) -> Capture:
    """The capture in one file.

    Raises FileError where it cannot be read, UnsupportedFileError for another kind of file and for
    a later format, and CorruptFileError for one that is not what bncli writes.
    """
    if is_given(path):
        from bncli.loaders.objects.recorded import capture_in

        return capture_in(as_path(path))
    if not isinstance(path, HeldPath):  # which is there, as its bytes are
        path = as_path(path)
        check_regular(path)
    try:
        with open_source(path) as opened:
            source = _at_hand(opened)
            archive = source.archive
            if archive is None or not source.is_statistics:
                raise UnsupportedFileError(
                    path,
                    "it is not a statistics file, which bncli capture and bncli compute write "
                    "with --save-stats.",
                )
            _check_total(path, archive)
            source.announce(npz.begins(archive))
            header = parsed(path, archive.bytes_of(archive.members[STATISTICS], LARGEST))
            check_version(header)
            return capture_of(header, Columns(path, archive))
    except MemoryError as error:
        raise FileError(path, "there is not enough memory to read it.") from error


def _at_hand(source: Source) -> Source:
    """The same file with all of its bytes in memory, where it is small: one read for all arrays."""
    if source.size > SMALL:
        return source
    data = BytesIO(source.read(0, source.size))
    return Source(source.path, cast("FileIO", data))  # alike in all that reading takes


def _check_total(path: Path, archive: ZipArchive) -> None:
    """Raise CorruptFileError where all members together would be far more than the file."""
    size = sum(member.size for member in archive.members.values())
    packed = sum(member.packed for member in archive.members.values())
    if size > max(BOMB_SIZE, BOMB_RATIO * packed):
        raise CorruptFileError(
            path,
            f"its {packed} bytes would become {size}, as those of a zip bomb do; save the "
            "statistics again.",
        )


def _npy(array: NDArray[Any]) -> bytes:
    """An array as the bytes of an .npy file."""
    stream = BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
