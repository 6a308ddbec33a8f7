"""The row of a BatchNorm layer in the table of a checkpoint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.report import Column
from bncli.sections.answer import short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.report import Value
    from bncli.rulebook.layers import Layer
    from bncli.rulebook.ordinary import Measured
    from bncli.state_dict import LayerRefs

LAYER_COLUMNS = (
    *Column.plain("name", "channels", "flags"),
    Column("num_batches_tracked", "tracked"),
    *Column.plain("var_min", "var_max", "scale_max", spec=".4g"),
    Column("scale_sketch", "|scale|"),
    *Column.plain("scale_min", "abs_scale_min", "mean_min", "mean_max", spec=".4g"),
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


def layer_row(layer: Layer, refs: LayerRefs, numbers: Measured | None = None) -> dict[str, Value]:
    """One layer's row, for both tables; what cannot be read is None, and the note says why.

    What was `measured` before is taken from there.
    """
    state = layer.state
    first = next(iter(refs.tensors.values()), None)
    if numbers is None:
        scale = layer_scale(layer)
        mean, var, scales = map(_Range.of, (layer.mean, layer.var, scale))
        nonfinite = _nonfinite(layer)
    else:
        scale = numbers.scale
        lows, highs = numbers.lows, numbers.highs
        mean = _Range.known(layer.mean, lows["running_mean"], highs["running_mean"])
        var = _Range.known(layer.var, lows["running_var"], highs["running_var"])
        scales = _Range.known(scale, numbers.scale_low, numbers.scale_high)
        nonfinite = 0
    return {
        "name": refs.name or WHOLE_FILE,
        "kind_hint": kind_hint(refs),
        "channels": first.shape[0] if first is not None and first.ndim == 1 else None,
        "dtype": first.dtype if first is not None else None,
        "flags": None,
        "num_batches_tracked": state.num_batches_tracked,
        "mean_min": mean.low,
        "mean_max": mean.high,
        "var_min": var.low,
        "var_max": var.high,
        "scale_min": scales.low,
        "scale_max": scales.high,
        "abs_scale_min": _least_size(scale, scales),
        "scale_sketch": sketch(scale),
        "nonfinite": nonfinite,
        "eps": layer.eps,
        "momentum": "none" if layer.momentum is None else layer.momentum,
        "note": " ".join(layer.unread) or None,
        **_told(layer, refs),
        "mean": mean.said,
        "var": var.said,
        "scale": scales.said,
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
        steps = np.log10(sizes, out=sizes)
    steps -= LEAST_DECADE
    steps *= 2
    np.floor(steps, out=steps)
    steps += 1
    np.minimum(np.maximum(steps, 0, out=steps), BINS - 1, out=steps)
    counts = np.bincount(steps.astype(int), minlength=BINS).tolist()
    most = max(counts)
    heights = (math.ceil(count * len(BLOCKS) / most) for count in counts)
    return "".join("·" if height == 0 else BLOCKS[height - 1] for height in heights)


@dataclass(frozen=True, slots=True)
class _Range:
    """The least and the greatest finite value, None where there is none, and both in a cell.

    The cell says how many values are not finite, too: "NaN(1) 0.06 .. 0.62".
    """

    low: float | None
    high: float | None
    said: str | None

    @classmethod
    def of(cls, values: NDArray[Any] | None) -> _Range:
        """That of some values."""
        if values is None:
            return cls(None, None, None)
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
        odd = {"NaN": int(np.isnan(values).sum()), "Inf": int(np.isinf(values).sum())}
        said = [f"{name}({number})" for name, number in odd.items() if number]
        if low is not None and high is not None:
            said.append(_ends(low, high))
        return cls(low, high, " ".join(said) or None)

    @classmethod
    def known(cls, values: NDArray[Any] | None, low: float, high: float) -> _Range:
        """That of finite values with these extremes; which sign a 0 has is the values' business."""
        return cls(low, high, _ends(low, high)) if low and high else cls.of(values)


def _least_size(values: NDArray[Any] | None, ends: _Range) -> float | None:
    """The least size of a finite value; None where there is none."""
    if values is None or ends.low is None or ends.high is None:
        return None
    if ends.low > 0 or ends.high < 0:
        return min(abs(ends.low), abs(ends.high))
    return float(np.fmin.reduce(np.abs(values)))  # which a NaN or Inf is not, where others are


def _ends(low: float, high: float) -> str:
    return " .. ".join(dict.fromkeys((short(low), short(high))))


def _nonfinite(layer: Layer) -> int | None:
    """The number of NaN and Inf among the layer's tensors; None where none could be read."""
    read = [values for values in layer.vectors.values() if values is not None]
    return sum(int((~np.isfinite(values)).sum()) for values in read) if read else None
