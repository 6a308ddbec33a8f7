"""The sums over the blocks of a batch that is a tensor, taken by torch where the tensor is.

torch's own threads do it, which are awake while a model runs. Each block is widened to float64 in
a buffer that is kept for the next.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bncli.errors import TensorError
from bncli.light import np
from bncli.moments.one_batch import BlockSums, boxes

if TYPE_CHECKING:
    from torch import Tensor

    from bncli.model import FloatArray, IntArray

BLOCK_VALUES = 1 << 20
"""Values a block: in float64 8 MiB."""
_SHORT_RUN = 32
"""Extremes of shorter runs are taken over all samples at once."""
_SHORT_RUN_SQUARES = 128
"""Shorter runs are squared one by one before they are added up."""

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

    def sums(self, centre: FloatArray | None) -> Iterator[BlockSums]:
        """The sums of all blocks, of values less `centre` (num_features,)."""
        import torch

        x: Tensor = self.values
        by_column = _channels_lie_innermost(x)
        order = x.movedim(1, -1) if by_column else x
        for place in boxes(order.shape, BLOCK_VALUES):
            block = order[place]
            at = place[-1] if by_column else place[1]
            about = None if centre is None or not centre[at].any() else centre[at]
            with torch.inference_mode(mode=False), torch.no_grad():
                total, square, low, high, zeros = _arrays(*_sums(block, about, by_column=by_column))
            if by_column:
                place = (place[0], at, *place[1:-1])  # noqa: PLW2901  # as in `values`
            yield BlockSums(place, total, square, low, high, zeros.sum(0).astype(np.int64))

    def count_equal(self, rows: Tensor, wanted: FloatArray) -> IntArray:
        """How many of each row of `values` equal the number wanted, (rows,)."""
        import torch

        rows = rows.reshape(len(rows), -1)
        numbers = torch.from_numpy(wanted).to(device=rows.device, dtype=rows.dtype)
        counts: IntArray = (rows == numbers[:, None]).sum(1).cpu().numpy()
        return counts

    def widen(self, values: Tensor) -> FloatArray:
        """Some of `values` as a float64 array."""
        wide: FloatArray = values.double().cpu().numpy()
        return wide


def _sums(block: Tensor, about: FloatArray | None, *, by_column: bool) -> tuple[Tensor, ...]:
    """What `BlockSums` holds of a block (n, values, c) or (n, c, values), all of them (n, c)."""
    import torch

    wide, flags = _buffers(block)
    if block.is_contiguous() and block.dtype in {torch.float32, torch.float64}:
        narrow = block
    else:
        narrow = (flags if block.dtype.itemsize <= 2 else wide).copy_(block)
    n, c = block.shape[0], block.shape[-1 if by_column else 1]
    shape = (n, -1, c) if by_column else (n, c, -1)
    axis = 1 if by_column else 2
    wide, narrow, flags = wide.view(shape), narrow.view(shape), flags.view(shape)
    low, high = _extremes(narrow, axis)
    wide.copy_(narrow)
    zeros = torch.eq(narrow, 0, out=flags).sum(axis)
    if about is not None:
        numbers = torch.from_numpy(about).to(block.device)
        wide.sub_(numbers if by_column else numbers[:, None])
    total = wide.sum(axis)
    if by_column or wide.shape[2] < _SHORT_RUN_SQUARES:
        square = wide.square_().sum(axis)
    else:
        square = torch.linalg.vector_norm(wide, dim=axis).square_()
    return total, square, low, high, zeros


def _extremes(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Those of each sample and channel, or of each channel alone, (1, c), where that is faster."""
    if axis == 2 and x.shape[2] < _SHORT_RUN:
        return x.amin(0).amin(1)[None], x.amax(0).amax(1)[None]
    return x.amin(axis), x.amax(axis)


def _channels_lie_innermost(x: Tensor) -> bool:
    """Whether a step along the channels is shorter in memory than along all the rest."""
    rest = [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]
    return x.shape[1] > 1 and x.stride(1) <= min(rest)


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


def _arrays(*tensors: Tensor) -> tuple[Any, ...]:
    """The tensors as arrays; from a device in one transfer, as float64."""
    import torch

    if tensors[0].device.type == "cpu":
        return tuple(each.numpy() for each in tensors)
    flat = torch.cat([each.double().flatten() for each in tensors]).cpu().numpy()
    ends = np.cumsum([each.numel() for each in tensors])[:-1]
    return tuple(
        part.reshape(each.shape) for part, each in zip(np.split(flat, ends), tensors, strict=True)
    )
