"""The registry of rules: BN0xx speak of an input batch, BN7xx of running statistics,
BN9xx of a comparison.
"""

from __future__ import annotations

from bncli.rules import batch, comparison, norms, running
from bncli.rules.interface import Rule

RULES: tuple[Rule, ...] = (*batch.RULES, *norms.RULES, *running.RULES, *comparison.RULES)
"""Every rule, in the order of its code."""
