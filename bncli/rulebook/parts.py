"""BN907: what a whole lacks that was merged from parts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.model.part import shards_said
from bncli.report import Severity
from bncli.rulebook.interface import Rule, percent

if TYPE_CHECKING:
    from bncli.files.reading import MissingParts
    from bncli.report import Finding

PARTS_MISSING = Rule(
    "BN907",
    "parts-missing",
    Severity.WARNING,
    "parts of the whole are missing, so the numbers are those of the rest",
    "Make the missing parts with the call that made the others, each with its own --shard K/N, "
    "and merge all parts again.",
    symptom="A task of an array failed, or wrote its part elsewhere, and the merged numbers are "
    "those of fewer values than expected.",
    arithmetic="Every part says how many shards there are and how many bytes the inputs of all of "
    "them have, or, where a model ran, how many batches there are. The share that is missing is "
    "what the parts at hand do not account for.",
    certainty="Certain that the parts were not given. The share is that of the inputs' bytes, of "
    "the batches, or, where neither is known, of the shards.",
    lookalike="A part that was made of other inputs or with other flags is not merged at all: "
    "bncli exits with code 2.",
)


def missing_parts(missing: MissingParts) -> Finding:
    """The finding on shards that are not among the parts."""
    are = "is" if len(missing.shards) == 1 else "are"
    share = ""
    if missing.share is not None:
        share = f", with about {percent(missing.share)} of {missing.of}"
    return PARTS_MISSING.finding(
        missing.path,
        f"{shards_said(missing.shards, missing.n)} {are} missing{share}",
        {
            "missing_shards": list(missing.shards),
            "shards": missing.n or None,
            "missing_share": missing.share,
        },
        hint=_hint(missing.again),
    )


def _hint(again: str) -> str:
    """What to do, where it is known how a part is made: "make shard 1/4 with: CALL"."""
    what, _, call = again.partition(" with: ")
    return f"First {what} with `{call}`, then merge all parts again." if call else ""
