"""The input of a command: tensors opened, checked against each other and against BatchNorm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import COMPUTE_DTYPES, DTYPES, ComputeDtype, decode, encode
from bncli.errors import FileError, TensorError, UsageError
from bncli.light import dataclass, np
from bncli.loaders import open_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from bncli.model import ChannelStats, TensorRef

VALUES = Path("--values")
"""Where a tensor stands that is typed on the command line."""
LAYOUTS = {2: "(N, C)", 3: "(N, C, L)", 4: "(N, C, H, W)", 5: "(N, C, D, H, W)"}


@dataclass(frozen=True, slots=True)
class Input:
    """One population of values: one tensor, or several that are parts of it.

    `dtype` is the one computed in, `cast` the same where it is not the stored one, else None.
    `channel_axis` counts from the front; `axis_source` says where it is from, if that is neither a
    flag nor PyTorch's default.
    """

    tensors: tuple[TensorRef, ...]
    channel_axis: int
    dtype: str
    cast: str | None
    axis_source: str = ""

    @property
    def label(self) -> str:
        """The inputs as the user would type them."""
        return " ".join(tensor.label for tensor in self.tensors)

    @property
    def read(self) -> tuple[str, ...]:
        """The files that the inputs come from."""
        return tuple(str(tensor.path) for tensor in self.tensors if tensor.path != VALUES)

    @property
    def about(self) -> tuple[tuple[str, str], ...]:
        """The inputs as `Report.about` has them; a typed one is called by its flag."""
        return tuple(map(place_of, self.tensors))

    @property
    def kind(self) -> str:
        """The module that takes this rank."""
        return f"BatchNorm{max(self.tensors[0].ndim - 2, 1)}d"

    @property
    def channels_said(self) -> str:
        """How many channels there are, on which axis, and where that is from."""
        source = f" ({self.axis_source})" if self.axis_source else ""
        return f"{self.num_features} channels on axis {self.channel_axis}{source}"

    @property
    def axis_said(self) -> str:
        """The channel axis for a subject, where it is another than 1 without a flag; else ""."""
        if not self.axis_source or self.channel_axis == 1:
            return ""
        axis = -1 if self.channel_axis == self.tensors[0].ndim - 1 else self.channel_axis
        return f", channel axis {axis} ({self.axis_source})"

    @property
    def num_features(self) -> int:
        """The number of channels."""
        return self.tensors[0].shape[self.channel_axis]

    @property
    def count(self) -> int:
        """The number of values per channel, over all inputs."""
        return sum(tensor.numel for tensor in self.tensors) // self.num_features

    @property
    def sample_axis(self) -> int | None:
        """The axis of the samples; None where the channels come first and it cannot be told."""
        if self.channel_axis != 0:
            return 0
        return 1 if self.tensors[0].ndim == 2 else None

    @property
    def itemsize(self) -> int:
        """The bytes of a stored value."""
        return DTYPES[self.tensors[0].dtype].itemsize

    def values(self, tensor: TensorRef, block: tuple[slice, ...] | None = None) -> NDArray[Any]:
        """A tensor's values (or a block of them) in `dtype`, bfloat16 as float32."""
        return self.decoded(tensor.stored(block or ()), tensor.dtype)

    def decoded(self, stored: NDArray[Any], dtype: str) -> NDArray[Any]:
        """The values, in the input's `dtype`, of elements stored in `dtype`."""
        values = decode(stored, dtype)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if self.cast is not None:
            values = decode(encode(values, self.cast), self.cast)
        return np.asarray(values)

    def statistics(
        self, *, sample_axis: int | None = None, threads: int | None = None
    ) -> list[ChannelStats]:
        """The statistics of each tensor, with a progress bar; see `bncli.moments.channel_stats`."""
        return list(self.each_statistics(sample_axis=sample_axis, threads=threads))

    def each_statistics(
        self, *, sample_axis: int | None = None, threads: int | None = None
    ) -> Iterator[ChannelStats]:
        """The same, one after the other."""
        from bncli.moments import channel_stats
        from bncli.process.progress import progress

        total = sum(tensor.numel for tensor in self.tensors)
        with progress("statistics", total * self.itemsize) as advance:
            for tensor in self.tensors:
                yield channel_stats(
                    tensor,
                    self.channel_axis,
                    dtype=self.dtype if tensor.dtype != self.dtype else None,
                    sample_axis=sample_axis,
                    threads=threads,
                    advance=advance,
                )

    def pooled(self) -> NDArray[Any]:
        """All values as one array: the tensor, or the shards one after the other on axis 0.

        Raises UsageError where the shards' shapes do not allow it.
        """
        arrays = [self.values(tensor) for tensor in self.tensors]
        if len(arrays) == 1:
            return arrays[0]
        if self.channel_axis == 0 or len({array.shape[1:] for array in arrays}) > 1:
            raise UsageError(
                "--against: a comparison needs inputs that differ only along the batch axis; "
                "compare them one by one."
            )
        return np.concatenate(arrays)


def layout_of(tensor: TensorRef) -> NDArray[Any]:
    """An array with the tensor's memory layout; its values must not be read."""
    from numpy.lib.stride_tricks import as_strided

    return as_strided(np.empty(1), tensor.shape, [8 * step for step in tensor.strides])


def place_of(tensor: TensorRef) -> tuple[str, str]:
    """The file of a tensor and its name there; for a typed one no file, and the flag."""
    return ("", str(VALUES)) if tensor.path == VALUES else (str(tensor.path), tensor.name)


def opened(spec: str, dtype: ComputeDtype | None) -> TensorRef:
    """A tensor, for computing in `dtype`; raises as `open_tensor`."""
    return _as_typed(open_tensor(spec), dtype)


def open_values(text: str, dtype: ComputeDtype | None) -> TensorRef:
    """A tensor typed as nested lists. Raises FileError, which names the flag."""
    from bncli.loaders import json

    if not text.lstrip().startswith("["):
        raise FileError(VALUES, f"write the samples as lists, such as '{json.EXAMPLE}'.")
    (tensor,) = json.nested_lists(VALUES, [text.encode(errors="replace")]).tensors.values()
    return _as_typed(tensor, dtype)


def _as_typed(tensor: TensorRef, dtype: ComputeDtype | None) -> TensorRef:
    """The same; typed decimals are rounded to float64 at once where that is `dtype`."""
    if dtype is ComputeDtype.FLOAT64:
        from bncli.loaders.typed import Numbers

        if isinstance(tensor.storage, Numbers):
            return replace(tensor, dtype="float64", storage=tensor.storage.exact)
    return tensor


def open_real(spec: str, what: str) -> TensorRef:
    """A tensor of real numbers. Raises TensorError, which says `what` cannot be read from it."""
    tensor = open_tensor(spec)
    if tensor.unreadable or DTYPES[tensor.dtype].kind == "complex":
        why = tensor.unreadable or tensor.dtype
        raise TensorError(f"{tensor.label}: {what} be read from it ({why}).")
    return tensor


def open_vector(spec: str, what: str) -> TensorRef:
    """A tensor as `open_real`; one row or one column of typed numbers is a vector."""
    tensor = open_real(spec, what)
    if tensor.ndim == 2 and 1 in tensor.shape:
        from bncli.loaders.typed import Numbers

        if isinstance(tensor.storage, Numbers):
            return replace(tensor, shape=(tensor.numel,), strides=(1,))
    return tensor


def open_input(specs: list[str], channel_axis: int, dtype: ComputeDtype | None) -> Input:
    """Open the tensors and check that BatchNorm takes them.

    Raises FileError, TensorError and UsageError, each naming the tensor and the fix.
    """
    return check_input(tuple(opened(spec, dtype) for spec in specs), channel_axis, dtype)


def check_input(
    tensors: tuple[TensorRef, ...], channel_axis: int, dtype: ComputeDtype | None
) -> Input:
    """The tensors as an input, once BatchNorm is known to take them; raises as `open_input`."""
    for tensor in tensors:
        _check_shape(tensor, channel_axis)
        _check_dtype(tensor, dtype)
    first = tensors[0]
    axis = channel_axis % first.ndim
    for tensor in tensors[1:]:
        for what, one, other in (
            ("axes", first.ndim, tensor.ndim),
            ("channels", first.shape[axis], tensor.shape[channel_axis % tensor.ndim]),
        ):
            if one != other:
                raise TensorError(
                    f"{tensor.label} has {other} {what}, but {first.label} has {one}; "
                    f"all inputs must have the same number of {what}."
                )
        if dtype is None and tensor.dtype != first.dtype:
            raise TensorError(
                f"{tensor.label} is {tensor.dtype}, but {first.label} is {first.dtype}; "
                "choose the dtype to compute in with --dtype."
            )
    computed = dtype.value if dtype else first.dtype
    cast = computed if any(tensor.dtype != computed for tensor in tensors) else None
    return Input(tensors, axis, computed, cast)


def _check_shape(tensor: TensorRef, channel_axis: int) -> None:
    """Raise TensorError for a shape that BatchNorm does not take."""
    shape = list(tensor.shape)
    if tensor.ndim not in LAYOUTS:
        axes = "1 axis" if tensor.ndim == 1 else f"{tensor.ndim} axes"
        advice = f"BatchNorm takes 2 to 5, such as {LAYOUTS[2]} or {LAYOUTS[4]}."
        if tensor.path == VALUES and tensor.ndim == 1:
            advice = "write [[1], [2]] for two samples, or [[1, 2]] for one sample of two channels."
        raise TensorError(f"{tensor.label}: shape {shape} has {axes}; {advice}")
    if not -tensor.ndim <= channel_axis < tensor.ndim:
        raise UsageError(
            f"--channel-axis {channel_axis}: {tensor.label} has {tensor.ndim} axes, "
            f"so it must be from {-tensor.ndim} to {tensor.ndim - 1}."
        )
    if tensor.numel == 0:
        raise TensorError(
            f"{tensor.label}: shape {shape} holds no values, so there is nothing to normalise."
        )


def _check_dtype(tensor: TensorRef, dtype: ComputeDtype | None) -> None:
    """Raise TensorError for a dtype that BatchNorm does not compute in, unless a cast is asked."""
    if tensor.unreadable:
        raise TensorError(f"{tensor.label}: its values cannot be read ({tensor.unreadable}).")
    if DTYPES[tensor.dtype].kind == "complex":
        raise TensorError(f"{tensor.label}: {tensor.dtype}; BatchNorm is not defined for it.")
    if dtype is None and tensor.dtype not in COMPUTE_DTYPES:
        raise TensorError(
            f"{tensor.label}: {tensor.dtype}; BatchNorm computes in floating point: "
            "add --dtype float32."
        )


def parse_channels(texts: list[str] | None, num_features: int) -> Sequence[int]:
    """The channels that `--channel` names, each time it is given, ascending: "0,3,8-11".

    All of them for None. Raises UsageError for anything else, or for a channel that is not there.
    """
    if not texts:
        return range(num_features)  # which takes no memory, however many there are
    chosen: set[int] = set()
    for text, part in ((given, part) for given in texts for part in given.split(",")):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(
                f"--channel {text}: {part.strip()!r} is not a channel; "
                "write a list such as 0,3,8-11."
            )
        begin, end = int(first), int(last or first)
        if begin > end:
            raise UsageError(
                f"--channel {text}: {part.strip()} runs backwards; write {end}-{begin}."
            )
        if end >= num_features:
            raise UsageError(
                f"--channel {text}: {part.strip()} is not among the channels 0 to "
                f"{num_features - 1}."
            )
        chosen.update(range(begin, end + 1))
    return sorted(chosen)
