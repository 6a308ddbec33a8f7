"""The row of a BatchNorm layer in the table of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import np
from bncli.report import Column
from bncli.sections.answer import short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.report import Value
    from bncli.rulebook.layers import Layer
    from bncli.state_dict import LayerRefs

LAYER_COLUMNS = (
    *Column.plain("name", "channels", "flags"),
    Column("num_batches_tracked", "tracked"),
    *Column.plain("var_min", "var_max", "scale_max", spec=".4g"),
    Column("scale_sketch", "|scale|"),
    *Column.plain("scale_min", "mean_min", "mean_max", spec=".4g"),
    *Column.plain("nonfinite", "dtype", "kind_hint", "eps", "momentum", foldable=True),
    *Column.plain("stated_momentum", "convention", "channel_axis", "note", foldable=True),
)
NOTE = (
    "scale = weight / sqrt(running_var + eps); |scale| counts channels in half decades, below 0.03 "
    "to above 30."
)
WHOLE_FILE = "(the file itself)"
"""The name of a layer whose tensors have no names before their own."""

BLOCKS = "▁▂▃▄▅▆▇█"
"""A bar's height in a sketch; an empty bin is a dot."""
LEAST_DECADE = -1.5
"""The end of the first bin of a sketch, as a power of 10; each further bin is half a decade."""
BINS = 8


def layer_row(layer: Layer, refs: LayerRefs) -> dict[str, Value]:
    """One layer's row, for both tables; what cannot be read is None, and the note says why."""
    state = layer.state
    first = next(iter(refs.tensors.values()), None)
    scale = layer_scale(layer)
    low, high = _range(layer.mean)
    var_low, var_high = _range(layer.var)
    scale_low, scale_high = _range(scale)
    return {
        "name": refs.name or WHOLE_FILE,
        "kind_hint": kind_hint(refs),
        "channels": first.shape[0] if first is not None and first.ndim == 1 else None,
        "dtype": first.dtype if first is not None else None,
        "flags": None,
        "num_batches_tracked": state.num_batches_tracked,
        "mean_min": low,
        "mean_max": high,
        "var_min": var_low,
        "var_max": var_high,
        "scale_min": scale_low,
        "scale_max": scale_high,
        "scale_sketch": sketch(scale),
        "nonfinite": _nonfinite(layer),
        "eps": layer.eps,
        "momentum": "none" if layer.momentum is None else layer.momentum,
        "note": " ".join(layer.unread) or None,
        **_told(layer, refs),
        "mean": _short_range(layer.mean),
        "var": _short_range(layer.var),
        "scale": _short_range(scale),
    }


def _told(layer: Layer, refs: LayerRefs) -> dict[str, Value]:
    """What the file says of the layer's framework, and of the momentum in it."""
    module, own = refs.module, "none" if layer.momentum is None else f"{layer.momentum:g}"
    if module is None and refs.naming.name == "torch":
        keys = ("stated_momentum", "convention", "channel_axis")
        return {**dict.fromkeys(keys), "momentum_said": f"momentum {own}"}
    from bncli.running_stats.stored import said_by_names, said_momentum, stated_momentum

    if module is None:
        return {
            **dict.fromkeys(("stated_momentum", "convention", "channel_axis")),
            "momentum_said": said_by_names(refs.naming.name, layer.momentum),
        }

    return {
        "stated_momentum": stated_momentum(module),
        "convention": module.convention,
        "channel_axis": module.channel_axis,
        "momentum_said": said_momentum(module, layer.momentum),
    }


def kind_hint(refs: LayerRefs) -> str | None:
    """What the file says of the layer's kind: its class, or the framework of its names."""
    if refs.module is not None:
        return refs.module.class_name
    if "instancenorm" in refs.name.lower().replace("_", ""):
        return "InstanceNorm?"
    return None if refs.naming.name == "torch" else f"{refs.naming.name} names"


def layer_scale(layer: Layer) -> NDArray[Any] | None:
    """weight / sqrt(running_var + eps), shape (num_features,), or None where that is not known."""
    from bncli.rulebook.channels import scales

    if layer.var is None or layer.weight_unknown:
        return None
    if layer.weight is not None and layer.weight.shape != layer.var.shape:
        return None
    return scales(layer)


def sketch(scale: NDArray[Any] | None) -> str | None:
    """How many channels have which |scale|, a character for each half decade."""
    if scale is None:
        return None
    sizes = np.abs(scale[np.isfinite(scale)])
    if not sizes.size:
        return None
    with np.errstate(divide="ignore"):
        steps = np.floor((np.log10(sizes) - LEAST_DECADE) * 2) + 1
    counts = np.bincount(np.clip(steps, 0, BINS - 1).astype(int), minlength=BINS)
    heights = np.ceil(counts * len(BLOCKS) / counts.max()).astype(int)
    return "".join("·" if height == 0 else BLOCKS[height - 1] for height in heights)


def _range(values: NDArray[Any] | None) -> tuple[float | None, float | None]:
    """The least and the greatest finite value, or None twice where there is none."""
    if values is None:
        return None, None
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None, None
    return float(finite.min()), float(finite.max())


def _short_range(values: NDArray[Any] | None) -> str | None:
    """How many values are not finite, and the range of the others: "NaN(1) 0.06 .. 0.62"."""
    if values is None:
        return None
    low, high = _range(values)
    odd = {"NaN": int(np.isnan(values).sum()), "Inf": int(np.isinf(values).sum())}
    said = [f"{name}({number})" for name, number in odd.items() if number]
    if low is not None and high is not None:
        said.append(" .. ".join(dict.fromkeys(map(short, (low, high)))))
    return " ".join(said) or None


def _nonfinite(layer: Layer) -> int | None:
    """The number of NaN and Inf among the layer's tensors; None where none could be read."""
    read = [values for values in layer.vectors.values() if values is not None]
    return sum(int((~np.isfinite(values)).sum()) for values in read) if read else None
