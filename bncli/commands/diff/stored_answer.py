"""What `bncli diff ACTUAL EXPECTED` says first: which tensors or channels differ, worst first."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.commands.diff.differences import AT_WORST, channels_answer
from bncli.commands.diff.stored_tables import worst_pairs_first
from bncli.dtypes import DTYPES
from bncli.report import ANSWER_ROWS, Column, Table
from bncli.rulebook.comparison import channels_sentence, with_odd
from bncli.rulebook.interface import examples
from bncli.sections.answer import counted, share
from bncli.sections.findings import closing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.commands.diff.stored_tables import StoredPair
    from bncli.model import Closeness
    from bncli.report import Finding, Value

MOST_TENSORS, MOST_BESIDE_OTHERS = 12, 8
"""Tensors that are shown, and how many where others could not be compared: those have a block."""

MOST_OTHERS = 4
"""Tensors that could not be compared of which a line has the names."""


def subject(
    done: Sequence[StoredPair],
    labels: tuple[str, ...],
    tolerance: tuple[float, float] | None,
    *,
    single: bool,
) -> tuple[str, ...]:
    """What is compared with what, and how closely."""
    first = f"{labels[0]} against {labels[1]}"
    closely = "rtol and atol by dtype (as torch.testing.assert_close)"
    if tolerance is not None:
        closely = "rtol {:g}, atol {:g}".format(*tolerance)
    if not single:
        number = counted(len(done), "tensor") if done else "no tensor in common"
        return first, f"{number}, {closely}"
    pair = done[0]
    whole = pair.compared.whole
    if tolerance is None and whole.total:
        closely = f"rtol {whole.rtol:g}, atol {whole.atol:g} (as torch.testing.assert_close)"
    dtypes = " and ".join(dict.fromkeys((pair.actual.dtype, pair.expected.dtype)))
    shape = ", ".join(map(str, pair.expected.shape))
    axis = f"channels on axis {pair.channel_axis}, " if pair.expected.ndim > 1 else ""
    return f"{first}  {dtypes} ({shape})", f"{axis}{closely}"


def pair_answer(channels: Table, labels: tuple[str, ...]) -> tuple[Table, ...]:
    """The channels of one pair, worst first; no table where all are equal."""
    differing = [row for row in channels.rows if row["max_abs_diff"] != 0]
    if not differing:
        return (replace(channels, rows=()),)
    named = (Column("channel", "channel"),)
    most = min(len(differing), ANSWER_ROWS)
    return (channels_answer(channels.rows, named, (labels[0], labels[1]), most=most),)


def set_answer(done: Sequence[StoredPair], others: int) -> Table:
    """The tensors that differ, worst first; `others` could not be compared."""
    differing = [pair for pair in worst_pairs_first(done) if pair.compared.whole.mismatched]
    most = MOST_BESIDE_OTHERS if others else MOST_TENSORS
    shown, rest = differing[:most], differing[most:]
    rows: list[dict[str, Value]] = []
    for pair in shown:
        item = pair.compared.whole
        largest = max(pair.compared.sizes, default=0.0)
        finite = math.isfinite(item.difference)
        rows.append(
            {
                "quantity": pair.name,
                "difference": item.difference if finite else "not finite",
                "relative": share(item.difference / largest) if finite and largest else None,
                "off": f"{item.mismatched} of {item.total}",
                "index": item.index or None,
                "used": share(item.used),
                "actual": item.actual,
                "expected": item.expected,
            }
        )
    columns = (
        Column("quantity", "tensor"),
        Column("difference", "difference", ".3g"),
        Column("index", "index", spare=3),
        Column("relative", "relative", spare=2),
        Column("used", "tolerance used"),
        Column("off", "values off", spare=1),
        Column("actual", "actual", spare=4),
        Column("expected", "expected", spare=4),
    )
    notes = []
    if rest:
        verb = "differs" if len(rest) == 1 else "differ"
        notes.append(f"{counted(len(rest), 'more tensor')} {verb}{_counters(rest)} (-v lists them)")
    wholes = [pair.compared.whole for pair in shown]
    if any(item.max_mismatch > item.difference for item in wholes):
        notes.append(AT_WORST)
    return Table("tensors", "", columns, rows, "; ".join(notes))


def _counters(rest: Sequence[StoredPair]) -> str:
    """How many of the tensors hold integers, and how far these are off; "" for none."""
    counters = [pair for pair in rest if not DTYPES[pair.expected.dtype].digits]
    if not counters:
        return ""
    names = {pair.name.rpartition(".")[2] for pair in counters}
    what = names.pop() if len(names) == 1 else "integers"
    furthest = max(pair.compared.whole.max_abs_diff for pair in counters)
    return f", of which {len(counters)} are {what}, by up to {furthest:.6g}"


def set_remarks(done: Sequence[StoredPair]) -> tuple[str, ...]:
    """How many tensors are identical, and how many agree within their tolerance."""
    wholes = [pair.compared.whole for pair in done]
    identical = sum(item.passed and item.max_abs_diff == 0 for item in wholes)
    agreeing = sum(item.passed for item in wholes) - identical
    if not any(item.mismatched for item in wholes):
        return ()
    said = f"{counted(identical, 'tensor')} {'is' if identical == 1 else 'are'} identical"
    if agreeing:
        said += f", {agreeing} {'agrees' if agreeing == 1 else 'agree'} within the tolerance"
    return (said,)


def verdict(done: Sequence[StoredPair], reasons: dict[str, str], *, single: bool) -> str:
    """Whether they agree, and what differs most."""
    wholes = [pair.compared.whole for pair in done if pair.compared.whole.total]
    values = sum(item.total for item in wholes)
    if not values:
        return "nothing was compared: the two have no value in common"
    failed = sorted((item for item in wholes if not item.passed), key=lambda item: item.badness)
    left_out = f"{len(reasons)} could not be compared" if reasons else ""
    if failed:
        worst = failed[0]
        if single:
            verb = "differs" if worst.mismatched == 1 else "differ"
            return f"{worst.mismatched} of {values} values {verb}{_by(worst)}"
        verb = "differs" if len(failed) == 1 else "differ"
        most = f"{worst.quantity} most" if len(failed) > 1 else worst.quantity
        return closing(f"{len(failed)} of {len(wholes)} tensors {verb}, {most}", left_out)
    what = f"all {values} values" if single else f"all {len(wholes)} tensors, {values} values,"
    if all(item.max_abs_diff == 0 for item in wholes):
        return closing(f"{what} are equal", left_out)
    closest = max(wholes, key=lambda item: item.used)
    return closing(f"{what} agree; the worst uses {share(closest.used)} of its tolerance", left_out)


def _by(item: Closeness) -> str:
    """How far values are off, after "differ"."""
    odd = with_odd(item, ("ACTUAL", "EXPECTED"))
    return odd or f", by up to {item.max_mismatch:.3g}"


def told_of_pair(
    finding: Finding,
    pair: StoredPair,
    labels: tuple[str, ...],
    channels: Table,
    cause: tuple[str, str],
) -> Finding:
    """The finding of one pair: how far it is off, in which channel most, and the cause if known.

    `labels` are the names of ACTUAL and EXPECTED, and `cause` has sentences and a fix, "" where
    none is known.
    """
    other = labels[1]
    item = pair.compared.whole
    verb = "differs" if item.mismatched == 1 else "differ"
    values = f"{item.mismatched} of {item.total} values {verb}"
    index = f"({', '.join(map(str, item.index))})" if len(item.index) > 1 else ""
    place = f" at {index or f'index {item.index[0]}'}" if item.index else ""
    worst = f"{item.actual:.6g}{place}, where {other} has {item.expected:.6g}."
    where = channels_sentence(pair.compared)
    if len(pair.compared.channels) > 1:
        channel = item.index[pair.channel_axis]
        row = next((row for row in channels.rows if row["channel"] == channel), {})
        std = row.get("difference_in_std")
        off = f", off by {item.difference:.3g}" if math.isfinite(item.difference) else ""
        off += f", {std:.3g} std" if off and isinstance(std, float) else ""
        worst = f"{where} The worst is channel {channel}{off}: {worst}"
    else:
        worst = f"It is {worst}"
    detail = " ".join(filter(None, (worst, cause[0])))
    message = f"{values} from {other}{_by(item)}"
    fix = (cause[1] if math.isfinite(item.difference) else "") or finding.hint
    return replace(finding, message=message, detail=detail, hint=fix, where=labels[0])


def told_of_others(finding: Finding, reasons: Mapping[str, str]) -> Finding:
    """The finding of tensors that could not be compared, for the reason that they share.

    `reasons` is by tensor.
    """
    names = finding.places
    said = reasons[names[0]]
    if len(names) > 1:
        said += f": {examples(names, MOST_OTHERS)}"
    return replace(finding, message=said)


def told_of_set(finding: Finding, pair: StoredPair | None, other: str) -> Finding:
    """The finding of one of several tensors, the place of which says all but the other file."""
    claim = f"tensors differ from {other}"
    hint = "Name one tensor of each file as FILE::NAME to see its channels."
    if pair is None:
        return replace(finding, claim=claim, hint=hint)
    item = pair.compared.whole
    verb = "differs" if item.mismatched == 1 else "differ"
    by = with_odd(item, ("ACTUAL", "EXPECTED")) or f" by up to {item.max_mismatch:.3g}"
    message = f"{item.mismatched} of {item.total} {verb}{by}"
    return replace(finding, message=message, claim=claim, hint=hint)
