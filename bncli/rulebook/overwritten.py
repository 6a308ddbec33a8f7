"""BN909: an implementation that overwrites what it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.report import Severity
from bncli.rulebook.interface import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.report import Finding

OVERWRITTEN = Rule(
    "BN909",
    "overwrites-arguments",
    Severity.ERROR,
    "the implementation changes its input, weight or bias in place",
    "Write the output into an array of its own, and leave weight and bias to the optimizer.",
    symptom="Numbers agree layer by layer, and a network with a residual connection does not: what "
    "is added around the layer is no longer what went into it.",
    arithmetic="The values of the input, weight and bias after the pass are compared with those "
    "before it. A BatchNorm changes its running statistics alone.",
    certainty="Certain that the values changed during the pass.",
    lookalike="Running statistics that are changed in place are an update, as PyTorch's own.",
)


def overwritten_findings(changed: Sequence[tuple[str, int, int]], name: str) -> list[Finding]:
    """A finding for each argument that the implementation `name` changed.

    `changed` holds each argument's name, how many of its values changed, and of how many.
    """
    called = {"x": "its input"}
    return [
        OVERWRITTEN.finding(
            argument,
            f"{name} changes {values} of {total} values of {called.get(argument, argument)} in "
            "place",
            {"argument": argument, "changed": values, "total": total},
        )
        for argument, values, total in changed
    ]
