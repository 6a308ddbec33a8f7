"""A batch as a model takes it, and statistics that its layers are to use."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bncli.light import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from bncli.model import FloatArray


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of one forward pass; `whole` is the batch as the data gave it, for a metric.

    `samples` is the size of the batch axis of its first tensor, and `label` the file or the number
    that says which batch it is.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    whole: Any
    samples: int
    label: str


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
