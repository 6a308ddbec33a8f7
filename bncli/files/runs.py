"""Many small pieces of a file, read a run at a time instead of one by one."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

from bncli.errors import FileError
from bncli.files.file_bytes import FileBytes
from bncli.files.reading import open_again, read_at

LARGEST = 1 << 16
"""Bytes of a piece that is worth reading along with others."""
GAP = 1 << 12
"""Unwanted bytes between two pieces, which cost less than another read."""
RUN = 1 << 18
"""Bytes from which on a run ends."""
KEPT = 4
"""Runs in memory at a time: a layer's counter may lie among counters, far from its vectors."""


class Runs:
    """The bytes of small `places` in files of this system, read in few pieces when asked for.

    `stack` closes what is opened.
    """

    def __init__(self, places: Iterable[object], stack: ExitStack) -> None:
        self._stack = stack
        self._files: dict[int, FileIO] = {}
        self._runs: list[tuple[Path, int, int]] = []
        self._run_of: dict[int, int] = {}
        self._held: dict[int, bytes] = {}
        # What is known by its identity must stay, so that no other takes it.
        self._places = [place for place in places if _is_small(place)]
        by_file: dict[int, list[tuple[int, int, FileBytes]]] = {}
        for place in self._places:
            assert isinstance(place, FileBytes)
            by_file.setdefault(id(place.path), []).append((*_extent(place), place))
        for pieces in by_file.values():
            pieces.sort(key=lambda piece: piece[:2])
            begin = end = pieces[0][0]
            for start, stop, place in pieces:
                if start > end + GAP or start - begin > RUN:
                    self._runs.append((place.path, begin, end))
                    begin = end = start
                end = max(end, stop)
                self._run_of[id(place)] = len(self._runs)
            self._runs.append((pieces[0][2].path, begin, end))

    def find(self, place: FileBytes) -> tuple[bytes, int] | None:
        """Bytes among which those of the place are, and where they begin there.

        None where they are not small, cannot be read or are not what was written: who reads them
        by themselves says what is wrong.
        """
        run = self._run_of.get(id(place))
        if run is None:
            return None
        data = self._held.get(run)
        if data is None:
            try:
                data = self._read(run)
            except FileError:
                return None
        begin = self._runs[run][1]
        checksum = place.checksum
        if checksum is not None and not checksum.fits:
            first = checksum.offset - begin
            if zlib.crc32(memoryview(data)[first : first + checksum.nbytes]) != checksum.crc:
                return None
            checksum.fits = True
        return data, place.offset - begin

    def _read(self, run: int) -> bytes:
        """All of a run. Raises FileError."""
        path, begin, end = self._runs[run]
        file = self._files.get(id(path))
        if file is None:
            file = self._files[id(path)] = self._stack.enter_context(open_again(path))
        data = bytes(read_at(file, path, begin, end - begin))
        while len(self._held) >= KEPT:
            del self._held[next(iter(self._held))]
        self._held[run] = data
        return data


def _is_small(place: object) -> bool:
    """Whether a place, and what its checksum is of, is small, plain and in a file's own bytes."""
    if type(place) is not FileBytes or not 0 < place.nbytes <= LARGEST:
        return False
    checksum = place.checksum
    if checksum is not None and (checksum.castagnoli or checksum.nbytes > LARGEST):
        return False
    return not hasattr(place.path, "opened")  # held in memory, or elsewhere


def _extent(place: FileBytes) -> tuple[int, int]:
    """What to read for a place: from its first byte, or its checksum's, to behind the last."""
    begin, end = place.offset, place.offset + place.nbytes
    if place.checksum is not None:
        begin = min(begin, place.checksum.offset)
        end = max(end, place.checksum.offset + place.checksum.nbytes)
    return begin, end
