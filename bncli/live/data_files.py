"""Files of tensors as batches: each file one, or cut into pieces of so many samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from bncli.backends.torch.tensors import library
from bncli.dtypes import DTYPES
from bncli.errors import MissingTensorError, TensorError
from bncli.light import dataclass, np
from bncli.live.batch import Batch
from bncli.live.batch_forms import BatchForm, Parts
from bncli.live.told import BatchKeyError
from bncli.loaders import open_file, split_spec
from bncli.loaders.names import find_name, listed, quoted
from bncli.loaders.patterns import expanded, natural
from bncli.model import TensorRef

Mine = Callable[[int], bool]
"""Whether the batch of this number, from 0 in its source, is to be given."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file: the tensor that goes into the model, and all that are beside it, by name."""

    ref: TensorRef
    beside: Mapping[str, TensorRef]


class TensorFiles:
    """The batches of files; their headers are read at once, their values in each pass.

    Where each file is one batch and it is known whose are `mine`, the others are not opened at all.
    Raises FileError and TensorError for what cannot be read as batches.
    """

    def __init__(
        self,
        specs: tuple[str, ...],
        form: BatchForm,
        batch_size: int | None,
        mine: Mine | None = None,
    ) -> None:
        several = not isinstance(form.input_key, str | None)
        self._form = form if several else BatchForm(None, form.dtype)
        self._key = form.input_key
        self._batch_size = batch_size
        self._opened: dict[str, InputFile] = {}
        self.inputs = tuple(expanded(specs, key=natural))
        for number, spec in enumerate(self.inputs):
            if batch_size is not None or mine is None or mine(number):
                self._file(spec)

    @property
    def length(self) -> int:
        """The number of batches."""
        return sum(len(self._cuts(spec)) for spec in self.inputs)

    def batches(self, mine: Mine | None = None) -> Iterator[Batch | None]:
        """The batches, read anew; raises as `TensorRef.read`.

        None stands for each that is not `mine`, of which nothing is read.
        """
        number = -1
        for spec in self.inputs:
            cuts = self._cuts(spec)
            for cut in cuts:
                number += 1
                if mine is not None and not mine(number):
                    yield None
                    continue
                file = self._file(spec)
                label = file.ref.label
                if cut is not None and len(cuts) > 1:
                    label = f"{label}[{cut.start}:{cut.stop}]"
                x = _read(file.ref, cut)
                whole = _whole(file, x, cut)
                several = self._form.input_key is not None
                batch = self._form.batch(whole if several else x, label)
                yield Batch(batch.args, batch.kwargs, whole, batch.samples, label)

    def inputs_of(self, mine: Mine) -> list[str]:
        """The files that have one of the batches that are `mine`."""
        found, number = [], 0
        for spec in self.inputs:
            until = number + len(self._cuts(spec))
            if any(mine(each) for each in range(number, until)):
                found.append(spec)
            number = until
        return found

    def _file(self, spec: str) -> InputFile:
        """A file, opened once."""
        if spec not in self._opened:
            self._opened[spec] = _opened(spec, self._key)
        return self._opened[spec]

    def _cuts(self, spec: str) -> list[slice | None]:
        """The samples of each batch of a file; None for all of them."""
        if self._batch_size is None:
            return [None]
        samples, size = self._file(spec).ref.shape[0], self._batch_size
        return [slice(at, min(at + size, samples)) for at in range(0, samples, size)]


class Beside(Mapping[str, Any]):
    """All tensors of a file for the samples of a batch, read when they are asked for."""

    def __init__(self, file: InputFile, x: Any, cut: slice | None) -> None:
        self._file = file
        self._x = x
        self._cut = cut

    def __getitem__(self, name: str) -> Any:
        """The tensor of that name; all of it where its first axis is not the batch.

        Raises BatchKeyError for a name that the file lacks.
        """
        ref = self._file.beside.get(name)
        if ref is None:
            names = listed([*map(repr, self._file.beside)])
            raise BatchKeyError(f"there is no batch[{name!r}]; the batch has {names}")
        if ref is self._file.ref:
            return self._x
        samples = self._file.ref.shape[0]
        return _read(ref, self._cut if ref.shape[:1] == (samples,) else None)

    def __iter__(self) -> Iterator[str]:
        """The names of all tensors in the file."""
        return iter(self._file.beside)

    def __len__(self) -> int:
        """The number of tensors in the file."""
        return len(self._file.beside)


def _whole(file: InputFile, x: Any, cut: slice | None) -> Any:
    """A batch as a metric gets it: as it was saved, be it a tensor, a tuple or a dictionary."""
    beside = Beside(file, x, cut)
    if _is_tuple(list(file.beside)):
        return Parts(len(beside), lambda number: beside[str(number)])
    return x if len(beside) == 1 else beside


def _opened(spec: str, input_key: str | tuple[str, ...] | None) -> InputFile:
    """A file, with the tensor that is to be the input: the first of several."""
    path, name = split_spec(spec)
    if isinstance(input_key, tuple):
        input_key = input_key[0]
    tensors = open_file(path).tensors
    ref = tensors[_input_name(path, tensors, name or input_key or "")]
    if ref.unreadable:
        raise TensorError(f"{ref.label}: its values cannot be read ({ref.unreadable}).")
    if ref.ndim == 0 or not ref.numel:
        raise TensorError(
            f"{ref.label}: shape {list(ref.shape)} holds no samples; the first axis is the batch."
        )
    if ref.dtype not in DTYPES or not hasattr(library(), ref.dtype):
        raise TensorError(f"{ref.label}: PyTorch has no dtype {ref.dtype}.")
    return InputFile(ref, tensors)


def _is_tuple(names: list[str]) -> bool:
    """Whether these are the names of the parts of a tuple, which have numbers."""
    return names == [str(number) for number in range(len(names))]


def _input_name(path: Any, tensors: Mapping[str, TensorRef], wanted: str) -> str:
    """The name of the input among a file's tensors.

    The only one where there is only one without a name; without a wish the first of a tuple that
    was saved, whose parts have numbers. Raises MissingTensorError.
    """
    names = list(tensors)
    if names == [""]:
        return ""
    if names and not wanted and _is_tuple(names):
        return names[0]
    if not wanted and len(names) > 1:
        raise MissingTensorError(
            path,
            f"it holds {len(names)} tensors ({listed(names)}); say which is the input with "
            f"--input-key, such as --input-key {quoted(names[0])}.",
        )
    return find_name(path, names, wanted, "tensor")


def _read(ref: TensorRef, cut: slice | None) -> Any:
    """The values as a tensor of the stored dtype, of the samples of a batch."""
    torch = library()
    with ExitStack() as stack:
        values = ref.block_reader(stack)(() if cut is None else (cut,))
    return torch.from_numpy(np.array(values, order="K")).to(getattr(torch, ref.dtype))
