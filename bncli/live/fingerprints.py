"""Checksums of all tensors that belong together: of a model's, and of those in a checkpoint."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bncli.gate.places import names_of
from bncli.live.parts import COUNTER
from bncli.loaders.elements import crc_of_ref

if TYPE_CHECKING:
    from bncli.model import TensorRef

RUNNING = frozenset({"running_mean", "running_var", COUNTER})
"""What a BatchNorm layer estimates while the model is trained."""


def fingerprint_of(refs: Mapping[str, TensorRef]) -> dict[str, str]:
    """The sums of a checkpoint's tensors as they are stored, by name; as `summed` gives them.

    They are the sums of a model with these tensors: of the same names but for wrappers, the same
    dtypes, and with a tensor that has two names under both. A tensor whose own checksum is in the
    file's directory is not read; another is read once, in blocks. Raises TensorError where the
    values of one cannot be had, and FileError.
    """
    return summed({name: crc_of_ref(ref) for name, ref in refs.items()})


def summed(crcs: Mapping[str, int]) -> dict[str, str]:
    """The CRC-32 sums of tensors by name as two, each of 8 hexadecimal digits.

    `running_statistics` is of running_mean, running_var and num_batches_tracked of the layers that
    have them, `weights` of all other tensors. Each is the sum of the lines "name crc" with the
    tensor's own sum, ordered by the names without wrappers, so that the order of the layers and a
    wrapper do not matter.
    """
    bare = names_of(tuple(crcs)).bare
    sums: dict[str, list[str]] = {"weights": [], "running_statistics": []}
    for name, crc in crcs.items():
        place = bare(name).replace("/", ".")
        which = "running_statistics" if place.rpartition(".")[2] in RUNNING else "weights"
        sums[which].append(f"{place} {crc:08x}\n")
    return {
        which: f"{zlib.crc32(''.join(sorted(lines)).encode()):08x}" for which, lines in sums.items()
    }
