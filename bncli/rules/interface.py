"""What a rule is: a code that stays, what it means, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bncli.report import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.report import Value


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of finding. `code` is a promise to scripts; `hint` is the mend in a sentence."""

    code: str
    name: str
    severity: Severity
    summary: str
    hint: str

    def finding(self, subject: str, message: str, evidence: Mapping[str, Value]) -> Finding:
        """A finding of this kind at `subject`."""
        return Finding(self.code, self.severity, subject, message, evidence, self.hint)
