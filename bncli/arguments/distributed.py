"""What does not go together with `--distributed`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_distributed(specs: Sequence[str | None], shard: str | None = None) -> None:
    """Raise UsageError where several ranks cannot read these inputs, or a shard was chosen."""
    if shard is not None:
        raise UsageError(
            f"--shard {shard}: with --distributed each rank takes its own shard; leave one of "
            "the two out."
        )
    if "-" in specs:
        raise UsageError(
            "--distributed: standard input can be read by one process only; name a file."
        )
