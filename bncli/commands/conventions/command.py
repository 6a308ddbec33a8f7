"""`bncli conventions`: how frameworks keep running statistics, and from one to another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from bncli.arguments.options import option
from bncli.errors import UsageError
from bncli.report import Column, Report, Table

if TYPE_CHECKING:
    from bncli.report import Value
    from bncli.running_stats.conventions import Convention

CONVERSION = "Conversion"

CONVENTION_COLUMNS = (
    Column("convention", "convention"),
    Column("momentum_weighs", "weighs"),
    *Column.plain("momentum", "eps"),
    Column("running_var", "variance"),
    Column("initial_mean", "mean_0"),
    Column("initial_var", "var_0"),
    Column("debias", "debiased"),
    Column("one_value", "one value"),
    Column("channel_axis", "channel axis"),
)
CATALOGUE_COLUMNS = (
    *Column.plain("convention", "momentum"),
    Column("momentum_weighs", "weighs"),
    *Column.plain("eps"),
    Column("running_var", "variance"),
    Column("initial", "begins at"),
    Column("one_value", "one value"),
    Column("channel_axis", "channel axis", spare=1),
    Column("debias", "debiased", spare=2),
    Column("framework", "framework", spare=3),
)
NAME_COLUMNS = Column.plain(
    "convention", "weight", "bias", "running_mean", "running_var", "momentum", "eps"
)
SOURCE_COLUMNS = Column.plain("convention", "framework", "source")
NOTE_COLUMNS = Column.plain("convention", "note")

ONE_VALUE = (
    "one value: a batch with one value per channel is refused, counts as variance 0, is skipped, "
    "or makes running_var NaN."
)
DEBIASED = (
    "debiased: whether evaluation corrects for the initial value: no; divided, by the total weight "
    "of the batches so far; or first, since the first batch replaces it."
)
"""What the cells of two columns mean."""


def conventions(
    source: Annotated[
        str | None,
        option(
            "Convert from this convention.",
            CONVERSION,
            "--from",
            metavar="NAME",
            default="pytorch, if --to is given",
        ),
    ] = None,
    target: Annotated[
        str | None,
        option(
            "Convert to this convention.",
            CONVERSION,
            "--to",
            metavar="NAME",
            default="pytorch, if --from is given",
        ),
    ] = None,
    momentum: Annotated[
        str | None,
        option(
            "The momentum to convert, as --from means it.",
            CONVERSION,
            metavar="NUMBER|none",
            default="--from's own",
        ),
    ] = None,
    eps: Annotated[
        float | None,
        option("The eps to convert.", CONVERSION, metavar="NUMBER", default="--from's own"),
    ] = None,
    count: Annotated[
        int | None,
        option(
            "Number of values per channel in a batch, used to show how running_var differs between "
            "the biased and the unbiased variance.",
            CONVERSION,
            metavar="N",
            default="several",
            least=2,
        ),
    ] = None,
) -> Report:
    """List how frameworks keep running statistics, or convert from one to another.

    What the momentum is the weight of, its default and that of eps, which variance enters
    running_var, where the buffers begin, and what everything is called there. Each comes from the
    framework's source.
    """
    from bncli.commands.conventions.conversion import Conversion
    from bncli.running_stats.frameworks import CONVENTIONS, convention

    if source is None and target is None:
        for flag, value in (("--momentum", momentum), ("--eps", eps), ("--count", count)):
            if value is not None:
                raise UsageError(f"{flag} is for a conversion: add --from or --to.")
        return Report(
            command="conventions",
            facts={"conventions": len(CONVENTIONS)},
            tables=_tables(CONVENTIONS),
            answer=(_catalogue(CONVENTIONS),),
            verdict=f"{len(CONVENTIONS)} conventions: {_counted(CONVENTIONS)}",
            judged=False,
        )
    first = convention(source or "pytorch", "--from")
    second = convention(target or "pytorch", "--to")
    pair = Conversion(first, second, _momentum(momentum, first, second), _eps(eps, first))
    return pair.report(count)


def _momentum(text: str | None, source: Convention, target: Convention) -> float | None:
    """The source's momentum: the flag's, or the default.

    Raises UsageError for no number, and for `none`, which only PyTorch has.
    """
    from bncli.arguments.layer import parse_momentum

    if text is None:
        return None if source.momentum is None else float(source.momentum)
    momentum = parse_momentum(text)
    if momentum is None:
        for side in (source, target):
            if side.name != "pytorch":
                raise UsageError(
                    f"--momentum none: {side.name} has no cumulative average; give a number."
                )
    return momentum


def _eps(eps: float | None, source: Convention) -> float:
    """The source's eps: the flag's, or the default. Raises UsageError for a negative one."""
    if eps is None:
        return float(source.eps)
    if not (math.isfinite(eps) and eps >= 0):
        raise UsageError(f"--eps {eps:g}: eps must be a finite number, 0 or above.")
    if eps > 1e100:
        raise UsageError(f"--eps {eps:g}: this is more than any variance; choose a smaller one.")
    return eps


def _catalogue(rows: tuple[Convention, ...]) -> Table:
    """All conventions in one table that fits a narrow terminal."""
    return Table(
        "",
        "",
        CATALOGUE_COLUMNS,
        [
            _numbers(row)
            | {"initial": f"{row.initial_mean:g}, {row.initial_var:g}"}
            | {"framework": row.framework}
            for row in rows
        ],
        note="weighs: whether the momentum is the weight of the old value or of the new batch. "
        f"begins at: the first running_mean and running_var. {ONE_VALUE} --from and --to "
        "convert; -v shows the rest, with the names and sources.",
    )


def _tables(rows: tuple[Convention, ...]) -> tuple[Table, ...]:
    """The numbers, the names, the sources and the notes, convention by convention."""
    return (
        Table(
            "conventions",
            "Running statistics, framework by framework",
            CONVENTION_COLUMNS,
            [_numbers(row) for row in rows],
            note="weighs: whether the momentum is the weight of the old value or of the new batch. "
            f"{ONE_VALUE} {DEBIASED}",
        ),
        Table("names", "What they are called there", NAME_COLUMNS, [_names(row) for row in rows]),
        Table(
            "sources",
            "Where this was read",
            SOURCE_COLUMNS,
            [
                {"convention": row.name, "framework": row.framework, "source": row.source}
                for row in rows
            ],
        ),
        Table(
            "notes",
            "What else is special",
            NOTE_COLUMNS,
            [{"convention": row.name, "note": row.note} for row in rows if row.note],
        ),
    )


def _counted(rows: tuple[Convention, ...]) -> str:
    """How many conventions have each meaning of the momentum, and each variance."""
    old = sum(row.weighs == "old" for row in rows)
    biased = sum(row.variance == "biased" for row in rows)
    return (
        f"the momentum is the weight of the old value in {old} and of the new batch in "
        f"{len(rows) - old}; {biased} keep the biased variance"
    )


def _numbers(row: Convention) -> dict[str, Value]:
    """What a convention does, as a row."""
    return {
        "convention": row.name,
        "momentum_weighs": row.weighs,
        "momentum": None if row.momentum is None else float(row.momentum),
        "eps": float(row.eps),
        "running_var": row.variance,
        "initial_mean": row.initial_mean,
        "initial_var": row.initial_var,
        "debias": row.debias,
        "one_value": row.one_value,
        "channel_axis": row.channel_axis,
    }


def _names(row: Convention) -> dict[str, Value]:
    """What a convention calls everything, as a row."""
    called = {column.key: getattr(row.names, column.key) for column in NAME_COLUMNS[1:]}
    return {"convention": row.name, **called}
