"""The new file: what is replaced in it, how it is written, and whether it is what it should be."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.commands.recalibrate.checkpoint import files_of
from bncli.errors import FileError
from bncli.files.edits import check_edited, write_edited, write_model
from bncli.files.file_bytes import FileBytes
from bncli.light import dataclass, np
from bncli.loaders import open_model
from bncli.loaders.names import quoted
from bncli.loaders.patches import has_serialization_id, rounded
from bncli.rulebook.interface import examples
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from io import FileIO

    from numpy.typing import NDArray

    from bncli.commands.recalibrate.checkpoint import Checkpoint
    from bncli.commands.recalibrate.flags import SavedFlags
    from bncli.files.edits import Edit
    from bncli.model import TensorFile
    from bncli.model.recalibration import LayerChange


@dataclass(frozen=True, slots=True)
class Written:
    """What is replaced in a checkpoint: `values` by tensor, `edits` by file, in some layers.

    `output` is the new file or folder, None where none was written. Of a folder, `linked` are the
    files that did not change and are links to the old ones. `verified` is how many layers hold the
    new statistics in it, None where that was not looked at.
    """

    checkpoint: Checkpoint
    values: Mapping[str, NDArray[np.generic]]
    edits: Mapping[Path, Sequence[Edit]]
    layers: int
    output: str | None = None
    linked: int = 0
    verified: int | None = None

    @classmethod
    def planned(
        cls, checkpoint: Checkpoint, layers: Sequence[LayerChange], saved: SavedFlags
    ) -> Written:
        """What would be written. Raises FileError and TensorError where that cannot be."""
        values = checkpoint.values(layers, saved)
        return cls(checkpoint, values, checkpoint.edits(values), len(layers))

    @property
    def nbytes(self) -> int:
        """How many bytes are replaced, checksums included."""
        return sum(len(edit.data) for edits in self.edits.values() for edit in edits)

    @property
    def serialization_id(self) -> str | None:
        """What became of the hash of the contents that torch.save stores; None without one."""
        return "kept" if has_serialization_id(self.edits) else None

    def write(self, saved: SavedFlags) -> Written:
        """Write the new file, or the folder of several, and compare it with the old one.

        It is not compared with --no-verify. Raises CorruptFileError where the old file does not
        match its checksums, and FileError where the new one cannot be written, or is not what it
        should be.
        """
        assert saved.save_checkpoint is not None
        _check_undamaged(self.checkpoint.file)
        target = Path(saved.save_checkpoint)
        source = self.checkpoint.file.path
        files = files_of(self.checkpoint.file)
        done = replace(self, output=saved.save_checkpoint)
        if len(files) > 1:
            others = [path for path in files if path not in self.edits]
            model = write_model(target, self.edits, others)
            new, linked = model.edited | model.copied, model.linked
            done = replace(done, linked=len(linked))
        else:
            write_edited(source, target, self.edits[source], force=saved.force)
            new, linked = {source: target}, {}
        if saved.no_verify:
            return done
        for path, copy in new.items():
            check_edited(path, copy, self.edits.get(path, []))
        return replace(done, verified=self._verified((new | linked)[source]))

    def remarks(self) -> Iterator[str]:
        """What changes beside the layers, and what the comparison with the old file showed."""
        aliases = self.checkpoint.aliases(self.values)
        if aliases:
            names = counted(len(aliases), "other name")
            change = "would change" if self.output is None else "changed"
            yield f"{names} of the same tensors {change}, too ({examples(aliases)})"
        if self.output is None:
            return
        if self.linked:
            files = counted(self.linked, "file is a link", "files are links")
            yield f"{files} to the old one{'s' * (self.linked > 1)}, as nothing in them changes"
        if self.verified is None:
            return
        others = len(self.checkpoint.file.tensors) - len(self.values) - len(aliases)
        hold = counted(self.layers, "layer holds", "layers hold")
        yield (
            f"{self.output}: {self.verified} of {hold} the new statistics; the other "
            f"{counted(others, 'tensor is', 'tensors are')} bit for bit the old ones"
            f"{', and so is .data/serialization_id' if self.serialization_id else ''}"
        )

    def _verified(self, target: Path) -> int:
        """How many layers hold the new statistics, which is all. Raises FileError otherwise."""
        tensors = open_model(target).tensors
        for name, values in self.values.items():
            wanted = rounded(self.checkpoint.file.tensors[name], values)
            if not np.array_equal(tensors[name].read(), wanted):
                raise FileError(
                    target,
                    f"{quoted(name)} does not hold the new values after it was written; remove the "
                    "file and try again.",
                )
        return self.layers


def _check_undamaged(file: TensorFile) -> None:
    """Raise CorruptFileError where bytes of a tensor do not match their checksum: a copy would not.

    Nothing is known of formats without checksums, and nothing is read with --no-checksum.
    """
    with ExitStack() as stack:
        opened: dict[Path, FileIO] = {}
        for ref in file.tensors.values():
            where = ref.storage
            if isinstance(where, FileBytes) and where.checksum is not None:
                if where.path not in opened:
                    opened[where.path] = stack.enter_context(where.opened())
                where.checksum.check(opened[where.path], where.path)
