"""What a layer sees over many batches: the sums of each batch (`one_batch`), pooled and merged.

The batches' means are kept as two float64 numbers, and pooled with the formulas of Chan, Golub and
LeVeque (see `pooling`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cmp_to_key, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bncli.errors import TensorError
from bncli.model.capture import InputSums
from bncli.moments.array_blocks import ArrayBlocks
from bncli.moments.one_batch import BatchPart, Blocks, ieee_mean, sum_blocks, sum_moments
from bncli.moments.pooling import Sum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray


def batch_part(x: NDArray[Any], dtype: str | None = None, threads: int | None = None) -> BatchPart:
    """The sums of one batch, as `BatchSums.add` takes it."""
    return sum_blocks(ArrayBlocks(x, dtype, threads))


def joined(pieces: Sequence[BatchPart]) -> BatchPart:
    """The sums of one batch that came in pieces, cut between its samples.

    Raises TensorError for no pieces, or pieces that differ in their number of channels.
    """
    if len(pieces) == 1:
        return pieces[0]
    sums = BatchSums(len(pieces[0].shift)) if pieces else BatchSums(0)
    for piece in pieces:
        sums.add_part(piece)
    whole = sums.result()
    with np.errstate(all="ignore"):
        return BatchPart(
            whole.values,
            whole.samples,
            whole.shift,
            whole.offset,
            whole.within + whole.between,
            # Between the pieces too, it is the samples that count, not their values.
            whole.sample_squares + whole.between * (whole.samples / whole.values),
            whole.min,
            whole.max,
            whole.at_min,
            whole.at_max,
            whole.at_zero,
            whole.nan,
            whole.posinf,
            whole.neginf,
        )


class _Scatter:
    """The weighted mean of numbers, and their squared deviations from it, added up."""

    def __init__(self, num_features: int) -> None:
        self.weight = 0
        self._total = Sum(num_features)
        self._squares = Sum(num_features)

    def add(self, value: FloatArray, weight: int, squares: FloatArray | None = None) -> None:
        """Take in a value, or the mean of several with their squared deviations."""
        if not weight:
            return
        whole = slice(None)
        both = self.weight + weight
        if self.weight:
            delta = value - self.mean
            self._squares.add(whole, np.square(delta * np.sqrt(self.weight / both * weight)))
        if squares is not None:
            self._squares.add(whole, squares)
        self._total.add(whole, value * weight)
        self.weight = both

    @property
    def mean(self) -> FloatArray:
        """The mean; NaN where there is nothing."""
        return self._total.value() / np.float64(self.weight)

    @property
    def squares(self) -> FloatArray:
        """The squared deviations from the mean, each with its weight."""
        return self._squares.value()


class BatchSums:
    """A layer's input over the batches that came so far.

    With `per_batch`, `batches` gives every batch's own numbers. With `per_sample`, each sample is
    a batch of its own, as for InstanceNorm. With `moments_only` there are no extremes (NaN) and no
    counts of them (0), which takes half the time.
    """

    def __init__(
        self,
        num_features: int,
        *,
        per_batch: bool = False,
        per_sample: bool = False,
        moments_only: bool = False,
    ) -> None:
        self.num_features = num_features
        self._per_sample = per_sample
        self._batches: list[tuple[int, FloatArray, FloatArray]] | None = [] if per_batch else None
        self._moments_only = moments_only
        self._before: BatchPart | None = None
        self._pool = _Pool(num_features, extremes=not moments_only)

    def add(self, x: NDArray[Any], dtype: str | None = None, threads: int | None = None) -> None:
        """Take in a batch of shape (N, num_features, ...), in any memory layout.

        `dtype` "bfloat16" says that `x` holds the bits of that dtype. `threads` work on it, by
        default one for each processor; the sums are the same for any number.

        Raises TensorError for a batch without values or channels, with other channels, or of
        values that have no statistics.
        """
        self.take(x, partial(ArrayBlocks, dtype=dtype, threads=threads))

    def take(self, x: Any, blocks: Callable[[Any], Blocks]) -> None:
        """Take in a batch, an array or a tensor, with what `blocks` makes of it or of a sample."""
        for one in [x[i : i + 1] for i in range(len(x))] if self._per_sample else [x]:
            if self._moments_only:
                part = self._before = sum_moments(blocks(one), self._before)
            else:
                part = sum_blocks(blocks(one))
            self.add_part(part)

    def add_part(self, part: BatchPart) -> None:
        """Take in the sums of a batch. Raises TensorError where it has other channels."""
        if len(part.shift) != self.num_features:
            raise TensorError(
                f"A batch of {len(part.shift)} channels came to a layer of {self.num_features}."
            )
        with np.errstate(all="ignore"):
            self._pool.add_batch(part)
            if self._batches is not None:
                self._batches.append((part.count, part.mean, part.squares / part.count))

    def result(self) -> InputSums:
        """The sums so far. Raises TensorError where no batch has come."""
        if not self._pool.batches:
            raise TensorError("No batch has come yet, so there are no sums.")
        with np.errstate(all="ignore"):
            return self._pool.result()

    def batches(self) -> Mapping[str, NDArray[Any]]:
        """Every batch's `count` (batches,), and `mean` and biased `var` (batches, num_features).

        They are empty without `per_batch`.
        """
        kept = self._batches or []
        shape = (len(kept), self.num_features)
        return {
            "count": np.array([count for count, _, _ in kept], np.int64),
            "mean": np.array([mean for _, mean, _ in kept], np.float64).reshape(shape),
            "var": np.array([var for _, _, var in kept], np.float64).reshape(shape),
        }


class _Pool:
    """Sums of a layer's input, to which batches and the sums of other batches are added.

    Means are kept less `shift`, that of what came first. Without `extremes` those of batches are
    left out.
    """

    def __init__(self, num_features: int, *, extremes: bool = True) -> None:
        self._extremes = extremes
        self.batches = 0
        self._samples = 0
        self._shift = np.zeros(num_features)
        self._means = _Scatter(num_features)
        self._by_sample: _Scatter | None = None  # until batches differ in the size of samples
        self._batch_means = _Scatter(num_features)
        self._batch_vars = _Scatter(num_features)
        self._within = Sum(num_features)
        self._sample_squares = Sum(num_features)
        self._min, self._max = np.full((2, num_features), np.nan)
        self._at_min, self._at_max = np.zeros((2, num_features), np.int64)
        self._at_zero, self._nan, self._posinf, self._neginf = np.zeros((4, num_features), np.int64)

    def add_batch(self, part: BatchPart) -> None:
        """Take in a batch."""
        mean = self._begin(part) + part.offset
        if self._by_sample is None and part.count * self._samples != (
            part.samples * self._means.weight
        ):
            self._by_sample = self._samples_so_far()
        if self._by_sample is not None:
            self._by_sample.add(mean, part.samples)
        self._means.add(mean, part.count)
        self._batch_means.add(mean, 1)
        if part.count > 1:
            self._batch_vars.add(part.squares / (part.count - 1), 1)
        self._within.add(slice(None), part.squares)
        if self._extremes:
            self._add_extremes(part)
        self._add_nonfinite(part)
        self._samples += part.samples
        self.batches += 1

    def add_sums(self, part: InputSums) -> None:
        """Take in the sums of other batches."""
        moved = self._begin(part)
        if self._by_sample is None:
            self._by_sample = self._samples_so_far()
        self._by_sample.add(moved + part.sample_mean, part.samples, part.sample_between)
        self._means.add(moved + part.offset, part.values, part.between)
        self._batch_means.add(moved + part.batch_mean, part.batches, part.batch_mean_squares)
        self._batch_vars.add(part.batch_var, part.batches_with_var, part.batch_var_squares)
        self._within.add(slice(None), part.within)
        self._add_extremes(part)
        self._add_nonfinite(part)
        self._samples += part.samples
        self.batches += part.batches

    def _begin(self, part: BatchPart | InputSums) -> FloatArray:
        """What a part's shift is more than this pool's."""
        if not self.batches:
            self._shift = np.where(np.isfinite(part.shift), part.shift, 0.0)
        self._sample_squares.add(slice(None), part.sample_squares)
        return part.shift - self._shift

    def _samples_so_far(self) -> _Scatter:
        """The batches' means, each weighted by its samples: these have had as many values each."""
        means = _Scatter(len(self._shift))
        if self._samples:
            share = self._samples / self._means.weight
            means.add(self._means.mean, self._samples, self._means.squares * share)
        return means

    def _add_extremes(self, part: BatchPart | InputSums) -> None:
        """Take in extremes and their counts; those of a former extreme count no more."""
        low, high = np.fmin(self._min, part.min), np.fmax(self._max, part.max)
        self._at_min = self._at_min * (self._min == low) + part.at_min * (part.min == low)
        self._at_max = self._at_max * (self._max == high) + part.at_max * (part.max == high)
        self._min, self._max = low, high
        self._at_zero += part.at_zero

    def _add_nonfinite(self, part: BatchPart | InputSums) -> None:
        """Count what is not finite."""
        self._nan += part.nan
        self._posinf += part.posinf
        self._neginf += part.neginf

    def result(self) -> InputSums:
        """What all parts come to."""
        dirty = self._nan + self._posinf + self._neginf > 0
        by_sample = self._by_sample or self._samples_so_far()

        def spoilt(values: FloatArray, by: float = np.nan) -> FloatArray:
            return np.where(dirty, by, values)

        return InputSums(
            values=self._means.weight,
            samples=self._samples,
            batches=self.batches,
            batches_with_var=self._batch_vars.weight,
            shift=np.where(dirty, ieee_mean(self._nan, self._posinf, self._neginf), self._shift),
            offset=spoilt(self._means.mean, 0.0),
            within=spoilt(self._within.value()),
            between=spoilt(self._means.squares),
            sample_squares=spoilt(self._sample_squares.value()),
            sample_mean=spoilt(by_sample.mean, 0.0),
            sample_between=spoilt(by_sample.squares),
            batch_mean=spoilt(self._batch_means.mean, 0.0),
            batch_mean_squares=spoilt(self._batch_means.squares),
            batch_var=spoilt(self._batch_vars.mean),
            batch_var_squares=spoilt(self._batch_vars.squares),
            min=self._min.copy(),
            max=self._max.copy(),
            at_min=self._at_min.copy(),
            at_max=self._at_max.copy(),
            at_zero=self._at_zero.copy(),
            nan=self._nan.copy(),
            posinf=self._posinf.copy(),
            neginf=self._neginf.copy(),
        )


def merge_sums(parts: Sequence[InputSums]) -> InputSums:
    """The sums of all batches of `parts`, the same to the last bit for any order of the parts.

    Sums of the same batches in other parts agree to 1e-12, counts and extremes exactly.
    Raises TensorError for no parts, or parts that differ in their number of channels.
    """
    if not parts:
        raise TensorError("There are no sums to merge.")
    channels = parts[0].num_features
    for part in parts:
        if part.num_features != channels:
            raise TensorError(
                f"Sums of {channels} and of {part.num_features} channels cannot be merged."
            )
    if len(parts) == 1:
        return parts[0]
    pool = _Pool(channels)
    with np.errstate(all="ignore"):
        for part in sorted(parts, key=cmp_to_key(_order)):
            pool.add_sums(part)
        return pool.result()


def _order(one: InputSums, other: InputSums) -> int:
    """Which of two parts comes first, by their content, of which no copy is kept."""
    for field in fields(one):
        mine, theirs = (np.asarray(getattr(each, field.name)).tobytes() for each in (one, other))
        if mine != theirs:
            return -1 if mine < theirs else 1
    return 0
