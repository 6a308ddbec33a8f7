"""Edits of the files of a checkpoint, from new values of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.errors import FileError, UnsupportedFileError
from bncli.files.edits import Edit
from bncli.loaders.interface import STANDARD_INPUT, open_source
from bncli.loaders.names import quoted
from bncli.loaders.patches.checksums import with_checksums
from bncli.loaders.patches.rounding import stored_values
from bncli.loaders.patches.views import edits_of_tensor, placed, repeats, shared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import TensorFile, TensorRef

NESTED = " in zip"
"""How the name of a container ends whose files lie in another archive."""
PLAIN = frozenset(("torch-zip", "torch-legacy", "safetensors", "npz", "npy"))
"""The containers whose tensors can be replaced."""


def edits_of(file: TensorFile, values: Mapping[str, NDArray[Any]]) -> dict[Path, list[Edit]]:
    """The bytes that change for these tensors to have new values, by file, in order.

    `values` are by the tensors' full names, and are what `rounded` takes. Files that stay as they
    are have no key. A tensor with several names changes under all of them (`aliases_of`).

    Raises TensorError for values that a tensor cannot hold, and FileError (of which
    UnsupportedFileError) where a tensor cannot be replaced, shares bytes with another one, or
    should have two values; CorruptFileError for an archive that contradicts itself.
    """
    _check_container(file)
    targets: dict[str, TensorRef] = {}
    stored: dict[str, NDArray[Any]] = {}
    first: dict[object, str] = {}
    for name, new in values.items():
        ref = file.tensors[name]
        _check_plain(ref, file)
        bits = stored_values(ref, new)
        same = name if ref.place is None else first.setdefault(ref.place, name)
        if same == name:
            targets[name], stored[name] = ref, bits
        elif bits.tobytes() != stored[same].tobytes():
            raise FileError(
                ref.path,
                f"{_named(same)} and {_named(name)} are one tensor in it, which cannot have two "
                "values; leave one of them out.",
            )
    _check_alone(file, targets)
    edits: dict[Path, list[Edit]] = {}
    for name, ref in targets.items():
        if where := placed(ref):
            edits.setdefault(ref.path, []).extend(edits_of_tensor(ref, where, stored[name]))
    done: dict[Path, list[Edit]] = {}
    for path, each in edits.items():
        with open_source(path) as source:
            done[path] = with_checksums(source, each, nested=file.container.endswith(NESTED))
    return done


def aliases_of(file: TensorFile, names: Iterable[str]) -> dict[str, list[str]]:
    """The other names of each of these tensors in the file, which change with it.

    Only those that are not among `names` are listed; a tensor that has none has no key.
    """
    names = tuple(names)
    places = {name: place for name in names if (place := file.tensors[name].place) is not None}
    others: dict[object, list[str]] = {place: [] for place in places.values()}
    for name, ref in file.tensors.items():
        if name not in places and (place := ref.place) in others:
            others[place].append(name)
    return {name: others[place] for name, place in places.items() if others[place]}


def has_serialization_id(paths: Iterable[Path]) -> bool:
    """Whether one of the files has a `.data/serialization_id`.

    `torch.save` puts this hash of the contents there, and an edited file keeps the old one.
    """
    for path in paths:
        with open_source(path) as source:
            archive = source.archive
            if archive and any(
                name.endswith("/.data/serialization_id") for name in archive.members
            ):
                return True
    return False


def _check_container(file: TensorFile) -> None:
    """Raise UnsupportedFileError where no tensor of the file can be replaced."""
    if file.path == STANDARD_INPUT:
        raise UnsupportedFileError(
            file.path, "standard input cannot be edited; save it to a file and name that."
        )
    containers = file.container.removesuffix(NESTED).split(" and ")
    if set(containers) == {"torchscript"}:
        raise UnsupportedFileError(
            file.path,
            "it is a TorchScript archive, whose tensors cannot be replaced; recalibrate the "
            "checkpoint that it was made from, and script or trace the model again.",
        )
    if PLAIN.isdisjoint(containers):
        raise UnsupportedFileError(
            file.path,
            f"tensors in {file.container} files cannot be replaced; save them with torch.save or "
            "as safetensors, and name that file.",
        )


def _check_plain(ref: TensorRef, file: TensorFile) -> None:
    """Raise UnsupportedFileError where a tensor's elements are not plain bytes of their own."""
    name, save = _named(ref.name), "torch.save, which does not compress"
    if file.container == "npz":
        save = "np.savez, which does not compress"
    if ref.storage is None:
        problem = f"the values of {name} cannot be replaced ({ref.unreadable}); save it as a plain "
        raise UnsupportedFileError(ref.path, f"{problem}tensor, and run again.")
    if ref.origin is not None and ref.origin[0] == -1:
        raise UnsupportedFileError(
            ref.path,
            f"{name} is a NumPy array inside the pickle, which stays as it is; save it as a tensor "
            "(torch.from_numpy) and run again.",
        )
    if placed(ref) is None and ref.numel:
        raise UnsupportedFileError(
            ref.path,
            f"{name} is compressed, so that its bytes cannot be replaced; save the file again with "
            f"{save}, and run again.",
        )
    if placed(ref) is not None and repeats(ref):
        raise UnsupportedFileError(
            ref.path,
            f"several elements of {name} are the same bytes, so they cannot have values of their "
            "own; save it again after .clone(), and run again.",
        )


def _check_alone(file: TensorFile, targets: Mapping[str, TensorRef]) -> None:
    """Raise UnsupportedFileError where another tensor takes some of a target's bytes."""
    for target, other in shared(file.tensors.values(), targets):
        raise UnsupportedFileError(
            target.path,
            f"{_named(target.name)} shares bytes with {_named(other.name)}, which would change, "
            "too; save the file again after .clone() of one of them, and run again.",
        )


def _named(name: str) -> str:
    return f"'{quoted(name)}'" if name else "the tensor"
