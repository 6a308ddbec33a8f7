"""The registry of loaders: one file each, asked in this order, imported when it is asked.

A new format is a file beside this one with the two functions of `interface.Loader`, and a row here;
a new kind of folder is one with the three of `interface.FolderLoader`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bncli.light import dataclass
from bncli.paths import lexists

if TYPE_CHECKING:
    from bncli.loaders.interface import FolderLoader, Loader, Source

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""How a ZIP archive begins: with its first member, or with its directory where it has none."""


@dataclass(frozen=True, slots=True)
class Row:
    """A loader by the name of its module, and what is known of its files without importing it.

    `container` is what `TensorFile.container` says, and `called` is the word for it in the
    guides. The loader is asked about files that begin with one of `begins`. `suffixes` are how its
    files are called: for what is said of them, never for reading them. One that is a `shard` reads
    shards of a model, one that is `inside` reads files that lie in another file.
    """

    name: str
    container: str
    called: str
    begins: tuple[bytes, ...] = (b"",)
    suffixes: tuple[str, ...] = ()
    shard: bool = False
    inside: bool = False


LOADERS = (
    Row("npy", "npy", ".npy", (b"\x93NUMPY",), (".npy",), inside=True),
    Row("torchscript", "torchscript", "TorchScript", ZIP, inside=True),
    Row(
        "torch_zip",  # torch.save since PyTorch 1.6
        "torch-zip",
        "PyTorch",
        ZIP,
        (".pt", ".pth", ".pth.tar", ".bin", ".ckpt"),
        shard=True,
        inside=True,
    ),
    Row("keras", "keras", ".keras", ZIP, (".keras",)),  # before .npz: it may hold arrays, too
    Row("npz", "npz", ".npz", ZIP, (".npz",), inside=True),
    Row("torch_exported", "torch-export", "torch.export", ZIP, (".pt2",)),
    Row(
        "torch_legacy",  # before 1.6
        "torch-legacy",
        "PyTorch",
        (b"\x80", b"L"),
        shard=True,
        inside=True,
    ),
    Row("paddle", "paddle", "Paddle", (b"\x80",), (".pdparams",), inside=True),
    Row(
        "safetensors",
        "safetensors",
        "safetensors",
        suffixes=(".safetensors",),
        shard=True,
        inside=True,
    ),
    Row("onnx", "onnx", "ONNX", (b"\x08",), (".onnx",), inside=True),
    Row("hdf5", "keras-h5", "HDF5", suffixes=(".h5", ".hdf5"), inside=True),
    Row("sharded", "safetensors", "shards"),  # an index; the container is that of its shards
    Row(
        "flax",
        "flax-msgpack",
        "Flax",
        (*(bytes([mark]) for mark in range(0x81, 0x90)), b"\xde", b"\xdf"),  # maps
        (".msgpack",),
        inside=True,
    ),
    Row("tensorflow", "tensorflow", "TensorFlow", suffixes=(".index",)),
    Row("mxnet", "mxnet", "MXNet", (b"\x12\x01\0\0\0\0\0\0",), (".params",)),
    Row("json", "json", "JSON"),
    Row("csv", "csv", ".csv"),
    Row("nested", "torch-zip in zip", "in a .zip"),
    Row("packed", "torch-zip in gzip", ".gz", (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")),
    Row("refused", "", ""),  # knows every file, opens none: says what it is instead
)
"""Every format, in the order in which they are asked."""

STATISTICS = "bncli.json"
"""The member of an .npz that makes it a statistics file: its header."""
TYPED = ("json", "csv")
"""The containers of numbers that were typed, which have no layers."""
READ = "PyTorch, safetensors, ONNX, Keras, TensorFlow, Flax, MXNet, Paddle and NumPy files"
"""Those of checkpoints, as a refusal names them."""
CHECKPOINTS = tuple(suffix for row in LOADERS for suffix in row.suffixes)
"""How files are called that may hold tensors."""


def loader_of(source: Source, rows: Iterable[Row] = LOADERS) -> Loader | None:
    """The first loader that knows the content; None where none of `rows` does."""
    for row in rows:
        if source.head.startswith(row.begins):
            loader = cast("Loader", import_module(f"bncli.loaders.{row.name}"))
            if loader.detect(source):
                return loader
    return None


@dataclass(frozen=True, slots=True)
class Folder:
    """A kind of model that lies in several files, by the name of the module that opens it.

    A folder with one of the names `marks` in it may be such a model. `parts` is a pattern for the
    ends of the names of files that may be parts of one.
    """

    name: str
    marks: tuple[str, ...]
    parts: str


FOLDERS: tuple[Folder, ...] = (
    Folder(
        "tensorflow",
        ("saved_model.pb", "variables.index", "checkpoint"),
        r"\.data-\d{5}-of-\d{5}|\.meta",
    ),
    Folder("torch_distributed", (".metadata",), r"\.distcp|\.metadata"),
    Folder(
        "deepspeed",
        (
            "latest",
            "mp_rank_00_model_states.pt",
            "zero_pp_rank_0_mp_rank_00_model_states.pt",
            "layer_00-model_states.pt",
            "layer_00-model_00-model_states.pt",
        ),
        r"_states\.pt|latest",
    ),
)
"""Every kind of folder, in the order in which they are asked."""


def whole_of(path: Path) -> Path:
    """What to open for the model of which `path` is a part or a short name; else `path` itself."""
    for row in FOLDERS:
        if re.search(rf"(?:{row.parts})$", path.name) or not lexists(path):
            whole = _folder_loader(row).whole_of(path)
            if whole is not None:
                return whole
    return path


def kind_of_folder(folder: Path) -> Folder | None:
    """The first kind of model that a folder is; None where it is none, or cannot be read."""
    for row in FOLDERS:
        marked = any(lexists(folder / mark) for mark in row.marks)
        if marked and _folder_loader(row).is_whole(folder):
            return row
    return None


def loader_of_folder(folder: Path) -> FolderLoader | None:
    """The loader of that kind of model."""
    row = kind_of_folder(folder)
    return None if row is None else _folder_loader(row)


def _folder_loader(row: Folder) -> FolderLoader:
    return cast("FolderLoader", import_module(f"bncli.loaders.{row.name}"))
