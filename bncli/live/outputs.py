"""The outputs of a model: their floating-point tensors, and how far two propagations are apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.model.capture import OutputSums, Propagation

if TYPE_CHECKING:
    from torch import Tensor

    from bncli.model import FloatArray

MOST_DEPTH = 8
"""Levels of lists and dictionaries that are looked into."""

NamedTensors = dict[str, "Tensor"]


def floating_tensors(output: Any) -> NamedTensors:
    """The floating-point tensors of an output, by their place in it ("" for the only one)."""
    import torch

    return {
        name: tensor.detach()
        for name, tensor in _tensors(output, "", 0)
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel()
    }


def _tensors(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    """What an output holds, level by level."""
    if depth > MOST_DEPTH or isinstance(value, (str, bytes)):
        return
    items: list[tuple[str, Any]]
    if isinstance(value, Mapping):
        items = [(str(key), each) for key, each in value.items()]
    elif isinstance(value, Sequence):
        items = [(str(number), each) for number, each in enumerate(value)]
    elif is_dataclass(value) and not isinstance(value, type):
        items = [(each.name, getattr(value, each.name)) for each in fields(value)]
    else:
        yield name, value
        return
    for key, each in items:
        yield from _tensors(each, f"{name}.{key}" if name else key, depth + 1)


@dataclass(slots=True)
class _Pool:
    """The training outputs of one tensor, pooled batch by batch (Chan, Golub and LeVeque)."""

    count: int = 0
    mean: Any = None
    squares: Any = None

    def add(self, values: FloatArray) -> None:
        """Take in values of shape (channels, values of a channel)."""
        n = values.shape[1]
        mean = values.mean(1)
        squares = ((values - mean[:, np.newaxis]) ** 2).sum(1)
        if not self.count:
            self.count, self.mean, self.squares = n, mean, squares
            return
        total = self.count + n
        delta = mean - self.mean
        self.squares = self.squares + squares + delta**2 * (self.count * (n / total))
        self.mean = self.mean + delta * (n / total)
        self.count = total


@dataclass(slots=True)
class OutputPool:
    """How far propagations are from the training one, over batches.

    `problem` says why the outputs cannot be compared, "" where they can.
    """

    problem: str = ""
    _pools: dict[str, _Pool] = field(default_factory=dict)
    _apart: dict[tuple[str, Propagation], float] = field(default_factory=dict)

    def add_training(self, outputs: NamedTensors) -> None:
        """Take in the training propagation's output of a batch."""
        if not outputs:
            self.problem = self.problem or "the output holds no floating-point tensor"
        for name, tensor in outputs.items():
            pool = self._pools.setdefault(name, _Pool())
            channels = by_channel(tensor)
            if pool.count and len(pool.mean) != len(channels):
                self.problem = self.problem or "the outputs of two batches differ in shape"
            else:
                pool.add(channels)

    def add(self, propagation: Propagation, outputs: NamedTensors, training: NamedTensors) -> None:
        """Take in another propagation's output of a batch beside the training one's."""
        if outputs.keys() != training.keys() or any(
            outputs[name].shape != training[name].shape for name in outputs
        ):
            self.problem = self.problem or (
                f"the outputs in {propagation.value} and in training differ in shape"
            )
            return
        for name, tensor in outputs.items():
            key = name, propagation
            self._apart[key] = self._apart.get(key, 0.0) + squared_difference(
                tensor, training[name]
            )

    def forget(self, propagation: Propagation) -> None:
        """Drop what was taken in of a propagation other than training."""
        for key in [key for key in self._apart if key[1] is propagation]:
            del self._apart[key]

    def sums(self) -> tuple[OutputSums, ...]:
        """What was taken in; nothing where the outputs cannot be compared."""
        if self.problem:
            return ()
        return tuple(
            OutputSums(
                name,
                pool.count,
                pool.mean,
                pool.squares,
                {each: apart for (of, each), apart in self._apart.items() if of == name},
            )
            for name, pool in self._pools.items()
        )


def by_channel(tensor: Tensor) -> FloatArray:
    """A tensor in float64 as (channels, values of a channel); channels are axis 1, or one."""
    values = np.asarray(tensor.double().cpu().numpy())
    if values.ndim < 2:
        return values.reshape(1, -1)
    return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)


def squared_difference(a: Tensor, b: Tensor) -> float:
    """The squared differences of two tensors of one shape, added up in float64."""
    return float((a.double() - b.to(a.device).double()).pow(2).sum())
