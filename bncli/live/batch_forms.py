"""What the data give, as the arguments of a forward pass: tensors, tuples and dictionaries."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bncli.backends.torch.tensors import library
from bncli.errors import ModelError
from bncli.light import dataclass, np
from bncli.live.batch import Batch
from bncli.live.imports import kind_of
from bncli.live.told import BatchIndexError
from bncli.live.weights import bytes_of, crc_of, tensors_in
from bncli.loaders.names import listed


@dataclass(frozen=True, slots=True)
class BatchForm:
    """Which part of a batch the model takes, `input_key`, and the `dtype` it is converted to.

    Without a key that is the whole batch where it is a tensor or an array, the first of a tuple or
    a list, and all of a dictionary as keyword arguments. In a tuple the key is a number, counted
    from 0. Several keys choose keyword arguments from a dictionary, or positional ones from a
    tuple. Of several arguments only floating-point tensors are converted, as an index of words
    stays an index; of a single input, integers and booleans too.
    """

    input_key: str | tuple[str, ...] | None = None
    dtype: str | None = None

    def batch(self, raw: Any, label: str, *, copy: bool = False) -> Batch:
        """The batch as the model takes it; `copy` gives it tensors of its own.

        Raises ModelError for what has no tensor, no samples, or not the key.
        """
        value = self._chosen(raw, label)
        args: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        if isinstance(value, _Several):
            args = tuple(self._tensor(each, label, copy=copy, whole=False) for each in value)
        elif isinstance(value, Mapping):
            for key, each in value.items():
                if not isinstance(key, str):
                    raise ModelError(
                        f"{label}: its keys are not names ({kind_of(key)}); choose the input with "
                        "--input-key."
                    )
                kwargs[key] = self._tensor(each, label, copy=copy, whole=False)
        else:
            if not isinstance(value, library().Tensor | np.ndarray):
                raise ModelError(
                    f"{label}: it is {kind_of(value)}; a batch is a tensor, a tuple with the "
                    "input first, or a dictionary."
                )
            args = (self._tensor(value, label, copy=copy, whole=True),)
        first = next(tensors_in([*args, *kwargs.values()]), None)
        if first is None:
            raise ModelError(f"{label}: there is no tensor in it.")
        if first.ndim == 0:
            raise ModelError(f"{label}: its tensor is a single number, without a batch axis.")
        if not first.numel():
            raise ModelError(
                f"{label}: its tensor has the shape {list(first.shape)} and holds no samples."
            )
        return Batch(args, kwargs, raw, first.shape[0], label)

    def _chosen(self, raw: Any, label: str) -> Any:
        """The part of the batch that goes into the model."""
        key = self.input_key
        if isinstance(raw, list | tuple | Parts):
            if not len(raw):
                raise ModelError(f"{label}: it is an empty {type(raw).__name__}.")
            if isinstance(key, tuple) and all(map(str.isdecimal, key)):
                return _Several(_numbered(raw, each, label) for each in key)
            if not isinstance(key, str) or not key.isdecimal():
                first = raw[0]
                return self._chosen(first, label) if isinstance(first, Mapping) else first
            return _numbered(raw, key, label)
        if not isinstance(raw, Mapping) or key is None:
            return raw
        for name in (key,) if isinstance(key, str) else key:
            if name not in raw:
                raise ModelError(
                    f"{label}: there is no '{name}' in it; it has {listed([*map(str, raw)])}."
                )
        return raw[key] if isinstance(key, str) else {name: raw[name] for name in key}

    def _tensor(self, value: Any, label: str, *, copy: bool, whole: bool) -> Any:
        """A tensor or an array as a tensor of the wanted dtype; anything else as it is."""
        torch = library()
        if isinstance(value, np.ndarray):
            try:
                native = value.dtype.newbyteorder("=")
                value, copy = torch.from_numpy(value.astype(native, order="C")), False
            except TypeError:
                raise ModelError(f"{label}: PyTorch has no dtype {value.dtype}.") from None
        if not isinstance(value, torch.Tensor):
            return value
        wanted = getattr(torch, self.dtype) if self.dtype is not None else value.dtype
        if value.is_complex() or not (whole or value.is_floating_point()):
            wanted = value.dtype
        return value.to(wanted, copy=copy)


class Parts(Sequence[Any]):
    """A tuple that was saved as a file: `read` gives a part of it when it is asked for.

    It is subscripted and unpacked as a tuple; "1" means the same as 1.
    """

    def __init__(self, length: int, read: Callable[[int], Any]) -> None:
        self._length = length
        self._read = read

    def __getitem__(self, part: Any) -> Any:
        """The part, or a tuple of those of a slice. Raises BatchIndexError where there is none."""
        if isinstance(part, slice):
            return tuple(self._read(each) for each in range(self._length)[part])
        number = int(part) if isinstance(part, str) and part.isdecimal() else part
        try:
            return self._read(range(self._length)[number])
        except (IndexError, TypeError):
            counted = f"{self._length} parts, counted from 0" if self._length > 1 else "one part, 0"
            raise BatchIndexError(f"there is no batch[{part!r}]; the batch has {counted}") from None

    def __iter__(self) -> Iterator[Any]:
        """The parts, in order."""
        return map(self._read, range(self._length))

    def __len__(self) -> int:
        """The number of parts."""
        return self._length


class _Several(list[Any]):
    """Positional arguments."""


def _numbered(raw: Sequence[Any], key: str, label: str) -> Any:
    """The part of a tuple or a list with this number."""
    if int(key) >= len(raw):
        raise ModelError(
            f"{label}: --input-key {key}, but it has {len(raw)} parts, counted from 0."
        )
    return raw[int(key)]


def batch_crc(batch: Batch) -> int:
    """The CRC-32 of the tensors that go into the model: the same for the same batch."""
    crc = 0
    for tensor in tensors_in([*batch.args, batch.kwargs]):
        crc = zlib.crc32(f"{tuple(tensor.shape)} {crc_of(tensor)}".encode(), crc)
    return crc


def batch_digest(batch: Batch) -> int:
    """A hash of 64 bits of the tensors that go into the model: another for any other batch."""
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors_in([*batch.args, batch.kwargs]):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(bytes_of(tensor))
    return int.from_bytes(digest.digest(), "big")
