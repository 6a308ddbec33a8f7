"""A checkpoint in several files: an index in JSON that says which file has which tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bncli.errors import CorruptFileError, FileError, MissingTensorError, UnsupportedFileError
from bncli.loaders import safetensors, torch_legacy, torch_zip
from bncli.loaders.interface import Loader, Source, check_regular, is_lean, open_source
from bncli.loaders.names import quoted
from bncli.model import TensorFile, TensorRef

SHARD_LOADERS: tuple[Loader, ...] = (safetensors, torch_zip, torch_legacy)
"""The formats that a shard may have; an index is none of them, so indexes do not nest."""
LARGEST_INDEX = 1 << 25
FREE_MARKS, MARK_WIDTH = 1 << 18, 16
"""How closely its JSON may be packed (`is_lean`): a tensor has 2 marks and two names."""
_MARK = b'"weight_map"'


def detect(source: Source) -> bool:
    """Whether the file is JSON with a weight_map."""
    return (
        source.head.lstrip()[:1] == b"{"
        and source.size <= LARGEST_INDEX
        and source.mapped.find(_MARK) >= 0
    )


def open_tensors(source: Source) -> TensorFile:
    """The tensors of all shards, in the order of the index; each shard's directory is read."""
    wanted = _weight_map(source)
    shards: dict[str, TensorFile] = {}
    tensors: dict[str, TensorRef] = {}
    for name, file_name in wanted.items():
        shard = shards.get(file_name)
        if shard is None:
            shard = shards[file_name] = _open_shard(source.path, file_name)
        ref = shard.tensors.get(name)
        if ref is None:
            raise MissingTensorError(
                source.path,
                f"its tensor {quoted(name)} is not in {quoted(file_name)}; index and shards do not"
                " belong together, so download both again.",
            )
        tensors[name] = ref
    containers = {shard.container for shard in shards.values()}
    return TensorFile(source.path, " and ".join(sorted(containers)) or "safetensors", tensors)


def _weight_map(source: Source) -> Mapping[str, str]:
    """Names of tensors -> names of files beside the index or below it."""
    import json

    text = source.read(0, source.size)
    if not is_lean(text, FREE_MARKS, MARK_WIDTH):
        raise CorruptFileError(
            source.path,
            "it has far more lists and values than a table of tensors needs; download the index"
            " again.",
        )
    try:
        table = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(
            source.path, "it is no valid JSON; download the index again."
        ) from error
    names = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise CorruptFileError(
            source.path, "its weight_map is no table of file names; download the index again."
        )
    return names


def _open_shard(index: Path, file_name: str) -> TensorFile:
    """Open a file that lies beside the index or in a folder below it, never above."""
    if {"", ".", ".."} & set(file_name.split("/")) or set(file_name) & set("\\:\0"):
        raise CorruptFileError(
            index,
            f"its weight_map names {quoted(file_name) or 'nothing'} as a shard, and shards lie"
            " beside their index or in folders below it; download the index again.",
        )
    path = index.parent / file_name
    try:
        check_regular(path)
    except FileError as error:
        raise FileError(
            index, f"its shard {quoted(file_name)} is missing or unreadable; download it too."
        ) from error
    if path.is_dir():
        raise FileError(index, f"its shard {quoted(file_name)} is a directory; download it again.")
    with open_source(path) as source:
        for loader in SHARD_LOADERS:
            if loader.detect(source):
                return loader.open_tensors(source)
    raise UnsupportedFileError(
        path,
        "the index names it as a shard, but it is neither safetensors nor written by torch.save;"
        " download it again.",
    )
