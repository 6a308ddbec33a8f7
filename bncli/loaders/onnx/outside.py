"""The files beside a model in which its tensors lie."""

from __future__ import annotations

from pathlib import Path

from bncli.errors import CorruptFileError, MissingDataError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders.beside import beside
from bncli.loaders.interface import check_regular
from bncli.loaders.names import quoted
from bncli.paths import lexists


class Outside:
    """The data files that a model names, each looked at once and none of them read."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self._found: dict[str, tuple[Path, int]] = {}

    def place(self, tensor: str, entries: dict[str, str], nbytes: int) -> FileBytes:
        """Where the `nbytes` of a tensor lie, by the entries of its external_data."""
        location = entries.get("location", "")
        offset = self._number(tensor, entries.get("offset", "0"))
        length = self._number(tensor, entries.get("length", str(nbytes)))
        if length != nbytes:
            raise CorruptFileError(
                self.model,
                f"its tensor {quoted(tensor)} should take {nbytes} bytes of {quoted(location)}, but"
                f" has {length}; download or export the model again.",
            )
        if location not in self._found:
            self._found[location] = self._look(location)
        path, size = self._found[location]
        if offset + nbytes > size:
            raise CorruptFileError(
                path,
                f"it ends at byte {size}, but the tensor {quoted(tensor)} of"
                f" {quoted(self.model.name)} reaches to byte {offset + nbytes}; it is cut short or"
                " belongs to another model, so download both again.",
            )
        return FileBytes(path, offset, nbytes)

    def _look(self, location: str) -> tuple[Path, int]:
        """A data file and its size; it lies beside the model or below, wherever links lead."""
        path = beside(self.model, location.removeprefix("./"))
        if not lexists(path):
            raise MissingDataError(
                self.model,
                f"its tensors are in {quoted(location)}, which is missing; download it too, into"
                " the same folder.",
                location.removeprefix("./"),
            )
        check_regular(path)
        if path.is_dir():
            raise UnsupportedFileError(
                self.model, f"its data file {quoted(location)} is a directory; put the file there."
            )
        return path, path.stat().st_size

    def _number(self, tensor: str, text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 20):
            raise CorruptFileError(
                self.model,
                f"its tensor {quoted(tensor)} has {quoted(text) or 'nothing'} for an offset or a"
                " length; export the model again.",
            )
        return int(text)
