"""The arrays of a statistics file: columns with the channels of all layers one behind the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bncli.errors import TensorError
from bncli.light import dataclass, np
from bncli.loaders.npz import read_array
from bncli.loaders.statistics.fields import damaged
from bncli.model.capture import Capture, InputSums, Propagation, WatchedLayer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.loaders.zip_archive import ZipArchive

NUMBERS = tuple(item.name for item in fields(InputSums) if item.type == "int")
"""What a layer has one whole number of, whatever its channels."""
FLOATS = tuple(item.name for item in fields(InputSums) if item.type == "FloatArray")
COUNTS = tuple(item.name for item in fields(InputSums) if item.type == "IntArray")
"""What it has a number of for each channel."""
NEVER_NEGATIVE = (
    "within",
    "between",
    "sample_squares",
    "sample_between",
    "batch_mean_squares",
    "batch_var",
    "batch_var_squares",
)
LATER = ("sample_mean", "sample_between")
"""What the first files of this format lack."""
DERIVED = ("mean", "var")
"""What is written for people beside what is read."""
LEAVES = ("weight", "bias", "running_mean", "running_var")
PER_BATCH = ("count", "mean", "var")


def columns(capture: Capture) -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays of a capture by the names of their members, one at a time.

    Raises TensorError for a layer whose arrays have not one number a channel.
    """
    layers = capture.layers
    sizes = [layer.num_features for layer in layers]
    yield "layer", np.repeat(np.arange(len(layers), dtype=np.int32), sizes)
    for propagation in Propagation:
        sums = [layer.seen.get(propagation) for layer in layers]
        if any(seen is not None for seen in sums):
            for name, column in _seen(layers, sums):
                yield f"{propagation.value}/{name}", column
    for leaf in LEAVES:
        parts = [getattr(layer.state, leaf, None) for layer in layers]
        if any(part is not None for part in parts):
            yield f"state/{leaf}", _joined(layers, leaf, parts)
    for i, layer in enumerate(layers):
        if layer.kernel is not None:
            yield f"kernel/{i}/sums", np.asarray(layer.kernel.sums, np.float64)
            if layer.kernel.bias is not None:
                yield f"kernel/{i}/bias", np.asarray(layer.kernel.bias, np.float64)
        for propagation in batches_of(capture, layer):
            table = capture.per_batch[layer.name, propagation]
            for name in PER_BATCH:
                yield f"per_batch/{propagation.value}/{i}/{name}", np.asarray(table[name])
    if capture.outputs:
        yield "outputs/mean", np.concatenate([output.mean for output in capture.outputs])
        yield "outputs/squares", np.concatenate([output.squares for output in capture.outputs])


def batches_of(capture: Capture, layer: WatchedLayer) -> list[Propagation]:
    """The propagations of which every batch of the layer is kept."""
    return [each for each in Propagation if (layer.name, each) in capture.per_batch]


def _seen(
    layers: Sequence[WatchedLayer], sums: Sequence[InputSums | None]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """What the layers saw in one propagation; None where one saw nothing."""
    for name in NUMBERS:
        numbers = [0 if seen is None else getattr(seen, name) for seen in sums]
        yield name, np.array(numbers, np.int64)
    for name in (*DERIVED, *FLOATS, *COUNTS):
        with np.errstate(all="ignore"):
            parts = [None if seen is None else getattr(seen, name) for seen in sums]
        yield name, _joined(layers, name, parts)


def _joined(
    layers: Sequence[WatchedLayer], name: str, parts: Sequence[NDArray[Any] | None]
) -> NDArray[Any]:
    """One array of the layers' parts; a layer without one has NaN, or 0 among whole numbers."""
    dtype = np.result_type(*(part for part in parts if part is not None))
    column = np.full(
        sum(layer.num_features for layer in layers), np.nan if dtype.kind == "f" else 0, dtype
    )
    for layer, place, part in zip(layers, places(layers), parts, strict=True):
        if part is None:
            continue
        if part.shape != (layer.num_features,):
            raise TensorError(
                f"{layer.name}: {name} has shape {list(part.shape)}, but the layer has "
                f"{layer.num_features} channels, so its statistics cannot be saved."
            )
        column[place] = part
    return column


def places(layers: Sequence[WatchedLayer]) -> list[slice]:
    """Where the channels of each layer are in a column."""
    ends = list(accumulate((layer.num_features for layer in layers), initial=0))
    return [slice(begin, end) for begin, end in pairwise(ends)]


def _sums(
    numbers: Mapping[str, list[int]], arrays: Mapping[str, NDArray[Any]], number: int, place: slice
) -> InputSums:
    """What the layer of this number saw, whose channels are at this place."""
    of_layer: dict[str, Any] = {name: values[number] for name, values in numbers.items()}
    of_layer |= {name: column[place] for name, column in arrays.items()}
    if not of_layer.keys() >= set(LATER):  # as if all samples had the same number of values
        share = of_layer["samples"] / max(of_layer["values"], 1)
        of_layer |= {
            "sample_mean": of_layer["offset"],
            "sample_between": of_layer["between"] * share,
        }
    return InputSums(**of_layer)


@dataclass(frozen=True, slots=True)
class Columns:
    """The arrays of a file, read when they are taken; each must be of the right shape and dtype.

    Every method raises CorruptFileError for one that is not, or is not there.
    """

    path: Path
    archive: ZipArchive

    def __contains__(self, name: str) -> bool:
        """Whether the file has an array of this name."""
        return f"{name}.npy" in self.archive.members

    def take(self, name: str, shape: tuple[int | None, ...], *dtypes: str) -> NDArray[Any]:
        """An array of this shape, None standing for any size, and of one of these dtypes."""
        if name not in self:
            raise damaged(self.path, f"its array {name} is missing")
        header, data = read_array(self.archive, self.archive.members[f"{name}.npy"])
        fits = len(header.shape) == len(shape) and all(
            wanted in {None, size} for size, wanted in zip(header.shape, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise damaged(
                self.path, f"its array {name} has shape {list(header.shape)}, not [{wanted}]"
            )
        if header.dtype not in dtypes:
            what = f"{header.dtype}, not {' or '.join(dtypes)}"
            raise damaged(self.path, f"its array {name} is {what}")
        dtype = np.dtype(header.dtype).newbyteorder(header.byteorder)
        if not header.numel:
            return np.empty(header.shape, header.dtype)
        array = np.frombuffer(data, dtype, header.numel, header.start)
        order: Literal["F", "C"] = "F" if header.fortran_order else "C"
        return array.reshape(header.shape, order=order).astype(header.dtype, copy=False)

    def check_layers(self, layers: Sequence[WatchedLayer]) -> None:
        """Check that every channel belongs to the layer that the header says."""
        sizes = [layer.num_features for layer in layers]
        owner = self.take("layer", (sum(sizes),), "int32")
        if not np.array_equal(owner, np.repeat(np.arange(len(sizes)), sizes)):
            raise damaged(self.path, "its array layer contradicts the sizes of the layers")

    def seen(
        self, propagation: Propagation, layers: Sequence[WatchedLayer], wanted: Sequence[bool]
    ) -> list[InputSums | None]:
        """What the layers saw in a propagation; None for those of which it is not `wanted`."""
        total = sum(layer.num_features for layer in layers)

        def take(name: str, size: int, dtype: str) -> NDArray[Any]:
            column = self.take(f"{propagation.value}/{name}", (size,), dtype)
            if (dtype == "int64" or name in NEVER_NEGATIVE) and (column < 0).any():
                raise damaged(
                    self.path, f"its array {propagation.value}/{name} has a number below 0"
                )
            return column

        numbers = {name: take(name, len(layers), "int64").tolist() for name in NUMBERS}
        arrays = {
            name: take(name, total, "float64")
            for name in FLOATS
            if name not in LATER or f"{propagation.value}/{name}" in self
        }
        arrays |= {name: take(name, total, "int64") for name in COUNTS}
        return [
            _sums(numbers, arrays, i, place) if wanted[i] else None
            for i, place in enumerate(places(layers))
        ]

    def batches(
        self, propagation: Propagation, number: int, num_features: int
    ) -> dict[str, NDArray[Any]]:
        """The statistics of every batch of the layer of this number."""
        where = f"per_batch/{propagation.value}/{number}"
        count = self.take(f"{where}/count", (None,), "int64", "float64")
        shape = (len(count), num_features)
        mean, var = (self.take(f"{where}/{name}", shape, "float64") for name in ("mean", "var"))
        if (count < 1).any() or (count != np.floor(count)).any() or (var < 0).any():
            raise damaged(self.path, f"{where} has a count or a variance that cannot be")
        return {"count": count, "mean": mean, "var": var}
