"""Folders of torch.distributed.checkpoint: an index, and each rank's pieces of the tensors.

The index, `.metadata`, is a pickle. It says which pieces a tensor has, and where each lies: a
whole file of torch.save at some bytes of a `*.distcp`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import field, replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.light import dataclass
from bncli.loaders import torch_zip
from bncli.loaders.beside import beside, is_missing
from bncli.loaders.interface import Source, check_regular, open_source
from bncli.loaders.names import listed, quoted
from bncli.loaders.npy import MOST_AXES, contiguous
from bncli.loaders.pickle_records import Dict, Global, Record
from bncli.loaders.pieces import Box, assembled, check_tiling
from bncli.loaders.torch_places import MOST_REPEATED
from bncli.loaders.torch_values import as_sizes, class_of
from bncli.model import TensorFile, TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEX = ".metadata"
PART = ".distcp"
LARGEST_INDEX = 1 << 28
MOST_OPEN = 64
"""How many ranks' files are open at a time."""
MOST_FIELDS = 16
"""An object of the index has at most 5 attributes."""
BYTES_A_CHUNK, FREE_CHUNKS = 30, 1_000
"""The index spends at least so many bytes on a piece; it could repeat a list of them for ever."""
MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed._shard.checkpoint.metadata")
AGAIN = "copy the folder again, or save the checkpoint again"


def whole_of(path: Path) -> Path | None:
    """The folder of an index or of a rank's file, if the index lies there."""
    if path.name == INDEX or path.name.endswith(PART):
        return path.parent if path.is_file() and (path.parent / INDEX).is_file() else None
    return None


def is_whole(folder: Path) -> bool:
    """Whether the folder has an index, and a rank's file or a pickle in the index."""
    try:
        if not (folder / INDEX).is_file():
            return False
        if any(path.name.endswith(PART) for path in folder.iterdir()):
            return True
        with open_source(folder / INDEX) as source:
            return source.head.startswith(b"\x80")
    except (OSError, FileError):
        return False


def open_folder(folder: Path) -> TensorFile:
    """The tensors of the checkpoint, under the names that the index gives them.

    What is not a tensor (numbers, texts) is left out. A tensor of one piece is read where it lies;
    the pieces of another are put together when it is read.
    """
    index = folder / INDEX
    with open_source(index) as source:
        tensors = _Index(source).tensors()
    _check_files(folder, tensors)
    pieces = _Pieces(folder)
    with closing(pieces):
        pieces.check_apart(tensors)
        refs = {name: pieces.ref(name, tensor) for name, tensor in tensors.items()}
    return TensorFile(folder, "torch-dcp", refs)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a tensor, and the `length` bytes from `start` of a file in which it was saved.

    `transform` is how these were changed, as compressed, "" for not at all.
    """

    box: Box
    file: str
    start: int
    length: int
    transform: str = ""

    @property
    def stop(self) -> int:
        """Where its bytes end."""
        return self.start + self.length


@dataclass(slots=True)
class Stored:
    """A tensor as the index describes it: `why` says why its values cannot be had."""

    shape: tuple[int, ...]
    dtype: str
    chunks: list[Chunk] = field(default_factory=list)
    why: str = ""


class _Index:
    """The index of a checkpoint, read as data."""

    def __init__(self, source: Source) -> None:
        from bncli.loaders.unpickler import load

        self.path = source.path
        if source.size > LARGEST_INDEX:
            raise UnsupportedFileError(
                self.path,
                f"its {source.size} bytes are more than bncli reads of such an index;"
                " save the model's state_dict with torch.save.",
            )
        pickle = load(self.path, source)
        root = _fields(pickle.value, most=0)
        cls = class_of(pickle.value) if isinstance(pickle.value, Record) else None
        if cls is None or cls.name != "Metadata" or cls.module not in MODULES:
            raise self.corrupt("it is not the index of a torch.distributed checkpoint")
        self.described = _pairs(root.get("state_dict_metadata"))
        self.stored = _pairs(root.get("storage_data"))
        self.chunks = FREE_CHUNKS + pickle.length // BYTES_A_CHUNK
        if not self.stored and self.described:
            raise self.corrupt("it does not say where its tensors lie")

    def corrupt(self, fact: str) -> CorruptFileError:
        """The error for an index that does not fit together."""
        return CorruptFileError(self.path, f"{fact}; {AGAIN}.")

    def tensors(self) -> dict[str, Stored]:
        """Every tensor with its pieces, in the order of the index."""
        places = self._places()
        found: dict[str, Stored] = {}
        for name, node in self.described:
            cls = class_of(node) if isinstance(node, Record) else None
            if isinstance(name, str) and cls is not None and cls.name == "TensorStorageMetadata":
                try:
                    found[name] = self._tensor(name, _fields(node), places.get(name, []))
                except (ValueError, TypeError, IndexError) as error:
                    raise self.corrupt(
                        f"its description of the tensor {quoted(name)} is wrong"
                    ) from error
        return found

    def _places(self) -> dict[str, list[Chunk]]:
        """Where the pieces of each tensor lie; their sizes come later."""
        places: dict[str, list[Chunk]] = {}
        for key, value in self.stored:
            at, where = _fields(key), _fields(value)
            name, file = at.get("fqn"), where.get("relative_path")
            first, length = where.get("offset"), where.get("length")
            if not isinstance(name, str) or at.get("offset") is None:
                continue  # not a tensor
            try:
                begins = as_sizes(at["offset"])
            except (ValueError, TypeError):
                begins = None
            if begins is None or not (isinstance(file, str) and _is_size(first, length)):
                raise self.corrupt(f"it does not say where the tensor {quoted(name)} lies")
            assert isinstance(first, int)
            assert isinstance(length, int)
            steps = where.get("transform_descriptors")
            box = Box(begins, ())
            places.setdefault(name, []).append(Chunk(box, file, first, length, _transform(steps)))
        return places

    def _tensor(self, name: str, fields: Mapping[str, object], places: list[Chunk]) -> Stored:
        """One tensor. Raises ValueError or TypeError where its description is malformed."""
        shape, dtype = as_sizes(fields.get("size")), _dtype(fields.get("properties"))
        if dtype not in DTYPES:
            return Stored(shape, dtype, why=f"the dtype {quoted(dtype)} is not read")
        if len(shape) > MOST_AXES:
            return Stored(shape, dtype, why=f"it has {len(shape)} axes")
        listed_chunks = fields.get("chunks")
        if not isinstance(listed_chunks, list):
            raise TypeError("no list of pieces")
        self.chunks -= len(listed_chunks)
        if self.chunks < 0:
            raise self.corrupt("it has more pieces of tensors than its size allows")
        boxes = []
        for each in listed_chunks:
            parts = _fields(each)
            boxes.append(Box(as_sizes(parts.get("offsets")), as_sizes(parts.get("sizes"))))
        by_begin = sorted(places, key=lambda chunk: chunk.box.offsets)
        boxes.sort(key=lambda box: box.offsets)
        if [box.offsets for box in boxes] != [chunk.box.offsets for chunk in by_begin]:
            raise self.corrupt(
                f"it describes other pieces of the tensor {quoted(name)} than it has places for"
            )
        if problem := check_tiling(shape, boxes):
            raise self.corrupt(f"the pieces of its tensor {quoted(name)} {problem}")
        chunks = [replace(chunk, box=box) for chunk, box in zip(by_begin, boxes, strict=True)]
        how = next((chunk.transform for chunk in chunks if chunk.transform), "")
        why = f"its bytes are transformed ({quoted(how)})" if how else ""
        return Stored(shape, dtype, chunks, why)


class _Pieces:
    """The ranks' files of a checkpoint, and the tensors in them.

    `readable` is how many bytes all tensors together may still have, beyond what is stored of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: dict[str, tuple[Source, ExitStack]] = {}
        self.number = 0
        self.readable = 8 * MOST_REPEATED

    def source(self, file: str) -> Source:
        """A rank's file; the one that was opened first is closed where there are many."""
        if file not in self.opened:
            path = self.folder / file
            check_regular(path)
            if len(self.opened) >= MOST_OPEN:
                self.opened.pop(next(iter(self.opened)))[1].close()
            stack = ExitStack()
            self.opened[file] = stack.enter_context(open_source(path)), stack
        return self.opened[file][0]

    def close(self) -> None:
        """Close the files."""
        for _, stack in self.opened.values():
            stack.close()

    def check_apart(self, tensors: Mapping[str, Stored]) -> None:
        """Raise CorruptFileError where pieces lie over each other or outside of their file."""
        of_file: dict[str, list[tuple[int, int, str]]] = {}
        for name, tensor in tensors.items():
            for chunk in tensor.chunks:
                of_file.setdefault(chunk.file, []).append((chunk.start, chunk.stop, name))
        for file, spans in of_file.items():
            end, before, source = 0, "", self.source(file)
            for start, stop, name in sorted(spans):
                if stop > source.size:
                    raise CorruptFileError(
                        source.path,
                        f"it ends at byte {source.size}, but its piece of {quoted(name)} should"
                        f" reach byte {stop}; it is cut short, so copy it again.",
                    )
                if start < end:
                    raise CorruptFileError(
                        self.folder / INDEX,
                        f"its pieces of {quoted(before)} and {quoted(name)} overlap in"
                        f" {quoted(file)}; {AGAIN}.",
                    )
                end, before = stop, name

    def ref(self, name: str, tensor: Stored) -> TensorRef:
        """A tensor of the checkpoint."""
        self.number += 1
        ref = TensorRef(
            name, self.folder, tensor.shape, tensor.dtype, contiguous(tensor.shape), None,
            tensor.why, origin=(-1, self.number),
        )  # fmt: skip
        if tensor.why:
            return ref
        stored = sum(chunk.length for chunk in tensor.chunks)
        self.readable -= max(ref.numel * DTYPES[ref.dtype].itemsize - stored, 0)
        if self.readable < 0:
            return replace(ref, unreadable="the pieces of the tensors are far smaller than these")
        if [chunk.box.sizes for chunk in tensor.chunks] == [tensor.shape]:
            chunk = tensor.chunks[0]
            ref = open_chunk(self.source(chunk.file), chunk, name, tensor.dtype)
            return replace(ref, name=name)
        return replace(ref, storage=partial(_together, ref, tuple(tensor.chunks)))


def _together(whole: TensorRef, chunks: tuple[Chunk, ...]) -> NDArray[Any]:
    """The elements of a tensor that is in several pieces, as a flat array."""

    def opened() -> Iterator[tuple[Box, TensorRef]]:
        for file, its in groupby(sorted(chunks, key=of_file), of_file):
            with open_source(whole.path / file) as source:
                for chunk in its:
                    yield chunk.box, open_chunk(source, chunk, whole.name, whole.dtype)

    of_file = attrgetter("file")
    return assembled(whole, opened())


def open_chunk(source: Source, chunk: Chunk, name: str, dtype: str) -> TensorRef:
    """The tensor that a piece is, where it lies in a rank's file."""
    part = source.inside(chunk.start, chunk.stop)
    try:
        tensors = torch_zip.open_tensors(part).tensors if torch_zip.detect(part) else {}
    except FileError as error:
        problem = (
            f"its piece of {quoted(name)} at byte {chunk.start} cannot be read, as {error.problem}"
        )
        raise type(error)(source.path, problem) from error
    ref = tensors.get("")
    if ref is None or len(tensors) > 1:
        raise CorruptFileError(
            source.path,
            f"there is no tensor at byte {chunk.start}, where its piece of {quoted(name)} should"
            f" be; {AGAIN}.",
        )
    if (ref.shape, ref.dtype) != (chunk.box.sizes, dtype):
        raise CorruptFileError(
            source.path,
            f"its piece of {quoted(name)} is {ref.dtype} {list(ref.shape)}, where the index"
            f" describes {dtype} {list(chunk.box.sizes)}; {AGAIN}.",
        )
    return ref


def _check_files(folder: Path, tensors: Mapping[str, Stored]) -> None:
    """Raise where the index names files that are outside of the folder or missing."""
    files = dict.fromkeys(chunk.file for tensor in tensors.values() for chunk in tensor.chunks)
    missing = [file for file in files if is_missing(beside(folder / INDEX, file))]
    if missing:
        raise FileError(
            folder,
            f"its index names {listed(missing)}, which"
            f" {'are' if len(missing) > 1 else 'is'} missing; copy the files of all ranks into it.",
        )


def _pairs(node: object) -> list[tuple[object, object]]:
    """The items of a dictionary."""
    return list(node.pairs) if isinstance(node, Dict | Record) else []


def _fields(node: object, most: int = MOST_FIELDS) -> dict[str, object]:
    """The attributes of an object, which are in the state that it was given."""
    found: dict[str, object] = {}
    states = node.states[-1:] if isinstance(node, Record) else ()
    for state in states:
        if isinstance(state, Dict) and len(state.pairs) <= (most or MOST_FIELDS):
            found.update((key, value) for key, value in state.pairs if isinstance(key, str))
    return found


def _dtype(properties: object) -> str:
    """The dtype among a tensor's properties: (dtype, layout, requires_grad, format, pinned)."""
    state = properties.states[-1] if isinstance(properties, Record) and properties.states else None
    dtype = state[0] if isinstance(state, tuple) and state else None
    if isinstance(dtype, Global) and dtype.module.startswith("torch"):
        return dtype.name
    raise TypeError("no dtype")


def _transform(steps: object) -> str:
    """How a piece was transformed, by the names that extensions gave; "" for not at all."""
    if not steps:
        return ""
    names = [each for each in _items(steps) if isinstance(each, str)]
    return ", ".join(names) or "by an extension"


def _items(node: object) -> Iterator[object]:
    if isinstance(node, list | tuple):
        yield from node[:MOST_FIELDS]


def _is_size(*values: object) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)
