"""Programs of torch.export (.pt2): the weights lie raw in a ZIP archive beside the graph in JSON.

PyTorch writes them in three layouts: each weight as a member of its own and a table of them
(since 2.9), or as one file of torch.save, in data/weights (2.8) or at the top (before).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bncli.dtypes import DTYPES
from bncli.errors import FileError, UnsupportedFileError
from bncli.loaders import torch_zip
from bncli.loaders.interface import Source, lean_json
from bncli.loaders.names import Text, quoted
from bncli.loaders.nested import stored_member
from bncli.loaders.torch_places import Places, Region
from bncli.loaders.torch_values import MOST_SIZES, Storage, View
from bncli.loaders.zip_archive import STORED, Member, ZipArchive
from bncli.loaders.zip_elsewhere import plain_members
from bncli.model import TensorFile, TensorRef

LARGEST_JSON = 1 << 24
FREE_MARKS, MARK_WIDTH = 1 << 18, 8
"""How long a graph or a table may be: 7,000 nodes or 13,000 tensors; and how closely packed
(`lean_json`): PyTorch writes a mark in 7.6 bytes and more."""
OLD = "serialized_exported_program.json"
MODEL = re.compile(r"(?:(?P<root>.*)/)?models/(?P<name>[^/]+)\.json")
WEIGHTS = ("data/weights/{}_weights_config.json", "data/weights/{}.pt")
CONSTANTS = ("data/constants/{}_constants_config.json", "data/constants/{}.pt")
OLD_WEIGHTS = ("serialized_state_dict.pt", "serialized_state_dict.json")
OLD_CONSTANTS = ("serialized_constants.pt", "serialized_constants.json")
"""What was called .json once is no JSON either."""
PICKLED = "it is pickled, as tensor subclasses and objects of a program are"
STRIDED = 7
"""The layout of a dense tensor, as the schema counts them."""
SCALARS = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16",
    28: "uint16", 29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz", 33: "float8_e8m0fnu", 34: "uint32", 35: "uint64",
}  # fmt: skip
"""The dtypes, as the schema counts them."""


def detect(source: Source) -> bool:
    """Whether the file is an archive with a program, or says that it is of that format."""
    archive = source.archive
    return archive is not None and any(
        name.rpartition("/")[2] in {OLD, "archive_format"} or MODEL.fullmatch(name)
        for name in archive.members
    )


def open_tensors(source: Source) -> TensorFile:
    """The tensors of every program in the archive, as its state_dict() has them.

    Those of several programs stand behind the program's name. Constants and buffers that are not
    persistent are left out, except for those that a BatchNorm takes. Its eps and momentum are
    arguments of a node of the graph. Tensors that were pickled are not read, and neither are the
    sample inputs. Raises FileError.
    """
    archive = source.archive
    assert archive is not None
    programs = {name: where for name in archive.members for where in _program(name)}
    if not programs:
        raise _without_graph(source, archive)
    found = TensorFile(source.path, "torch-export", {})
    whys = set()
    text = Text(source.path)
    for member, (root, name) in programs.items():
        file = _Program(source, archive, root, name).opened(archive.members[member])
        whys.add(file.without_layers)
        prefix = (name or "program") if len(programs) > 1 else ""
        for key in file.tensors if prefix else ():
            text.take(f"{prefix}.{key}")
        found = found.joined(file.under(prefix))
    return replace(found, without_layers=whys.pop() if len(whys) == 1 else "")


def _program(member: str) -> Iterator[tuple[str, str]]:
    """The folder and the name of the program whose graph a member is, if it is one."""
    fits = MODEL.fullmatch(member)
    if fits is not None:
        yield f"{fits['root']}/" if fits["root"] else "", fits["name"]
    elif member.rpartition("/")[2] == OLD:
        yield member.removesuffix(OLD), ""


class _Program:
    """One program of an archive: where its members lie, and what was found of its tensors."""

    def __init__(self, source: Source, archive: ZipArchive, root: str, name: str) -> None:
        self.source = source
        self.archive = archive
        self.root = root
        self.name = name
        self.byteorder = torch_zip.byteorder_of(source, archive, root.removesuffix("/"))
        self.places = Places(source.path, b"", self._place)
        self.plain = plain_members(archive)
        self.tensors: dict[str, TensorRef] = {}
        self.skipped: dict[str, str] = {}

    def opened(self, graph: Member) -> TensorFile:
        """The program's tensors, and what its graph says of them."""
        from bncli.loaders.torch_graph import layers_of

        self._read(WEIGHTS if self.name else OLD_WEIGHTS)
        kept: set[str | None] = set(self.tensors)
        self._read(CONSTANTS if self.name else OLD_CONSTANTS)
        program = read_json(self.archive, graph)
        found = layers_of(program, self.tensors)
        for layer in found.layers.values():
            kept.update(layer.tensors.values())
            if layer.front is not None:
                kept.update((layer.front.weight, layer.front.bias))
        tensors = {name: ref for name, ref in self.tensors.items() if name in kept}
        return TensorFile(
            self.source.path,
            "torch-export",
            tensors | found.unknown,
            found.modules,
            self.skipped | found.skipped,
            found.layers,
            found.without_layers,
        )

    def _read(self, patterns: Sequence[str]) -> None:
        """Add the tensors of those members that are there: tables, or files of torch.save."""
        for pattern in patterns:
            member = self.archive.members.get(self.root + pattern.format(self.name))
            if member is None:
                continue
            if pattern.endswith("_config.json"):
                self._read_table(read_json(self.archive, member), member)
            else:
                self._read_saved(member)

    def _place(self, storage: Storage) -> Region:
        """The bytes of a weight, by its member's name."""
        member = self.archive.members[storage.key]
        self.archive.check_readable(member)
        if member.method != STORED:
            return replace(self.archive.packed(member), byteorder=self.byteorder)
        return replace(self.plain(member), byteorder=self.byteorder)

    def _read_table(self, table: Any, member: Member) -> None:
        """Add the tensors of a table of weights or constants, whose bytes lie beside it."""
        folder = member.name.rpartition("/")[0]
        config = table.get("config") if isinstance(table, dict) else None
        if not isinstance(config, dict):
            raise self.archive.corrupt(f"{quoted(member.name)} is not a table of tensors")
        for name, entry in config.items():
            path = entry.get("path_name") if isinstance(entry, dict) else None
            if not isinstance(path, str):
                raise self._undescribed(name)
            if entry.get("use_pickle") is not False or entry.get("tensor_meta") is None:
                self.skipped[name] = PICKLED
            elif name not in self.tensors:
                self.tensors[name] = self._tensor(name, f"{folder}/{path}", entry["tensor_meta"])

    def _tensor(self, name: str, key: str, meta: Any) -> TensorRef:
        """One tensor of a table, with the place of its bytes."""
        view = _view(meta)
        if view is None:
            raise self._undescribed(name)
        member = self.archive.members.get(key)
        if member is None:
            raise self.archive.corrupt(f"the bytes of its tensor {quoted(name)} are missing")
        if not member.size and 0 not in view.shape:
            why = "it was exported without its values, from a fake tensor"
            view = replace(view, unreadable=view.unreadable or why)
        return self.places.ref(
            name, replace(view, storage=Storage(key, "uint8", member.size, "cpu"))
        )

    def _undescribed(self, name: str) -> FileError:
        return self.archive.corrupt(f"its tensor {quoted(name)} has an invalid description")

    def _read_saved(self, member: Member) -> None:
        """Add the tensors of a file of torch.save inside the archive."""
        part = stored_member(self.source, self.archive, member)
        if part is None or not torch_zip.detect(part):
            raise UnsupportedFileError(
                self.source.path,
                f"its weights, {quoted(member.name)}, are not as torch.export.save writes them;"
                " unpack the archive, and name that file.",
            )
        file = torch_zip.open_tensors(part)
        self.tensors |= {k: ref for k, ref in file.tensors.items() if k not in self.tensors}
        self.skipped |= file.skipped


def read_json(archive: ZipArchive, member: Member) -> Any:
    """The value of a member in JSON, without the stack traces. Raises FileError."""
    archive.check_readable(member)
    if member.size > LARGEST_JSON:
        raise UnsupportedFileError(
            archive.path,
            f"its member {quoted(member.name)} has {member.size} bytes, which is more than bncli"
            " reads; save the program's state_dict with torch.save and name that.",
        )
    try:
        return lean_json(
            archive.bytes_of(member, LARGEST_JSON), FREE_MARKS, MARK_WIDTH, object_hook=_short
        )
    except ValueError:
        fact = f"its member {quoted(member.name)} is not the JSON of a program"
        raise archive.corrupt(fact) from None


def _short(table: dict[str, Any]) -> dict[str, Any]:
    """A table without what is long and says nothing here."""
    table.pop("stack_trace", None)
    return table


def _view(meta: Any) -> View | None:
    """A tensor as its description has it, without its storage; None where it is malformed."""
    if not isinstance(meta, dict):
        return None
    shape, strides = _numbers(meta.get("sizes")), _numbers(meta.get("strides"))
    offset = _numbers([meta.get("storage_offset")])
    code = meta.get("dtype")
    if shape is None or strides is None or offset is None or not isinstance(code, int):
        return None
    dtype = SCALARS.get(code, f"dtype {code}")
    unreadable = "" if dtype in DTYPES else f"the dtype {dtype} is not read"
    if meta.get("layout") != STRIDED:
        unreadable = "it is sparse"
    return View(shape, dtype, strides, offset[0], unreadable=unreadable)


def _numbers(entries: Any) -> tuple[int, ...] | None:
    """Sizes as the schema has them, [{"as_int": 3}, ...]; None where one is not a number."""
    if not isinstance(entries, list) or len(entries) > MOST_SIZES:
        return None
    numbers = []
    for entry in entries:
        number = entry.get("as_int") if isinstance(entry, dict) else None
        if type(number) is not int or not 0 <= number < 1 << 62:
            return None
        numbers.append(number)
    return tuple(numbers)


def _without_graph(source: Source, archive: ZipArchive) -> UnsupportedFileError:
    """The error for an archive of the format without a program in it."""
    compiled = any("data/aotinductor/" in name for name in archive.members)
    what = (
        "it is a program compiled by AOTInductor, whose weights are part of its machine code"
        if compiled
        else "it says that it is a torch.export program, but there is no graph in it"
    )
    return UnsupportedFileError(source.path, f"{what}; name the checkpoint that it was made from.")
