"""The bytes of an HDF5 file: a file, a part of one, or what was unpacked from one.

The HDF5 library gets them through `Window`, by which every read of it is bounded: in its place and
in its number, so that a damaged file that leads it in circles comes to an end.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.files.file_bytes import Checksum, FileBytes
from bncli.files.reading import open_again, read_at
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Read = Callable[[int, int], bytes]

FREE_READS = 20_000
"""How often the library may read of any file."""
BYTES_A_READ = 64
"""Beyond that, one more time for so many bytes of the file."""
BLOCK = 1 << 14
"""What is read at once, as the library asks for a few bytes each time."""
MOST_BLOCKS = 64
MOST_ASKED = 1 << 27
STATM = Path("/proc/self/statm")
SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAP, HEAP_HEADER = b"GCOL", 16
"""How a collection of texts begins, and the bytes before its first object, and before any's."""
NEEDS = "reading HDF5 files, as Keras writes, needs h5py; install it: pip install h5py"


@dataclass(frozen=True, slots=True)
class Region:
    """Where an HDF5 file lies: the bytes of `path` from `start` to `stop`, or `data` from 0 on."""

    path: Path
    start: int
    stop: int
    checksum: Checksum | None = None
    data: bytes | None = None

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.stop - self.start

    @contextmanager
    def reader(self) -> Iterator[Read]:
        """A function that gives so many bytes from an offset in the region."""
        if self.data is not None:
            yield lambda offset, count: self.data[offset : offset + count]  # type: ignore[index]
            return
        with open_again(self.path) as file:
            yield lambda offset, count: bytes(read_at(file, self.path, self.start + offset, count))

    def storage(
        self, offset: int, nbytes: int, dtype: Any, byteorder: Literal["little", "big"]
    ) -> FileBytes | Callable[[], NDArray[Any]]:
        """The elements that lie there, plain."""
        if self.data is None:
            place = FileBytes(self.path, self.start + offset, nbytes, byteorder)
            return replace(place, checksum=self.checksum)
        data = self.data
        return lambda: np.frombuffer(data, dtype, nbytes // dtype.itemsize, offset)

    def corrupt(self, fact: str = "its HDF5 structure contradicts itself") -> CorruptFileError:
        """The error for an HDF5 file that contradicts itself."""
        return CorruptFileError(
            self.path, f"{fact}; the file is damaged, so download or save it again."
        )


class Window(io.RawIOBase):
    """The bytes of a region as a file that the HDF5 library may read, and not change."""

    def __init__(self, region: Region, read: Read) -> None:
        self._region = region
        self._read = read
        self._at = 0
        self._left = FREE_READS + region.size // BYTES_A_READ
        self._blocks: dict[int, bytes] = {}
        self.failed: FileError | None = None
        self.closing = False

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._region.size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; bytes that are not there are 0, which the library refuses."""
        target = memoryview(buffer).cast("B")
        wanted = max(0, min(len(target), self._region.size - self._at))
        target[wanted:] = bytes(len(target) - wanted)
        self._left -= 1
        if self._left < 0 and not self.closing:
            self.failed = self._region.corrupt("its HDF5 structure leads in circles")
            raise self.failed
        try:
            target[:wanted] = self._bytes(self._at, wanted)
        except FileError as error:
            self.failed = error
            raise
        self._at += len(target)
        if target[:4] == HEAP and not _is_heap(target.tobytes()):
            self.failed = self._region.corrupt()
            raise self.failed
        return len(target)

    def _bytes(self, offset: int, count: int) -> bytes:
        """The bytes, from a block that is kept where they lie in one."""
        number = offset // BLOCK
        if count > BLOCK or (offset + max(count, 1) - 1) // BLOCK != number:
            return self._read(offset, count)
        block = self._blocks.get(number)
        if block is None:
            if len(self._blocks) >= MOST_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            begin = number * BLOCK
            block = self._read(begin, min(BLOCK, self._region.size - begin))
            self._blocks[number] = block
        return block[offset - number * BLOCK :][:count]


def _is_heap(image: bytes) -> bool:
    """Whether the objects of a heap follow each other, as far as it was read.

    The library would go round and round at one of no size.
    """
    size = int.from_bytes(image[8:16], "little")
    end, at = min(size, len(image)), HEAP_HEADER
    while at + HEAP_HEADER <= end:
        index = int.from_bytes(image[at : at + 2], "little")
        length = int.from_bytes(image[at + 8 : at + 16], "little")
        step = HEAP_HEADER + (length + 7) // 8 * 8 if index else length
        if step < HEAP_HEADER or at + step > size:
            return False
        at += step
    return True


@contextmanager
def little_memory() -> Iterator[None]:
    """Let the library ask for no more than MOST_ASKED bytes in here, where Linux can see to it.

    A text of any length says its length itself, and the library clears so many bytes of memory
    before it finds out that the text is shorter: up to 4 GB. Its request then fails.
    """
    try:
        import resource

        used = int(STATM.read_text("ascii").split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError):
        yield
        return
    limits = [used + MOST_ASKED, *(limit for limit in (soft, hard) if limit >= 0)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def without_user_block(region: Region) -> Region:
    """The same HDF5 file from its signature on, before which a user may keep a block of 512, ...

    Versions of the library differ in whether the places that they give count it. Raises
    UnsupportedFileError where offsets or lengths do not take 8 bytes, as nearly everywhere.
    """
    with region.reader() as read:
        for at in (0, 512, 1024, 2048):
            head = read(at, min(16, max(0, region.size - at)))
            if len(head) == 16 and head.startswith(SIGNATURE):
                break
        else:
            return region
    if (head[13:15] if head[8] < 2 else head[9:11]) != b"\x08\x08":
        raise UnsupportedFileError(
            region.path, "its HDF5 offsets or lengths do not take 8 bytes; save it again with h5py."
        )
    data = None if region.data is None else region.data[at:]
    return replace(region, start=region.start + at, data=data)


@contextmanager
def opened(region: Region) -> Iterator[Any]:
    """The `h5py.File` of a region, closed at the end.

    Raises UnsupportedFileError without h5py, and CorruptFileError for whatever the library raises.
    """
    try:
        import h5py
    except ImportError:
        raise UnsupportedFileError(region.path, f"{NEEDS}.") from None
    with region.reader() as read:
        window = Window(region, read)
        file = None
        try:
            file = h5py.File(window, "r")
            yield file
        except FileError:
            raise
        except MemoryError:
            raise region.corrupt("its HDF5 structure asks for more memory than there is") from None
        except Exception as error:  # whatever a damaged file makes the library do
            raise window.failed or region.corrupt() from error
        finally:
            window.closing = True
            if file is not None:
                _close(file)


def _close(file: Any) -> None:
    """Close a file with all that was opened of it, which must not outlive its window."""
    with suppress(Exception):  # it was read only, so that nothing is lost
        file.close()
