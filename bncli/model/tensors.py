"""Tensors that have a place in a file, and files of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES, decode
from bncli.errors import TensorError
from bncli.files.file_bytes import FileBytes
from bncli.light import dataclass, np
from bncli.model.layers import BatchNormModule, StoredLayer
from bncli.report import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.files.runs import Runs


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor that has a place in a file, and is read when its values are asked for.

    `name` is the full name inside the file ("" where the file is the tensor). `strides` count
    elements, as in PyTorch, from the first element of `storage`. `storage` is either the bytes
    in the file or a function that returns them as a flat array of the stored dtype (a compressed
    member). Where the values cannot be had, `unreadable` says why and `storage` is None. `origin`
    is where a compressed storage begins in the file, and the byte of it with the first element;
    or -1 and the number of an array that is kept inside of a pickle.
    """

    name: str
    path: Path
    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...]
    storage: FileBytes | Callable[[], NDArray[Any]] | None
    unreadable: str = ""
    origin: tuple[int, int] | None = None

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def numel(self) -> int:
        """The number of elements."""
        product = 1
        for size in self.shape:
            product *= size
        return product

    @property
    def label(self) -> str:
        """`PATH` or `PATH::NAME`, as a user would type it, on one line and printable."""
        return printable(f"{self.path}::{self.name}" if self.name else str(self.path))

    @property
    def place(self) -> tuple[object, ...] | None:
        """What two tensors have in common exactly where they are the same bytes, read alike.

        A file keeps a storage once, so that tensors of one place are one tensor under several
        names. Hashable; None where that cannot be told, and for tensors without bytes of their own.
        """
        begins: object = self.origin
        if isinstance(self.storage, FileBytes):
            begins = self.storage.offset
        if begins is None or self.storage is None or self.numel == 0:
            return None
        steps = tuple(step for size, step in zip(self.shape, self.strides, strict=True) if size > 1)
        return (self.path, begins, self.dtype, self.shape, steps)

    def stored(self, block: tuple[slice, ...] = ()) -> NDArray[Any]:
        """The elements as bits, in the file's byte order; only those of `block`, if it is given.

        Dtype as `bncli.dtypes.DTYPES[self.dtype].stored`, shape `shape` or the block's. The slices
        of `block` are those of the first axes and have no step. Elements may share memory.
        Raises TensorError where the values cannot be had, CorruptFileError where they are not what
        was written, FileError where the file has changed.
        """
        with ExitStack() as stack:
            return self.stored_reader(stack)(block)

    def read(self, runs: Runs | None = None) -> NDArray[Any]:
        """The values: shape `shape`, native byte order, bfloat16 and float8 widened to float32.

        A small one is taken from `runs`, if these have it.
        """
        stored = None if runs is None else self._found(runs)
        values = decode(self.stored() if stored is None else stored, self.dtype)
        return np.asarray(values, dtype=values.dtype.newbyteorder("="))

    def _found(self, runs: Runs) -> NDArray[Any] | None:
        """The elements as `stored` gives them, of a scalar or a vector; None if they are not there.

        Only where they lie side by side, and as this processor has them.
        """
        where, shape = self.storage, self.shape
        if not isinstance(where, FileBytes) or len(shape) > 1 or where.byteorder != sys.byteorder:
            return None
        count = shape[0] if shape else 1
        if count != 1 and self.strides[0] != 1:
            return None
        dtype = DTYPES[self.dtype]
        if count * dtype.itemsize > where.nbytes or (found := runs.find(where)) is None:
            return None
        values = np.frombuffer(found[0], dtype.stored, count, found[1])
        return values if shape else values.reshape(())

    def block_reader(self, stack: ExitStack) -> Callable[[tuple[slice, ...]], NDArray[Any]]:
        """A function that gives the values of a block, as `read` gives them all.

        Of a plain file, that block alone is read; what had to be unpacked is unpacked once. `stack`
        closes what is opened.
        """
        stored = self.stored_reader(stack)

        def read(block: tuple[slice, ...]) -> NDArray[Any]:
            values = decode(stored(block), self.dtype)
            return np.array(values, dtype=values.dtype.newbyteorder("="))

        return read

    def part(self, block: tuple[slice, ...]) -> TensorRef:
        """Some of the elements as a tensor of its own; slices of the first axes, with steps > 0.

        So a sample costs what it takes to read it: it is not held against the checksum of much
        more.
        """
        parts = (*block, *(slice(None),) * (self.ndim - len(block)))
        ranges = [range(size)[part] for size, part in zip(self.shape, parts, strict=True)]
        shape = tuple(map(len, ranges))
        strides = tuple(step * each.step for step, each in zip(self.strides, ranges, strict=True))
        part = replace(self, shape=shape, strides=strides)
        storage = self.storage
        if storage is None or part.numel == 0:
            return part
        start = sum(each.start * step for each, step in zip(ranges, self.strides, strict=True))
        if isinstance(storage, FileBytes):
            size = DTYPES[self.dtype].itemsize
            span = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
            return replace(part, storage=storage.part(start * size, span * size, part.numel * size))
        origin = self.origin if start == 0 else None
        return replace(part, storage=lambda: storage()[start:], origin=origin)

    def check(self) -> None:
        """Raise CorruptFileError where the elements, all of them, are not what was written.

        For those who read them part by part; what has to be unpacked is checked as that is done.
        """
        if isinstance(self.storage, FileBytes) and self.storage.checksum is not None:
            with self.storage.opened() as file:
                self.storage.check(file)

    def stored_reader(self, stack: ExitStack) -> Callable[[tuple[slice, ...]], NDArray[Any]]:
        """A function that gives a block as `stored` does, from a file that `stack` closes."""
        from numpy.lib.stride_tricks import as_strided

        if self.storage is None:
            raise TensorError(f"{self.label}: its values cannot be read ({self.unreadable}).")
        itemsize = DTYPES[self.dtype].itemsize
        if callable(self.storage):
            steps = tuple(stride * itemsize for stride in self.strides)
            whole = as_strided(self.storage(), self.shape, steps, writeable=False)
            return lambda block: whole[block]
        where = self.storage
        dtype = np.dtype(DTYPES[self.dtype].stored).newbyteorder(
            "<" if where.byteorder == "little" else ">"
        )
        file = stack.enter_context(where.opened())
        where.check(file)

        def read(block: tuple[slice, ...]) -> NDArray[Any]:
            parts = (*block, *(slice(None),) * (self.ndim - len(block)))
            ranges = [range(size)[part] for size, part in zip(self.shape, parts, strict=True)]
            shape = tuple(map(len, ranges))
            if 0 in shape:
                return np.empty(shape, dtype)
            start = sum(part.start * step for part, step in zip(ranges, self.strides, strict=True))
            return where.elements(file, dtype, shape, self.strides, start)

        return read


@dataclass(frozen=True, slots=True)
class TensorFile:
    """An opened file: its tensors by full name, in the file's order; nothing of them read yet.

    `container` names the format, as the registry of loaders has it. `modules` holds what the file
    says of BatchNorm modules beside their tensors, by module path, and `layers` which tensors are
    a layer's where the file tells it: these are layers whatever they are called. `skipped` says of
    what else is in the file, by name, why it was not read; a layer that is skipped is in both, so
    that nothing finds its tensors by their names. `without_layers` is the reason, where it shows,
    why the file has no BatchNorm layer: a clause without a full stop. `biases` has the full name of
    the bias that a graph adds behind a weight, by the weight's, where names do not tell it, and ""
    where it adds none.
    `members` has what stands before the names of each file, where several lie in an archive.
    """

    path: Path
    container: str
    tensors: Mapping[str, TensorRef]
    modules: Mapping[str, BatchNormModule] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, StoredLayer] = field(default_factory=dict)
    without_layers: str = ""
    biases: Mapping[str, str] = field(default_factory=dict)
    members: tuple[str, ...] = ()

    def apart(self) -> list[TensorFile]:
        """The files of an archive, each with what is its own by its name; else this one alone.

        What belongs to none is the first one's.
        """
        if len(self.members) < 2:
            return [self]
        parts = {
            name: replace(
                self, tensors={}, modules={}, skipped={}, layers={}, biases={}, members=()
            )
            for name in self.members
        }
        for kind in ("tensors", "modules", "skipped", "layers", "biases"):
            for full, value in getattr(self, kind).items():
                own = full
                while own and own not in parts:
                    own = own.rpartition(".")[0]
                getattr(parts[own or self.members[0]], kind)[full] = value
        return list(parts.values())

    def under(self, prefix: str) -> TensorFile:
        """The same file with `prefix` and a "." before all names; "" is none."""

        def full(name: str) -> str:
            return f"{prefix}.{name}" if prefix and name else prefix or name

        def inside(stored: StoredLayer) -> StoredLayer:
            front = stored.front
            if front is not None:
                bias = None if front.bias is None else full(front.bias)
                front = replace(front, name=full(front.name), weight=full(front.weight), bias=bias)
            own = {leaf: full(name) for leaf, name in stored.tensors.items()}
            return replace(stored, tensors=own, front=front)

        return replace(
            self,
            tensors={full(k): replace(ref, name=full(k)) for k, ref in self.tensors.items()},
            modules={full(k): module for k, module in self.modules.items()},
            skipped={full(k): why for k, why in self.skipped.items()},
            layers={full(k): inside(stored) for k, stored in self.layers.items()},
            biases={full(k): full(bias) if bias else "" for k, bias in self.biases.items()},
        )

    def joined(self, other: TensorFile) -> TensorFile:
        """The same file with what is in another one, too; of one name, the other's."""
        return replace(
            self,
            tensors={**self.tensors, **other.tensors},
            modules={**self.modules, **other.modules},
            skipped={**self.skipped, **other.skipped},
            layers={**self.layers, **other.layers},
            biases={**self.biases, **other.biases},
        )
