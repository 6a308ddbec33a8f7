"""The header of a statistics file: all of a capture but its arrays, and how it is put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from bncli import __version__
from bncli.errors import UnsupportedFileError
from bncli.light import np
from bncli.loaders.names import quoted
from bncli.loaders.registry import STATISTICS
from bncli.loaders.statistics.columns import LEAVES, Columns, batches_of, places
from bncli.loaders.statistics.fields import Fields, damaged, number, plain
from bncli.model import BatchNormModule, BatchNormState
from bncli.model.capture import (
    Capture,
    InputKernel,
    InputSums,
    OutputSums,
    Propagation,
    WatchedLayer,
)
from bncli.model.part import MOST_SHARDS, Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT_VERSION = 1
STATE_DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8")
"""The dtypes that a layer's tensors come in."""


def header_of(capture: Capture) -> dict[str, Any]:
    """The header of a capture, of what JSON has."""
    return {
        "format_version": FORMAT_VERSION,
        "bncli": __version__,
        "numpy": np.__version__,
        "source": plain(capture.source),
        "fingerprint": plain(capture.fingerprint),
        "shard": [int(part) for part in capture.shard],
        "part": None if capture.part == Part(*capture.shard) else capture.part.plain(),
        **_written(capture),
        "layers": [_layer(capture, layer) for layer in capture.layers],
        "outputs": [
            {
                **_written(output),
                "channels": len(output.mean),
                "apart": {key.value: number(float(apart)) for key, apart in output.apart.items()},
            }
            for output in capture.outputs
        ],
    }


def _layer(capture: Capture, layer: WatchedLayer) -> dict[str, Any]:
    """What is said of one layer."""
    kernel = layer.kernel
    return {
        **_written(layer),
        "seen": [each.value for each in Propagation if each in layer.seen],
        "per_batch": [each.value for each in batches_of(capture, layer)],
        "state": None if layer.state is None else _state(layer.state),
        "kernel": kernel
        and {
            **_written(kernel),
            "in_channels": int(kernel.sums.shape[1]),
            "bias": kernel.bias is not None,
        },
    }


def _state(state: BatchNormState) -> dict[str, Any]:
    """What is said of a layer's own state."""
    arrays: dict[str, NDArray[Any] | None] = {leaf: getattr(state, leaf) for leaf in LEAVES}
    return {
        **_written(state),
        "num_batches_tracked": number(state.num_batches_tracked),
        "tensors": {leaf: part.dtype.name for leaf, part in arrays.items() if part is not None},
        "module": state.module and _written(state.module),
    }


def _written(value: Any) -> dict[str, Any]:
    """The fields of a value that are no arrays and no values of their own, as JSON has them."""
    return {
        field.name: SIMPLE[str(field.type)][0](getattr(value, field.name))
        for field in fields(value)
        if field.type in SIMPLE
    }


def _read(kind: type, entry: Fields) -> dict[str, Any]:
    """The same fields of a value of this kind, as they were written.

    One that was new to this bncli when an older one wrote the file has its default.
    """
    return {
        field.name: SIMPLE[str(field.type)][1](entry, field.name)
        for field in fields(kind)
        if field.type in SIMPLE and (field.name in entry.values or field.name not in LATER)
    }


def _optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


LATER = ("left_out", "renewals", "convention", "stated_momentum", "channel_axis")
"""Fields that were added to the format without another version: older files have none."""

SIMPLE: dict[str, tuple[Callable[[Any], Any], Callable[[Fields, str], Any]]] = {
    "str": (str, Fields.text),
    "bool": (bool, Fields.flag),
    "int": (int, Fields.whole),
    "tuple[str, ...]": (list, Fields.texts),
    "str | None": (_optional(str), lambda entry, key: entry.optional(key, str)),
    "bool | None": (_optional(bool), lambda entry, key: entry.optional(key, bool)),
    "int | None": (
        _optional(int),
        lambda entry, key: None if entry.any(key) is None else entry.whole(key),
    ),
    "float | None": (number, Fields.number),
}
"""How fields of these types are written and read."""


def check_version(header: Fields) -> None:
    """Raise UnsupportedFileError for the header of a later format."""
    version = header.whole("format_version", 1)
    if version > FORMAT_VERSION:
        by = header.values.get("bncli")
        writer = f" that bncli {quoted(by, 20)} wrote" if isinstance(by, str) else ""
        raise UnsupportedFileError(
            header.path,
            f"it is a statistics file of format {version}{writer}, and this bncli {__version__} "
            f"reads formats up to {FORMAT_VERSION}; upgrade bncli, or save the statistics again.",
        )


def capture_of(header: Fields, columns: Columns) -> Capture:
    """The capture that a header and its arrays are. Raises CorruptFileError."""
    entries = list(header.each("layers"))
    layers = [_bare_layer(entry) for entry in entries]
    if len({layer.name for layer in layers}) < len(layers):
        raise damaged(header.path, "two of its layers have one name")
    columns.check_layers(layers)
    layers = _with_states(entries, layers, columns)
    seen = [_propagations(entry, "seen") for entry in entries]
    for propagation in Propagation:
        wanted = [propagation in each for each in seen]
        if any(wanted):
            sums = columns.seen(propagation, layers, wanted)
            layers = [
                _having(layer, propagation, one) for layer, one in zip(layers, sums, strict=True)
            ]
    layers = [
        _with_kernel(i, *both, columns) for i, both in enumerate(zip(entries, layers, strict=True))
    ]
    shard = header.any("shard")
    if not _is_shard(shard):
        raise header.wrong("shard")
    fingerprint = header.inner("fingerprint")
    return Capture(
        tuple(layers),
        _outputs(header, columns),
        **_read(Capture, header),
        source=dict(header.inner("source").values),
        fingerprint={key: fingerprint.text(key) for key in fingerprint.values},
        part=_part(header, (shard[0], shard[1])),
        per_batch={
            (layer.name, propagation): columns.batches(propagation, i, layer.num_features)
            for i, (entry, layer) in enumerate(zip(entries, layers, strict=True))
            for propagation in _propagations(entry, "per_batch")
        },
    )


def _bare_layer(entry: Fields) -> WatchedLayer:
    """The layer, without any array."""
    layer = WatchedLayer(**_read(WatchedLayer, entry))
    if layer.num_features < 1:
        raise entry.wrong("num_features")
    return layer


def _with_states(
    entries: list[Fields], layers: list[WatchedLayer], columns: Columns
) -> list[WatchedLayer]:
    """The layers with their own states."""
    total = sum(layer.num_features for layer in layers)
    states = [None if entry.any("state") is None else entry.inner("state") for entry in entries]
    dtypes = [{} if state is None else _tensors(state) for state in states]
    whole = {
        leaf: columns.take(f"state/{leaf}", (total,), *STATE_DTYPES)
        for leaf in LEAVES
        if any(leaf in each for each in dtypes)
    }
    found = []
    for layer, state, own, place in zip(layers, states, dtypes, places(layers), strict=True):
        if state is not None:
            arrays = {leaf: whole[leaf][place].astype(dtype) for leaf, dtype in own.items()}
            layer = replace(layer, state=_stored_state(state, arrays))  # noqa: PLW2901
        found.append(layer)
    return found


def _tensors(state: Fields) -> dict[str, str]:
    """The dtypes of the tensors that a layer has."""
    inner = state.inner("tensors")
    for leaf in inner.values:
        if leaf not in LEAVES or inner.text(leaf) not in STATE_DTYPES:
            raise inner.wrong(leaf)
    return dict(inner.values)


def _stored_state(state: Fields, arrays: dict[str, NDArray[Any]]) -> BatchNormState:
    """A layer's own state, with these arrays."""
    module = None if state.any("module") is None else state.inner("module")
    given: dict[str, Any] = {**_read(BatchNormState, state), **arrays}
    return BatchNormState(
        **given,
        num_batches_tracked=state.number("num_batches_tracked"),
        module=None if module is None else BatchNormModule(**_read(BatchNormModule, module)),
    )


def _having(layer: WatchedLayer, propagation: Propagation, sums: InputSums | None) -> WatchedLayer:
    """The layer with what it saw in one more propagation, if it saw anything."""
    return layer if sums is None else replace(layer, seen={**layer.seen, propagation: sums})


def _with_kernel(number: int, entry: Fields, layer: WatchedLayer, columns: Columns) -> WatchedLayer:
    """The layer with the kernel in front of it, if there is one."""
    if entry.any("kernel") is None:
        return layer
    kernel = entry.inner("kernel")
    shape = (layer.num_features, kernel.whole("in_channels"))
    bias = None
    if kernel.flag("bias"):
        bias = columns.take(f"kernel/{number}/bias", shape[:1], "float64")
    sums = columns.take(f"kernel/{number}/sums", shape, "float64")
    return replace(layer, kernel=InputKernel(sums, bias, **_read(InputKernel, kernel)))


def _outputs(header: Fields, columns: Columns) -> tuple[OutputSums, ...]:
    """The outputs, each with its part of the columns."""
    entries = list(header.each("outputs"))
    if not entries:
        return ()
    sizes = [entry.whole("channels", 1) for entry in entries]
    mean = columns.take("outputs/mean", (sum(sizes),), "float64")
    squares = columns.take("outputs/squares", (sum(sizes),), "float64")
    outputs, begin = [], 0
    for entry, size in zip(entries, sizes, strict=True):
        place = slice(begin, begin + size)
        apart = entry.inner("apart")
        differences = {_propagation(apart, key): apart.number(key) for key in apart.values}
        if any(each is None or each < 0 for each in differences.values()):
            raise entry.wrong("apart")
        outputs.append(
            OutputSums(
                **_read(OutputSums, entry),
                mean=mean[place],
                squares=squares[place],
                apart=differences,
            )
        )
        begin += size
    return tuple(outputs)


def _propagations(entry: Fields, key: str) -> list[Propagation]:
    """The propagations that a list names."""
    return [_propagation(entry, name) for name in entry.texts(key)]


def _propagation(entry: Fields, name: str) -> Propagation:
    try:
        return Propagation(name)
    except ValueError:
        raise damaged(entry.path, f"it names an unknown propagation, {quoted(name, 40)}") from None


def _part(header: Fields, shard: tuple[int, int]) -> Part:
    """The record of the part; older files have none but their shard."""
    values = header.values.get("part")
    if values is None:
        return Part(*shard)
    try:
        part = Part.of(values)
    except ValueError:
        raise damaged(header.path, f"part in its {STATISTICS} is not what bncli writes") from None
    if (part.k, part.n) != shard:
        raise damaged(header.path, f"shard and part in its {STATISTICS} contradict each other")
    return part


def _is_shard(value: object) -> bool:
    """Whether it is [K, N], K from 0."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(part, int) and not isinstance(part, bool) for part in value)
        and 0 <= value[0] < value[1] <= MOST_SHARDS
    )
