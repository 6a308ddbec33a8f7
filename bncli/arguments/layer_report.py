"""What a report says of a layer: its facts, the line above it, and what findings are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.arguments.layer import settings_of
from bncli.given import whence
from bncli.loaders import open_layer
from bncli.model import BatchNormState

if TYPE_CHECKING:
    from bncli.arguments.flags import LayerFlags
    from bncli.arguments.input import Input
    from bncli.arguments.layer import Layer
    from bncli.model import BatchNormSettings, ChannelStats, RunningStats
    from bncli.report import Value


def about_pass(given: Input, layer: Layer, *, mode: bool = True) -> tuple[tuple[str, str], ...]:
    """What the findings of a pass are about: the inputs in any order, the layer, the mode.

    Where places name their mode, `mode` leaves it out.
    """
    inputs = sorted(given.about)
    words = ["evaluation"] if mode and not layer.settings.training else []
    words += [f"channel axis {given.channel_axis}"] if given.channel_axis != 1 else []
    return (*inputs, *layer.about, *(("", word) for word in words))


def layer_facts(
    given: Input, layer: Layer, stats: ChannelStats, after: RunningStats | None
) -> dict[str, Value]:
    """What a report says of an input, its statistics and its layer, `after` the pass."""
    settings = layer.settings
    return {
        "shape": given.tensors[0].shape,
        "dtype": given.dtype,
        "kind": given.kind,
        "channel_axis": given.channel_axis,
        **_setting_facts(settings),
        "count": given.count,
        "num_features": given.num_features,
        "affine": settings.affine,
        "track_running_stats": settings.track_running_stats,
        "num_batches_tracked": after.num_batches_tracked if after is not None else None,
        **layer.sources,
        "engines": stats.engines or None,
    }


def flag_facts(flags: LayerFlags) -> dict[str, Value]:
    """What a report says of a layer that nothing came to. Raises as `resolve_layer`."""
    stored = BatchNormState("") if flags.state is None else open_layer(flags.state)
    settings, sources = settings_of(flags, stored)
    return {**_setting_facts(settings), **sources}


def _setting_facts(settings: BatchNormSettings) -> dict[str, Value]:
    return {
        "training": settings.training,
        "eps": settings.eps,
        "momentum": "none" if settings.momentum is None else settings.momentum,
    }


def subject_line(given: Input, layer: Layer, mode: str | None = None) -> str:
    """What is looked at, in a line: the input, and the layer with what was assumed of it.

    `mode` says which mode or modes it runs in, if that is not the layer's own; "" says nothing.
    """
    first = given.tensors[0]
    shape = ", ".join(map(str, first.shape))
    if mode is None:
        mode = "in training" if layer.settings.training else "in evaluation"
    cast = f" as {given.cast}" if given.cast else ""
    return (
        f"{name_of(given)}  {first.dtype} ({shape}){cast}  {given.kind}{' ' * bool(mode)}{mode}, "
        f"{assumed(layer)}{_axis_said(given, layer)}"
    )


def update_said(layer: Layer) -> str:
    """That another framework's layer is updated as PyTorch would, if it is; else ""."""
    if layer.module is None or not layer.settings.training or layer.running is None:
        return ""
    from bncli.running_stats.stored import convention_of, framework_of

    row = convention_of(layer.module)
    if row is None:
        return ""
    if row.variance == "unbiased" and row.debias == "no":
        return ""
    own = "the biased variance" if row.variance == "biased" else "another factor"
    own = "averages that leave the initial values out" if row.debias != "no" else own
    return (
        f"the running statistics are updated as in PyTorch; {framework_of(row)} uses {own} "
        f"(bncli simulate-ema --convention {row.name})"
    )


def _axis_said(given: Input, layer: Layer) -> str:
    """The channel axis, where it is not the usual one or the file says another; else ""."""
    if layer.module is None:
        return ""
    from bncli.running_stats.stored import channel_axis

    stored, source = channel_axis(layer.module)
    used, ndim = given.channel_axis, given.tensors[0].ndim
    if not source or used in (stored, stored + ndim):
        return f", channel axis {stored} ({source})" if source and used != 1 else ""
    if source == "from the file":
        return f", channel axis {used} (the file says {stored})"
    return f", channel axis {used} ({source} is {stored})"


def name_of(given: Input) -> str:
    """The input in few words: the first of several, and how many more there are."""
    first = given.tensors[0].label
    return first if len(given.tensors) == 1 else f"{first} and {len(given.tensors) - 1} more"


def assumed(layer: Layer) -> str:
    """The layer's eps and momentum, and where they come from.

    The momentum is PyTorch's; beside it stands what the layer's own framework calls it.
    """
    settings = layer.settings
    momentum = "none" if settings.momentum is None else f"{settings.momentum:g}"
    numbers = (f"eps {settings.eps:g}", f"momentum {momentum}")
    sources = [str(layer.sources[f"{name}_source"]) for name in ("eps", "momentum")]
    whose, own = _of_framework(layer)
    of_state = whence(next(iter(layer.read), ""))  # which comes first
    eps, origin = (
        {"default": f"{whose}default", "file": f"from {of_state}", "flag": ""}[source]
        for source in sources
    )
    if layer.module and origin.endswith("default") and _lacks_default(layer):
        origin = "assumed"
    elif len(set(sources)) == 1:
        eps, origin = "", origin + "s" * origin.endswith("default")
    said = (eps, ", ".join(filter(None, (origin, own))))
    return ", ".join(
        f"{number} ({more})" if more else number for number, more in zip(numbers, said, strict=True)
    )


def _lacks_default(layer: Layer) -> bool:
    """Whether the layer's framework has no default momentum: Haiku's has to be given."""
    from bncli.running_stats.stored import convention_of

    row = convention_of(layer.module)
    return row is not None and row.momentum is None


def _of_framework(layer: Layer) -> tuple[str, str]:
    """Whose defaults a layer has, and what its framework calls the momentum; "" for PyTorch's."""
    if layer.module is None:
        return "", ""
    from bncli.running_stats.stored import convention_of, framework_of, owner, stated_momentum

    if (row := convention_of(layer.module)) is None:
        return "", ""
    momentum, framework = layer.settings.momentum, framework_of(row)
    own = None
    if row.weighs == "old" and momentum is not None:
        from_file = layer.sources["momentum_source"] == "file"
        own = stated_momentum(layer.module) if from_file else row.momentum_of(momentum)
    return f"{owner(row)} ", "" if own is None else f"{own:g} in {framework}"
