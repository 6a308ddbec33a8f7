"""A checkpoint in several files: an index in JSON that says which file has which tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from bncli.errors import CorruptFileError, FileError, MissingTensorError, UnsupportedFileError
from bncli.loaders.beside import beside, is_missing
from bncli.loaders.interface import Source, check_regular, lean_json, look, open_source
from bncli.loaders.names import listed, quoted
from bncli.loaders.registry import LOADERS, loader_of
from bncli.model import BatchNormModule, TensorFile, TensorRef

SHARDS = tuple(row for row in LOADERS if row.shard)
"""The formats that a shard may have; an index is none of them, so indexes do not nest."""
LARGEST_INDEX = 1 << 25
FREE_MARKS, MARK_WIDTH = 1 << 18, 16
"""How closely its JSON may be packed (`lean_json`): a tensor has 2 marks and two names."""
_MARK = b'"weight_map"'


def detect(source: Source) -> bool:
    """Whether the file is JSON with a weight_map."""
    return (
        source.head.lstrip()[:1] == b"{"
        and source.size <= LARGEST_INDEX
        and _MARK in source.read(0, source.size)
    )


def open_tensors(source: Source) -> TensorFile:
    """The tensors of all shards, in the order of the index; each shard's directory is read."""
    wanted = _weight_map(source)
    paths = {name: beside(source.path, name) for name in dict.fromkeys(wanted.values())}
    look(paths.values())
    if missing := [name for name, path in paths.items() if is_missing(path)]:
        raise FileError(
            source.path,
            f"its shard{'s' * (len(missing) > 1)} {listed(missing)}"
            f" {'are' if len(missing) > 1 else 'is'} missing; download"
            f" {'them' if len(missing) > 1 else 'it'} too.",
        )
    shards = {name: open_shard(path) for name, path in paths.items()}
    for name, file_name in wanted.items():
        if name not in shards[file_name].tensors:
            raise MissingTensorError(
                source.path,
                f"its tensor {quoted(name)} is not in {quoted(file_name)}; index and shards do not"
                " belong together, so download both again.",
            )
    tensors = {name: shards[file_name].tensors[name] for name, file_name in wanted.items()}
    return replace(merged(source.path, shards.values()), tensors=tensors)


def merged(path: Path, shards: Iterable[TensorFile]) -> TensorFile:
    """All that the shards hold, in their order, as one file of that path."""
    containers: set[str] = set()
    tensors: dict[str, TensorRef] = {}
    modules: dict[str, BatchNormModule] = {}
    skipped: dict[str, str] = {}
    for shard in shards:
        containers.add(shard.container)
        tensors |= shard.tensors
        modules |= shard.modules
        skipped |= shard.skipped
    container = " and ".join(sorted(containers)) or "safetensors"
    return TensorFile(path, container, tensors, modules, skipped)


def shard_paths(path: Path) -> tuple[Path, ...]:
    """The files that an index names; none where the file is not an index that can be read."""
    try:
        with open_source(path) as source:
            names = dict.fromkeys(_weight_map(source).values()) if detect(source) else {}
            return tuple(beside(path, name) for name in names)
    except FileError:
        return ()


def open_shard(path: Path) -> TensorFile:
    """The tensors of a file that an index, or its own name, says to be a shard."""
    check_regular(path)
    if path.is_dir():
        raise UnsupportedFileError(path, "it should be a shard, but it is a directory.")
    with open_source(path) as source:
        loader = loader_of(source, SHARDS)
        if loader is not None:
            return loader.open_tensors(source)
    raise UnsupportedFileError(
        path,
        "it should be a shard of a model, but it is neither safetensors nor written by torch.save;"
        " download it again.",
    )


def _weight_map(source: Source) -> Mapping[str, str]:
    """Names of tensors -> names of files beside the index or below it."""
    try:
        table = lean_json(source.read(0, source.size), FREE_MARKS, MARK_WIDTH)
    except ValueError as error:
        raise CorruptFileError(
            source.path,
            "it is not valid JSON, or has far more lists and values than a table of tensors needs;"
            " download the index again.",
        ) from error
    names = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise CorruptFileError(
            source.path, "its weight_map is not a table of file names; download the index again."
        )
    return names
