"""How running statistics were updated: the buffers around a batch, and the ranking of ways."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated

from bncli.arguments import options
from bncli.arguments.known import read_vector
from bncli.commands.identify.ranking import RANK, about, departing, kind_of, ranking
from bncli.dtypes import DTYPES
from bncli.errors import TensorError, UsageError
from bncli.light import dataclass
from bncli.loaders import split_spec
from bncli.report import Column, Report

if TYPE_CHECKING:
    from bncli.arguments.input import Input
    from bncli.model import ChannelStats
    from bncli.report import Finding, Value
    from bncli.verify.identify.running import Observed, UpdateIdentification

UPDATE = "Update"

UPDATE_COLUMNS = (
    *RANK,
    *Column.plain("ddof", "momentum"),
    Column("max_abs_diff", "max_abs", ".3g"),
    *Column.plain("variant", "old_weight", "channel"),
    Column("eps", "eps", foldable=True),
    Column("frameworks", "frameworks"),
)


@dataclass(frozen=True, slots=True)
class Buffers:
    """The running statistics around a batch; None where a flag was not given."""

    running_mean_before: Annotated[
        str | None, options.tensor_option("The running mean before the batch.", panel=UPDATE)
    ] = None
    running_var_before: Annotated[
        str | None, options.tensor_option("The running variance before the batch.", panel=UPDATE)
    ] = None
    running_mean_after: Annotated[
        str | None, options.tensor_option("The running mean after it.", panel=UPDATE)
    ] = None
    running_var_after: Annotated[
        str | None, options.tensor_option("The running variance after it.", panel=UPDATE)
    ] = None

    @property
    def specs(self) -> tuple[str, ...]:
        """The files that are named, each as it was typed."""
        specs = (getattr(self, field.name) for field in fields(self))
        return tuple(spec for spec in specs if spec is not None)


def update_report(given: Input, buffers: Buffers) -> Report:
    """The ranking of the ways to update running statistics with the input."""
    from bncli.rulebook.comparison import identification_findings, nothing_updated_finding
    from bncli.verify.identify.fixes import update_departure
    from bncli.verify.identify.output import BESIDE, MOST_SHOWN
    from bncli.verify.identify.running import LOOSE, identify_update
    from bncli.verify.identify.updates import USUAL

    observed = _observed(given, buffers)
    found = identify_update(observed)
    explaining = sum(item.explains for item in found.ways)
    shown = found.ways[: min(MOST_SHOWN, explaining + BESIDE)]
    rows: list[dict[str, Value]] = [
        {
            "rank": rank,
            "mode": "update",
            "ddof": item.update.ddof,
            "momentum": item.update.weight,
            "old_weight": 1 - item.update.weight,
            "eps": None,
            "variant": item.update.variant,
            "max_abs_diff": item.max_abs_diff,
            "explains": item.explains,
            "channel": item.channel,
            "frameworks": list(item.update.frameworks) if item.explains else None,
        }
        for rank, item in enumerate(shown, 1)
    ]
    findings: list[Finding] = []
    if found.nothing:
        usual = next(item for item in found.ways if item.update == USUAL)
        findings.append(
            nothing_updated_finding(usual.quantity, usual.channel, usual.max_abs_diff, USUAL.weight)
        )
    elif rows:
        findings = identification_findings(
            "the update",
            found.ways[0].update.words,
            found.tried,
            explained=found.ways[0].explains,
            expected=found.expected,
            kind=kind_of(rows[0]) if found.confident else (),
        )
        if found.ways[0].explains:
            findings = departing(findings, update_departure(found.ways[0].update))
    facts = _facts(given, observed.stats, found)
    read = (str(split_spec(spec)[0]) for spec in buffers.specs)
    return replace(
        ranking(
            facts,
            UPDATE_COLUMNS,
            rows,
            [item.update.words for item in shown],
            found.said,
            "the buffers after the update",
            [item.level <= LOOSE for item in shown],
        ),
        subject=_subject(given),
        findings=tuple(findings),
        read=(*given.read, *read),
        about=about(given, *buffers.specs),
    )


def _facts(given: Input, stats: ChannelStats, found: UpdateIdentification) -> dict[str, Value]:
    """What the report says of the input, and of what was found."""
    return {
        "input": given.label,
        "inputs": len(given.tensors) if len(given.tensors) > 1 else None,
        "shape": given.tensors[0].shape,
        "dtype": given.dtype,
        "channel_axis": given.channel_axis,
        "count": given.count,
        "tried": found.tried,
        "confident": found.confident,
        "best": found.best,
        "engines": stats.engines or None,
    }


def _subject(given: Input) -> tuple[str, ...]:
    """The batch, and what is expected."""
    shape = ", ".join(map(str, given.tensors[0].shape))
    return (
        f"the update by {given.label}  {given.dtype} ({shape}), {given.count} values per channel",
        "expected: PyTorch's, with the unbiased variance and any momentum",
    )


def _observed(given: Input, buffers: Buffers) -> Observed:
    """The input's statistics between the running statistics before and after it.

    Raises UsageError where one of the four is missing, TensorError for what does not fit or cannot
    update anything, and FileError for files.
    """
    from bncli.model import RunningStats
    from bncli.moments import merge
    from bncli.verify.identify.running import Observed

    arrays, dtypes = {}, []
    for field in fields(buffers):
        spec = getattr(buffers, field.name)
        if spec is None:
            flag = field.name.replace("_", "-")
            raise UsageError(
                f"--{flag} is missing: to identify an update, give the running mean and the "
                "running variance before and after it."
            )
        arrays[field.name], dtype = read_vector(field.name, spec, given)
        dtypes.append(dtype)
    if given.count == 1:
        raise TensorError(
            f"{given.tensors[0].label}: the batch has only one value per channel, so its variance "
            "is undefined and there is no update to identify; use a larger batch."
        )
    parts = tuple(given.statistics())
    return Observed(
        merge(parts) if len(parts) > 1 else parts[0],
        RunningStats(arrays["running_mean_before"], arrays["running_var_before"], 0),
        RunningStats(arrays["running_mean_after"], arrays["running_var_after"], 1),
        max(
            (dtype for dtype in dtypes if DTYPES[dtype].digits),
            key=lambda dtype: DTYPES[dtype].unit_roundoff,
            default="float64",
        ),
        parts if len(parts) > 1 else (),
    )
