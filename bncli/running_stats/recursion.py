"""The update over many steps: running = old * running + new * batch, in a buffer's own arithmetic.

float64 is exact, and goes by many steps at a time: over L steps, with q the weight of the old
value, running_L = q**L * running_0 + sum over j of q**(L - j) * new * batch_j. The weights of a
batch that comes repeatedly are added up before they multiply its statistics. float32 and half
precision go step by step, rounding as PyTorch does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bncli.light import dataclass, np
from bncli.pytorch_cpu.half import rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray
    from bncli.pytorch_cpu.float32 import Float32Array

BLOCK = 64
"""Steps of a product of matrices, where the buffers are wanted after most of them."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Some steps in a row: step i puts row `order[i]` of `entering` into the buffers.

    `entering` is (batches, 2, num_features), the means and the variances; `finite` says that all
    of it is. `new` and `old`, both (steps,), are the weights of the batch and of the value before
    it; `weighs` is the one that is given, and rounded first, the other being 1 minus it.
    `wanted` are the steps, ascending from 0, after which the buffers are asked for.
    """

    entering: NDArray[Any]
    finite: bool
    order: IntArray
    new: FloatArray
    old: FloatArray
    weighs: Literal["new", "old"]
    wanted: IntArray


@dataclass(slots=True)
class Buffers:
    """running_mean and running_var on their way, `values` being (2, num_features), float64 for
    float64 buffers and otherwise float32.

    `impossible` is the number of steps after which running_var was first seen negative or not
    finite, None so far. Where that cannot happen within a stretch, it is looked at after it.
    """

    values: NDArray[Any]
    steps: int = 0
    impossible: int | None = None

    def look(self, at: int) -> None:
        """Note the step from which running_var is negative or not finite."""
        if self.impossible is None:
            var = self.values[1]
            if not (np.isfinite(var) & (var >= 0)).all():
                self.impossible = at


def advance(buffers: Buffers, steps: Steps, dtype: str) -> FloatArray:
    """Take the buffers, of this dtype, through the steps. They change in place.

    Returns them after the wanted steps, (wanted, 2, num_features).
    """
    seen = np.empty((len(steps.wanted), *buffers.values.shape))
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        if dtype == "float64":
            _exact(buffers, steps, seen)
        elif dtype == "float32":
            _float32(buffers, steps, seen)
        else:
            _half(buffers, steps, seen, dtype)
    buffers.steps += len(steps.new)
    buffers.look(buffers.steps)
    return seen


def _exact(buffers: Buffers, steps: Steps, seen: FloatArray) -> None:
    """float64, many steps at a time where that gives what single steps would."""
    new, old = float(steps.new[0]), float(steps.old[0])
    plain = (
        0 <= old <= 1
        and (steps.new == new).all()
        and (steps.old == old).all()
        # 0 times NaN or infinity is NaN, so a weight of 0 removes neither.
        and steps.finite
        and np.isfinite(buffers.values).all()
        and (buffers.values[1] >= 0).all()
    )
    if not plain:
        _singly(buffers, steps, seen)
        return
    total = len(steps.new)
    powers = old ** np.arange(total + 1)
    distance = np.arange(BLOCK)[:, np.newaxis] - np.arange(BLOCK)
    triangle = np.where(distance >= 0, new * powers[np.clip(distance, 0, total)], 0.0)
    table = steps.entering.reshape(len(steps.entering), -1)
    state = buffers.values.reshape(-1)
    kept = seen.reshape(len(seen), len(state))
    begin = row = 0
    while begin < total:
        stop = int(steps.wanted[row]) + 1 if row < len(steps.wanted) else total
        if stop - begin > BLOCK:
            order = steps.order[begin:stop]
            weights = new * powers[: len(order)][::-1]
            if len(table) <= len(order):
                after = np.bincount(order, weights, len(table)) @ table
            else:
                after = weights @ table[order]
            state[:] = after + powers[len(order)] * state
            if row < len(steps.wanted):
                kept[row] = state
                row += 1
        else:
            stop = min(begin + BLOCK, total)
            last = int(np.searchsorted(steps.wanted, stop))
            rows = np.append(steps.wanted[row:last] - begin, stop - begin - 1)
            after = triangle[rows, : stop - begin] @ table[steps.order[begin:stop]]
            after += powers[rows + 1, np.newaxis] * state
            kept[row:last] = after[:-1]
            state[:] = after[-1]
            row = last
        begin = stop


def _singly(buffers: Buffers, steps: Steps, seen: FloatArray) -> None:
    """float64, step by step."""
    state = buffers.values
    wanted = {step: row for row, step in enumerate(steps.wanted.tolist())}
    for step, batch in enumerate(steps.order.tolist()):
        state *= steps.old[step]
        state += steps.new[step] * steps.entering[batch]
        buffers.look(buffers.steps + step + 1)
        if step in wanted:
            seen[wanted[step]] = state


def _float32(buffers: Buffers, steps: Steps, seen: FloatArray) -> None:
    """float32, with the roundings of `bncli.pytorch_cpu.float32.updated`.

    The sums are taken in float64 and rounded: running_var's are in PyTorch, and for two float32
    it makes no difference.
    """
    new, old = _rounded_weights(steps, "float32")
    batches = steps.entering[steps.order]
    products = np.multiply(batches, new[:, np.newaxis, np.newaxis], dtype=np.float64)
    products[:, 0] = products[:, 0].astype(np.float32)
    state = buffers.values
    sound = np.isfinite(state).all() and (state[1] >= 0).all()
    doubtful = not (steps.finite and sound and (new >= 0).all() and (old >= 0).all())
    wanted = {step: row for row, step in enumerate(steps.wanted.tolist())}
    multiply, add = np.multiply, np.add
    # 0-d arrays, because a scalar is converted at every call.
    for step, weight in enumerate([np.array(weight) for weight in old]):
        multiply(state, weight, state)
        add(state, products[step], state, casting="same_kind")
        if doubtful:
            buffers.look(buffers.steps + step + 1)
        if step in wanted:
            seen[wanted[step]] = state


def _half(buffers: Buffers, steps: Steps, seen: FloatArray, dtype: str) -> None:
    """float16 and bfloat16, with the roundings that `bncli.pytorch_cpu.half` describes."""
    inner = "float32" if dtype == "float16" else dtype
    new, old = _rounded_weights(steps, inner)
    products = steps.entering[steps.order] * new[:, np.newaxis, np.newaxis]
    products[:, 0] = rounded(products[:, 0], inner)
    state = buffers.values
    wanted = {step: row for row, step in enumerate(steps.wanted.tolist())}
    for step, weight in enumerate(old):
        state[:] = rounded(rounded(weight * state, inner) + products[step], dtype)
        buffers.look(buffers.steps + step + 1)
        if step in wanted:
            seen[wanted[step]] = state


def _rounded_weights(steps: Steps, dtype: str) -> tuple[Float32Array, Float32Array]:
    """The weights of the new batch and of the old value, the given one rounded first."""
    given = rounded((steps.new if steps.weighs == "new" else steps.old).astype(np.float32), dtype)
    other = rounded(np.float32(1) - given, dtype)
    return (given, other) if steps.weighs == "new" else (other, given)
