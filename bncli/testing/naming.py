"""Which causes explain what went wrong: the fewest with which every step is as predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from time import thread_time
from typing import TYPE_CHECKING

from bncli.backends.interface import QUANTITIES
from bncli.light import dataclass, np
from bncli.testing.allowed import ONE_PASS, arithmetic_of
from bncli.testing.causes import IN_EVAL, IN_TRAINING, Cause, every_cause
from bncli.testing.judging import Failure, Judge, concerns, is_far
from bncli.testing.ways import PYTORCH, Way

if TYPE_CHECKING:
    from bncli.testing.runs import Step

AREAS = {
    "output": ("train", "evaluate"),
    "running_mean": ("update",),
    "running_var": ("update",),
    "num_batches_tracked": ("update",),
    "grad_input": ("backward", "train", "evaluate"),
    "grad_weight": ("backward", "train", "evaluate"),
    "grad_bias": ("backward", "train", "evaluate"),
}
"""Which parts of a way make a quantity."""

MOST_ALIKE = 3
"""Causes that explain the same, and are named as alternatives."""

PROBES = 3
"""Failures that are asked first whether a formula explains them."""

SECONDS = 2.0
"""Of computing, after which no more pairs of causes are tried."""

Key = tuple[str, int, str]
"""A configuration's name, a step and a quantity."""


@dataclass(frozen=True, slots=True)
class Named:
    """A cause and the failures that it explains."""

    cause: Cause
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The causes that were found, and the failures that none of them explains.

    `alike` counts causes that explain all of these, where they are too many to be named.
    """

    named: tuple[Named, ...]
    unexplained: tuple[Failure, ...]
    alike: int = 0


def explain(judge: Judge, steps: Sequence[Step], failures: Sequence[Failure]) -> Explanation:
    """The causes of these failures among the steps of one implementation."""
    search = _Search(judge, tuple(steps), tuple(failures))
    causes = [cause for cause in every_cause() if _may_be(cause, steps)]
    whole = [cause for cause in causes if search.explains_all((cause,))]
    whole = [cause for cause in whole if not cause.is_wide] or whole
    if whole:
        one = _one_of(whole, lambda cause: search.narrower().explains_all((cause,)))
        named = () if one is None else (Named(one, tuple(failures)),)
        return Explanation(named, () if named else tuple(failures), alike=len(whole))
    found = search.partly(causes)
    if found.unexplained:
        until = thread_time() + SECONDS
        tried = takewhile(lambda _pair: thread_time() < until, search.pairs(causes))
        pairs = [pair for pair in tried if search.explains_all(pair)]
        words = {frozenset(cause.words for cause in pair) for pair in pairs}
        if len(words) == 1:
            return Explanation(search.shared(pairs[0]), ())
    return found


UNSTEADY = Cause(
    "the same input gives other numbers each time",
    "Draw no random numbers, and read no memory that was not written.",
    {},
)


def explain_with(
    again: Callable[[Step], Step | None],
    judge: Judge,
    steps: Sequence[Step],
    failures: Sequence[Failure],
) -> Explanation:
    """As `explain`; what is not the same when a step is run `again` is said, and not explained."""
    first = {failure.quantity: failure for failure in reversed(failures) if not failure.sentence}
    unsteady = {
        quantity for quantity, failure in first.items() if _changes(failure, again(failure.step))
    }
    if not unsteady:
        return explain(judge, steps, failures)
    mine = tuple(failure for failure in failures if failure.quantity in unsteady)
    others = [failure for failure in failures if failure.quantity not in unsteady]
    # What comes of such numbers, as grad_input of such a mean, is not explained either.
    return Explanation((Named(UNSTEADY, mine),), tuple(others))


def _changes(failure: Failure, again: Step | None) -> bool:
    """Whether a second run gives other numbers, by about as much as the first was off."""
    if again is None or failure.quantity not in again.found:
        return False
    one, two = (np.asarray(step.found[failure.quantity]) for step in (failure.step, again))
    if one.shape != two.shape or not np.isfinite([failure.actual, failure.expected]).all():
        return False
    with np.errstate(all="ignore"):
        apart = np.abs(one.astype(np.float64) - two)
    off = abs(failure.actual - failure.expected)
    return bool((apart > max(failure.tolerance, 0.1 * off)).any())


def _may_be(cause: Cause, steps: Sequence[Step]) -> bool:
    """Whether what a cause speaks of is there: a counter, or an argument that was overwritten."""
    if "changes_input" in cause.changes:
        return any(step.changed for step in steps)
    if "detached" in cause.changes:
        return any(step.never_trains for step in steps)
    if cause.changes.get("update.counted", "training") != "training":
        return any("num_batches_tracked" in step.found for step in steps)
    return True


def _near(
    causes: Iterable[Cause], quantities: Iterable[str], *, beside: bool = False
) -> list[Cause]:
    """The formulas that make some of these quantities, and with `beside` what is no formula."""
    areas = tuple(area for name in quantities for area in AREAS.get(name, ()))
    return [
        cause
        for cause in causes
        if any(path.startswith(areas) for path in cause.changes)
        or (beside and ("skips_nan" in cause.changes or not cause.is_formula))
    ]


def _one_of(causes: Sequence[Cause], is_nearer: Callable[[Cause], bool]) -> Cause | None:
    """The one cause among several that explain the same, or a few as alternatives.

    Those that are nearer come before others. None where there are too many to be said.
    """
    if len({cause.words for cause in causes}) > 1:
        causes = [cause for cause in causes if is_nearer(cause)] or causes
    known = {cause.words for cause in causes}
    alike: dict[str, Cause] = {}
    for cause in causes:
        in_any_mode = cause.words.replace(IN_TRAINING, "").replace(IN_EVAL, "")
        if in_any_mode == cause.words or in_any_mode not in known:
            alike.setdefault(cause.words, cause)
    if len(alike) == 1 or causes[0].is_wide:  # which lose fewer digits, the first
        return causes[0]
    if len(alike) > MOST_ALIKE:
        return None
    fixes = dict.fromkeys(cause.fix for cause in alike.values())
    return Cause(", or ".join(alike), " Or: ".join(fixes), {})


@dataclass(frozen=True, slots=True)
class _Search:
    """The steps and failures that are to be explained."""

    judge: Judge
    steps: tuple[Step, ...]
    failures: tuple[Failure, ...]

    def narrower(self) -> _Search:
        """The same with less room for other formulas."""
        return _Search(self.judge.narrower(), self.steps, self.failures)

    def way(self, causes: Iterable[Cause]) -> Way | None:
        """The way of several causes together; None where they change the same."""
        seen: dict[str, object] = {}
        for cause in causes:
            if seen.keys() & cause.changes.keys():
                return None
            seen |= cause.changes
        return PYTORCH.changed(seen)

    def explains_all(self, causes: Sequence[Cause]) -> bool:
        """Whether every step is as these causes have it; those that failed are asked first."""
        way = self.way(causes)
        if way is None:
            return False
        if not all(self._is_lost(cause) for cause in causes):
            return False
        if all(cause.is_formula for cause in causes) and not all(
            self.judge.explains(failure, way) for failure in self._spread(PROBES)
        ):
            return False
        first = list(dict.fromkeys(failure.step.place for failure in self.failures))
        order = sorted(self.steps, key=lambda step: step.place not in first)
        return not any(True for step in order for _ in self.judge.failures(step, way))

    def _spread(self, number: int) -> list[Failure]:
        """A few failures, far from each other; a wrong formula soon shows in them."""
        step = max(1, len(self.failures) // number)
        return list(self.failures[::step])

    def _is_lost(self, cause: Cause) -> bool:
        """Whether digits are missing in most outputs, where a cause says that a dtype loses them.

        What is off in a few places, or in the buffers alone, may be near by chance.
        """
        loss = cause.changes.get("loss", ONE_PASS)
        if loss == ONE_PASS:
            return True
        failed = {f.step.place for f in self.failures if f.quantity in ("output", "error")}
        plain = [
            step
            for step in self.steps
            if step.stats is not None
            and not step.configuration.is_extreme
            and arithmetic_of(step, loss).u > arithmetic_of(step).u
        ]
        return 2 * sum(step.place in failed for step in plain) > len(plain)

    def pairs(self, causes: Sequence[Cause]) -> Iterator[tuple[Cause, Cause]]:
        """Two causes at a time, of which at least one alone mends something."""
        near = _near(causes, {failure.quantity for failure in self.failures})
        helpful = [cause for cause in near if self._helps(cause)]
        for first in helpful:
            for second in near:
                if second not in helpful or helpful.index(first) < helpful.index(second):
                    yield first, second

    def _helps(self, cause: Cause) -> bool:
        """Whether it explains one of a few failures of each quantity."""
        way = PYTORCH.changed(cause.changes)
        by_quantity: dict[str, list[Failure]] = {}
        for failure in self.failures:
            by_quantity.setdefault(failure.quantity, []).append(failure)
        return any(
            self.judge.explains(failure, way)
            for same in by_quantity.values()
            for failure in same[:: max(1, len(same) // 5)]
        )

    def shared(self, causes: Sequence[Cause]) -> tuple[Named, ...]:
        """Each of several causes with the failures that are not there without it."""
        named = []
        for cause in causes:
            others = self.way([other for other in causes if other is not cause])
            assert others is not None
            left = {
                failure.key for step in self.steps for failure in self.judge.failures(step, others)
            }
            mine = tuple(failure for failure in self.failures if failure.key in left)
            named.append(Named(cause, mine or self.failures))
        return tuple(named)

    def partly(self, causes: Sequence[Cause]) -> Explanation:
        """Causes that are right wherever they matter, each in the place of some failures.

        Those that allow for much come last, and count where they explain all that is left.
        """
        chosen: list[Cause] = []
        named = []
        left = {failure.key for failure in self.failures}
        several = len({step.configuration.name for step in self.steps}) > 1
        for wide in (False, True):
            while left:
                best: list[Cause] = []
                least = left
                quantities = {quantity for _, _, quantity in left}
                for cause in _near(causes, quantities, beside=True):
                    if cause.is_wide != wide:
                        continue
                    still = self._left([*chosen, cause], chosen, left)
                    if still is None or len(still) > len(least) or still == left:
                        continue
                    enough = len({name for name, _, _ in left - still}) > 1 or not several
                    if (enough or not cause.is_formula) and not (
                        wide and self._has_more(cause, still)
                    ):
                        best = [*best, cause] if still == least else [cause]
                        least = still
                one = self._named(best, chosen, left)
                if one is None:
                    break
                gone = left - least
                chosen.append(best[0])
                named.append(Named(one, tuple(f for f in self.failures if f.key in gone)))
                left = least
        rest = tuple(failure for failure in self.failures if failure.key in left)
        return Explanation(tuple(named), rest)

    def _named(
        self, alike: Sequence[Cause], chosen: Sequence[Cause], left: set[Key]
    ) -> Cause | None:
        """The one of the causes that explain the same beside those chosen; None for no such."""
        near = self.narrower()

        def is_nearer(cause: Cause) -> bool:
            still = near._left([*chosen, cause], chosen, left)  # noqa: SLF001  # of its own class
            return still is not None and still < left

        return _one_of(alike, is_nearer) if alike else None

    def _has_more(self, cause: Cause, still: set[Key]) -> bool:
        """Whether it fails in usual configurations, or where a wide cause would show."""
        for step in self.steps:
            configuration = step.configuration
            numbers = any((*step.key, quantity) in still for quantity in (*QUANTITIES, "error"))
            usual = configuration.kind == "" and not is_far(step)
            inside = (
                is_far(step) if "loss" in cause.changes else configuration.layout != "contiguous"
            )
            if numbers and (usual or inside):
                return True
        return False

    def _left(
        self, causes: Sequence[Cause], before: Sequence[Cause], failed: set[Key]
    ) -> set[Key] | None:
        """What still fails with these causes, of what `failed` with those `before`.

        None where something fails that did not before, or is not as the last cause has it though
        that changes it.
        """
        way, without = self.way(causes), self.way(before)
        if way is None or without is None or not self._is_lost(causes[-1]):
            return None
        by_step: dict[tuple[str, int], set[str]] = {}
        for name, number, quantity in failed:
            by_step.setdefault((name, number), set()).add(quantity)
        still: set[Key] = set()
        # What did not fail before soon shows a wrong cause.
        for step in sorted(self.steps, key=lambda step: step.key in by_step):
            quantities = by_step.get(step.key, set())
            last = causes[-1]
            if last.is_formula:
                found = self.judge.without_cause(step, way, without, quantities)
            elif quantities and concerns(way, step):
                found = {failure.quantity for failure in self.judge.failures(step, way)}
            else:
                found = quantities
            if found is None or not found <= quantities:
                return None
            still |= {(*step.key, quantity) for quantity in found}
        return still
