"""The sums over the blocks of a batch that is a tensor, taken by torch where the tensor is.

Each block is widened to float64 in a buffer that is kept for the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bncli.errors import TensorError
from bncli.light import np
from bncli.moments.block_plan import lies_by_column, places, run_shape
from bncli.moments.one_batch import BlockPowers, BlockSums

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from bncli.model import FloatArray, IntArray

BLOCK_VALUES = 1 << 22
"""Values a block: in float64 32 MiB."""
_SHORT_ROW = 128
"""Shorter rows are squared one by one before they are added up."""

_kept = threading.local()


class TensorBlocks:
    """A batch `x` (N, C, ...) on any device that has float64.

    Raises TensorError for a tensor without values or without a channel axis, or of complex numbers.
    """

    def __init__(self, x: Tensor) -> None:
        if x.ndim < 2 or x.numel() == 0:
            raise TensorError(
                f"A batch has samples, channels and values; shape {tuple(x.shape)} has not."
            )
        if x.is_complex():
            kind = str(x.dtype).removeprefix("torch.")
            raise TensorError(f"Values of dtype {kind} have no BatchNorm statistics.")
        x = x.detach()
        n, c = x.shape[:2]
        self.samples: int = n
        self.values: Any = x.reshape(n, c).T[None] if x.numel() == n * c else x
        self._by_column = lies_by_column(self.values.shape, self.values.stride())

    def sums(self, centre: FloatArray | None) -> Iterator[BlockSums]:
        """The sums of all blocks, of values less `centre` (num_features,)."""
        for place, (total, square, low, high, zeros) in self._taken(self._sums, centre):
            yield BlockSums(place, total, square, low, high, zeros.sum(0).astype(np.int64))

    def powers(self, centre: FloatArray | None) -> Iterator[BlockPowers]:
        """The same without extremes and zeros."""
        for place, (total, square) in self._taken(self._powers, centre):
            yield BlockPowers(place, total, square)

    def _taken(
        self,
        take: Callable[[Tensor, FloatArray | None], tuple[Tensor, ...]],
        centre: FloatArray | None,
    ) -> Iterator[tuple[tuple[slice, ...], list[NDArray[Any]]]]:
        """Each block's place, and what `take` makes of it."""
        import torch

        for place in places(self.values.shape, BLOCK_VALUES, by_column=self._by_column):
            about = None if centre is None else centre[place[1]]
            with torch.inference_mode(mode=False), torch.no_grad():
                found = _arrays(*take(self._block(place), about))
            yield place, found

    def _powers(self, block: Tensor, about: FloatArray | None) -> tuple[Tensor, ...]:
        """The values of a block less the numbers `about`, and their squares, added up (n, c)."""
        wide, _ = _buffers(block)
        return self._added(self._three(wide.copy_(block)), about)

    def _sums(self, block: Tensor, about: FloatArray | None) -> tuple[Tensor, ...]:
        """What `BlockSums` holds, the zeros (n, c)."""
        import torch

        wide, flags = _buffers(block)
        if block.is_contiguous() and block.dtype in {torch.float32, torch.float64}:
            narrow = block
        else:
            narrow = (flags if block.dtype.itemsize <= 2 else wide).copy_(block)
        wide, narrow, flags = map(self._three, (wide, narrow, flags))
        axis = 1 if self._by_column else 2
        low, high = self._extremes(narrow)
        wide.copy_(narrow)
        zeros = torch.eq(narrow, 0, out=flags).sum(axis)
        return *self._added(wide, about), low, high, zeros

    def _added(self, wide: Tensor, about: FloatArray | None) -> tuple[Tensor, Tensor]:
        """The sums of values less the numbers `about`, and of their squares; `wide` is used up."""
        import torch

        axis = 1 if self._by_column else 2
        if about is not None:
            _subtract(about, wide, by_column=self._by_column)
        total = wide.sum(axis)
        if self._by_column or wide.shape[2] < _SHORT_ROW:
            return total, wide.square_().sum(axis)
        return total, torch.linalg.vector_norm(wide, dim=axis).square_()

    def _extremes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The extremes of the runs of a block, (places, c, p)."""
        shape, axis, swap = run_shape(x.shape, by_column=self._by_column)
        runs = x.view(shape)
        low, high = runs.amin(axis), runs.amax(axis)
        return (low.swapaxes(1, 2), high.swapaxes(1, 2)) if swap else (low, high)

    def count_equal(
        self, place: tuple[slice, ...], hit: NDArray[np.bool_], wanted: FloatArray
    ) -> IntArray:
        """How many values of a block equal their channel's number wanted, (c,), where it is hit."""
        import torch

        x = self._three(self._block(place))
        shape, axis, swap = run_shape(x.shape, by_column=self._by_column)
        runs = x.reshape(shape).movedim(axis, -1)
        which = tuple(torch.from_numpy(each).to(x.device) for each in np.nonzero(hit))
        found = (runs.swapaxes(1, 2) if swap else runs)[which]
        at = np.nonzero(hit)[1]
        numbers = torch.from_numpy(wanted[at]).to(found)
        equal = (found == numbers[:, None]).sum(1).cpu().numpy()
        return np.bincount(at, equal, len(wanted)).astype(np.int64)

    def widen(self, values: Tensor) -> FloatArray:
        """Some of `values` as a float64 array."""
        wide: FloatArray = values.double().cpu().numpy()
        return wide

    def _block(self, place: tuple[slice, ...]) -> Tensor:
        """A block's values, its axes in the order in which they are taken."""
        block: Tensor = self.values[place]
        return block.movedim(1, -1) if self._by_column else block

    def _three(self, block: Tensor) -> Tensor:
        """A block as (n, values, c) or (n, c, values)."""
        shape = block.shape
        return block.reshape((shape[0], -1, shape[-1]) if self._by_column else (*shape[:2], -1))


def _subtract(about: FloatArray, wide: Tensor, *, by_column: bool) -> None:
    """Take the numbers `about` (c,) of its channels from a block."""
    import torch

    few = np.flatnonzero(about).tolist()
    if few and (by_column or 4 * len(few) > len(about)):
        numbers = torch.from_numpy(about).to(wide.device)
        wide.sub_(numbers if by_column else numbers[:, None])
        return
    for channel in few:
        wide[:, channel].sub_(about[channel].item())


def _buffers(block: Tensor) -> tuple[Tensor, Tensor]:
    """A float64 and a float32 tensor like `block`, contiguous; the same memory call after call."""
    import torch

    kept: dict[Any, tuple[Tensor, Tensor]] = _kept.__dict__
    if block.device not in kept:
        kept[block.device] = (
            torch.empty(BLOCK_VALUES, dtype=torch.float64, device=block.device),
            torch.empty(BLOCK_VALUES, dtype=torch.float32, device=block.device),
        )
    wide, narrow = (each[: block.numel()].view(block.shape) for each in kept[block.device])
    return wide, narrow


def _arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    """The tensors as arrays; from a device in one transfer, as float64."""
    if tensors[0].device.type == "cpu":
        return [each.numpy() for each in tensors]
    return _split(_joined(tensors).cpu().numpy(), tensors)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat([each.double().flatten() for each in tensors])


def _split(flat: FloatArray, like: Sequence[Tensor]) -> list[NDArray[Any]]:
    ends = np.cumsum([each.numel() for each in like])[:-1]
    parts = np.split(flat, ends)
    return [part.reshape(each.shape) for part, each in zip(parts, like, strict=True)]
