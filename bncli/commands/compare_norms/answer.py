"""What a person sees of `compare-norms` first: a row a norm, and what the last sample changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import ANSWER_ROWS, Table
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from bncli.arguments.input import Input
    from bncli.commands.compare_norms.norms import Measured
    from bncli.norms import Norm
    from bncli.sections.findings import ComparedSection

SHOWN = {
    "norm": 0,
    "axes": 0,
    "statistics_shape": 0,
    "depends_on_batch": 0,
    "running_stats": 0,
    "change_without_one_sample": 0,
    "affine_shape": 1,
    "eps": 2,
    "note": 3,
}
"""The columns of the table of norms that tell them apart, and how easily each is spared."""


def norms_answer(full: Table) -> Table:
    """The columns of the `full` table that tell the norms apart."""
    by_key = {column.key: column for column in full.columns}
    columns = tuple(
        replace(by_key[key], spare=spare, wraps=key == "note") for key, spare in SHOWN.items()
    )
    return Table("norms", "", columns, full.rows)


def first_sample_answer(full: Table) -> Table:
    """The outputs for the first sample with four digits, so that the norms fit side by side."""
    rows = [
        {
            **row,
            "index": ",".join(map(str, index)) if isinstance(index := row["index"], tuple) else "",
        }
        for row in full.rows[:ANSWER_ROWS]
    ]
    columns = tuple(
        column
        if column.key in ("index", "x")
        else replace(column, spec=".4g", spare=int(column.key == "RMSNorm"))
        for column in full.columns
    )
    left = len(full.rows) - len(rows)
    note = f"{counted(left, 'more value')} (-v lists them)" if left else ""
    return Table(full.key, full.title, columns, rows, note)


def subject_line(given: Input, norms: tuple[Norm, ...]) -> str:
    """What is looked at, in a line, and what was assumed of the norms."""
    from bncli.norms import BATCH, RMS

    first = given.tensors[0]
    shape = ", ".join(map(str, first.shape))
    by_name = {norm.name: norm for norm in norms}
    eps = f"eps {by_name[BATCH].eps:g}"
    if not by_name[BATCH].eps_given:
        eps += f", in RMSNorm {by_name[RMS].eps:.3g} (defaults)"
    cast = f" as {given.cast}" if given.cast else ""
    axis = f"{counted(given.num_features, 'channel')} on axis {given.channel_axis}"
    return f"{first.label}  {first.dtype} ({shape}){cast}  {axis}, {eps}"


def remarks(norms: tuple[Norm, ...], section: ComparedSection | None) -> tuple[str, ...]:
    """Which norms PyTorch would not run on this shape, and which the backend lacks."""
    said = [f"{norm.name}: {norm.refused}" for norm in norms if norm.refused]
    if section is not None:
        said.append(section.missing)
    return tuple(filter(None, said))


def dependence(measured: Measured, samples: int) -> str:
    """What leaving out the last sample showed."""
    from bncli.norms import BATCH

    if samples == 1:
        return "there is one sample: whether others matter cannot be measured"
    change = measured.changes[BATCH]
    if change is None and measured.stats.count > 2:
        return "the change without the last sample cannot be measured: no output is a number"
    if change is None:
        return "without the last sample BatchNorm would not run: one value per channel is left"
    others = [value for name, value in measured.changes.items() if name != BATCH]
    most = max((value for value in others if value is not None), default=0.0)
    stats = measured.stats
    spoilt = np.count_nonzero(stats.nan + stats.inf)
    where = f" (in {stats.num_features - spoilt} of {stats.num_features} channels; "
    where += "the other holds NaN or Inf)" if spoilt == 1 else "the others hold NaN or Inf)"
    return (
        f"without the last sample, the other samples' output changes by up to {change:.3g} in "
        f"BatchNorm{where * bool(spoilt)} and by {most:.3g} in the other norms"
    )
