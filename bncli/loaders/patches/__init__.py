"""New values of tensors become bytes to replace in the files that hold them.

Nothing is written here: `bncli.files.edits` does that. A file keeps its length, its container and
all bytes but those of the tensors, and of the checksums over them. So the record
`.data/serialization_id` of a file of `torch.save`, a hash that PyTorch does not read, is still that
of the old contents.
"""

from __future__ import annotations

from bncli.loaders.patches.checks import check_container
from bncli.loaders.patches.making import aliases_of, edits_of, has_serialization_id
from bncli.loaders.patches.rounding import rounded

__all__ = ["aliases_of", "check_container", "edits_of", "has_serialization_id", "rounded"]
