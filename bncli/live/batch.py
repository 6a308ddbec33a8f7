"""A batch as a model takes it, and statistics that its layers are to use."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bncli.light import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from bncli.model import FloatArray


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of one forward pass; `whole` is the batch as the data gave it, for a metric.

    `samples` is the size of the batch axis of its first tensor, and `label` the file or the number
    that says which batch it is. `number` counts it among all of the data, from 0; None where nobody
    did.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    whole: Any
    samples: int
    label: str
    number: int | None = None


class Statistics(NamedTuple):
    """What a layer is to have as running_mean and running_var, float64 of shape (num_features,)."""

    mean: FloatArray
    var: FloatArray


def with_input(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with its first tensor of at least two axes mapped."""
    first = next(iter(inputs_of(batch)), None)
    if first is None:
        return batch
    args = tuple(change(first) if each is first else each for each in batch.args)
    kwargs = {key: change(first) if each is first else each for key, each in batch.kwargs.items()}
    return replace(batch, args=args, kwargs=kwargs)


def inputs_of(batch: Batch) -> list[Tensor]:
    """The tensors of a batch of at least two axes, floating-point ones first."""
    import torch

    tensors = [
        value
        for value in (*batch.args, *batch.kwargs.values())
        if isinstance(value, torch.Tensor) and value.ndim >= 2
    ]
    return sorted(tensors, key=lambda tensor: not tensor.is_floating_point())


def model_input(batch: Batch) -> Tensor | None:
    """The tensor of a batch that counts as the model's input, floating-point; None for none.

    Whole numbers of two axes are such as the numbers of tokens, which have no statistics.
    """
    for given in inputs_of(batch)[:1]:
        if given.is_floating_point():
            return given
        if given.ndim > 2:
            return given.float()
    return None


def joined(batches: Iterable[Batch], most: int) -> Iterator[Batch]:
    """The batches, several as one of up to `most` samples, in their order.

    Only where what they hold differs in nothing but the size of the batch axis.
    """
    waiting: list[Batch] = []
    for batch in batches:
        if waiting and sum(each.samples for each in waiting) + batch.samples > most:
            yield from _as_one(waiting)
            waiting = []
        waiting.append(batch)
    yield from _as_one(waiting)


def _as_one(batches: list[Batch]) -> list[Batch]:
    """One batch of these; all of them where they cannot be one."""
    if len(batches) < 2:
        return batches
    sizes = [batch.samples for batch in batches]
    try:
        args = _concatenated([batch.args for batch in batches], sizes)
        kwargs = _concatenated([dict(batch.kwargs) for batch in batches], sizes)
    except _Unlike:
        return batches
    label = f"{batches[0].label} to {batches[-1].label} as one batch"
    return [Batch(args, kwargs, None, sum(sizes), label)]


class _Unlike(Exception):  # noqa: N818  # never leaves this module
    """Values of several batches cannot be one batch's."""


def _concatenated(values: Sequence[Any], sizes: Sequence[int]) -> Any:
    """The same place of several batches as that of one batch."""
    import torch

    first = values[0]
    if any(type(each) is not type(first) for each in values):
        raise _Unlike
    if isinstance(first, torch.Tensor):
        return _one_tensor(values, sizes)
    if isinstance(first, dict):
        if any(each.keys() != first.keys() for each in values):
            raise _Unlike
        return {key: _concatenated([each[key] for each in values], sizes) for key in first}
    if type(first) in (tuple, list):
        if len({len(each) for each in values}) > 1:
            raise _Unlike
        return type(first)(_concatenated(each, sizes) for each in zip(*values, strict=True))
    if not isinstance(first, (str, int, float, bool, type(None))) or any(
        each != first for each in values
    ):
        raise _Unlike
    return first


def _one_tensor(tensors: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """The tensors behind each other along the batch axis, or one of them where all are equal."""
    import torch

    first = tensors[0]
    if any(each.dtype != first.dtype or each.ndim != first.ndim for each in tensors):
        raise _Unlike
    if first.ndim and all(
        len(each) == size and each.shape[1:] == first.shape[1:]
        for each, size in zip(tensors, sizes, strict=True)
    ):
        return torch.cat(list(tensors))
    if all(torch.equal(each, first) for each in tensors):
        return first
    raise _Unlike
