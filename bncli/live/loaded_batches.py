"""The batches that the user's code gives, such as a DataLoader."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from bncli.backends.torch.tensors import library
from bncli.errors import ModelError
from bncli.files.reading import current
from bncli.given import called_from_python
from bncli.light import np
from bncli.live.batch import Batch
from bncli.live.batch_forms import BatchForm, batch_digest
from bncli.live.data_files import Mine
from bncli.live.imports import CodeName, kind_of
from bncli.live.random_streams import RandomStreams
from bncli.live.users_code import users_code
from bncli.loaders.names import listed

_END = object()


class LoadedBatches:
    """The batches that the user's code gives; `value` is what its name means.

    A DataLoader whose DistributedSampler divides the data gives those of the `shard` (k, n) alone:
    its batch number i is number n * i + k of all. So does code that `divides_itself`, of whose
    batches the first pass leaves the `digests`.
    """

    def __init__(
        self,
        code: CodeName,
        value: Any,
        form: BatchForm,
        seed: int,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self._code = code
        self._value = value
        self._form = form
        self._seed = seed
        self._shard = shard
        self.divided = False
        self.divides_itself = False
        self.digests: list[int] = []
        self.inputs = (str(code),)
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
                own = len(self._value)
            except Exception:  # noqa: BLE001  # it need not know, and may say so in any way
                return None
        return own * self._shard[1] if self._divides(self._value) else own

    def inputs_of(self, mine: Mine) -> Sequence[str]:  # noqa: ARG002  # code gives all of them
        """The code, of which one batch cannot be had without the others."""
        return self.inputs

    def mark(self) -> int | None:
        """A digest of the first batch, by which ranks are compared; 0 where there is none.

        None where a DistributedSampler divides the data among them. Raises ModelError.
        """
        batches = self.batches()
        try:
            first = next(batches, None)
        finally:
            batches.close()
        if self.divided:
            return None
        return 0 if first is None else batch_digest(first)

    def batches(self, mine: Mine | None = None) -> Generator[Batch | None, None, None]:
        """The batches, anew; None for each that is not `mine`. Raises ModelError."""
        code = self._code
        streams = RandomStreams(self._seed)
        with users_code(f"iterating {code}"), streams.drawing():
            value = self._value() if self._made else self._value
            if self._made:
                self._check(value)
            self.divided = self._divides(value)
            iterator = iter(value)
        number, first_pass = 0, self.divides_itself and not self.digests
        try:
            while True:
                number += 1
                label = f"batch {number} of {code}"
                with users_code(f"reading {label}"), streams.drawing():
                    raw = next(iterator, _END)
                    if raw is _END:
                        return
                    batch = None
                    if mine is None or self.divided or mine(number - 1):
                        # Which may be there again in the next pass, and layers in place change it.
                        batch = self._form.batch(raw, label, copy=True)
                if first_pass and batch is not None:
                    self.digests.append(batch_digest(batch))
                if mine is None or not self.divided:
                    yield batch
                    continue
                places = range(self._shard[1] * (number - 1), self._shard[1] * number)
                yield from (batch if mine(place) else None for place in places)
        finally:
            with users_code(f"closing {code}"):
                del iterator, value  # which ends workers, and a generator with what it prints

    def _divides(self, value: Any) -> bool:
        """Whether a loader gives this shard's batches alone. Raises ModelError for another's."""
        if self._shard[1] == 1:
            return False
        from bncli.live.samplers import sampler_of, uneven_samples

        sampler = sampler_of(value)
        if sampler is None:
            return self.divides_itself
        its = int(sampler.rank), int(sampler.num_replicas)
        if its != self._shard:
            k, n = self._shard
            raise ModelError(
                f"{self._code}: its DistributedSampler is that of rank {its[0]} of {its[1]}, and "
                f"this is shard {k}/{n}; leave its rank and num_replicas out, or the sampler."
            )
        if said := uneven_samples(sampler):
            current().notes[
                f"the DistributedSampler of {self._code} {said}, so that all ranks have the same "
                "number"
            ] = None
        return True

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
            instead = "give a list or" if called_from_python() else "name"
            raise ModelError(
                f"{code}: it is {kind_of(value)}, which can be read once only; {instead} the "
                "function that makes it."
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
