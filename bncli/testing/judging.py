"""Whether a step went one way: what an implementation computed beside what that way gives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import field, replace
from math import prod
from typing import TYPE_CHECKING, Any

from bncli.backends.interface import QUANTITIES
from bncli.dtypes import DTYPES
from bncli.errors import ModelError
from bncli.light import dataclass, np
from bncli.testing.allowed import ONE_PASS, SLACK, tolerances, widened
from bncli.testing.prediction import buffers_after, passed
from bncli.testing.runs import told
from bncli.testing.ways import PYTORCH, Way
from bncli.verify.closeness import Tolerance, overflowed
from bncli.verify.meter import Measured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bncli.model import FloatArray
    from bncli.testing.runs import Step

_FIRST: dict[Any, Any] = {}
"""What is the same for every implementation, by what it is of."""

KEEPS = "BatchNorm keeps its input's dtype"
"""What a ModelError says of an output in another dtype."""

GRADIENTS = ("grad_input", "grad_weight", "grad_bias")
LIKE_INPUT = ("output", "grad_input")


@dataclass(frozen=True, slots=True)
class Failure:
    """One quantity of a step that is not as expected, at the element that is furthest off.

    `used` is the share of the tolerance; `sentence` says what is wrong where no number does.
    """

    step: Step
    quantity: str
    index: tuple[int, ...] = ()
    actual: float = 0.0
    expected: float = 0.0
    tolerance: float = 0.0
    used: float = float("inf")
    sentence: str = ""

    @property
    def key(self) -> tuple[str, int, str]:
        """Where it is: the same for another way of judging."""
        return self.step.configuration.name, self.step.number, self.quantity


@dataclass(slots=True)
class Judge:
    """Judges the steps of one implementation; what does not depend on the way is kept.

    `factor` widens every tolerance, and `room` what another formula than PyTorch's is allowed
    beside. `largest` is the largest share of a tolerance that was used where all was as expected,
    by PyTorch's way, and where.
    """

    factor: float = 1.0
    room: float = 1.0
    largest: tuple[float, str, str] = (0.0, "", "")
    _kept: dict[Any, Any] = field(default_factory=dict)
    _parts: dict[int, tuple[Way, tuple[object, object, object]]] = field(default_factory=dict)
    _numbers: dict[tuple[object, ...], int] = field(default_factory=dict)

    def failures(self, step: Step, way: Way = PYTORCH) -> Iterator[Failure]:
        """What is not as this way gives it, quantity by quantity; a generator, to stop early."""
        if _is_ambiguous(step, way):
            # The batch normalises in evaluation: by the code of either mode.
            other = replace(way, evaluate=way.train)
            if not any(True for _ in self._failures(step, other)):
                return
        yield from self._failures(step, way)

    def _failures(self, step: Step, way: Way) -> Iterator[Failure]:
        """The same, by one way alone."""
        if step.error is not None:
            if not self._may_raise(step, way):
                yield Failure(step, "error", sentence=_raised(step))
            return
        if step.changed and not way.changes_input:
            yield Failure(step, "input", sentence=f"{' and '.join(step.changed)} was overwritten")
        if step.never_trains and step.configuration.kind == "" and not way.detached:
            names = " and ".join(step.never_trains)
            yield Failure(step, "gradients", sentence=f"autograd gives no {names} in training")
        if way.layout_breaks and step.configuration.layout != "contiguous":
            return
        wanted = self._predicted(step, way)
        if wanted is None:
            yield Failure(step, "output", sentence="it runs, where another shape was expected")
            return
        for quantity in QUANTITIES:
            if quantity in step.found and quantity in wanted:
                found = self._fails(step, way, quantity, wanted[quantity])
                if found is not None:
                    yield found

    def narrower(self) -> Judge:
        """One that allows another formula no more than PyTorch's: it tells similar ones apart."""
        return Judge(self.factor, 1 / SLACK, _kept=self._kept, _parts=self._parts,
                     _numbers=self._numbers)  # fmt: skip

    def without_cause(
        self, step: Step, way: Way, other: Way, failed: Collection[str]
    ) -> set[str] | None:
        """The quantities that still fail by `way`, of those that `failed` by the `other`.

        None where one fails that did not, or that is not the same by both ways: then this is not
        the way that was gone.
        """
        pairs = [
            (self._buffers(step, way), self._buffers(step, other)),
            (self._passed(step, way), self._passed(step, other)),
        ]
        if all(one is two for one, two in pairs):
            return set(failed)
        if step.error is not None or None in (pairs[1][0], pairs[1][1]) or _is_ambiguous(step, way):
            still = {failure.quantity for failure in self.failures(step, way)}
            return still if still <= set(failed) else None
        left = set(failed)
        for one, two in pairs:
            if one is two or one is None or two is None:
                continue
            left.difference_update(two.keys() - one.keys())
            for quantity in step.found.keys() & one.keys():
                same = quantity in two and np.array_equal(
                    one[quantity], two[quantity], equal_nan=True
                )
                if same:
                    continue
                if self._fails(step, way, quantity, one[quantity]) is None:
                    left.discard(quantity)
                elif quantity not in left or self._differ(step, quantity, one, two):
                    return None
        return left

    def explains(self, failure: Failure, way: Way) -> bool:
        """Whether a quantity that failed is as this way has it."""
        step, quantity = failure.step, failure.quantity
        wanted = self._predicted(step, way)
        given = None if wanted is None or _is_ambiguous(step, way) else wanted.get(quantity)
        if given is not None and self._is_exact(step, quantity, given):
            return False
        if step.error is not None or wanted is None or quantity not in wanted:
            return not any(each.key == failure.key for each in self.failures(step, way))
        return self._fails(step, way, quantity, wanted[quantity]) is None

    def _differ(
        self,
        step: Step,
        quantity: str,
        one: Mapping[str, FloatArray],
        two: Mapping[str, FloatArray],
    ) -> bool:
        """Whether two ways give a quantity that is not the same within its tolerance."""
        if quantity not in one or quantity not in two:
            return (quantity in one) != (quantity in two)
        tolerance = self._tolerance(step, quantity, "")
        with np.errstate(all="ignore"):
            apart = Measured.of(
                one[quantity], two[quantity], tolerance.rtol, tolerance.atol, equal_nan=True
            )
        return bool((apart.used > 1).any())

    def _may_raise(self, step: Step, way: Way) -> bool:
        """Whether this is where an implementation may, or this way has to, raise."""
        refusal = isinstance(step.error, ValueError)
        if step.configuration.kind in ("one value", "empty") and refusal:
            return True
        if way.layout_breaks and step.configuration.layout != "contiguous":
            return True
        if "sample" in (way.train.groups, way.evaluate.groups) and prod(step.call.x.shape[2:]) <= 1:
            return True
        if way.other_dtype and isinstance(step.error, ModelError) and KEEPS in str(step.error):
            return True
        return way != PYTORCH and self._predicted(step, way) is None

    def _predicted(self, step: Step, way: Way) -> Mapping[str, FloatArray] | None:
        """As `predicted`; what depends on a part of the way is computed once for that part."""
        found = self._passed(step, way)
        return None if found is None else {**self._buffers(step, way), **found}

    def _buffers(self, step: Step, way: Way) -> Mapping[str, FloatArray]:
        """The buffers; the same object where the ways have the same part in them."""
        found: Mapping[str, FloatArray]
        parts = self._parts_of(way)[0]
        shared = "buffers" if way is PYTORCH else ""
        found = self._once(step, parts, lambda: buffers_after(step, way), shared)
        return found

    def _passed(self, step: Step, way: Way) -> Mapping[str, FloatArray] | None:
        """The output and the gradients, likewise."""
        found: Mapping[str, FloatArray] | None
        found = self._once(
            step,
            self._parts_of(way)[1 if step.call.settings.training else 2],
            lambda: passed(step, way, self._buffers(step, way)),
            "passed" if way is PYTORCH else "",
        )
        return found

    def _parts_of(self, way: Way) -> tuple[object, object, object]:
        """What stands for the part of a way in the buffers, in training and in evaluation.

        Small numbers, as ways are compared and hashed slowly.
        """
        if id(way) not in self._parts:
            buffers = way.update, way.skips_nan, way.empty_spoils
            parts: list[tuple[object, ...]] = [("buffers", *buffers)]
            for forward in (way.train, way.evaluate):
                mine = "passed", forward, way.backward, way.skips_nan
                parts.append((*mine, *buffers) if forward.source == "updated" else mine)
            found = [self._numbers.setdefault(part, len(self._numbers)) for part in parts]
            self._parts[id(way)] = way, (found[0], found[1], found[2])
        return self._parts[id(way)][1]

    def _tolerance(self, step: Step, quantity: str, loss: str) -> Tolerance:
        if step.stats is None:
            return Tolerance(np.zeros(()), np.zeros(()))
        every = self._once(step, loss, lambda: tolerances(step, loss), f"tolerances {loss}")
        zero = np.zeros(())
        found: Tolerance = every.get(quantity, Tolerance(zero, zero))
        return Tolerance(found.rtol * self.factor, found.atol * self.factor)

    def _once(self, step: Step, what: object, make: Callable[[], Any], shared: str = "") -> Any:
        """What is made for a step, kept; that of a first one for every judge, if `shared`."""
        key = id(step), what
        if key not in self._kept:
            kept = _FIRST if shared and step.number == 0 else {}
            first = step.configuration, shared
            if first not in kept:
                kept[first] = make()
            self._kept[key] = kept[first]
        return self._kept[key]

    def _fails(self, step: Step, way: Way, quantity: str, wanted: FloatArray) -> Failure | None:
        """How one quantity fails, None where it does not, or is not judged."""
        if step.configuration.kind == "one value" and (
            quantity != "output" or way.one_value_is_nan
        ):
            return None  # there is no unbiased variance, and no answer that all agree on
        return self._failure(step, way, quantity, wanted)

    def _failure(self, step: Step, way: Way, quantity: str, wanted: FloatArray) -> Failure | None:
        """How one quantity fails, None where it does not."""
        actual = np.asarray(step.found[quantity])
        if actual.shape != wanted.shape:
            return Failure(
                step, quantity, sentence=f"shape {list(actual.shape)}, not {list(wanted.shape)}"
            )
        if not actual.size:
            return None
        worst = self._measured(step, way, quantity, actual, wanted)
        if worst is not None and quantity in GRADIENTS and way.backward == PYTORCH.backward:
            # The gradient may be written down by itself, and be right.
            exact = self._predicted(step, PYTORCH)
            if way != PYTORCH and exact is not None and quantity in exact:
                other = self._measured(step, way, quantity, actual, exact[quantity])
                worst = None if other is None else worst
        return worst

    def _is_exact(self, step: Step, quantity: str, wanted: FloatArray) -> bool:
        """Whether a way gives for a quantity what PyTorch's way gives."""
        exact = (self._predicted(step, PYTORCH) or {}).get(quantity)
        return exact is not None and np.array_equal(exact, wanted, equal_nan=True)

    def _measured(
        self, step: Step, way: Way, quantity: str, actual: NDArray[Any], wanted: FloatArray
    ) -> Failure | None:
        """The element that is furthest off, None where all are within the tolerance."""
        call = step.call
        dtype = call.dtype if quantity in LIKE_INPUT else call.parameter_dtype
        tolerance = self._tolerance(step, quantity, way.loss)
        if quantity != "num_batches_tracked":
            if way != PYTORCH and not self._is_exact(step, quantity, wanted):
                tolerance = widened(tolerance, wanted, step, self.room)
            wanted = overflowed(wanted, dtype)
            actual = overflowed(actual.astype(np.float64), dtype)
        actual = _excused(step, way, quantity, actual, wanted)
        extreme = way != PYTORCH and step.configuration.is_extreme
        if extreme and not self._is_exact(step, quantity, wanted):
            # The other formula may leave float32; what it leaves as it is may not.
            actual = np.where(np.isfinite(actual), actual, wanted)
        with np.errstate(all="ignore"):
            found = Measured.of(wanted, actual, tolerance.rtol, tolerance.atol, equal_nan=True)
        worst = int(found.used.argmax())
        used = float(found.used.flat[worst])
        where = tuple(int(place) for place in np.unravel_index(worst, found.used.shape))
        if used <= 1:
            if way == PYTORCH and used > self.largest[0]:
                self.largest = (used, step.place, quantity)
            return None
        with np.errstate(all="ignore"):
            allowed = float((found.atol + found.rtol * np.abs(found.expected)).flat[worst])
        return Failure(
            step,
            quantity,
            where,
            float(actual.flat[worst]),
            float(wanted.flat[worst]),
            allowed,
            used,
        )


def _is_ambiguous(step: Step, way: Way) -> bool:
    """Whether the batch normalises in evaluation, which the code of either mode may do."""
    settings = step.call.settings
    return way.train != way.evaluate and settings.normalizes_with_batch > settings.training


def concerns(way: Way, step: Step) -> bool:
    """Whether a way that is no other formula may allow for something in a step."""
    kind = step.configuration.kind
    return bool(
        (way.spreads and kind in ("nan", "inf"))
        or (way.empty_spoils and kind == "empty")
        or (way.one_value_is_nan and kind == "one value")
        or (way.changes_input and step.changed)
        or (way.detached and step.never_trains)
        or (way.other_dtype and step.error is not None)
        or (way.layout_breaks and step.configuration.layout != "contiguous")
        or way.loss
    )


def is_far(step: Step) -> bool:
    """Whether a mean is so far from 0 that a one-pass variance loses its digits."""
    return abs(step.configuration.mean) > 100 and step.call.settings.normalizes_with_batch


def _excused(
    step: Step, way: Way, quantity: str, actual: NDArray[Any], wanted: FloatArray
) -> NDArray[Any]:
    """`actual`, with the wanted value for each one that is as good as it."""
    kind = step.configuration.kind
    good = np.zeros(actual.shape, bool)
    channel = (slice(None), 1) if quantity in LIKE_INPUT else (1,)
    if quantity == "num_batches_tracked":
        return actual
    if kind in ("nan", "inf"):
        good |= ~np.isfinite(actual) & ~np.isfinite(wanted)  # which, the order of steps decides
        if way.spreads:
            good |= ~np.isfinite(actual)
    elif kind == "overflow":
        limit = np.zeros(actual.shape)
        if quantity == "output" and step.call.bias is not None:
            limit[channel] = step.call.bias[1]
        lost = ~np.isfinite(actual)
        lost |= np.abs(actual - limit) <= 2 * DTYPES[step.call.dtype].unit_roundoff * np.abs(limit)
        good[channel] = lost[channel]
    if quantity == "grad_input" and _slope_overflows(step):
        good |= ~np.isfinite(actual)
    if way.empty_spoils and step.stats is None:
        good |= ~np.isfinite(actual)
    if way.loss == ONE_PASS and is_far(step):
        good |= np.isnan(actual) & np.isfinite(wanted)  # the root of a negative variance
    return np.where(good, wanted, actual)


def _slope_overflows(step: Step) -> bool:
    """Whether the derivative of 1 / sqrt(var + eps) is too large for float32, or nearly so.

    Autograd computes it by itself, as -0.5 * invstd**3, where a gradient written down has no need.
    """
    call, stats = step.call, step.stats
    if stats is None or call.dtype == "float64" or not call.settings.normalizes_with_batch:
        return False
    with np.errstate(all="ignore"):
        slope = 0.5 * (stats.var + call.settings.eps) ** -1.5
    return bool(16 * np.nanmax(slope, initial=0.0) > DTYPES["float32"].largest)


def _raised(step: Step) -> str:
    """What was raised."""
    mode = "training" if step.call.settings.training else "evaluation"
    return f"{mode} raised {told(step.error)}"
