"""The convolution or linear layer whose output each layer of a file takes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.changes.pair import Before
from bncli.state_dict.in_front import in_front

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.model import TensorFile
    from bncli.state_dict import LayerRefs


def befores(file: TensorFile, layers: Mapping[str, LayerRefs]) -> dict[str, Before]:
    """What is in front of each layer, by its name; layers where this is in doubt are left out.

    `layers` are all of the file's layers: none of them is in front of another.
    """
    return {
        name: Before(near.name, near.weight, near.bias, near.axis)
        for name, near in in_front(file, layers).items()
    }
