"""Running statistics over many batches, under one convention, from the batches' statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.model import RunningStats
from bncli.pytorch_cpu.half import rounded
from bncli.running_stats.batch_table import BatchTable
from bncli.running_stats.recursion import Buffers, Steps, advance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray
    from bncli.process.progress import Advance
    from bncli.running_stats.conventions import Convention

AHEAD = 1 << 20
"""Values that are gathered for the steps taken at a time, which bounds the memory."""


@dataclass(frozen=True, slots=True)
class Course:
    """What is done with the batches: `order` gives their numbers, step by step, in pieces.

    `steps` is how many there are, `freeze_after` the number after which evaluation mode keeps the
    buffers as they are (None: never). `momentum` is the convention's, None for the cumulative
    average. `start` is None where the buffers begin at the convention's own values.
    """

    order: Callable[[], Iterator[IntArray]]
    steps: int
    momentum: float | None
    start: RunningStats | None = None
    freeze_after: int | None = None
    eps: float | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Running statistics after the wanted `steps`, counted from 1, for the wanted channels.

    `running_mean` and `running_var` are (steps, channels), `initial_weight` (steps,): the weight
    that the initial value still has. `batches` (steps,) are the numbers of the batches there.
    `first`, `final` are the buffers before and after, all channels, as evaluation uses them;
    `final_weight` is the initial value's weight in the end, `squared_weights` the sum of the
    squares of the weights that the batches have there, each update's by itself. `updates` is how
    often the buffers changed. `impossible` is the step after which running_var was negative or not
    finite in some channel.
    """

    steps: IntArray
    batches: IntArray
    running_mean: FloatArray
    running_var: FloatArray
    initial_weight: FloatArray
    first: RunningStats
    final: RunningStats
    final_weight: float
    squared_weights: float
    updates: int
    impossible: int | None


@dataclass(frozen=True, slots=True)
class Piece:
    """The wanted steps of a stretch of a walk, all channels, the buffers as evaluation uses them.

    `tracked` (steps,) is the counter; the rest is as in `Trajectory`.
    """

    steps: IntArray
    batches: IntArray
    running_mean: FloatArray
    running_var: FloatArray
    initial_weight: FloatArray
    tracked: IntArray


class Walk:
    """One convention's buffers on their way through a course; `pieces` takes them through, once."""

    def __init__(
        self,
        table: BatchTable,
        convention: Convention,
        course: Course,
        advance_by: Advance | None = None,
    ) -> None:
        self._advance_by = advance_by
        self._table = table
        self._convention = convention
        self._course = course
        self._entering = table.entering(convention, course.eps)
        self._finite = bool(np.isfinite(self._entering).all())
        self._ahead = min(max(AHEAD // table.num_features, 64), 8192)
        one = table.count == 1
        self._inert = one & (convention.one_value in ("refused", "skipped"))
        self._uncounted = one & (convention.one_value == "skipped")
        self.tracked = 0 if course.start is None else course.start.num_batches_tracked
        self.updates = 0
        self._fade = 1.0
        self._squared = 0.0
        momentum = course.momentum
        self._new = None if momentum is None else convention.new_weight(momentum)
        self._old = None if self._new is None else _old_weight(convention, momentum, self._new)
        # What a debiased buffer's divisor already lacks, and what its start is multiplied by.
        self._before = 1.0
        scale = 1.0
        if convention.debias == "divided":
            assert self._old is not None
            self._before = self._old**self.tracked
            scale = 1.0 if course.start is None else 1.0 - self._before
        self._scale = scale
        c = table.num_features
        start = course.start or RunningStats(
            np.full(c, convention.initial_mean), np.full(c, convention.initial_var), 0
        )
        values = np.stack((start.running_mean, start.running_var)) * scale
        self._buffers = Buffers(
            values if table.dtype == "float64" else rounded(values, table.dtype)
        )
        self._nothing = not values.any()
        self.first = start

    @property
    def impossible(self) -> int | None:
        """The step after which running_var was seen negative or not finite."""
        return self._impossible

    _impossible: int | None = None

    def pieces(self, wanted: IntArray | None = None) -> Iterator[Piece]:
        """Go through the course, and give the `wanted` steps (all of them for None)."""
        course = self._course
        freeze = course.steps if course.freeze_after is None else course.freeze_after
        done = 0
        for batches in _in_lengths(course.order(), self._ahead):
            steps = np.arange(done + 1, done + len(batches) + 1)
            if wanted is None:
                chosen = np.arange(len(batches))
            else:
                span = np.searchsorted(wanted, (done + 1, done + len(batches) + 1))
                chosen = wanted[slice(*span)] - done - 1
            yield self._stretch(batches, steps, steps <= freeze, chosen)
            done += len(batches)
            if self._advance_by is not None:
                self._advance_by(len(batches) * 8 * self._table.num_features)

    def squares(self, wanted: IntArray) -> FloatArray:
        """`squared_weights` after each of the `wanted` steps (ascending, from 1).

        In the place of `pieces`, and without buffers.
        """
        course = self._course
        freeze = course.steps if course.freeze_after is None else course.freeze_after
        found = []
        done = 0
        for batches in _in_lengths(course.order(), self._ahead):
            training = np.arange(done, done + len(batches)) < freeze
            active = training & ~self._inert[batches]
            tracked = self.tracked + np.cumsum(training & ~self._uncounted[batches])
            new, old = self._weights(tracked[active]) if active.any() else (np.empty(0),) * 2
            squares = [self._squared]
            for entering, kept in zip((new * new).tolist(), (old * old).tolist(), strict=True):
                squares.append(kept * squares[-1] + entering)
            fade = self._fade * np.cumprod(np.append(1.0, old))
            span = np.searchsorted(wanted, (done + 1, done + len(batches) + 1))
            at = np.cumsum(active)[wanted[slice(*span)] - done - 1]
            found.append(np.array(squares)[at] / self._divisor(fade[at]) ** 2)
            self._squared, self._fade = squares[-1], float(fade[-1])
            self.tracked, self.updates = int(tracked[-1]), self.updates + len(new)
            done += len(batches)
        return np.concatenate(found)

    def _stretch(
        self,
        batches: IntArray,
        steps: IntArray,
        training: NDArray[Any],
        chosen: IntArray,
    ) -> Piece:
        """Take some steps, and look at the buffers after those at positions `chosen`."""
        counted = training & ~self._uncounted[batches]
        active = training & ~self._inert[batches]
        tracked = self.tracked + np.cumsum(counted)
        number = np.cumsum(active)  # of updates in this stretch, after each step
        at = np.flatnonzero(active)
        running = np.empty((len(chosen), 2, self._table.num_features))
        running[:] = self._buffers.values
        fade = np.full(len(chosen), self._fade)
        updated = number[chosen] > 0
        if len(at):
            new, old = self._weights(tracked[at])
            wanted, row = np.unique(number[chosen][updated] - 1, return_inverse=True)
            before = self._buffers.steps
            seen = advance(
                self._buffers,
                Steps(
                    self._entering,
                    self._finite,
                    batches[at],
                    new,
                    old,
                    self._convention.weighs,
                    wanted,
                ),
                self._table.dtype,
            )
            if self._buffers.impossible is not None and self._impossible is None:
                self._impossible = int(steps[at[self._buffers.impossible - before - 1]])
            running[updated] = seen[row]
            with np.errstate(over="ignore", invalid="ignore"):
                fading = self._fade * np.cumprod(old)
                fade[updated] = fading[number[chosen][updated] - 1]
                self._fade = float(fading[-1])
                kept = np.cumprod(np.append(1.0, old[:0:-1]) ** 2)[::-1]
                if self._squared:
                    self._squared *= float(kept[0] * old[0] ** 2)
                self._squared += float(new**2 @ kept)
        divisor = self._divisor(fade)[:, np.newaxis]
        self.tracked = int(tracked[-1])
        self.updates += len(at)
        with np.errstate(invalid="ignore", over="ignore"):
            return Piece(
                steps[chosen],
                batches[chosen],
                running[:, 0] / divisor,
                running[:, 1] / divisor,
                self._initial_weight(fade),
                tracked[chosen],
            )

    def _weights(self, tracked: IntArray) -> tuple[FloatArray, FloatArray]:
        """The weights of the new batch and of the old value for updates in a row."""
        if self._new is None or self._old is None:
            new = 1.0 / tracked
            return new, 1.0 - new
        new = np.full(len(tracked), self._new)
        old = np.full(len(tracked), self._old)
        if self._convention.debias == "first" and self.updates == 0 and tracked[0] == 1:
            new[0], old[0] = 1.0, 0.0
        return new, old

    def _divisor(self, fade: FloatArray) -> FloatArray:
        """What evaluation divides the buffers by, once the initial value has faded this far."""
        if self._convention.debias != "divided":
            return np.ones_like(fade)
        divisor = 1.0 - self._before * fade
        return np.where(divisor == 0, 1.0, divisor)

    def _initial_weight(self, fade: FloatArray) -> FloatArray:
        """The weight that the initial value has in what evaluation uses."""
        if self._convention.debias != "divided":
            return fade
        if self._nothing:
            return np.zeros_like(fade)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._scale * fade / self._divisor(fade)

    def final(self) -> RunningStats:
        """The buffers now, as evaluation uses them."""
        divisor = self._divisor(np.array([self._fade]))
        with np.errstate(invalid="ignore", over="ignore"):
            mean, var = self._buffers.values.astype(np.float64) / divisor
        return RunningStats(mean, var, self.tracked)

    def final_weight(self) -> float:
        """The weight that the initial value has now."""
        return float(self._initial_weight(np.array([self._fade]))[0])

    def squared_weights(self) -> float:
        """The sum of the squares of the weights that the batches have now."""
        divisor = float(self._divisor(np.array([self._fade]))[0])
        return self._squared / (divisor * divisor)


def simulate(
    table: BatchTable,
    convention: Convention,
    course: Course,
    wanted: IntArray,
    channels: Sequence[int],
    advance_by: Advance | None = None,
) -> Trajectory:
    """Go through the whole course, and keep the `wanted` steps (ascending, from 1) of `channels`.

    running = (1 - a) * running + a * batch with a the weight of the new batch (see
    `Convention.new_weight`; 1/num_batches_tracked for momentum None), in the arithmetic of the
    table's dtype. A batch with one value per channel changes what the convention says; PyTorch
    refuses it after it has counted it. `advance_by` is told of 8 bytes a step and channel.
    """
    walk = Walk(table, convention, course, advance_by)
    pieces = [
        replace(
            piece,
            running_mean=piece.running_mean[:, channels],
            running_var=piece.running_var[:, channels],
        )
        for piece in walk.pieces(wanted)
    ]
    joined = {
        name: np.concatenate([getattr(piece, name) for piece in pieces])
        for name in ("steps", "batches", "running_mean", "running_var", "initial_weight")
    }
    return Trajectory(
        **joined,
        first=walk.first,
        final=walk.final(),
        final_weight=walk.final_weight(),
        squared_weights=walk.squared_weights(),
        updates=walk.updates,
        impossible=walk.impossible,
    )


def _in_lengths(pieces: Iterator[IntArray], length: int) -> Iterator[IntArray]:
    """The same numbers in pieces of this length, the last one perhaps shorter."""
    waiting: list[IntArray] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece)
        if held >= length:
            joined = np.concatenate(waiting)
            whole = held - held % length
            yield from np.split(joined[:whole], whole // length)
            waiting, held = [joined[whole:]], held - whole
    if held:
        yield np.concatenate(waiting)


def _old_weight(convention: Convention, momentum: float | None, new: float) -> float:
    """The weight of the old value: the momentum itself where that is what it means."""
    return momentum if convention.weighs == "old" and momentum is not None else 1.0 - new
