"""The list of all rules. It imports every one of them, which most calls need not."""

from __future__ import annotations

from bncli.rulebook import (
    averaging,
    batch_rules,
    channels,
    collapse,
    comparison,
    corruption,
    counters,
    estimation,
    lookalikes,
    momentum,
    norms,
    precision,
    running,
    shapes,
    stored_batch,
    structure,
    unwritten,
    variances,
)
from bncli.rulebook.interface import Rule

RULES: tuple[Rule, ...] = tuple(
    sorted(
        (
            *batch_rules.RULES,
            *stored_batch.RULES,
            *norms.RULES,
            *estimation.RULES,
            *momentum.RULES,
            *lookalikes.RULES,
            *corruption.RULES,
            *variances.RULES,
            *shapes.RULES,
            *unwritten.RULES,
            *counters.RULES,
            *channels.RULES,
            *collapse.RULES,
            *precision.RULES,
            *structure.RULES,
            *averaging.RULES,
            *running.RULES,
            *comparison.RULES,
        ),
        key=lambda rule: rule.code,
    )
)
"""Every rule, in the order of its code."""
