"""The data that the user names: files of tensors, or batches that the user's code gives."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from typing import Protocol

from bncli.backends.torch.tensors import library
from bncli.errors import BncliError, ModelError, UsageError
from bncli.live.batch import Batch
from bncli.live.batch_forms import BatchForm, batch_crc
from bncli.live.data_files import Mine, TensorFiles
from bncli.live.imports import CodeName, code_name, find
from bncli.live.loaded_batches import LoadedBatches
from bncli.loaders.names import quoted

__all__ = ["Data", "EmptyShardError", "batch_crc", "batches_said", "grouped", "open_data"]


class EmptyShardError(BncliError):
    """A shard has none of the batches, of which there are `total`."""

    def __init__(self, shard: tuple[int, int], total: int) -> None:
        self.total = total
        there_are = "there is" if total == 1 else "there are"
        super().__init__(
            f"shard {shard[0]}/{shard[1]} has nothing to do, because {there_are} only "
            f"{batches_said(total)}."
        )


class Source(Protocol):
    """Something that gives batches again and again."""

    @property
    def inputs(self) -> Sequence[str]:
        """What it reads: files, or the name of code."""

    @property
    def length(self) -> int | None:
        """The number of batches, None where it is not known."""

    def batches(self, mine: Mine | None = None) -> Iterator[Batch | None]:
        """The batches, anew; None in the place of each that is not `mine`."""

    def inputs_of(self, mine: Mine) -> Sequence[str]:
        """The inputs that have one of the batches that are `mine`."""


def open_data(
    specs: Sequence[str],
    input_key: str | tuple[str, ...] | None = None,
    batch_size: int | None = None,
    batches: int | None = None,
    dtype: str | None = None,
    *,
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
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
    so many, over all specs. `dtype`, a name of PyTorch's, converts the inputs first. `shard` (k, n)
    takes every n-th of these, from number k on: of files the others are not read, and what code
    gives for them is dropped as it comes.

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
    begin: int | None = 0
    for part in grouped(specs):
        if isinstance(part, CodeName):
            if batch_size is not None:
                raise UsageError(
                    f"--batch-size cuts files, but {part} gives batches of its own; leave it out."
                )
            sources.append(LoadedBatches(part, find(part, "data"), form, seed, shard))
        else:
            mine: Mine = _none if begin is None else partial(_is_mine, shard, batches, begin)
            given = None if shard[1] == 1 else mine
            sources.append(TensorFiles(part, form, batch_size, given))
        length = sources[-1].length if shard[1] > 1 else None
        begin = None if begin is None or length is None else begin + length
    return Data(tuple(specs), tuple(sources), batches, shard)


def grouped(specs: Sequence[str]) -> Iterator[CodeName | tuple[str, ...]]:
    """The data's specs: code each by itself, and files that follow each other together."""
    for is_code, group in groupby(specs, lambda spec: code_name(spec) is not None):
        given = tuple(group)
        if is_code:
            yield from filter(None, map(code_name, given))
        else:
            yield given


def _is_mine(shard: tuple[int, int], most: int | None, begin: int, number: int) -> bool:
    """Whether a shard has the batch of this number behind `begin` others."""
    place = begin + number
    return place % shard[1] == shard[0] and (most is None or place < most)


def _none(_: int) -> bool:
    """No batch, as it is not known yet which are whose."""
    return False


class Data:
    """Batches that can be iterated again and again; each iteration gives them anew.

    `label` is what the user typed. Of a `shard` (k, n), only every n-th is given, from number k on.
    Raises ModelError in an iteration where there is no batch, and where there are fewer than in the
    one before, and EmptyShardError where the shard has none.
    """

    def __init__(
        self,
        specs: Sequence[str],
        sources: tuple[Source, ...],
        batches: int | None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.label = " ".join(map(quoted, specs))
        self.shard = shard
        self._sources = sources
        self._most = batches
        self._given: int | None = None
        self._begins: list[int] = []

    @property
    def length(self) -> int | None:
        """The number of the shard's batches; None where `total` is."""
        total = self.total
        return None if total is None else len(range(self.shard[0], total, self.shard[1]))

    @property
    def total(self) -> int | None:
        """The number of all batches; None where it is not known before the first iteration ends."""
        if self._given is not None:
            return self._given
        lengths = [source.length for source in self._sources]
        if None in lengths:
            return None
        total = sum(length for length in lengths if length is not None)
        return total if self._most is None else min(total, self._most)

    def check_shard(self) -> None:
        """Raise EmptyShardError where it is known before an iteration that the shard has none."""
        if self.shard[1] > 1 and (total := self.total) and total <= self.shard[0]:
            raise EmptyShardError(self.shard, total)

    def __iter__(self) -> Iterator[Batch]:
        """The batches; raises ModelError, FileError and TensorError."""
        number = own = 0
        for batch in islice(self._every(), self._most):
            if batch is not None:
                own += 1
                yield replace(batch, number=number)
            number += 1
        if self._given is not None and number < self._given:
            raise ModelError(
                f"{self.label}: it gave {batches_said(self._given)} when it was first read and "
                f"{batches_said(number)} now, so it can be read once only; name the function that "
                "makes it."
            )
        if not number and any(source.divides_itself for source in self._code):
            raise EmptyShardError(self.shard, 0)
        if not number:
            raise ModelError(f"{self.label}: it gives no batches.")
        self._given = number
        if not own:
            raise EmptyShardError(self.shard, number)

    def _every(self) -> Iterator[Batch | None]:
        """All batches, or None for those of other shards."""
        number = 0
        self._begins.clear()
        for source in self._sources:
            self._begins.append(number)
            mine = partial(_is_mine, self.shard, None, number) if self.shard[1] > 1 else None
            for batch in source.batches(mine):
                number += 1
                yield batch

    @property
    def _code(self) -> list[LoadedBatches]:
        return [source for source in self._sources if isinstance(source, LoadedBatches)]

    @property
    def has_code(self) -> bool:
        """Whether code gives some of the batches."""
        return bool(self._code)

    @property
    def divided(self) -> bool:
        """Whether code gives each rank its own batches: how many there are is not known then."""
        return any(source.divided for source in self._code)

    def marks(self) -> dict[str, int]:
        """Digests of the first batches that code gives, 0 for none, by the name of the code.

        Without code whose DistributedSampler divides its batches among the ranks.
        """
        marks = {source.inputs[0]: source.mark() for source in self._code}
        return {name: mark for name, mark in marks.items() if mark is not None}

    def give_all_of(self, names: Collection[str]) -> None:
        """Take all batches of code of these names, which divides the data among the ranks."""
        for source in self._code:
            source.divides_itself = source.inputs[0] in names

    def digests(self) -> dict[str, list[int]]:
        """Digests of the batches that such code gave in the first pass, by its name."""
        return {each.inputs[0]: each.digests for each in self._code if each.divides_itself}

    @property
    def inputs(self) -> list[str]:
        """What the batches of all shards are in, in order: files, and names of code."""
        return [each for source in self._sources for each in source.inputs]

    @property
    def expected_inputs(self) -> list[str]:
        """Those that the shard has batches of, before an iteration: too many if that is unknown."""
        found: list[str] = []
        begin: int | None = 0
        for source in self._sources:
            if begin is None:
                found += source.inputs
                continue
            found += source.inputs_of(partial(_is_mine, self.shard, self._most, begin))
            length = source.length
            begin = None if length is None else begin + length
        return found

    @property
    def own_inputs(self) -> list[str]:
        """Those that the last iteration took batches of; code that was iterated is among them."""
        return [
            each
            for source, begin in zip(self._sources, self._begins, strict=False)
            for each in source.inputs_of(partial(_is_mine, self.shard, self._most, begin))
        ]


def batches_said(number: int) -> str:
    """A number of batches in a sentence."""
    return "1 batch" if number == 1 else f"{number or 'no'} batches"
