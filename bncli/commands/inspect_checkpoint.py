"""`bncli inspect-checkpoint`: every BatchNorm layer of a checkpoint, and what is in its buffers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bncli.commands import _options as options
from bncli.report import Column, Report, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import BatchNormState, TensorFile
    from bncli.report import Value
    from bncli.state_dict import LayerRefs

LAYER_COLUMNS = (
    Column("name", "name"),
    Column("channels", "channels"),
    Column("num_batches_tracked", "tracked"),
    Column("mean_min", "mean_min", ".4g"),
    Column("mean_max", "mean_max", ".4g"),
    Column("var_min", "var_min", ".4g"),
    Column("var_max", "var_max", ".4g"),
    Column("scale_min", "scale_min", ".4g"),
    Column("scale_max", "scale_max", ".4g"),
    Column("nonfinite", "nonfinite", foldable=True),
    Column("dtype", "dtype", foldable=True),
    Column("kind_hint", "kind_hint", foldable=True),
    Column("eps", "eps", foldable=True),
    Column("momentum", "momentum", foldable=True),
    Column("note", "note", foldable=True),
)


def inspect_checkpoint(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CKPT[::NAME]...",
            help="Checkpoints, in any format that is read; NAME is a layer, or what its name "
            "begins with.",
            show_default=False,
        ),
    ],
    eps: options.Eps = None,
    momentum: options.Momentum = None,
) -> Report:
    """List every BatchNorm layer of a checkpoint with the ranges of its buffers.

    Nothing in the file is run, and torch is not needed. The scale is weight / sqrt(running_var +
    eps), by which the layer multiplies in evaluation. eps and momentum are taken from the file
    where it stores them (whole pickled modules do, a state_dict does not).
    """
    from bncli.loaders import open_file, split_spec
    from bncli.state_dict import batch_norm_layers

    settings = _Settings.parsed(eps, momentum)
    files: list[TensorFile] = []
    rows: list[dict[str, Value]] = []
    sources: tuple[set[str], set[str]] = (set(), set())
    for spec in checkpoints:
        path, name = split_spec(spec)
        file = open_file(path)
        files.append(file)
        for layer in _chosen(file, batch_norm_layers(file), name):
            rows.append({"path": str(file.path), **_row(layer, settings)})
            for seen, (_, source) in zip(
                sources, (settings.eps_of(layer), settings.momentum_of(layer)), strict=True
            ):
                seen.add(source)
    several = len(files) > 1
    columns = (Column("path", "path"), *LAYER_COLUMNS) if several else LAYER_COLUMNS
    channels = sum(row["channels"] for row in rows if isinstance(row["channels"], int))
    return Report(
        command="inspect-checkpoint",
        facts={
            "path": [str(file.path) for file in files] if several else str(files[0].path),
            "container": _one_or_all([file.container for file in files]),
            "layers": len(rows),
            "channels": channels,
            "eps_source": _source(sources[0]),
            "momentum_source": _source(sources[1]),
        },
        tables=(Table("layers", "BatchNorm layers", columns, rows),),
        verdict=_verdict(rows, channels, files),
        nothing_checked=not rows,
        read=tuple(str(file.path) for file in files),
    )


@dataclass(frozen=True, slots=True)
class _Settings:
    """eps and momentum as flags give them, for layers of which the file does not say."""

    eps: float | None
    momentum: Value
    momentum_given: bool

    @classmethod
    def parsed(cls, eps: float | None, momentum: str | None) -> _Settings:
        """The flags' values. Raises UsageError for what is no eps or no momentum."""
        from bncli.commands._layer import parse_momentum
        from bncli.errors import UsageError

        if eps is not None and not 0 <= eps < math.inf:
            raise UsageError(f"--eps {eps:g}: eps is a number, 0 or more.")
        parsed = 0.1 if momentum is None else parse_momentum(momentum)  # PyTorch's default
        return cls(eps, "none" if parsed is None else parsed, momentum is not None)

    def eps_of(self, layer: LayerRefs) -> tuple[float, str]:
        """A layer's eps, and where it comes from: "flag", "file" or "assumed"."""
        if self.eps is not None:
            return self.eps, "flag"
        if layer.module is not None and layer.module.eps is not None:
            return layer.module.eps, "file"
        return 1e-5, "assumed"  # PyTorch's default

    def momentum_of(self, layer: LayerRefs) -> tuple[Value, str]:
        """A layer's momentum ("none" for the cumulative average), and where it comes from."""
        module = layer.module
        if self.momentum_given or module is None or module.eps is None or not module.has_momentum:
            return self.momentum, "flag" if self.momentum_given else "assumed"
        return "none" if module.momentum is None else module.momentum, "file"


def _chosen(file: TensorFile, layers: list[LayerRefs], name: str) -> list[LayerRefs]:
    """The layers that `CKPT::NAME` means: one by any end of its name, or all below a prefix.

    Raises MissingTensorError where there is none.
    """
    from bncli.loaders.names import find_name

    below = [layer for layer in layers if layer.name.startswith((f"{name}.", f"{name}/"))]
    if not name or below:
        return below or layers
    wanted = find_name(file.path, [layer.name for layer in layers], name, "BatchNorm layer")
    return [layer for layer in layers if layer.name == wanted]


def _row(layer: LayerRefs, settings: _Settings) -> dict[str, Value]:
    """One layer's row; what cannot be read is None, and the note says why."""
    from bncli.state_dict import read_tensors

    state, notes = read_tensors(layer)
    eps, _ = settings.eps_of(layer)
    refs = (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    first = next((ref for ref in refs if ref is not None), None)
    low, high = _range(state.running_mean)
    var_low, var_high = _range(state.running_var)
    scale_low, scale_high = _range(_scale(state, eps))
    return {
        "name": layer.name or "(the file itself)",
        "kind_hint": layer.module.class_name if layer.module is not None else None,
        "channels": first.shape[0] if first is not None and first.ndim == 1 else None,
        "dtype": first.dtype if first is not None else None,
        "num_batches_tracked": state.num_batches_tracked,
        "mean_min": low,
        "mean_max": high,
        "var_min": var_low,
        "var_max": var_high,
        "scale_min": scale_low,
        "scale_max": scale_high,
        "nonfinite": _nonfinite(state),
        "eps": eps,
        "momentum": settings.momentum_of(layer)[0],
        "note": " ".join(notes) or None,
    }


def _scale(state: BatchNormState, eps: float) -> NDArray[Any] | None:
    """weight / sqrt(running_var + eps), shape (num_features,), or None without a variance."""
    import numpy as np

    if state.running_var is None:
        return None
    weight = state.weight
    if weight is not None and weight.shape != state.running_var.shape:
        return None
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale: NDArray[Any] = 1.0 / np.sqrt(state.running_var.astype(np.float64) + eps)
        return scale if weight is None else scale * weight


def _range(values: NDArray[Any] | None) -> tuple[float | None, float | None]:
    """The least and the greatest finite value, or None twice where there is none."""
    import numpy as np

    if values is None:
        return None, None
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None, None
    return float(finite.min()), float(finite.max())


def _nonfinite(state: BatchNormState) -> int | None:
    """The number of NaN and Inf among the layer's tensors; None where none could be read."""
    import numpy as np

    tensors = (state.weight, state.bias, state.running_mean, state.running_var)
    read = [values for values in tensors if values is not None]
    return sum(int((~np.isfinite(values)).sum()) for values in read) if read else None


def _source(sources: set[str]) -> str | None:
    """Where a number comes from: one source, or "mixed"."""
    return next(iter(sources)) if len(sources) == 1 else "mixed" if sources else None


def _one_or_all(names: list[str]) -> Value:
    return names[0] if len(set(names)) == 1 else names


def _verdict(rows: list[dict[str, Value]], channels: int, files: list[TensorFile]) -> str:
    """Layers, channels, and the counters as groups: several tell a file's history."""
    where = f" in {len(files)} files" if len(files) > 1 else ""
    if not rows:
        tensors = sum(len(file.tensors) for file in files)
        return (
            f"No BatchNorm layer{where}: {tensors} tensor{'s' * (tensors != 1)}, "
            "and nowhere a running_mean and running_var with a weight, a bias or a counter."
        )
    counted = [row["num_batches_tracked"] for row in rows]
    counters = [counter for counter in counted if isinstance(counter, (int, float))]
    groups = Counter(counters).most_common()
    said = [f"{number} at {counter}" for counter, number in groups[:5]]
    if len(groups) > 5:
        said = [f"{len(groups)} values from {min(counters)} to {max(counters)}"]
    if len(counters) < len(counted):
        said.append(f"{len(counted) - len(counters)} without")
    spoilt = sum(row["note"] is not None for row in rows)
    notes = f" {spoilt} layer{'s' * (spoilt > 1)} could not be read whole." if spoilt else ""
    return (
        f"{len(rows)} BatchNorm layer{'s' * (len(rows) > 1)}{where}, {channels} channels; "
        f"num_batches_tracked: {', '.join(said)}.{notes}"
    )
