"""The tensors of `bncli identify`, opened, checked and handed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.arguments.known import open_known
from bncli.dtypes import COMPUTE_DTYPES
from bncli.errors import TensorError
from bncli.loaders import split_spec

if TYPE_CHECKING:
    from bncli.arguments.flags import KnownFlags
    from bncli.arguments.input import Input
    from bncli.model import TensorRef
    from bncli.verify.identify.output import Identification


def identify_output_of(
    given: Input, made: TensorRef, flags: KnownFlags, name: str = "OUTPUT"
) -> tuple[Identification, tuple[str, ...]]:
    """What made a tensor from the input, and the files that were read; `name` is for sentences.

    Several inputs are one batch, whose output is that of all of them, one after the other.
    """
    from bncli.verify.identify.output import identify_output
    from bncli.verify.identify.pair import ArraySource, FileSource

    if made.unreadable:
        raise TensorError(f"{made.label}: its values cannot be read ({made.unreadable}).")
    if made.dtype not in COMPUTE_DTYPES:
        raise TensorError(f"{made.label}: {made.dtype}; a normalised output is floating point.")
    first = given.tensors[0]
    x: ArraySource | FileSource = FileSource(first, given.dtype)
    shards: tuple[int, ...] = ()
    if len(given.tensors) > 1:
        x = ArraySource(given.pooled(), given.dtype)
        shards = tuple(tensor.shape[0] for tensor in given.tensors)
    if sorted(made.shape) != sorted(x.shape):
        raise TensorError(
            f"{made.label} has shape {list(made.shape)} and {given.label} {list(x.shape)}; "
            "an output has its input's shape, but for the place of the channels."
        )
    known = open_known(flags, given)
    found = identify_output(
        x, FileSource(made, made.dtype), given.channel_axis, known, name, shards
    )
    specs = (str(split_spec(spec)[0]) for spec in flags.specs)
    return found, (*given.read, str(made.path), *specs)
