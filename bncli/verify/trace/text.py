"""Formulas with numbers put in: `(1 + 2 + 3 + ... + 12) / 8 = 6.5`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bncli.verify.trace.channel import ChannelView

FIRST, LAST = 3, 1
"""The terms of a long sum that are written out; of squares and products, which are long, one less
comes first."""

MOST_TERMS = 5
"""Terms of a sum that is written out in full."""

MOST_LISTED = 12
"""Values that are listed in full."""

DIGITS, RESULT_DIGITS, MOST_DIGITS = 6, 7, 17
"""Significant digits of a number and of a result, and of a float64; a term of a sum has one less
than a number."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the numbers of one channel with `digits` significant digits.

    `values` are the channel's first and last, or all of them where they are few (`whole`).
    """

    digits: int
    values: tuple[float, ...]
    whole: bool

    @classmethod
    def of(cls, view: ChannelView, mean: float, var: float) -> Writer:
        """A writer with as many digits as it takes to tell the values from their mean."""
        whole = view.count <= MOST_LISTED
        if whole:
            first, last = view.read(0, view.count), view.read(0, 0)
        else:
            first, last = view.read(0, FIRST), view.read(view.count - LAST, view.count)
        lost = 0.0
        if 0 < var < math.inf and 0 < abs(mean) < math.inf:
            lost = max(math.log10(abs(mean)) - math.log10(var) / 2, 0.0)
        digits = min(DIGITS + math.floor(lost), MOST_DIGITS)
        return cls(digits, (*first.tolist(), *last.tolist()), whole)

    def number(self, value: float) -> str:
        """A factor or an addend: "6.5"."""
        return f"{value:.{self.digits}g}"

    def term(self, value: float) -> str:
        """A term of a sum over the channel: "6.5"."""
        return f"{value:.{self.digits - 1}g}"

    def result(self, value: float) -> str:
        """What comes out: "19.71429"."""
        return f"{value:.{max(self.digits, RESULT_DIGITS)}g}"

    def equation(self, made_of: str, value: float) -> str:
        """`made_of = value`."""
        return f"{made_of} = {self.result(value)}"

    def listed(self) -> str:
        """The channel's values: "1, 2, 3, ..., 12"."""
        terms = [self.number(value) for value in self.values]
        return ", ".join(terms if self.whole else self._shortened(terms))

    def summed(self) -> str:
        """The sum of the values: "1 - 2 + 3 + ... + 12"."""
        return _added(self._shortened([self.term(value) for value in self.values]))

    def summed_squares(self, deviation: Callable[[float], float]) -> str:
        """The sum of the squares of what `deviation` makes of each value."""
        terms = [squared(self.term(deviation(value))) for value in self.values]
        return " + ".join(self._shortened(terms, FIRST - 1))

    def summed_products(self, others: Sequence[float]) -> str:
        """The sum of products of `others` and the values: "2 * 1 + 1 * -2 + ...".

        `others` belong to the values written out.
        """
        terms = [
            f"{self.term(other)} * {self.term(value)}"
            for other, value in zip(others, self.values, strict=True)
        ]
        return " + ".join(self._shortened(terms, FIRST - 1))

    def _shortened(self, terms: list[str], first: int = FIRST) -> list[str]:
        """The first and the last of many terms."""
        if self.whole and len(terms) <= MOST_TERMS:
            return terms
        return [*terms[:first], "...", *terms[-LAST:]]


def squared(text: str) -> str:
    """`5.5^2`, or `(-5.5)^2`."""
    return f"({text})^2" if text.startswith("-") else f"{text}^2"


def _added(terms: list[str]) -> str:
    """The terms with a plus between them, or the minus that one begins with."""
    text = terms[0]
    for term in terms[1:]:
        text += f" - {term[1:]}" if term.startswith("-") else f" + {term}"
    return text
