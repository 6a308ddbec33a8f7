"""Which files are one model: a folder, the shards that an index names, numbered shards.

A shard says little alone: the weight of a layer may lie in one and its statistics in another.
"""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path

from bncli.errors import FileError
from bncli.given import is_given
from bncli.light import dataclass
from bncli.loaders.beside import check_allowed
from bncli.loaders.interface import is_statistics_file, look
from bncli.loaders.names import listed
from bncli.loaders.registry import CHECKPOINTS, kind_of_folder
from bncli.model import TensorFile
from bncli.paths import RemotePath, names_in

NUMBERED = re.compile(r"(?P<before>.*)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<after>\..+)")
"""How shards are called: model-00001-of-00003.safetensors. Some number them from 0."""
INDEX = re.compile(r"\.index(\.\w+)?\.json$")
NO_MODEL = re.compile(r"(?:meta|common|scheduler|optimizer|rng_state|training_args)[\w-]*\.\w+")
"""What is saved beside the pieces of a distributed checkpoint, and has no layers."""
MOST_GUESSED = 1000
"""Shards whose names a server is asked for, one by one, where it lists none and has no index."""
USUAL = ("model.safetensors", "pytorch_model.bin")
"""What the weights of a folder are called that has the optimiser's beside them."""


@dataclass(frozen=True, slots=True)
class Shards:
    """Numbered files of one model, those that are there, and the names of those that are not."""

    files: tuple[Path, ...]
    missing: tuple[str, ...] = ()


def files_of(path: Path, models: Models) -> list[Path]:
    """All files of a model: those of a folder, or an index with its shards, or the file."""
    if is_given(path):
        return [path]
    path = models.path_of(path)
    if path.is_dir():
        return sorted(each for each in path.rglob("*") if each.is_file())
    shards = models.shards_of(path)
    return list(shards.files) if shards is not None else [path, *_shard_paths(path)]


def models_with(folder: Path) -> list[str]:
    """The names of the models in a folder that is one and has others in it; else none.

    The folder's own, a distributed checkpoint or TensorFlow's, goes by the name of what marks it.
    """
    row = kind_of_folder(folder)
    if row is None or row.name == "deepspeed":  # whose files end as those of other models
        return []
    names = sorted(names_in(folder))
    mark = next(mark for mark in row.marks if mark in names)
    others = [
        name
        for name in names
        if name.endswith(CHECKPOINTS)
        and not (row.name == "tensorflow" and name.endswith(".index"))
        and NO_MODEL.fullmatch(name) is None
        and not is_statistics_file(folder / name)
    ]
    return [mark, *others] if others else []


def folders_in(folder: Path, names: list[str]) -> list[str]:
    """Those of the names in a folder that are folders with a model: SavedModels, for instance."""
    marks = ("saved_model.pb", ".metadata")
    return [name for name in names if any((folder / name / mark).is_file() for mark in marks)]


@dataclass(slots=True)
class Models:
    """The models of folders; each folder is looked at once."""

    _names: dict[Path, list[str]] = field(default_factory=dict)
    _indexes: dict[Path, dict[Path, Path]] = field(default_factory=dict)
    _shards: dict[tuple[Path, str], Shards | None] = field(default_factory=dict)

    def path_of(self, path: Path) -> Path:
        """The file that stands for the model that `path` is, holds or is a part of.

        That is an index, the first of numbered shards, or the file itself; for a folder whose
        model is not clear, the folder. Raises nothing: what is wrong is said on opening.
        """
        if path.is_dir():
            return self._of_folder(path) or path
        index = self._index_of(path)
        if index is not None:
            return index
        shards = self.shards_of(path)
        return shards.files[0] if shards is not None else path

    def shards_of(self, path: Path) -> Shards | None:
        """The numbered shards that a file is one of; None where it is a file of its own.

        Files that share a tensor's name are not parts of one model, whatever they are called.
        """
        fits = NUMBERED.fullmatch(path.name)
        if fits is None or not path.name.endswith(CHECKPOINTS) or int(fits["total"]) < 2:
            return None
        key = (path.parent, f"{fits['before']}*{fits['total']}{fits['after']}")
        if key not in self._shards:
            self._shards[key] = self._numbered(path.parent, fits)
        return self._shards[key]

    def _numbered(self, folder: Path, fits: re.Match[str]) -> Shards | None:
        total = int(fits["total"])
        there: dict[int, str] = {}
        for name in self._listed(folder):
            other = NUMBERED.fullmatch(name)
            if other is not None and other.group("before", "total", "after") == fits.group(
                "before", "total", "after"
            ):
                there[int(other["number"])] = name
        first = 0 if 0 in there else 1
        if isinstance(folder, RemotePath):
            look(folder / name for name in there.values())
        wanted = range(first, first + total)
        files = tuple(folder / there[number] for number in sorted(there))
        if not files or not set(there) <= set(wanted) or _overlap(files):
            return None
        missing = tuple(
            f"{fits['before']}-{number:05d}-of-{fits['total']}{fits['after']}"
            for number in wanted
            if number not in there
        )
        return Shards(files, missing)

    def _index_of(self, path: Path) -> Path | None:
        """The index that names the file, in its folder or the one above.

        A folder elsewhere, which may be long, is listed for a file alone that is called a shard.
        """
        if isinstance(path, RemotePath):
            fits = NUMBERED.fullmatch(path.name)
            if fits is None:
                return None
            if not self._listed(path.parent):
                self._names[path.parent] = _guessed(path, fits)
        for folder in path.parents[:2]:
            if folder not in self._indexes:
                self._indexes[folder] = {
                    shard: index
                    for index in reversed(self._indexes_in(folder))
                    for shard in _shard_paths(index)
                }
            if path in self._indexes[folder]:
                return self._indexes[folder][path]
        return None

    def _indexes_in(self, folder: Path) -> list[Path]:
        """What is called like an index and is one."""
        named = [folder / name for name in self._listed(folder) if INDEX.search(name)]
        return [path for path in named if _shard_paths(path)]

    def _of_folder(self, folder: Path) -> Path | None:
        """The one model that lies in the folder; None where it is one, has none, or several."""
        if (row := kind_of_folder(folder)) is not None and row.name != "deepspeed":
            return None
        indexes = self._indexes_in(folder)
        whole = [index for index in indexes if all(path.is_file() for path in _shard_paths(index))]
        if whole:
            return whole[0] if len(whole) == 1 else None
        files = [folder / name for name in self._listed(folder) if name.endswith(CHECKPOINTS)]
        models = list(dict.fromkeys(map(self.path_of, filter(Path.is_file, files))))
        if len(models) > 1:
            models = [path for path in models if not is_statistics_file(path)]
        if len(models) > 1:
            models = [path for path in models if path.name in USUAL] or [
                path for path in models if path in indexes or self.shards_of(path) is not None
            ]
        if not models and len(indexes) == 1:
            return indexes[0]
        if models and models[0].name not in USUAL and folders_in(folder, self._listed(folder)):
            return None
        return models[0] if len(models) == 1 else None

    def _listed(self, folder: Path) -> list[str]:
        if folder not in self._names:
            try:
                self._names[folder] = sorted(names_in(folder))
            except OSError:
                self._names[folder] = []
        return self._names[folder]


def _guessed(path: RemotePath, fits: re.Match[str]) -> list[str]:
    """The names beside a shard on a server that lists none: the index, or else the other shards."""
    index = f"{fits['before']}{fits['after']}.index.json"
    total = int(fits["total"])
    if path.with_name(index).exists():
        return [index]
    names = [
        f"{fits['before']}-{number:05d}-of-{fits['total']}{fits['after']}"
        for number in range(min(total, MOST_GUESSED) + 1)
    ]
    look(map(path.with_name, names))
    return [name for name in names if name == path.name or path.with_name(name).exists()]


def open_shards(shards: Shards) -> TensorFile:
    """The tensors of numbered shards, under the path of the first. Raises FileError."""
    first = shards.files[0]
    if shards.missing:
        for name in shards.missing:
            check_allowed(first.with_name(name))
        raise FileError(
            first,
            f"its name says that it is one of {len(shards.files) + len(shards.missing)} shards of a"
            f" model, of which {listed(shards.missing)}"
            f" {'is' if len(shards.missing) == 1 else 'are'} missing; download the rest too.",
        )
    from bncli.loaders.sharded import merged, open_shard

    return merged(first, map(open_shard, shards.files))


def _overlap(files: tuple[Path, ...]) -> bool:
    """Whether two of the files have a tensor of one name; what cannot be read has none."""
    from bncli.loaders.sharded import open_shard

    seen: set[str] = set()
    for path in files:
        try:
            names = open_shard(path).tensors.keys()
        except FileError:
            continue
        if not seen.isdisjoint(names):
            return True
        seen |= names
    return False


def _shard_paths(index: Path) -> tuple[Path, ...]:
    """The shards that a file names, if it is an index; few folders have one."""
    from bncli.loaders.sharded import shard_paths

    return shard_paths(index)
