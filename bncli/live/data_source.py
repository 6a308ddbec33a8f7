"""The data that the user names: files of tensors, or batches that the user's code gives."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from bncli.backends.torch.tensors import library
from bncli.errors import ModelError, UsageError
from bncli.light import np
from bncli.live.batch import Batch
from bncli.live.batch_forms import BatchForm, batch_crc
from bncli.live.data_files import TensorFiles
from bncli.live.imports import CodeName, code_name, find, kind_of
from bncli.live.random_streams import RandomStreams
from bncli.live.users_code import users_code
from bncli.loaders.names import listed, quoted

__all__ = ["Data", "batch_crc", "open_data"]


class Source(Protocol):
    """Something that gives batches again and again."""

    @property
    def length(self) -> int | None:
        """The number of batches, None where it is not known."""

    def batches(self) -> Iterator[Batch]:
        """The batches, anew."""


def open_data(
    specs: Sequence[str],
    input_key: str | tuple[str, ...] | None = None,
    batch_size: int | None = None,
    batches: int | None = None,
    dtype: str | None = None,
    *,
    seed: int = 0,
) -> Data:
    """The batches that the specs name, one spec behind the other.

    A spec is a file of tensors (.npy, .npz, .pt, .safetensors), `FILE::NAME` for one of several, or
    a quoted pattern of such files in natural order. Each file is one batch, or is cut into pieces
    of `batch_size` samples, the last of which may be smaller; files are never joined. Or it is
    `file.py:name` or `package.module:name`: an iterable of batches such as a DataLoader, or a
    function or class that gives one when it is called without arguments, which is done for every
    pass.

    `input_key` names the input in a dictionary of several tensors; several names choose keyword
    arguments. `batches` takes only the first
    so many, over all specs. `dtype`, a name of PyTorch's, converts the inputs first.

    The user's code draws its random numbers from streams of its own, which begin with `seed` in
    every pass: data that are shuffled by them come in the same order each time.

    Raises UsageError, FileError, TensorError and ModelError; what the user's code gives is looked
    at when the data are iterated.
    """
    library()
    if not specs:
        raise UsageError("no data are given: name files or a loader with --data.")
    form = BatchForm(input_key, dtype)
    sources: list[Source] = []
    files: list[str] = []
    for spec in specs:
        code = code_name(spec)
        if code is None:
            files.append(spec)
            continue
        if batch_size is not None:
            raise UsageError(
                f"--batch-size cuts files, but {code} gives batches of its own; leave it out."
            )
        if files:
            sources.append(TensorFiles(tuple(files), form, batch_size))
            files = []
        sources.append(LoadedBatches(code, find(code, "data"), form, seed))
    if files:
        sources.append(TensorFiles(tuple(files), form, batch_size))
    return Data(tuple(specs), tuple(sources), batches)


class Data:
    """Batches that can be iterated again and again; each iteration gives them anew.

    `label` is what the user typed. Raises ModelError in an iteration where there is no batch, and
    where there are fewer than in the one before.
    """

    def __init__(
        self, specs: Sequence[str], sources: tuple[Source, ...], batches: int | None
    ) -> None:
        self.label = " ".join(map(quoted, specs))
        self._sources = sources
        self._most = batches
        self._given: int | None = None

    @property
    def length(self) -> int | None:
        """The number of batches; None where it is not known before the first iteration ends."""
        if self._given is not None:
            return self._given
        lengths = [source.length for source in self._sources]
        if None in lengths:
            return None
        total = sum(length for length in lengths if length is not None)
        return total if self._most is None else min(total, self._most)

    def __iter__(self) -> Iterator[Batch]:
        """The batches; raises ModelError, FileError and TensorError."""
        number = 0
        every = (batch for source in self._sources for batch in source.batches())
        for batch in islice(every, self._most):
            number += 1
            yield batch
        if self._given is not None and number < self._given:
            raise ModelError(
                f"{self.label}: it gave {_batches(self._given)} when it was first read and "
                f"{_batches(number)} now, so it can be read once only; name the function that "
                "makes it."
            )
        if not number:
            raise ModelError(f"{self.label}: it gives no batches.")
        self._given = number


_END = object()


class LoadedBatches:
    """The batches that the user's code gives; `value` is what its name means."""

    def __init__(self, code: CodeName, value: Any, form: BatchForm, seed: int) -> None:
        self._code = code
        self._value = value
        self._form = form
        self._seed = seed
        self._made = isinstance(value, type) or not _has_iterator(value)
        if not self._made:
            self._check(value)
        elif not callable(value):
            raise ModelError(f"{code}: it is {kind_of(value)}, {_WANTED}.")
        else:
            self._check_callable()

    @property
    def length(self) -> int | None:
        """The number of batches, where the loader says it."""
        if self._made:
            return None
        with users_code(f"asking {self._code} for its length"):
            try:
                return len(self._value)
            except Exception:  # noqa: BLE001  # it need not know, and may say so in any way
                return None

    def batches(self) -> Iterator[Batch]:
        """The batches, anew; raises ModelError."""
        code = self._code
        streams = RandomStreams(self._seed)
        with users_code(f"iterating {code}"), streams.drawing():
            value = self._value() if self._made else self._value
            if self._made:
                self._check(value)
            iterator = iter(value)
        number = 0
        try:
            while True:
                number += 1
                label = f"batch {number} of {code}"
                with users_code(f"reading {label}"), streams.drawing():
                    raw = next(iterator, _END)
                    if raw is _END:
                        return
                    # Which may be there again in the next pass, and layers in place change it.
                    batch = self._form.batch(raw, label, copy=True)
                yield batch
        finally:
            with users_code(f"closing {code}"):
                del iterator, value  # which ends workers, and a generator with what it prints

    def _check(self, value: Any) -> None:
        """Raise ModelError for what is no iterable of batches, or can be read once only."""
        data = library().utils.data
        code = self._code
        if isinstance(value, data.Dataset):
            raise ModelError(
                f"{code}: it is a Dataset, which gives samples and not batches; name a DataLoader "
                "over it."
            )
        no_batches = library().Tensor | np.ndarray | str | bytes | Mapping
        if isinstance(value, no_batches) or not _has_iterator(value):
            verb = "gives" if self._made else "is"
            raise ModelError(f"{code}: it {verb} {kind_of(value)}, {_WANTED}.")
        if isinstance(value, Iterator) and not self._made:
            raise ModelError(
                f"{code}: it is {kind_of(value)}, which can be read once only; name the function "
                "that makes it."
            )

    def _check_callable(self) -> None:
        """Raise ModelError for a function or class that needs arguments."""
        with users_code(f"looking at {self._code}"):
            try:
                parameters = inspect.signature(self._value).parameters.values()
            except (TypeError, ValueError):  # of C, or one that hides it: calling it will tell
                return
        needed = [
            each.name
            for each in parameters
            if each.default is each.empty
            and each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
        ]
        if needed:
            raise ModelError(
                f"{self._code}: it needs {listed(needed)}; name a function without arguments that "
                "gives the batches."
            )


_WANTED = "not an iterable of batches such as a DataLoader"


def _has_iterator(value: Any) -> bool:
    """Whether `iter` takes a value."""
    return hasattr(type(value), "__iter__") or hasattr(type(value), "__getitem__")


def _batches(number: int) -> str:
    return "1 batch" if number == 1 else f"{number or 'no'} batches"
