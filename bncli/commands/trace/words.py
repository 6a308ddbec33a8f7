"""The sentences of `bncli trace`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.rulebook.interface import name_channels
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from bncli.commands.trace.tables import Row
    from bncli.verify.trace import Identity

STRIDED_NOTE = (
    "The input is strided, which PyTorch sums in another way: these are the bits of its contiguous "
    "copy."
)


def difference_clauses(differing: dict[int, str]) -> list[str]:
    """Where the first channel that differs from training does, and how many others do or do not."""
    clauses = [clause for clause in differing.values() if clause]
    alike = [channel for channel, clause in differing.items() if not clause]
    said = clauses[:1]
    if len(clauses) > 1:
        more = len(clauses) - 1
        said.append(f"so do{'es' * (more == 1)} {counted(more, 'other channel')}")
    if alike and not clauses:
        said.append("evaluation normalises as training does, to within rounding")
    elif alike:
        verb = "is" if len(alike) == 1 else "are"
        said.append(f"{name_channels(alike)} {verb} normalised as in training, to within rounding")
    return said


def identities_clause(checks: list[Identity]) -> str:
    """How many identities hold."""
    judged = [item for item in checks if item.holds is not None]
    failed = sum(not item.holds for item in judged)
    if failed:
        return f"{failed} of {len(judged)} identities of the gradients do not hold"
    if not judged:
        return "the identities of the gradients cannot be checked: the numbers are not finite"
    lost = len(checks) - len(judged)
    said = f"{len(judged)} of {len(checks)} identities of the gradients hold"
    return f"{said}, {lost} cannot be checked: numbers are not finite" if lost else said


def example_clause(element: Row) -> str:
    """What becomes of an element: "x[0, 0] = 1 becomes -1.324244"."""
    index, x, output = (element[name] for name in ("index", "x", "output"))
    assert isinstance(index, tuple)
    return f"x{list(index)} = {x:.7g} becomes {output:.7g}"
