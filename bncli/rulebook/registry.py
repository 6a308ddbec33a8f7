"""The list of all rules. It imports every one of them, which most calls need not.

A new module of rules about checkpoints has its entry in `bncli.rulebook.checkpoint`, any other
one here.
"""

from __future__ import annotations

from bncli.rulebook import (
    batch_rules,
    change_settings,
    changes,
    checkpoint,
    comparison,
    many,
    norms,
    overwritten,
    parts,
    ranks,
    running,
    stored_batch,
)
from bncli.rulebook.interface import Rule
from bncli.rulebook.live import batches, inputs, modes, notes, repair, weights

MODULES = (
    *checkpoint.MODULES,
    modes,
    inputs,
    batches,
    weights,
    notes,
    repair,
    changes,
    change_settings,
    many,
    batch_rules,
    comparison,
    norms,
    overwritten,
    parts,
    ranks,
    running,
    stored_batch,
)

RULES: tuple[Rule, ...] = tuple(
    sorted(
        {rule for module in MODULES for rule in vars(module).values() if isinstance(rule, Rule)},
        key=lambda rule: rule.code,
    )
)
"""Every rule, in the order of its code."""
