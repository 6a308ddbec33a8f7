"""The tensors of `bncli identify`, opened, checked and handed on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from bncli.arguments.known import open_known, read_vector
from bncli.dtypes import COMPUTE_DTYPES, DTYPES
from bncli.errors import TensorError, UsageError
from bncli.loaders import split_spec

if TYPE_CHECKING:
    from bncli.arguments.input import Input
    from bncli.arguments.known import KnownFlags
    from bncli.model import TensorRef
    from bncli.verify.identify.output import Identification
    from bncli.verify.identify.running import UpdateIdentification


@dataclass(frozen=True, slots=True)
class Buffers:
    """The running statistics around a batch, as typed; None where a flag was not given."""

    running_mean_before: str | None
    running_var_before: str | None
    running_mean_after: str | None
    running_var_after: str | None

    @property
    def any_given(self) -> bool:
        """Whether the update is asked about."""
        return any(getattr(self, field.name) is not None for field in fields(self))


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
    known = open_known(flags, given.num_features, first.label, x.shape, given.channel_axis)
    found = identify_output(
        x, FileSource(made, made.dtype), given.channel_axis, known, name, shards
    )
    return found, (*(str(tensor.path) for tensor in given.tensors), str(made.path), *flags.read)


def identify_update_of(
    given: Input, buffers: Buffers
) -> tuple[UpdateIdentification, tuple[str, ...]]:
    """How the running statistics were updated with the input, and the files that were read."""
    from bncli.model import RunningStats
    from bncli.moments import channel_stats, merge
    from bncli.verify.identify.running import Observed, identify_update

    arrays, dtypes, read = {}, [], []
    tensor = given.tensors[0]
    for field in fields(buffers):
        spec = getattr(buffers, field.name)
        if spec is None:
            flag = field.name.replace("_", "-")
            raise UsageError(
                f"--{flag} is missing: an update needs the mean and the variance before and after."
            )
        arrays[field.name], dtype = read_vector(field.name, spec, given.num_features, tensor.label)
        dtypes.append(dtype)
        read.append(str(split_spec(spec)[0]))
    if given.count == 1:
        raise TensorError(
            f"{tensor.label}: one value a channel has no variance, so that it updates nothing; "
            "use a larger batch."
        )
    parts = tuple(
        channel_stats(
            shard, given.channel_axis, dtype=given.dtype if shard.dtype != given.dtype else None
        )
        for shard in given.tensors
    )
    observed = Observed(
        merge(parts) if len(parts) > 1 else parts[0],
        RunningStats(arrays["running_mean_before"], arrays["running_var_before"], 0),
        RunningStats(arrays["running_mean_after"], arrays["running_var_after"], 1),
        max(
            (dtype for dtype in dtypes if DTYPES[dtype].digits),
            key=lambda dtype: DTYPES[dtype].unit_roundoff,
            default="float64",
        ),
        parts if len(parts) > 1 else (),
    )
    return identify_update(observed), (*(str(shard.path) for shard in given.tensors), *read)
