"""BN907: what a whole lacks that was merged from parts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.report import Severity
from bncli.rulebook.interface import Rule, percent

if TYPE_CHECKING:
    from bncli.files.reading import MissingParts
    from bncli.report import Finding

MOST_NAMED = 20

PARTS_MISSING = Rule(
    "BN907",
    "parts-missing",
    Severity.WARNING,
    "parts of the whole are missing, so the numbers are those of the rest",
    "Run the missing shards again with the call that made the others and their own --shard K/N, "
    "and merge all of the parts.",
    symptom="A task of an array failed, or wrote its part elsewhere, and the merged numbers are "
    "those of fewer values than expected.",
    arithmetic="Every part says how many shards there are and how many bytes the inputs of all of "
    "them have. What the parts at hand do not have is the share that is missing.",
    certainty="Certain that the parts were not given. The share is that of the inputs' bytes, or, "
    "where these are not known, of the shards.",
    lookalike="A part that was made of other inputs or with other flags is not merged at all: "
    "bncli exits with code 2.",
)


def missing_parts(missing: MissingParts) -> Finding:
    """The finding on shards that are not among the parts."""
    shown = [str(k) for k in missing.shards[:MOST_NAMED]]
    if len(missing.shards) > MOST_NAMED:
        shown.append(f"{len(missing.shards) - MOST_NAMED} more")
    said = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    several = len(missing.shards) > 1
    of = f" of {missing.n}" if missing.n else ""
    return PARTS_MISSING.finding(
        missing.path,
        f"shard{'s' * several} {said}{of} {'are' if several else 'is'} missing, which "
        f"{'have' if several else 'has'} about {percent(missing.share)} of the inputs' bytes",
        {
            "missing_shards": list(missing.shards),
            "shards": missing.n or None,
            "missing_share": missing.share,
        },
    )
