"""What a rule is: a code that stays, what it means, how bad it is, and how to tell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.report import Certainty, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bncli.report import Member, Value


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of finding. `code` is a promise to scripts.

    `summary` is the claim in a line, without a full stop, and `hint` the fix. `sure` is how sure
    a finding is if the case does not say, and `less_sure` what it is in other cases. `milder` is
    the severity in some cases, if there are any.

    The rest is what `bncli rules CODE` explains: the `symptom` that a person sees, the
    `arithmetic` that shows it, how sure the rule is (`certainty`), what it is not to be confused
    with (`lookalike`), and the public threads in which it was `seen`, if there are any.
    `formerly` names the codes under which some of its findings were reported before the rule was
    made: what selects, ignores or excuses one of those covers these findings too.
    """

    code: str
    name: str
    severity: Severity
    summary: str
    hint: str
    symptom: str = ""
    arithmetic: str = ""
    certainty: str = ""
    lookalike: str = ""
    seen: tuple[str, ...] = ()
    formerly: tuple[str, ...] = ()
    sure: Certainty = Certainty.CERTAIN
    less_sure: tuple[Certainty, ...] = ()
    milder: Severity | None = None

    @property
    def how_bad(self) -> str:
        """The severities of its findings: "warning or note"."""
        return f"{self.severity.label}{f' or {self.milder.label}' if self.milder else ''}"

    @property
    def how_sure(self) -> str:
        """How sure its findings are: "certain or likely", "certain, or depends on ..."."""
        *others, last = (each.value for each in (self.sure, *self.less_sure))
        comma = "," * (last == Certainty.ASSUMED)
        return f"{', '.join(others)}{comma} or {last}" if others else last

    def finding(
        self,
        subject: str,
        message: str,
        evidence: Mapping[str, Value],
        *,
        detail: str = "",
        hint: str = "",
        severity: Severity | None = None,
        sure: Certainty | None = None,
        extent: tuple[Member, ...] = (),
        places: tuple[str, ...] = (),
    ) -> Finding:
        """A finding of this kind at `subject`: the claim `message`, and `detail` that supports it.

        The hint, the severity and how sure it is are the rule's own unless the case has one; what
        rests on an assumed eps or momentum, as its evidence says, depends on an assumption.
        """
        if sure is None:
            assumed = evidence.get("eps_assumed") or evidence.get("momentum_assumed")
            sure = Certainty.ASSUMED if assumed else self.sure
        return Finding(
            self.code,
            severity or self.severity,
            subject,
            message,
            evidence,
            hint or self.hint,
            extent=extent,
            places=places,
            claim=self.summary,
            detail=detail,
            certainty=sure,
        )


def name_channels(channels: Sequence[int] | NDArray[Any], total: int | None = None) -> str:
    """Channels as a person lists them: "channels 0, 1, 2 and 61 more".

    "all 64 channels" if that is all of `total`, and more than one.
    """
    if total is not None and total > 1 and len(channels) == total:
        return f"all {total} channels"
    if len(channels) == 1:
        return f"channel {channels[0]}"
    if len(channels) <= 4:
        return f"channels {', '.join(map(str, channels[:-1]))} and {channels[-1]}"
    return f"channels {', '.join(map(str, channels[:3]))} and {len(channels) - 3} more"


def examples(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are: "a, b and c", "a, b, c and 2 more"."""
    said = [in_prose(name) for name in names[:most]]
    more = len(names) - most
    last = f"{more} more" if more > 0 else said.pop()
    return f"{', '.join(said)} and {last}" if said else last


def in_prose(name: str) -> str:
    """A name as a sentence holds it: in quotes if it reads as a number, such as '70.1'."""
    return f"'{name}'" if name.replace(".", "").isdecimal() else name


def times(ratio: float) -> str:
    """A ratio as a person reads it, before the quantity that it multiplies."""
    return f"{ratio:.3g} times" if math.isfinite(ratio) else "infinitely many times"


def percent(share: float) -> str:
    """A share as a person reads it: "59%", and "99.8%" of what is nearly whole."""
    return f"{100 * share:.{2 if abs(share) < 0.99 else 4}g}%"


def span(values: NDArray[Any], spec: str = ".4g") -> str:
    """The range of some values as a sentence names it: "0.5", or "0.5 to 2"."""
    low, high = (format(float(value) + 0.0, spec) for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def odd_values(values: NDArray[Any], odd: NDArray[Any]) -> str:
    """Values of shape (C,) in the channels of a mask: where they are NaN, Inf, or in a range.

    "NaN in channel 0, -2 to -1 in channels 2 and 3".
    """
    kinds = (
        ("NaN", np.isnan(values)),
        ("inf", values == np.inf),
        ("-inf", values == -np.inf),
        ("", np.isfinite(values)),
    )
    said = []
    for what, these in kinds:
        here = these & odd
        if here.any():
            channels = name_channels(np.flatnonzero(here).tolist())
            said.append(f"{what or span(values[here], '.6g')} in {channels}")
    return ", ".join(said)


MOST_CLAIMED = 90
"""How long a claim with its numbers gets at most, where part of it can be told as a detail."""

MOST_EVIDENCE = 1024
"""How many channels a finding's evidence lists at most."""

MOST_RUNS = 1000
"""How many runs of channels an extent lists; more are told apart by a digest, so that any change of
them is new."""


def channel_extent(what: str, channels: NDArray[Any]) -> tuple[Member, ...]:
    """The channels of a mask, shape (C,), as members of an extent; `what` says what is wrong."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], channels.ravel().astype(np.int8), [0]))))
    if len(edges) > 2 * MOST_RUNS:
        import hashlib

        digest = hashlib.sha256(np.packbits(channels).tobytes()).hexdigest()[:16]
        return (f"{what} in {int(channels.sum())} channels {digest}",)
    runs = edges.reshape(-1, 2).tolist()
    return tuple((what, first, last - 1) for first, last in runs)
