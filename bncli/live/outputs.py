"""The outputs of a model: their floating-point tensors, and how far two propagations are apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.model.capture import OutputSums, Propagation

if TYPE_CHECKING:
    from torch import Tensor

    from bncli.model import FloatArray

MOST_DEPTH = 8
"""Levels of lists and dictionaries that are looked into."""

MOST_VALUES = 1 << 20
"""Values that are widened at a time: 8 MiB in float64."""

NamedTensors = dict[str, "Tensor"]


def floating_tensors(output: Any, *, copied: bool = False) -> NamedTensors:
    """The floating-point tensors of an output, by their place in it ("" for the only one).

    Complex numbers are two real ones, on a last axis. `copied` ones stay as they are whatever the
    model does in its next pass.
    """
    import torch

    found = {}
    for name, value in _tensors(output, "", 0):
        if not isinstance(value, torch.Tensor) or not value.numel():
            continue
        tensor = value.detach()
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor.resolve_conj())
        if tensor.is_floating_point():
            found[name] = tensor.clone() if copied else tensor
    return found


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

    def add(self, tensor: Tensor) -> None:
        """Take in an output of as many channels as those before, some samples at a time."""
        for part in _parts(tensor):
            self._add(by_channel(part))

    def _add(self, values: FloatArray) -> None:
        """Take in values of shape (channels, values of a channel)."""
        n = values.shape[1]
        mean = values.mean(1)
        with np.errstate(invalid="ignore"):
            squares = np.square(values - mean[:, np.newaxis]).sum(1)
        if not self.count:
            self.count, self.mean, self.squares = n, mean, squares
            return
        total = self.count + n
        with np.errstate(invalid="ignore"):
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
            if pool.count and len(pool.mean) != _channels(tensor):
                self.problem = self.problem or "the outputs of two batches differ in shape"
            else:
                pool.add(tensor)

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

    @property
    def why_no_gap(self) -> str:
        """Why there is no gap; "" where there is one, or nothing was taken in."""
        if self.problem or not self._apart:
            return self.problem
        spread = sum(float(pool.squares.sum()) for pool in self._pools.values())
        if not isfinite(spread) or not all(map(isfinite, self._apart.values())):
            return "the outputs hold NaN or Inf"
        return "" if spread else "the outputs do not vary"

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


def _channels(tensor: Tensor) -> int:
    """How many channels there are: axis 1, or one."""
    return int(tensor.shape[1]) if tensor.ndim > 1 else 1


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor cut along its first axis, so that no part is large in float64."""
    samples = max(1, MOST_VALUES * len(tensor) // tensor.numel()) if tensor.ndim else 1
    if not tensor.ndim:
        return iter([tensor])
    return (tensor[i : i + samples] for i in range(0, len(tensor), samples))


def by_channel(tensor: Tensor) -> FloatArray:
    """A tensor in float64 as (channels, values of a channel); channels are axis 1, or one."""
    values = np.asarray(tensor.double().cpu().numpy())
    if values.ndim < 2:
        return values.reshape(1, -1)
    return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)


def squared_difference(a: Tensor, b: Tensor) -> float:
    """The squared differences of two tensors of one shape, added up in float64."""
    return sum(
        float((one.double() - other.to(one.device).double()).pow(2).sum())
        for one, other in zip(_parts(a), _parts(b), strict=True)
    )
