"""Edits of the files of a checkpoint, from new values of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.errors import FileError
from bncli.files.edits import Edit
from bncli.loaders.interface import open_source
from bncli.loaders.patches.checks import NESTED, check_alone, check_container, check_plain, named
from bncli.loaders.patches.checksums import with_checksums
from bncli.loaders.patches.rounding import stored_values
from bncli.loaders.patches.views import edits_of_tensor, placed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import TensorFile, TensorRef


def edits_of(file: TensorFile, values: Mapping[str, NDArray[Any]]) -> dict[Path, list[Edit]]:
    """The bytes that change for these tensors to have new values, by file, in order.

    `values` are by the tensors' full names, and are what `rounded` takes. Files that stay as they
    are have no key. A tensor with several names changes under all of them (`aliases_of`).

    Raises TensorError for values that a tensor cannot hold, and FileError (of which
    UnsupportedFileError) where a tensor cannot be replaced, shares bytes with another one, or
    should have two values; CorruptFileError for an archive that contradicts itself.
    """
    check_container(file)
    targets: dict[str, TensorRef] = {}
    stored: dict[str, NDArray[Any]] = {}
    first: dict[object, str] = {}
    for name, new in values.items():
        ref = file.tensors[name]
        check_plain(ref, file)
        bits = stored_values(ref, new)
        same = name if ref.place is None else first.setdefault(ref.place, name)
        if same == name:
            targets[name], stored[name] = ref, bits
        elif bits.tobytes() != stored[same].tobytes():
            raise FileError(
                ref.path,
                f"{named(same)} and {named(name)} are one tensor in it, which cannot have two "
                "values; leave one of them out.",
            )
    check_alone(file, targets)
    edits: dict[Path, list[Edit]] = {}
    for name, ref in targets.items():
        if where := placed(ref):
            with where.opened() as stream:
                where.check(stream)  # a wrong checksum of the old bytes would stay wrong
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

    `torch.save` puts this hash of the contents there, and an edited file keeps the old one. Files
    that lie in another archive are not looked at.
    """
    for path in paths:
        with open_source(path) as source:
            archive = source.archive
            if archive and any(
                name.endswith("/.data/serialization_id") for name in archive.members
            ):
                return True
    return False
