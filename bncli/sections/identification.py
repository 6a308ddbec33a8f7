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
    from bncli.verify.identify.hypotheses import Known
    from bncli.verify.identify.output import Identification


def identify_output_of(
    given: Input, made: TensorRef, flags: KnownFlags, name: str
) -> tuple[Identification, Known, tuple[str, ...]]:
    """What made a tensor from the input, what is known, and the files that were read.

    `name` is what sentences call the tensor; the file that holds it is the first of those read.
    Several inputs are one batch, whose output is that of all of them, one after the other.

    Raises TensorError where the tensor cannot be the input's output.
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
            "an output has its input's shape, though its channels may be on another axis."
        )
    known = open_known(flags, given)
    found = identify_output(
        x, FileSource(made, made.dtype), given.channel_axis, known, name, shards
    )
    specs = (str(split_spec(spec)[0]) for spec in flags.specs)
    return found, known, (str(made.path), *given.read, *specs)


def cause_of_difference(actual: Identification, expected: Identification) -> tuple[str, str]:
    """Why two outputs of one input differ, in sentences, and the fix; "" where nothing is known."""
    from bncli.verify.identify.doubt import differ_in_eps
    from bncli.verify.identify.hypotheses import eps_text

    if not (actual.hypotheses and expected.hypotheses):
        return "", ""
    if not (actual.explained and expected.explained):
        return f"{actual.best} {expected.best}", ""
    ours, theirs = actual.hypotheses[0].hypothesis, expected.hypotheses[0].hypothesis
    ranges = [one.eps_range for one in (actual, expected) if one.eps_range]
    if ours == theirs and not ranges:
        return f"Both were computed {ours.way}, so this is not the cause.", ""
    said = f"{expected.name} was computed {expected.way}, and {actual.name} {actual.way}."
    fix = f"Compute {actual.name} {expected.way} too, or change what is expected."
    if ranges and (ours == theirs or differ_in_eps(ours, theirs)):
        fix = "Compare eps on both sides."
    elif differ_in_eps(ours, theirs):
        fix = f"Set eps={eps_text(theirs.eps)} where {actual.name} is made."
    if actual.confident and expected.confident:
        return f"Cause: {said}", fix
    doubts = (f"{one.name}: {one.said.doubt}." for one in (actual, expected) if one.said.doubt)
    return " ".join((f"Likely cause: {said}", *doubts)), fix
