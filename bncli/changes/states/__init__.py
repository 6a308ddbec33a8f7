"""What can have happened to a layer, the plainest explanation first.

Each module has `find(pair, files)`, which gives the state that explains the pair, or None. Another
explanation is one more module and an entry in `FINDS`, at the place where it is tried.
"""

from __future__ import annotations

from collections.abc import Callable

from bncli.changes.pair import Files, LayerPair
from bncli.changes.states import conventions, equal, folded, missing, moved, order, spoilt
from bncli.model.changes import Found

FINDS: tuple[Callable[[LayerPair, Files], Found | None], ...] = (
    missing.find,
    equal.find,
    folded.find,
    conventions.find,
    spoilt.find,
    order.find,
    moved.find,
)
"""In the order in which they are tried; the last explains every pair."""


def explain(pair: LayerPair, files: Files) -> Found:
    """The plainest state that explains a pair of layers."""
    tried = (find(pair, files) for find in FINDS)
    return next(found for found in tried if found is not None)
