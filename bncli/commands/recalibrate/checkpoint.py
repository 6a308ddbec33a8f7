"""The checkpoint of a recalibration: its buffers, what replaces them, and the new file."""

from __future__ import annotations

import os
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.errors import FileError, UsageError
from bncli.files.reading import current
from bncli.files.save import check_new, check_new_folder, check_writable, refuse_overwriting
from bncli.light import dataclass, np
from bncli.live.batch import Statistics
from bncli.live.targets import copies_of, leaves_of, targets_of
from bncli.loaders import open_model, split_spec
from bncli.loaders.names import listed
from bncli.loaders.patches import aliases_of, check_container, edits_of, rounded
from bncli.paths import is_remote
from bncli.rulebook.layers import label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bncli.commands.recalibrate.flags import SavedFlags
    from bncli.files.edits import Edit
    from bncli.live.targets import Targets
    from bncli.model import FloatArray, TensorFile
    from bncli.model.capture import Capture
    from bncli.model.recalibration import LayerChange
    from bncli.state_dict import LayerRefs

LEAVES = ("running_mean", "running_var", "num_batches_tracked")
"""What of a layer changes; the last only where the user asks for it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The part of a checkpoint that holds the layers, whose buffers are to be replaced.

    `copies` are layers that hold the same as another in bytes of their own, and change with it.
    """

    targets: Targets
    copies: Mapping[str, Sequence[LayerRefs]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, spec: str, capture: Capture, chosen: Sequence[str], *, counter: bool = False
    ) -> Checkpoint:
        """The checkpoint `FILE` or `FILE::PART`, in which all buffers of these layers can change.

        `counter` says that num_batches_tracked changes too. Raises FileError and TensorError where
        that cannot be.
        """
        targets = targets_of(spec, leaves_of(capture), capture.fingerprint)
        checkpoint = cls(targets, copies_of(targets, capture))
        checkpoint.check_present(chosen, counter=counter)
        states = {layer.name: layer.state for layer in capture.norms}
        values: dict[str, NDArray[Any]] = {}
        for name in chosen:
            state = states[name]
            assert state is not None
            assert state.running_var is not None
            ones = np.ones(len(state.running_var))  # any dtype holds them
            values |= checkpoint.values_of(name, ones, ones, 1 if counter else None)
        edits_of(targets.file, values)
        return checkpoint

    @property
    def file(self) -> TensorFile:
        """The file, or the index of several files."""
        return self.targets.file

    def check_present(self, names: Sequence[str], *, counter: bool) -> None:
        """Raise FileError where a layer has not all that is to change."""
        wanted = LEAVES if counter else LEAVES[:2]
        for name in names:
            layer = self.targets.layers.get(name)
            lost = [leaf for leaf in wanted if getattr(layer, leaf, None) is None]
            if not lost:
                continue
            instead = "load it into the model (strict=False), save the model's state_dict and name "
            instead += "that file, or choose other layers with --layer"
            if lost == [*LEAVES[2:]]:
                instead = "leave --counter out"
            raise FileError(
                self.file.path,
                f"it has no {listed(lost, ' and ')} of {label(name)}, and bncli adds no tensors; "
                f"{instead}.",
            )

    def hold(self, name: str, new: Statistics) -> Statistics:
        """A layer's new statistics as its buffers will hold them, rounded to their dtype.

        Raises TensorError for what they cannot hold.
        """
        layer = self.targets.layers[name]
        assert layer.running_mean is not None
        assert layer.running_var is not None
        mean, var = rounded(layer.running_mean, new.mean), rounded(layer.running_var, new.var)
        return Statistics(mean.reshape(-1), var.reshape(-1))

    def values(self, layers: Sequence[LayerChange], saved: SavedFlags) -> dict[str, NDArray[Any]]:
        """What the tensors become, by their full names in the file."""
        found: dict[str, NDArray[Any]] = {}
        for layer in layers:
            counter = saved.counted(layer.batches)
            found |= self.values_of(layer.name, layer.mean, layer.var, counter)
        return found

    def values_of(
        self, name: str, mean: FloatArray, var: FloatArray, counter: int | None
    ) -> dict[str, NDArray[Any]]:
        """The same of one layer, and of its copies; the counter stays where it is None."""
        found: dict[str, NDArray[Any]] = {}
        for refs in (self.targets.layers[name], *self.copies.get(name, ())):
            assert refs.running_mean is not None
            assert refs.running_var is not None
            found |= {refs.running_mean.name: mean, refs.running_var.name: var}
            if counter is not None and refs.num_batches_tracked is not None:
                number = np.full(refs.num_batches_tracked.shape, counter)
                found[refs.num_batches_tracked.name] = number
        return found

    def edits(self, values: Mapping[str, NDArray[Any]]) -> dict[Path, list[Edit]]:
        """The bytes that change, file by file. Raises TensorError for what does not fit."""
        return edits_of(self.file, values)

    def aliases(self, values: Mapping[str, NDArray[Any]]) -> list[str]:
        """The other names in the file of the tensors that change."""
        return [each for names in aliases_of(self.file, values).values() for each in names]


def files_of(file: TensorFile) -> tuple[Path, ...]:
    """The files of a checkpoint, its index among them: several where it is in shards."""
    return tuple(dict.fromkeys([file.path, *(ref.path for ref in file.tensors.values())]))


def check_format(spec: str) -> None:
    """Raise FileError where the checkpoint `spec` is of a format that is only read."""
    check_container(open_model(split_spec(spec)[0]))


def check_destination(path: str, spec: str, *, force: bool) -> None:
    """Raise where the checkpoint `spec` cannot be written to `path`, before anything has run.

    A checkpoint of several files needs a new folder, and one file a name that is free, unless
    `force` is given. Raises UsageError for a file that was read in this call, FileError for what
    else there is, and where the checkpoint cannot be read.
    """
    old = open_model(split_spec(spec)[0])
    files = files_of(old)
    if not current().download and any(map(is_remote, files)):
        raise FileError(
            old.path, "bncli writes a copy of the whole checkpoint, so give --download, too."
        )
    if not path:
        raise UsageError("--save-checkpoint has no name; name the file to write.")
    refuse_overwriting(path, "--save-checkpoint")
    if os.path.realpath(path) in current().reports:
        raise UsageError(f"--save-checkpoint {path}: --output names it too; name another file.")
    if len(files) > 1:
        check_new_folder(Path(path))
        return
    if path.endswith(("/", os.sep)):
        raise UsageError(f"--save-checkpoint {path}: it names a folder; name a file in it.")
    _check_suffix(path, old.container)
    check_writable(path)
    if not force:
        check_new(Path(path))


def _check_suffix(path: str, container: str) -> None:
    """Raise UsageError for the suffix of another format: the copy has the format of the old file.

    A reader that goes by the suffix would fail on it.
    """
    suffix = Path(path).suffix.lower()
    formats = {".safetensors": "safetensors", ".npz": "npz", ".npy": "npy"}
    formats |= dict.fromkeys((".pt", ".pth"), "torch")
    if suffix in formats and not container.startswith(formats[suffix]):
        raise UsageError(
            f"--save-checkpoint {path}: the new file has the format of the old one ({container}), "
            f"which {suffix} does not say; give it the old file's suffix."
        )
