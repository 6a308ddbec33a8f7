"""`bncli inspect-checkpoint`: every BatchNorm layer of a checkpoint, and what is in its buffers."""

from __future__ import annotations

from collections import Counter
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
    Column("nonfinite", "nonfinite"),
    Column("dtype", "dtype"),
    Column("kind_hint", "kind_hint"),
    Column("eps", "eps"),
    Column("momentum", "momentum"),
    Column("note", "note"),
)

DEFAULT_EPS = 1e-5
"""PyTorch's, assumed where neither the file nor a flag says."""

DEFAULT_MOMENTUM = 0.1
"""PyTorch's likewise."""


def inspect_checkpoint(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CKPT...", help="Checkpoints, in any format that is read.", show_default=False
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
    from bncli.commands._layer import parse_momentum
    from bncli.errors import UsageError
    from bncli.loaders import open_file
    from bncli.state_dict import batch_norm_layers

    if eps is not None and not eps >= 0:
        raise UsageError(f"--eps {eps:g}: eps is 0 or more.")
    assumed_momentum = DEFAULT_MOMENTUM if momentum is None else parse_momentum(momentum)
    files = [open_file(path) for path in checkpoints]
    rows: list[dict[str, Value]] = []
    eps_sources, momentum_sources = set[str](), set[str]()
    for file in files:
        for layer in batch_norm_layers(file):
            stored = layer.module is not None and layer.module.eps is not None
            eps_sources.add("flag" if eps is not None else "file" if stored else "default")
            momentum_sources.add(
                "flag" if momentum is not None else "file" if stored else "default"
            )
            row = _row(layer, eps, assumed_momentum if momentum or not stored else None)
            rows.append({"path": str(file.path), **row})
    several = len(files) > 1
    columns = (Column("path", "path"), *LAYER_COLUMNS) if several else LAYER_COLUMNS
    total = sum(int(row["channels"] or 0) for row in rows if isinstance(row["channels"], int))
    return Report(
        command="inspect-checkpoint",
        facts={
            "path": [str(file.path) for file in files] if several else str(files[0].path),
            "container": _one_or_all([file.container for file in files]),
            "layers": len(rows),
            "channels": total,
            "eps_source": _source(eps_sources),
            "momentum_source": _source(momentum_sources),
        },
        tables=(Table("layers", "BatchNorm layers", columns, rows),),
        verdict=_verdict(rows, total, files),
        nothing_checked=not rows,
        read=tuple(str(file.path) for file in files),
    )


def _row(layer: LayerRefs, eps: float | None, momentum: float | None) -> dict[str, Value]:
    """One layer's row; a layer that cannot be read has a note that says why."""
    from bncli.errors import TensorError
    from bncli.model import BatchNormState
    from bncli.state_dict import read_state

    note = ""
    try:
        state = read_state(layer)
    except TensorError as error:
        state = BatchNormState(layer.name, module=layer.module)
        note = str(error)
    module = layer.module
    if eps is None:
        eps = module.eps if module is not None and module.eps is not None else DEFAULT_EPS
    if momentum is None and module is not None:
        momentum = module.momentum
    refs = (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    first = next((ref for ref in refs if ref is not None), None)
    low, high = _range(state.running_mean)
    var_low, var_high = _range(state.running_var)
    scale_low, scale_high = _range(_scale(state, eps))
    return {
        "name": layer.name,
        "kind_hint": module.class_name if module is not None else None,
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
        "momentum": "none" if momentum is None else momentum,
        "note": note or None,
    }


def _scale(state: BatchNormState, eps: float) -> NDArray[Any] | None:
    """weight / sqrt(running_var + eps), shape (num_features,), or None without a variance."""
    import numpy as np

    if state.running_var is None:
        return None
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale: NDArray[Any] = 1.0 / np.sqrt(state.running_var.astype(np.float64) + eps)
        if state.weight is not None and state.weight.shape == scale.shape:
            scale = scale * state.weight
    return scale


def _range(values: NDArray[Any] | None) -> tuple[float | None, float | None]:
    """The least and the greatest finite value, or None twice where there is none."""
    import numpy as np

    if values is None:
        return None, None
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None, None
    return float(finite.min()), float(finite.max())


def _nonfinite(state: BatchNormState) -> int:
    """The number of NaN and Inf among the layer's tensors."""
    import numpy as np

    tensors = (state.weight, state.bias, state.running_mean, state.running_var)
    return sum(int((~np.isfinite(values)).sum()) for values in tensors if values is not None)


def _source(sources: set[str]) -> str | None:
    """Where a number comes from: one source, or "mixed"."""
    return next(iter(sources)) if len(sources) == 1 else "mixed" if sources else None


def _one_or_all(names: list[str]) -> Value:
    return names[0] if len(set(names)) == 1 else names


def _verdict(rows: list[dict[str, Value]], channels: int, files: list[TensorFile]) -> str:
    """Layers, channels, and the counters as groups: several tell a file's history."""
    where = f" in {len(files)} files" if len(files) > 1 else ""
    if not rows:
        return f"No BatchNorm layer{where}."
    counters = Counter(row["num_batches_tracked"] for row in rows)
    groups = ", ".join(
        f"{number} at {'none' if counter is None else counter}"
        for counter, number in counters.most_common(5)
    )
    more = f" and {len(counters) - 5} more" if len(counters) > 5 else ""
    return (
        f"{len(rows)} BatchNorm layer{'s' * (len(rows) > 1)}{where}, {channels} channels; "
        f"num_batches_tracked: {groups}{more}."
    )
