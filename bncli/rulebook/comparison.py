"""BN9xx: what a comparison against another implementation shows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule, channel_extent, examples, name_channels, times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.model import ChannelCloseness, Closeness
    from bncli.report import Member, Value

DIFFERS = Rule(
    "BN901",
    "differs",
    Severity.ERROR,
    "A quantity lies further from the other implementation's than the arithmetic explains.",
    "Compare eps, momentum, the variance (biased or not) and each channel's weight and bias.",
    symptom="A port, a fused kernel or a converted file does not give the same numbers.",
    arithmetic="|actual - expected| exceeds a tolerance that follows from the number of values, "
    "the dtype and the order of additions; the finding says how many times over. A constant ratio "
    "of n/(n - 1) in running_var is the unbiased variance against the biased one; a channel's own "
    "factor is eps, weight or a permutation.",
    certainty="Certain that rounding does not explain it, under the derived tolerances. --rtol and "
    "--atol put your own in their place.",
    lookalike="Fewer digits in both, on ill-conditioned input, is BN002 or BN902.",
    seen=("microsoft/onnxruntime#26584", "pytorch/pytorch#60528", "ml-explore/mlx#3817"),
)

LOST_DIGITS = Rule(
    "BN902",
    "lost-digits",
    Severity.WARNING,
    "The other implementation's output is far from the exact one, as its arithmetic explains.",
    "Subtract a constant from the input, or compare in float64.",
    symptom="Both agree with each other or within their tolerance, and neither is right to more "
    "than a few digits.",
    arithmetic="The output's tolerance, by the implementation's own arithmetic, is above a "
    "thousandth of the size of weight and bias, and the difference from the exact values is too.",
    certainty="Certain: bncli's own values are exact to about 1e-12.",
    lookalike="A difference that the arithmetic does not explain is BN901.",
    seen=("pytorch/pytorch#40302", "tenstorrent/tt-metal#45968"),
)

NOT_COMPARED = Rule(
    "BN903",
    "not-compared",
    Severity.ERROR,
    "A tensor of one side has no partner of its name, shape and kind on the other.",
    "Compare files with the same names, or name one tensor of each as FILE::NAME.",
    symptom="Two exports of one network that ought to hold the same tensors do not.",
    arithmetic="A name stands on one side alone, or its tensors have other shapes, or one of the "
    "two holds no numbers to compare. Nothing is broadcast.",
    certainty="Certain.",
    lookalike="Names that differ by a prefix alone are one network twice: give it as FILE::PREFIX.",
)

MADE_OTHERWISE = Rule(
    "BN904",
    "made-otherwise",
    Severity.WARNING,
    "PyTorch's own way, with the eps and mode expected, does not give this; another way does.",
    "Change that setting on the side that is wrong; fact `best` says what each would leave.",
    symptom="A port agrees in shape and roughly in size, and its accuracy is lower.",
    arithmetic="Each way of computing the output, or the update, from what is given is tried. One "
    "leaves rounding errors alone, and PyTorch's own leaves more than rounding can.",
    certainty="As sure as the data: where two ways cannot be told apart on them, both are named.",
    lookalike="An eps or a mode that was meant: give it with --eps, --training or --eval.",
    seen=("gzuidhof/nn-transfer#3", "pytorch/vision#2599"),
)

UNEXPLAINED = Rule(
    "BN905",
    "unexplained",
    Severity.WARNING,
    "No hypothesis explains the output, or the update of the running statistics.",
    "Check that the tensors belong together; give what is known of the layer, or --state.",
    symptom="None of the usual mistakes accounts for the difference.",
    arithmetic="Every hypothesis leaves more than the rounding of its arithmetic and of the stored "
    "dtype.",
    certainty="Certain that none of those tried explains it; there may be others.",
    lookalike="Tensors of two different runs, or an output taken behind the activation.",
)

NOTHING_UPDATED = Rule(
    "BN906",
    "nothing-updated",
    Severity.WARNING,
    "The running statistics after the batch are those before it: nothing was updated.",
    "See whether the layer was in eval mode, froze its statistics, or had a momentum of 0; whether "
    "its buffers are updated in place; and whether both files are not of the same moment.",
    symptom="Training goes on, and evaluation stays as bad as on the first day.",
    arithmetic="No buffer of any channel moved, and (1 - 0.1) * running + 0.1 * batch, PyTorch's "
    "default, would have moved one by more than rounding.",
    certainty="Certain that nothing moved. A step too small for the buffers' dtype moves nothing.",
    lookalike="A batch whose statistics are the running ones moves nothing either: no finding.",
    seen=("microsoft/onnxruntime#6349",),
)

MOST_FINDINGS = 20
"""Tensors that get a finding of their own, a screen of them; the rest of them shares one."""

MOST_NAMES = 8
"""Names that a sentence lists."""

_ANYWHERE = (("not finite", 0, (1 << 31) - 1),)
"""The extent of NaN or Inf on one side alone where the channels are not told apart."""

MOST_LOST = 1e-3
"""The error of an output, in units of its channels' weight and bias, that is remarked."""


def lost_digits_findings(output: Closeness, scale: float, backend: str) -> list[Finding]:
    """A warning where the output passed, but by a tolerance that had to be wide.

    `scale` is the largest |weight| or |bias|: the size of a normalised output.
    """
    if not output.passed or not output.max_abs_diff > MOST_LOST * scale:
        return []
    return [
        LOST_DIGITS.finding(
            output.quantity,
            f"{backend} is off by up to {output.max_abs_diff:.3g} from the exact values, within "
            "what its own arithmetic loses on this input.",
            {"max_abs_diff": output.max_abs_diff, "scale": scale},
        )
    ]


def comparison_findings(
    compared: Sequence[Closeness],
    backend: str,
    *,
    overflow: bool = False,
    counted: str = "channel",
    more: Mapping[str, str] | None = None,
) -> list[Finding]:
    """A finding for each quantity that did not pass; `backend` is its name and version.

    `overflow` says that a variance overflows, which BN004 reports and which explains the rest.
    `counted` is what the index of a quantity of one axis counts; `more` holds sentences to add, by
    quantity.
    """
    findings = []
    for item in compared:
        if item.passed or not item.total:
            continue
        added = (more or {}).get(item.quantity, "")
        findings.append(
            DIFFERS.finding(
                item.quantity,
                f"{item.mismatched} of {item.total} values differ from {backend}; the worst, at "
                f"{_place(item.index, counted)}, is {item.actual:.9g} against {item.expected:.9g}, "
                f"{times(item.used)} its tolerance.{' ' * bool(added)}{added}",
                {
                    "mismatched": item.mismatched,
                    "total": item.total,
                    "index": item.index,
                    "actual": item.actual,
                    "expected": item.expected,
                    "tolerance_used": item.used,
                },
                extent=() if math.isfinite(item.max_abs_diff) else _ANYWHERE,
            )
        )
    if overflow:
        hint = "BN004 says why: the variance overflows."
        findings = [replace(finding, hint=hint) for finding in findings]
    return findings


def stored_findings(compared: list[ChannelCloseness], other: str, added: str) -> list[Finding]:
    """A finding for each tensor that differs from that of `other`, worst first.

    Beyond `MOST_FINDINGS` they share one. `added` is a sentence that every one of them gets.
    """
    failed = sorted(
        (item for item in compared if item.whole.mismatched),
        key=lambda item: -item.whole.used,
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
                    f"{len(rest)} more tensors differ from {other}{what}.",
                    {"quantities": [item.whole.quantity for item in rest]},
                    extent=() if finite else _ANYWHERE,
                    places=tuple(item.whole.quantity for item in rest),
                )
            )
    return findings


def _not_finite(item: ChannelCloseness) -> tuple[Member, ...]:
    """The channels in which one side alone is NaN or Inf."""
    if math.isfinite(item.whole.max_abs_diff):
        return ()
    if not item.channels:
        return _ANYWHERE
    odd = [not math.isfinite(channel.max_abs_diff) for channel in item.channels]
    return channel_extent("not finite", np.array(odd))


def channels_sentence(item: ChannelCloseness) -> str:
    """How many channels mismatch; "" where there is only one."""
    bad = [c for c, channel in enumerate(item.channels) if channel.mismatched]
    if len(item.channels) < 2 or not bad:
        return ""
    if len(bad) == len(item.channels):
        return f"All {len(bad)} channels mismatch."
    verb = "mismatches" if len(bad) == 1 else "mismatch"
    return f"Of {len(item.channels)} channels, {name_channels(bad)} {verb}."


def not_compared_findings(reasons: Mapping[str, str], stable: Mapping[str, str]) -> list[Finding]:
    """A finding for each reason, with the tensors that it holds for; `reasons` is by name.

    `stable` has those reasons that name a path in words that do not.
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    return [
        NOT_COMPARED.finding(
            names[0] if len(names) == 1 else f"{len(names)} tensors",
            f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {reason}: "
            f"{examples(names, MOST_NAMES)}.",
            {"names": names},
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
    """A finding where a thing was made otherwise than one expects, or nobody knows how.

    `words` say the best hypothesis, `kind` does without numbers that are fitted, if it is the only
    one: to be made in yet another way is no known finding.
    """
    if expected:
        return []
    if explained:
        message = f"it was made by {words}."
        evidence: dict[str, Value] = {"tried": tried, "best": words}
        return [MADE_OTHERWISE.finding(subject, message, evidence, extent=kind)]
    message = f"none of {tried} hypotheses explains it; the nearest is {words}."
    return [UNEXPLAINED.finding(subject, message, {"tried": tried, "nearest": words})]


def nothing_updated_finding(quantity: str, channel: int, moved: float, momentum: float) -> Finding:
    """The finding for buffers that a batch left alone.

    A `momentum` would have moved `quantity` by `moved` in `channel`, where it moves most.
    """
    return NOTHING_UPDATED.finding(
        "the update",
        f"no buffer moved; momentum {momentum:g} would have moved {quantity} by up to {moved:.3g} "
        f"(channel {channel}).",
        {"quantity": quantity, "channel": channel, "would_move": moved, "momentum": momentum},
    )


def _place(index: tuple[int, ...], counted: str) -> str:
    """An index as a person reads it."""
    if not index:
        return "its only value"
    if len(index) == 1:
        return f"{counted} {index[0]}"
    return "[" + ", ".join(map(str, index)) + "]"
