"""The channels of a pass that a person sees first: those with findings, then the first others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import ANSWER_ROWS, Column, Table
from bncli.sections.answer import counted, most_rows, span
from bncli.sections.tables import of_channels, output_statistics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.model import ChannelStats, IntArray
    from bncli.report import Finding, Value
    from bncli.verify.batch_norm_pass import BatchNormPass

COLUMNS = (
    *Column.plain("channel", "mean", "var"),
    *Column.plain("unbiased_var", spare=5),
    *Column.plain("std", spare=4),
    Column("range", "min .. max", spare=3),
    *Column.plain("running_mean", "running_var"),
    Column("output", "output", spare=2),
    Column("findings", "findings", spare=1),
)
INPUT_COLUMNS = (
    *Column.plain("input", "channel", "mean", "var"),
    *Column.plain("std", spare=2),
    Column("range", "min .. max", spare=1),
    *Column.plain("count", spare=3),
)


def troubles(findings: Sequence[Finding], channel_axis: int) -> dict[int, list[Finding]]:
    """The findings of each channel that they name, or in which a quantity differs most."""
    found: dict[int, list[Finding]] = {}
    for finding in findings:
        channels = finding.evidence.get("channels", ())
        index = finding.evidence.get("index")
        if isinstance(index, tuple) and index:
            channels = (index[channel_axis if len(index) > 1 else 0],)
        for channel in channels if isinstance(channels, (list, tuple)) else ():
            found.setdefault(channel, []).append(finding)
    return found


def worst_first(shown: Sequence[int], trouble: Mapping[int, Sequence[Finding]]) -> IntArray:
    """The channels `shown`, of shape (C,), those with the worst findings first."""

    def rank(channel: int) -> int:
        return max(finding.severity.rank for finding in trouble[channel])

    channels = np.array(shown, np.int64)  # there may be millions
    sick = np.isin(channels, np.array(list(trouble), np.int64))
    worst = sorted(channels[sick].tolist(), key=rank, reverse=True)
    return np.concatenate((np.array(worst, np.int64), channels[~sick]))


def channels_answer(
    done: BatchNormPass, ordered: IntArray, trouble: Mapping[int, Sequence[Finding]]
) -> Table:
    """The first channels of `ordered`, with their `trouble`; a line sums up the others."""
    sick = sum(channel in trouble for channel in ordered[: len(trouble)].tolist())
    most = most_rows(len(ordered), sick)
    at = ordered[:most]
    first = at.tolist()
    stats, after = of_channels(done.stats, at), done.after
    output = output_statistics(done.stats, done.norm, at)
    rows: list[dict[str, Value]] = [
        {
            "channel": channel,
            "mean": stats.mean[n].item(),
            "var": stats.var[n].item(),
            "unbiased_var": stats.unbiased_var[n].item(),
            "std": stats.var[n].item() ** 0.5,
            "range": span(stats.min[n], stats.max[n]),
            "running_mean": None if after is None else after.running_mean[channel].item(),
            "running_var": None if after is None else after.running_var[channel].item(),
            "output": span(output["min"][n], output["max"][n]),
            "findings": _codes(trouble.get(channel, ())),
        }
        for n, channel in enumerate(first)
    ]
    left_out = {name for name in ("running_mean", "running_var") if after is None}
    if len({row["findings"] for row in rows}) == 1:  # the block of the finding says as much
        left_out.add("findings")
    columns = tuple(column for column in COLUMNS if column.key not in left_out)
    note = _rest(done.stats, ordered[most:], trouble, max(sick - most, 0))
    return Table("channels", "", columns, rows, note)


def inputs_answer(labels: Sequence[str], parts: Sequence[ChannelStats], shown: IntArray) -> Table:
    """The statistics of each input by itself, in as many of the channels `shown` as have room."""
    most = max(ANSWER_ROWS // len(parts), 1)
    at = shown[:most]
    rows: list[dict[str, Value]] = []
    for label, part in zip(labels, parts, strict=True):
        stats = of_channels(part, at)
        rows += [
            {
                "input": label,
                "channel": channel,
                "mean": stats.mean[n].item(),
                "var": stats.var[n].item(),
                "std": stats.var[n].item() ** 0.5,
                "range": span(stats.min[n], stats.max[n]),
                "count": part.count,
            }
            for n, channel in enumerate(at.tolist())
        ]
    left = len(shown) * len(parts) - len(rows[:ANSWER_ROWS])
    note = f"{counted(left, 'more row')} (-v lists them)" if left else ""
    return Table("inputs", "Each input", INPUT_COLUMNS, rows[:ANSWER_ROWS], note, lead=2)


def _codes(findings: Sequence[Finding]) -> str | None:
    """The codes of a channel's findings, each once; None where there are none."""
    return ", ".join(dict.fromkeys(finding.code for finding in findings)) or None


def _rest(
    stats: ChannelStats, rest: IntArray, trouble: Mapping[int, Sequence[Finding]], found: int
) -> str:
    """What the channels that are not shown have, in a line; "" where all are shown.

    So many as `found` of them have findings.
    """
    if not len(rest):
        return ""
    said = []
    for name, values in (("mean", stats.mean), ("var", stats.var)):
        finite = values[rest]
        finite = finite[np.isfinite(finite)]
        if finite.size:
            said.append(f"{name} {span(finite.min(), finite.max())}")
    # A comparison names the channel that differs most, and says nothing of the others.
    every = all("index" not in one.evidence for those in trouble.values() for one in those)
    which = " without findings" * (bool(trouble) and every)
    if found:
        which = f" ({found} with findings)"
    return f"{counted(len(rest), 'more channel')}{which}: {', '.join(said)} (-v lists them)"
