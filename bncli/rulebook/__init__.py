"""The registry of rules.

BN0xx   an input batch
BN1xx   statistics that were never estimated
BN2xx   impossible values
BN3xx   counters
BN4xx   dead and exploding channels
BN5xx   precision
BN6xx   layers compared with each other
BN7xx   running statistics over many batches
BN8xx   a running model
BN9xx   a comparison
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bncli.report import Finding
    from bncli.rulebook.interface import Rule

FAMILIES: dict[str, str] = {
    "BN0": "an input batch",
    "BN1": "statistics that were never estimated",
    "BN2": "impossible values",
    "BN3": "counters",
    "BN4": "dead and exploding channels",
    "BN5": "precision",
    "BN6": "layers compared with each other",
    "BN7": "running statistics over many batches",
    "BN8": "a running model",
    "BN9": "a comparison",
}
"""What the rules of each hundred are about, by the code without its last two digits."""


def __getattr__(name: str) -> tuple[Rule, ...]:
    """`RULES`, all rules, loaded only on request: a command judges by a few of them."""
    if name != "RULES":
        raise AttributeError(name)
    return _rules()


def _rules() -> tuple[Rule, ...]:
    """Every rule, in the order of its code."""
    from bncli.rulebook.registry import RULES

    return RULES


def formerly(code: str) -> tuple[str, ...]:
    """The codes under which some findings of `code` were reported before; () if unknown."""
    return next((rule.formerly for rule in _rules() if rule.code == code), ())


def former_codes(finding: Finding) -> list[set[str]]:
    """The codes under which a finding was reported before; one of each set has to be known.

    A finding that stands for several others is known if all of those are.
    """
    codes = set(formerly(finding.code))
    if finding.instead_of is None:
        return [codes] if codes else []
    every = ({code, *formerly(code)} & codes for code in finding.instead_of)
    return [each for each in every if each]


def taken_over(code: str) -> tuple[str, ...]:
    """The codes of the rules that took over some findings of `code`."""
    return tuple(rule.code for rule in _rules() if code in rule.formerly)
