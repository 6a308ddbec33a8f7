"""An answer in words: what it is, what the expected way would leave, and what is in doubt."""

from __future__ import annotations

import math

from bncli.light import dataclass


@dataclass(frozen=True, slots=True)
class Said:
    """An answer in three clauses without a full stop, of which the last two may be "".

    `claim` says what it is, `contrast` what the expected way would have left, and `doubt` what
    else fits and what would decide.
    """

    claim: str
    contrast: str = ""
    doubt: str = ""

    @property
    def text(self) -> str:
        """The clauses as sentences."""
        first = "; ".join(filter(None, (self.claim, self.contrast)))
        if first.startswith(("none ", "nothing ", "the ", "this ")):
            first = first[0].upper() + first[1:]
        return " ".join(f"{sentence}." for sentence in (first, self.doubt) if sentence)


def apart(difference: float) -> str:
    """What a quantity would be under another hypothesis: "be off by 0.1"."""
    return f"be off by {difference:.2g}" if math.isfinite(difference) else "be NaN or infinite"
