"""What a trace shows: the steps of one channel as a chain, each made of those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.pictures import Chain, Link
from bncli.sections.answer import counted
from bncli.verify.trace import FLOAT32_DIGITS, RESULT_DIGITS

if TYPE_CHECKING:
    from bncli.commands.trace.tables import Row


def chain_pictures(rows: list[Row], *, of_batch: bool) -> tuple[Chain, ...]:
    """The steps of a channel, forward and backward, as the table of steps has them.

    `rows` are those of one channel and of one element in it; without any there is no chain.
    `of_batch` says that the batch's own statistics normalise.
    """
    if not rows:
        return ()
    links = tuple(
        Link(str(row["quantity"]), str(row["formula"]), _numbers(row), _value(row)) for row in rows
    )
    title = f"Channel {rows[0]['channel']}, step by step"
    return (Chain("steps", title, links, _said(rows, of_batch=of_batch)),)


def _numbers(row: Row) -> str:
    """What the value is made of, in numbers; "" where that says no more than formula or value."""
    numbers = str(row["numbers"])
    if row["value"] is None:
        return numbers
    made_of = numbers.rpartition(" = ")[0]
    return "" if made_of == row["formula"] else made_of


def _value(row: Row) -> str:
    """What comes out, as the numbers have it; "" where there are several values."""
    value = row["value"]
    if value is None:
        return ""
    _, equals, last = str(row["numbers"]).rpartition(" = ")
    if equals:
        return last
    digits = FLOAT32_DIGITS if "exact" in row else RESULT_DIGITS
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _said(rows: list[Row], *, of_batch: bool) -> str:
    """What becomes of the channel's values and of the element, in sentences."""
    found = {str(row["quantity"]): _value(row) for row in rows}
    element = next(str(row["formula"]) for row in rows if row["quantity"] == "x")
    count = counted(int(found["count"]), "value")
    statistics = f"mean {found['mean']} and variance {found['var']}"
    if of_batch:
        begin = f"Channel {rows[0]['channel']} has {count} with {statistics}"
    else:
        begin = (
            f"The {count} of channel {rows[0]['channel']} are normalised with the stored "
            f"{statistics}"
        )
    said = [
        f"{begin}, so that invstd, 1 / sqrt(var + eps), is {found['invstd']}.",
        f"{element} = {found['x']} becomes the output {found['output']}.",
    ]
    running = [found.get(name) for name in ("running_mean", "running_var")]
    if None not in running:
        verb = "become" if "factor" in found else "stay"
        said.append(f"running_mean and running_var {verb} {running[0]} and {running[1]}.")
    if "grad_input" in found:
        said.append(f"The gradient of {element} is {found['grad_input']}.")
    return " ".join(said)
