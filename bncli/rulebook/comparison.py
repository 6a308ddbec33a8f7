"""BN9xx: what a comparison against another implementation shows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.interface import (
    MOST_EVIDENCE,
    Rule,
    channel_extent,
    examples,
    name_channels,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.model import ChannelCloseness, Closeness
    from bncli.report import Member, Value

DIFFERS = Rule(
    "BN901",
    "differs",
    Severity.ERROR,
    "values differ by more than the tolerance",
    "Compare eps, momentum, the variance (biased or unbiased) and each channel's weight and bias.",
    symptom="A port, a fused kernel or a converted file does not give the same numbers.",
    arithmetic="|actual - expected| exceeds a tolerance that follows from the number of values, "
    "the dtype and the order of additions; the finding says by what factor. A constant ratio of "
    "n/(n - 1) in running_var means that one side has the unbiased variance and the other the "
    "biased one; a factor that differs from channel to channel comes from eps, weight or a "
    "permutation.",
    certainty="Certain. The derived tolerances allow for all rounding, so rounding is not the "
    "cause of what exceeds them. Likely where a cause is named and others fit as well: with the "
    "statistics of a new layer, several mistakes give the same numbers. --rtol and --atol replace "
    "the derived tolerances; where your tolerance is narrower and the derived one is kept, the "
    "finding says that rounding explains the difference.",
    lookalike="Rounding, where your own tolerance does not allow for it. Digits that both sides "
    "lose on ill-conditioned input are BN002 or BN902.",
    seen=("microsoft/onnxruntime#26584", "pytorch/pytorch#60528", "ml-explore/mlx#3817"),
    less_sure=(Certainty.LIKELY,),
)

LOST_DIGITS = Rule(
    "BN902",
    "lost-digits",
    Severity.WARNING,
    "the other implementation loses digits on this input, within its tolerance",
    "Subtract a constant from the input, or compare in float64.",
    symptom="The other implementation passes within its tolerance, yet only its first few digits "
    "are correct.",
    arithmetic="The output's tolerance, which follows from the implementation's arithmetic, is "
    "above a thousandth of the size of weight and bias, and so is the difference from the exact "
    "values.",
    certainty="Certain: bncli's values are exact to about 1e-12.",
    lookalike="A difference that the arithmetic does not explain is BN901.",
    seen=("pytorch/pytorch#40302", "tenstorrent/tt-metal#45968"),
)

NOT_COMPARED = Rule(
    "BN903",
    "not-compared",
    Severity.ERROR,
    "tensors have no counterpart to compare them with",
    "Compare files with the same names, or name one tensor of each as FILE::NAME.",
    symptom="Two exports of one network that should hold the same tensors do not.",
    arithmetic="A name is on one side only, or the two tensors of that name have different shapes, "
    "or one of them holds no numbers to compare. Nothing is broadcast.",
    certainty="Certain.",
    lookalike="If the names differ only by a prefix, it is the same network: give that side as "
    "FILE::PREFIX.",
)

MADE_OTHERWISE = Rule(
    "BN904",
    "made-otherwise",
    Severity.WARNING,
    "the output or update is not what PyTorch would compute with the expected eps and mode",
    "Change that setting on the side that is wrong.",
    symptom="A port agrees in shape and roughly in size, and its accuracy is lower.",
    arithmetic="bncli tries every known way to compute the output (or the update) from the data "
    "given. One of them differs from it only by rounding; PyTorch's way differs by more than "
    "rounding can explain.",
    certainty="Certain if only one hypothesis explains the data, and likely if several do. `best`, "
    "under `facts` (JSON and -v), lists them.",
    lookalike="The eps or the mode may be intended: give it with --eps, --training or --eval.",
    seen=("gzuidhof/nn-transfer#3", "pytorch/vision#2599"),
    less_sure=(Certainty.LIKELY,),
)

UNEXPLAINED = Rule(
    "BN905",
    "unexplained",
    Severity.WARNING,
    "no hypothesis explains the output or the update",
    "Check that the tensors belong together. Give what is known of the layer, such as --state.",
    symptom="None of the usual mistakes accounts for the difference.",
    arithmetic="Every hypothesis differs by more than its arithmetic and the stored dtype can "
    "round.",
    certainty="Certain that none of those tried explains it; another way may.",
    lookalike="Tensors from two different runs do not fit together, nor does an output taken after "
    "the activation.",
)

NOTHING_UPDATED = Rule(
    "BN906",
    "nothing-updated",
    Severity.WARNING,
    "the batch did not move the running statistics",
    "Check that the layer was in training mode, with a momentum above 0, statistics that are not "
    'frozen and buffers that are updated in place. Also check that the "before" and "after" files '
    "were not saved at the same step.",
    symptom="Training goes on, and evaluation stays as bad as at the start.",
    arithmetic="No buffer of any channel moved, although PyTorch's default update, 0.9 * running + "
    "0.1 * batch, would have moved one by more than rounding.",
    certainty="Certain that nothing moved. A step too small for the buffers' dtype also moves "
    "nothing.",
    lookalike="A batch whose statistics equal the running ones moves nothing either, and is not "
    "reported.",
    seen=("microsoft/onnxruntime#6349",),
)

ALLOW_MORE = (
    "Allow more with --rtol and --atol, or leave both out: the tolerance that follows from the "
    "arithmetic is kept, so that rounding explains what differs."
)
COUNT_NAN = "Add --equal-nan if NaN on both sides is to count as equal."

MOST_FINDINGS = 20
"""How many tensors get a finding of their own, about a screen; the rest share one."""

MOST_NAMES = 8
"""How many names a sentence lists at most."""

_ANYWHERE = (("not finite", 0, (1 << 31) - 1),)
"""The extent of NaN or Inf on one side only, where the channels are not told apart."""

MOST_LOST = 1e-3
"""The error of an output above which it is reported, as a share of weight and bias."""


def lost_digits_findings(output: Closeness, scale: float, backend: str) -> list[Finding]:
    """A warning where the output passed only because the tolerance had to be wide.

    `scale` is the largest |weight| or |bias|: the size of a normalised output.
    """
    if not output.passed or not output.max_abs_diff > MOST_LOST * scale:
        return []
    return [
        LOST_DIGITS.finding(
            output.quantity,
            f"{backend} is off by up to {output.max_abs_diff:.3g} from the exact values",
            {"max_abs_diff": output.max_abs_diff, "scale": scale},
            detail="Its own arithmetic loses that much on this input, and the tolerance allows it.",
        )
    ]


def comparison_findings(
    compared: Sequence[Closeness],
    backend: str,
    *,
    overflow: bool = False,
    counted: str = "channel",
    more: Mapping[str, str] | None = None,
    causes: Mapping[str, tuple[str, str, bool]] | None = None,
) -> list[Finding]:
    """A finding for each quantity that did not pass; `backend` is its name and version.

    `overflow` says that a variance overflows, which BN004 reports and which explains the rest.
    `counted` is what the index of a quantity of one axis counts; `more` holds sentences to add to
    the detail, by quantity, and `causes` why a quantity differs, a clause, what to change, and
    whether nothing else explains it; else the finding is likely.
    """
    findings = []
    for item in compared:
        if item.passed or not item.total:
            continue
        verb = "differs" if item.mismatched == 1 else "differ"
        by = f", by up to {item.used:.3g} times the tolerance" if math.isfinite(item.used) else ""
        by = by or with_odd(item, ("bncli", backend))
        cause, fix, sure = (causes or {}).get(item.quantity, ("", "", True))
        worst = f"The worst, at {_place(item.index, counted)}, is {item.actual:.9g} against "
        worst += f"{item.expected:.9g}."
        findings.append(
            DIFFERS.finding(
                item.quantity,
                f"{item.mismatched} of {item.total} values {verb} from {backend}{by}"
                f"{f': {cause}' if cause else ''}",
                {
                    "mismatched": item.mismatched,
                    "total": item.total,
                    "index": item.index,
                    "actual": item.actual,
                    "expected": item.expected,
                    "tolerance_used": item.used,
                    "max_mismatch": item.max_mismatch,
                    **({"cause": cause} if cause else {}),
                },
                detail=" ".join(filter(None, (worst, (more or {}).get(item.quantity)))),
                hint=fix or fix_of(item),
                sure=None if sure else Certainty.LIKELY,
                extent=() if math.isfinite(item.max_abs_diff) else _ANYWHERE,
            )
        )
    if overflow:
        hint = "Fix BN004 first: the variance overflows."
        findings = [replace(finding, hint=hint) for finding in findings]
    return findings


def with_odd(item: Closeness, sides: tuple[str, str]) -> str:
    """A clause on NaN or Inf at the worst place, of which `sides` are the names; else "".

    It follows a number of values, the worst of which is where it says.
    """
    if math.isfinite(item.difference):
        return "" if math.isfinite(item.max_mismatch) else ", some with NaN or Inf on one side"
    worst = "at the worst, " if item.mismatched > 1 else ""
    both = (item.actual, item.expected)
    odd = [not math.isfinite(value) for value in both]
    if all(odd):
        one, other = ("NaN" if math.isnan(value) else f"{value:g}" for value in both)
        return f": {worst}{one} against {other}"
    what = "NaN" if any(map(math.isnan, both)) else "Inf"
    return f": {worst}only {sides[odd.index(True)]} has {what}{'' if worst else ' there'}"


def fix_of(item: Closeness) -> str:
    """What to do about a quantity that failed; "" for what the rule says."""
    if item.explained:
        return ALLOW_MORE
    if math.isfinite(item.difference):
        return ""
    if math.isnan(item.actual) and math.isnan(item.expected):
        return COUNT_NAN
    return (
        "Find the step that made the NaN or Inf on that side alone; `bncli compute` says which "
        "channels hold any."
    )


def stored_findings(compared: list[ChannelCloseness], other: str, added: str) -> list[Finding]:
    """A finding for each tensor that differs from that of `other`, worst first.

    Those beyond `MOST_FINDINGS` share one. `added` is a sentence for the detail of each.
    """
    failed = sorted(
        (item for item in compared if item.whole.mismatched),
        key=lambda item: item.whole.badness,
    )
    more = {
        item.whole.quantity: " ".join(filter(None, (channels_sentence(item), added)))
        for item in failed
    }
    shown, others = failed[:MOST_FINDINGS], failed[MOST_FINDINGS:]
    findings = [
        replace(finding, extent=_not_finite(item))
        for item in shown
        for finding in comparison_findings([item.whole], other, more=more)
    ]
    for finite, what in ((False, " in NaN or Inf"), (True, "")):
        rest = [item for item in others if math.isfinite(item.whole.max_abs_diff) == finite]
        if rest:
            findings.append(
                DIFFERS.finding(
                    f"{len(rest)} more",
                    f"{len(rest)} more tensor{'s differ' if len(rest) > 1 else ' differs'} from "
                    f"{other}{what}",
                    {"quantities": [item.whole.quantity for item in rest]},
                    extent=() if finite else _ANYWHERE,
                    places=tuple(item.whole.quantity for item in rest),
                )
            )
    return findings


def _not_finite(item: ChannelCloseness) -> tuple[Member, ...]:
    """The channels in which only one side is NaN or Inf."""
    if math.isfinite(item.whole.max_abs_diff):
        return ()
    if not item.channels:
        return _ANYWHERE
    odd = [not math.isfinite(channel.max_abs_diff) for channel in item.channels]
    return channel_extent("not finite", np.array(odd))


def channels_sentence(item: ChannelCloseness) -> str:
    """Which channels mismatch; "" where the tensor has only one."""
    bad = [c for c, channel in enumerate(item.channels) if channel.mismatched]
    if len(item.channels) < 2 or not bad:
        return ""
    if len(bad) == len(item.channels):
        return f"All {len(bad)} channels mismatch."
    verb = "mismatches" if len(bad) == 1 else "mismatch"
    return f"Of {len(item.channels)} channels, {name_channels(bad)} {verb}."


def not_compared_findings(reasons: Mapping[str, str], stable: Mapping[str, str]) -> list[Finding]:
    """A finding for each reason and the tensors that it holds for; `reasons` is by tensor.

    `stable` maps a reason that names a path to one that does not.
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    return [
        NOT_COMPARED.finding(
            names[0] if len(names) == 1 else f"{len(names)} tensors",
            f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {reason}",
            {"names": names},
            detail="" if len(names) == 1 else f"They are {examples(names, MOST_NAMES)}.",
            extent=(stable.get(reason, reason),),
            places=tuple(names),
        )
        for reason, names in by_reason.items()
    ]


def identification_findings(
    subject: str,
    words: str,
    tried: int,
    *,
    explained: bool,
    expected: bool,
    kind: tuple[str, ...] = (),
) -> list[Finding]:
    """A finding where something was not made in the expected way, or in no way that is known.

    `words` name the best hypothesis. `kind` names it without fitted numbers if it alone explains
    the data, and is () otherwise: a baseline that knows one kind does not excuse another.
    """
    if expected:
        return []
    if explained:
        message = f"{subject} is {words}"
        evidence: dict[str, Value] = {"tried": tried, "best": words}
        sure = None if kind else Certainty.LIKELY
        return [MADE_OTHERWISE.finding(subject, message, evidence, extent=kind, sure=sure)]
    message = f"none of {tried} hypotheses explains {subject}; the nearest is {words}"
    return [UNEXPLAINED.finding(subject, message, {"tried": tried, "nearest": words})]


def not_finite_finding(
    subject: str, nan: int, inf: int, total: int, channels: tuple[int, ...], of: int, at: str
) -> Finding:
    """The finding for NaN and Inf in an output where all that went in is finite.

    They are in `channels` of `of`, which were left out of the comparison; `at` is the index of the
    first, "" where it is not known.
    """
    counts = ((nan, "NaN"), (inf, "Inf"))
    kinds = [what for number, what in counts if number]
    number = nan + inf
    verb = "is" if number == 1 else "are"
    where = name_channels(channels, of)
    first = f"The first is at {at}. " if at else ""
    whole = f"{where[0].upper()}{where[1:]}"
    left = "is" if len(channels) == 1 else "are"
    evidence: dict[str, Value] = {
        "nan": nan, "inf": inf, "total": total, "channels": list(channels[:MOST_EVIDENCE]),
    }  # fmt: skip
    bad = np.zeros(of, bool)
    bad[list(channels)] = True
    return DIFFERS.finding(
        subject,
        f"{number} of {total} values {verb} {' or '.join(kinds)} where the input is finite",
        evidence,
        detail=f"{first}{whole} {left} left out of the comparison.",
        hint="Find what wrote NaN or Inf into OUTPUT: no hypothesis makes it of these tensors.",
        extent=channel_extent("not finite", bad),
    )


def nothing_updated_finding(quantity: str, channel: int, moved: float, momentum: float) -> Finding:
    """The finding for buffers that a batch did not move.

    `momentum` would have moved `quantity` by `moved` in `channel`, where it moves most.
    """
    return NOTHING_UPDATED.finding(
        "the update",
        f"no buffer moved; momentum {momentum:g} would have moved {quantity} by {moved:.3g} in "
        f"channel {channel}",
        {"quantity": quantity, "channel": channel, "would_move": moved, "momentum": momentum},
    )


def _place(index: tuple[int, ...], counted: str) -> str:
    """An index as a person reads it."""
    if not index:
        return "its only value"
    if len(index) == 1:
        return f"{counted} {index[0]}"
    return "[" + ", ".join(map(str, index)) + "]"
