"""What `check_batchnorm` says: a summary where all is well, or what is wrong, where and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import floor, log10
from typing import TYPE_CHECKING

from bncli.light import dataclass

if TYPE_CHECKING:
    from bncli.testing.judging import Failure
    from bncli.testing.naming import Explanation, Named

SHOWN = 3
"""Configurations that are listed for a cause, and failures that no cause explains."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How an implementation was judged; `print` shows it.

    `judged` counts configurations, `skipped` has the reason by the name of each that was not, and
    `moved` counts those that were judged with another number of axes. `without` has
    the quantities that the implementation does not give: in how many configurations, and of how
    many with values. `most_used` is the largest share of a tolerance that was used, 1 being all of
    it, with the configuration and the quantity.
    """

    name: str
    judged: int
    skipped: Mapping[str, str]
    moved: int
    without: Mapping[str, tuple[int, int]]
    tolerance_factor: float
    most_used: tuple[float, str, str]

    def __str__(self) -> str:
        """A few lines for people."""
        lines = [f"{self.name} is BatchNorm in {_counted(self.judged, 'configuration')}."]
        share, place, quantity = self.most_used
        if place:
            factor = f" (times {self.tolerance_factor:g})" if self.tolerance_factor != 1 else ""
            lines.append(
                f"It uses at most {share:.0%} of a tolerance{factor}: {quantity} in {place}."
            )
        return "\n".join([*lines, *self.left_out])

    @property
    def left_out(self) -> list[str]:
        """What was not judged, a line each."""
        lines = [
            f"Skipped {_counted(count, 'configuration')}: {reason}."
            for reason, count in Counter(self.skipped.values()).most_common()
        ]
        if self.moved:
            configurations = _counted(self.moved, "configuration")
            lines.append(f"{configurations} ran with another number of axes than usual.")
        never = [quantity for quantity, (number, of) in self.without.items() if number == of]
        if never:
            lines.append(f"Not judged, as it gives none: {', '.join(never)}.")
        for quantity, (number, of) in self.without.items():
            if number < of:
                lines.append(
                    f"{quantity} is not judged in {number} of {of}: it is not given there."
                )
        return lines


class BatchNormMismatch(AssertionError):  # noqa: N818  # what it says is no error of bncli's
    """An implementation is not BatchNorm; the message names the difference.

    `causes` are the names of what explains it, in words, empty where nothing does; `unexplained`
    are the failures beside. `summary` says how it was judged.
    """

    def __init__(
        self,
        summary: Summary,
        found: Explanation,
        failures: Sequence[Failure],
        hint: str = "",
    ) -> None:
        self.summary = summary
        self.causes = tuple(named.cause.words for named in found.named)
        self.failures = tuple(failures)
        self.unexplained = found.unexplained
        super().__init__(_text(summary, found, failures) + hint)


def _text(summary: Summary, found: Explanation, failures: Sequence[Failure]) -> str:
    """The message: the causes with what shows them, what remains, and what was not judged."""
    if not summary.judged:
        return "\n".join([f"{summary.name} ran in no configuration.", *summary.left_out])
    failed = len({failure.step.configuration.name for failure in failures})
    of = _counted(summary.judged, "configuration")
    lines = [f"{summary.name} is not BatchNorm in {failed} of {of}:"]
    for named in found.named:
        lines += ["", f"  {named.cause.words}", *_evidence(named)]
    if found.unexplained:
        heading = "and beside that:" if found.named else "what no known cause explains:"
        if found.alike:
            heading = f"what {found.alike} causes explain alike, in too few numbers to tell:"
        lines += ["", f"  {heading}", *_plain(found.unexplained)]
    left_out = summary.left_out
    return "\n".join([*lines, *([""] if left_out else []), *left_out])


def _evidence(named: Named) -> list[str]:
    """The largest failure that a cause explains, where it shows, and the fix."""
    numbers = [failure for failure in named.failures if not failure.sentence]
    worst = max(numbers or named.failures, key=_badness)
    return [
        f"    {_told(worst)}",
        f"    seen in {_places(named.failures)}",
        f"    fix: {named.cause.fix}",
    ]


def _badness(failure: Failure) -> tuple[bool, bool, bool, float]:
    """A key that sorts last what says most: a finite difference, of usual numbers, in float32."""
    configuration = failure.step.configuration
    apart = abs(failure.actual - failure.expected)
    size = apart / max(abs(failure.expected), 1e-30)
    return (
        apart < float("inf"),
        not configuration.is_extreme,
        configuration.dtype == "float32",
        size if apart < float("inf") else failure.used,
    )


def _plain(failures: Sequence[Failure]) -> list[str]:
    """The worst failure of each quantity, and how many there are beside."""
    by_quantity: dict[str, list[Failure]] = {}
    for failure in failures:
        by_quantity.setdefault(failure.quantity, []).append(failure)
    lines = []
    for same in by_quantity.values():
        worst = max(same, key=_badness)
        lines += [f"    {_told(worst)}", f"      seen in {_places(same)}"]
    return lines


def _told(failure: Failure) -> str:
    """One failure: the quantity and the place, the two values, and the tolerance."""
    place = failure.step.place
    if failure.sentence:
        return f"{place}: {failure.sentence}"
    at = list(failure.index)
    where = f"{failure.quantity}{at}" if len(at) != 1 else f"{failure.quantity}, channel {at[0]},"
    if failure.quantity == "num_batches_tracked":
        return (
            f"num_batches_tracked is {failure.actual:.0f} in {place}, but {failure.expected:.0f} "
            "was expected"
        )
    apart = abs(failure.actual - failure.expected)
    if not apart < float("inf"):
        return f"{where} is {failure.actual:g} in {place}, but {failure.expected:g} was expected"
    share = apart / max(abs(failure.actual), abs(failure.expected))
    digits = min(max(3, 2 - floor(log10(share))), 17)  # the difference is to be seen
    return (
        f"{where} is {failure.actual:.{digits}g} in {place}, but {failure.expected:.{digits}g} was "
        f"expected: {apart:.2g} apart, {failure.tolerance:.2g} is allowed"
    )


def _places(failures: Sequence[Failure]) -> str:
    """The configurations of some failures: the first few, and how many more."""
    names = list(dict.fromkeys(failure.step.configuration.name for failure in failures))
    shown, more = names[:SHOWN], len(names) - SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
