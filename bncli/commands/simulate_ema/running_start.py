"""Where running statistics begin, and under which conventions and momenta they go on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.arguments.flags import LayerFlags
from bncli.arguments.layer import parse_momentum, resolve_layer
from bncli.errors import UsageError
from bncli.light import dataclass, np
from bncli.loaders import open_layer
from bncli.running_stats.conventions import Convention, converted_momentum
from bncli.running_stats.frameworks import convention
from bncli.running_stats.stored import convention_of

if TYPE_CHECKING:
    from bncli.arguments.input import Input
    from bncli.commands.simulate_ema.flags import RunningFlags
    from bncli.model import RunningStats


@dataclass(frozen=True, slots=True)
class Start:
    """Buffers to begin with, None for the conventions' own; the momentum that a file stores for
    them, where `has_momentum`, in PyTorch's sense; and the convention that it follows, if it says.
    """

    running: RunningStats | None = None
    has_momentum: bool = False
    momentum: float | None = None
    convention: str | None = None
    read: tuple[str, ...] = ()
    about: tuple[tuple[str, str], ...] = ()

    @property
    def trained(self) -> bool:
        """Whether the buffers begin at other values than a new module's 0 and 1."""
        running = self.running
        return running is not None and bool(
            (running.running_mean != 0).any() or (running.running_var != 1).any()
        )


@dataclass(frozen=True, slots=True)
class Rows:
    """The conventions, each with its own momentum (None for the cumulative average), and where
    the first one's comes from; `state` is what --state names.
    """

    conventions: list[tuple[Convention, float | None]]
    momentum_source: str
    state: str | None = None


def resolve_start(given: Input, flags: RunningFlags) -> Start:
    """The buffers that the flags name, as a module with buffers of their dtype would hold them.

    Raises UsageError, TensorError and FileError as `resolve_layer`.
    """
    state = flags.state
    if flags.running_mean is None and flags.running_var is None:
        if state is None:
            return Start()
        stored = open_layer(state)
        if stored.running_mean is None and stored.running_var is None:
            raise UsageError(
                f"--state {state}: this layer has neither running_mean nor running_var; name one "
                "that has them."
            )
    named = LayerFlags(
        state=state,
        affine=False,
        running_mean=flags.running_mean,
        running_var=flags.running_var,
    )
    held = "float64" if flags.buffer_dtype.value == "float64" else "float32"
    layer = resolve_layer(named, replace(given, dtype=held))
    return Start(
        running=layer.running,
        has_momentum=layer.sources["momentum_source"] == "file",
        momentum=layer.settings.momentum,
        convention=row.name if (row := convention_of(layer.module)) is not None else None,
        read=layer.read,
        about=layer.about,
    )


def resolve_rows(flags: RunningFlags, start: Start) -> Rows:
    """The conventions with their momenta; the flag's is the first one's.

    Without a flag, the convention is that of the file where it says one, else PyTorch's.
    Raises UsageError for an unknown name, for a missing momentum without a default, and for a
    cumulative average that the convention does not have.
    """
    names = (name.lower() for name in flags.convention or (start.convention or "pytorch",))
    chosen = [convention(name) for name in dict.fromkeys(names)]
    first = chosen[0]
    momentum: float | None
    if flags.momentum is not None:
        momentum, source = parse_momentum(flags.momentum), "flag"
    elif start.has_momentum:
        momentum, source = start.momentum, "file"
        if momentum is not None:
            momentum = converted_momentum(momentum, convention("pytorch"), first)
    elif first.momentum is not None:
        momentum, source = float(first.momentum), "default"
    else:
        raise UsageError(f"--convention {first.name}: it has no default momentum; add --momentum.")
    if momentum is None:
        for each in chosen:
            if each.name != "pytorch":
                raise UsageError(
                    f"--momentum none: {each.name} has no cumulative average; give a number, or "
                    "leave the flag out."
                )
        return Rows([(first, None)], source, flags.state)
    assert math.isfinite(momentum)
    momenta = [converted_momentum(momentum, first, each) for each in chosen]
    return Rows([*zip(chosen, momenta, strict=True)], source, flags.state)


def rounded_start(running: RunningStats | None, dtype: str) -> RunningStats | None:
    """The buffers as a module with buffers of `dtype` would hold them."""
    from bncli.pytorch_cpu.half import rounded

    if running is None or dtype == "float64":
        return running
    return replace(
        running,
        running_mean=rounded(running.running_mean, dtype).astype(np.float64),
        running_var=rounded(running.running_var, dtype).astype(np.float64),
    )
