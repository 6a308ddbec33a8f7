"""The batches of a simulation: from files, cut out of one, or generated; and their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.arguments.input import check_input, layout_of
from bncli.dtypes import DTYPES, ComputeDtype, decode, encode
from bncli.errors import TensorError, UsageError
from bncli.files.file_bytes import FileBytes
from bncli.light import dataclass, np
from bncli.model import TensorRef
from bncli.pytorch_cpu.float32 import sums_by_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.arguments.input import Input
    from bncli.commands.simulate_ema.flags import BatchFlags
    from bncli.model import IntArray
    from bncli.running_stats.batch_table import BatchTable
    from bncli.running_stats.scatter import Samples

MOST_STATISTICS = 1 << 24
"""Means of distinct batches, channel by channel, that are kept at a time: 1 GB with all beside."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Distinct batches, numbered from 0, and the order in which they come.

    `given` is the first of them, checked; `batch` gives any. `number` is how many are distinct,
    `per_epoch` how many an epoch has. `samples` is the size of the set that was cut, None
    otherwise. `kind` says where they come from. Where `stored` has their statistics, `given` and
    `batch` have no values, but the number of channels and the dtype; `scatter` says how their
    samples scatter, if that is known.
    """

    kind: str
    label: str
    given: Input
    batch: Callable[[int], TensorRef]
    number: int
    per_epoch: int
    flags: BatchFlags
    order: Callable[[], Iterator[IntArray]]
    read: tuple[str, ...]
    samples: int | None = None
    stored: BatchTable | None = None
    scatter: Samples | None = None

    @property
    def steps(self) -> int:
        """The steps of all epochs."""
        return self.per_epoch * self.flags.epochs


def open_batches(flags: BatchFlags) -> Batches:
    """The batches that the flags describe.

    Raises UsageError for flags that contradict each other, TensorError for a tensor that cannot be
    cut or does not suit BatchNorm, and FileError for files.
    """
    _check_flags(flags)
    if flags.generate is not None:
        return _limited(_generated(flags))
    if flags.batch_axis is not None or flags.batch_size is not None:
        return _limited(_cut(flags))
    tensors = flags.tensors(flags.inputs)
    given = check_input(tensors, flags.axis, flags.dtype)
    return _limited(
        Batches(
            kind="files",
            label=given.label,
            given=given,
            batch=tensors.__getitem__,
            number=len(tensors),
            per_epoch=len(tensors),
            flags=flags,
            order=ordered(len(tensors), flags),
            read=given.read,
        )
    )


def values_of(batches: Batches, i: int, dtype: str) -> NDArray[Any]:
    """Batch `i` as (N, C, ...), rounded to `dtype` unless that is float64; bfloat16 as float32.

    Its memory is contiguous, or channels last if it was stored so; for float64 it is unchanged.
    """
    tensor, given = batches.batch(i), batches.given
    x = np.moveaxis(given.values(tensor), given.channel_axis, 1)
    if dtype == "float64":
        return x
    if dtype != given.dtype:
        x = decode(encode(x, dtype), dtype)
    if sums_by_rows(np.moveaxis(layout_of(tensor), given.channel_axis, 1)) and x.ndim > 3:
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    return np.ascontiguousarray(x)


def ordered(number: int, flags: BatchFlags) -> Callable[[], Iterator[IntArray]]:
    """All epochs over `number` batches: in turn, or reshuffled in each epoch with the seed."""

    def order() -> Iterator[IntArray]:
        rng = np.random.default_rng(flags.seed)
        for _ in range(flags.epochs):
            yield rng.permutation(number) if flags.shuffle else np.arange(number)

    return order


def _check_flags(flags: BatchFlags) -> None:
    """Raise UsageError for flags that do not go together."""
    for flag, number in (("--between-std", flags.between_std), ("--drift", flags.drift)):
        if number is not None and not math.isfinite(number):
            raise UsageError(f"{flag} {number:g}: give a finite number.")
    if flags.generate is None:
        for flag, value in (
            ("--batches", flags.batches),
            ("--between-std", flags.between_std),
            ("--drift", flags.drift),
        ):
            if value is not None:
                raise UsageError(f"{flag} is for generated batches: add --generate SHAPE.")
        if not flags.inputs and flags.values is None:
            raise UsageError(
                "there are no batches: name files, type numbers with --values, or generate some "
                "with --generate."
            )
    elif flags.inputs or flags.values is not None:
        what = "files" if flags.inputs else "--values"
        raise UsageError(f"--generate makes the batches: give it or {what}, not both.")
    if flags.batch_axis is not None and flags.batch_size is not None:
        raise UsageError(
            "--batch-axis and --batch-size are two ways to split a tensor; leave one out."
        )
    cut = "--batch-axis" if flags.batch_axis is not None else "--batch-size"
    if flags.batch_axis is not None or flags.batch_size is not None:
        if flags.generate is not None:
            raise UsageError(
                f"{cut} splits a tensor, but --generate makes whole batches; leave one out."
            )
        if len(flags.inputs) > 1:
            raise UsageError(f"{cut} splits a single INPUT, but {len(flags.inputs)} are given.")
    if flags.drop_last and flags.batch_size is None:
        raise UsageError("--drop-last applies only with --batch-size: add that flag.")


def _limited(batches: Batches) -> Batches:
    """The same. Raises UsageError where their statistics would take too much memory."""
    kept = batches.number * batches.given.num_features
    if kept > MOST_STATISTICS:
        fix = "use fewer batches, and repeat them with --epochs"
        if batches.number > batches.per_epoch:  # shuffled samples make new ones in each epoch
            fix = "use fewer --epochs, or leave out --shuffle"
        raise UsageError(
            f"{batches.number} batches of {batches.given.num_features} channels need too much "
            f"memory: batches x channels may be at most {MOST_STATISTICS}; {fix}."
        )
    return batches


# ---------------------------------------------------------------------------- cut out of a file


def _cut(flags: BatchFlags) -> Batches:
    """The batches along an axis of one tensor, or the ones that its samples make."""
    (tensor,) = map(_cached, flags.tensors(flags.inputs))
    if flags.batch_axis is not None:
        return _along_axis(tensor, flags.batch_axis, flags)
    assert flags.batch_size is not None
    return _of_samples(tensor, flags.batch_size, flags)


def _along_axis(tensor: TensorRef, axis: int, flags: BatchFlags) -> Batches:
    """One batch for each index of an axis."""
    if not -tensor.ndim <= axis < tensor.ndim:
        raise UsageError(
            f"--batch-axis {axis}: {tensor.label} has {tensor.ndim} axes, so it must be from "
            f"{-tensor.ndim} to {tensor.ndim - 1}."
        )
    axis %= tensor.ndim
    number = tensor.shape[axis]
    if number == 0:
        raise TensorError(f"{tensor.label}: shape {list(tensor.shape)} has no batches.")

    def batch(i: int) -> TensorRef:
        part = _part(tensor, axis, i, i + 1)
        return replace(
            part,
            shape=part.shape[:axis] + part.shape[axis + 1 :],
            strides=part.strides[:axis] + part.strides[axis + 1 :],
        )

    given = check_input((batch(0),), flags.axis, flags.dtype)
    return Batches(
        kind="batch axis",
        label=tensor.label,
        given=given,
        batch=batch,
        number=number,
        per_epoch=number,
        flags=flags,
        order=ordered(number, flags),
        read=given.read,
    )


def _of_samples(tensor: TensorRef, size: int, flags: BatchFlags) -> Batches:
    """The batches of a DataLoader: `size` samples each, shuffled sample by sample."""
    given = check_input((tensor,), flags.axis, flags.dtype)
    if given.channel_axis == 0:
        raise UsageError(
            f"--batch-size splits axis 0, but --channel-axis {flags.axis} makes it the "
            "channel axis; name another channel axis."
        )
    samples = tensor.shape[0]
    per_epoch = samples // size if flags.drop_last else -(-samples // size)
    if per_epoch == 0:
        raise UsageError(
            f"--drop-last: {tensor.label} has {samples} samples, fewer than one batch of {size}."
        )

    @lru_cache(maxsize=2)
    def permutation(epoch: int) -> IntArray:
        return np.random.default_rng([flags.seed, epoch]).permutation(samples)

    def batch(i: int) -> TensorRef:
        epoch, i = divmod(i, per_epoch)
        stop = min((i + 1) * size, samples)
        if not flags.shuffle:
            return _part(tensor, 0, i * size, stop)
        return _gathered(tensor, permutation(epoch)[i * size : stop])

    # Shuffled, no batch comes twice.
    number = per_epoch * flags.epochs if flags.shuffle else per_epoch

    def in_turn() -> Iterator[IntArray]:
        for epoch in range(flags.epochs):
            yield np.arange(per_epoch) + epoch * per_epoch

    return Batches(
        kind="batch size",
        label=tensor.label,
        given=check_input((batch(0),), flags.axis, flags.dtype),
        batch=batch,
        number=number,
        per_epoch=per_epoch,
        flags=flags,
        order=in_turn if flags.shuffle else ordered(per_epoch, flags),
        read=given.read,
        samples=samples,
    )


def _part(tensor: TensorRef, axis: int, begin: int, stop: int) -> TensorRef:
    """The indices from `begin` to `stop` of an axis, as a tensor of its own."""
    whole = tensor.storage
    skipped = begin * tensor.strides[axis]
    storage: FileBytes | Callable[[], NDArray[Any]] | None = None
    if isinstance(whole, FileBytes):
        offset = skipped * DTYPES[tensor.dtype].itemsize
        storage = replace(whole, offset=whole.offset + offset, nbytes=whole.nbytes - offset)
    elif whole is not None:
        storage = partial(_behind, whole, skipped)
    shape = (*tensor.shape[:axis], stop - begin, *tensor.shape[axis + 1 :])
    name = f"{tensor.name}[{begin}:{stop}]"
    return replace(tensor, name=name, shape=shape, storage=storage, origin=None)


def _behind(whole: Callable[[], NDArray[Any]], skipped: int) -> NDArray[Any]:
    """What a storage holds after its first elements."""
    return whole()[skipped:]


def _gathered(tensor: TensorRef, samples: IntArray) -> TensorRef:
    """Some samples of axis 0, in this order, as a contiguous tensor."""
    shape = (len(samples), *tensor.shape[1:])
    return replace(
        tensor,
        name=f"{tensor.name}[shuffled]",
        shape=shape,
        strides=_contiguous(shape),
        storage=partial(_samples, tensor, samples),
        origin=None,
    )


def _samples(tensor: TensorRef, samples: IntArray) -> NDArray[Any]:
    """Some samples of a tensor, flat, in this order."""
    with ExitStack() as stack:
        read = tensor.stored_reader(stack)
        return np.concatenate([read((slice(i, i + 1),)).reshape(-1) for i in samples.tolist()])


def _cached(tensor: TensorRef) -> TensorRef:
    """The same tensor, whose storage is unpacked only once if it has to be unpacked."""
    if tensor.storage is None or isinstance(tensor.storage, FileBytes):
        return tensor
    return replace(tensor, storage=lru_cache(maxsize=1)(tensor.storage))


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 1, 0, -1):
        strides[axis - 1] = strides[axis] * shape[axis]
    return tuple(strides)


# ---------------------------------------------------------------------------- generated


def _generated(flags: BatchFlags) -> Batches:
    """Seeded normal batches of std 1; each can be made again by itself."""
    assert flags.generate is not None
    shape = parse_shape(flags.generate)
    number = 100 if flags.batches is None else flags.batches
    between = flags.between_std or 0.0
    drift = flags.drift or 0.0
    dtype = ComputeDtype.FLOAT32 if flags.dtype is None else flags.dtype
    wide = "float64" if dtype is ComputeDtype.FLOAT64 else "float32"
    axis = flags.axis

    def batch(i: int) -> TensorRef:
        def values() -> NDArray[Any]:
            rng = np.random.default_rng([flags.seed, i])
            c = shape[axis]
            mean = drift * i + (between * rng.standard_normal(c) if between else np.zeros(c))
            along = [1] * len(shape)
            along[axis] = c
            x = rng.standard_normal(shape, dtype=np.dtype(wide).type)
            if mean.any():
                with np.errstate(over="ignore"):
                    x += mean.reshape(along).astype(wide)
            return encode(x, dtype.value).reshape(-1)

        place = Path(f"--generate {flags.generate}")
        return TensorRef("", place, shape, dtype.value, _contiguous(shape), values)

    return Batches(
        kind="generated",
        label=f"--generate {flags.generate}",
        given=check_input((batch(0),), axis, None),
        batch=batch,
        number=number,
        per_epoch=number,
        flags=flags,
        order=ordered(number, flags),
        read=(),
    )


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape that `--generate` names: "32,64,28,28". Raises UsageError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() and 0 < int(part) < 2**31 for part in parts):
        raise UsageError(f"--generate {text}: write a shape such as 32,64,28,28.")
    return tuple(map(int, parts))
