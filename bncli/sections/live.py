"""What reports of a live model have in common: what was looked at, how much of it, and the gap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bncli.model.capture import Propagation
from bncli.rulebook.interface import examples
from bncli.sections.answer import counted, listed

if TYPE_CHECKING:
    from bncli.model.capture import Capture, InputSums, WatchedLayer
    from bncli.report import Value

MODES = (Propagation.TRAINING, Propagation.EVAL, Propagation.AS_TRAINED)
"""The propagations of which a report tells, the one that judges first."""


def seen_first(layer: WatchedLayer) -> InputSums | None:
    """What a layer saw in the first of `MODES` in which it ran."""
    return next((layer.seen[mode] for mode in MODES if mode in layer.seen), None)


def modes_of(capture: Capture) -> list[str]:
    """The propagations that ran, without that of statistics found anew."""
    return [mode.value for mode in MODES if any(mode in layer.seen for layer in capture.layers)]


def batches_of(capture: Capture) -> int:
    """How many batches went through the model, in the mode that had most."""
    return max(batches_in(capture, mode) for mode in MODES)


def batches_in(capture: Capture, mode: Propagation) -> int:
    """How many batches a mode had: those of the model's input, else of its layers."""
    if capture.input is not None:
        sums = capture.input.seen.get(mode)
        return sums.batches if sums is not None else 0
    calls = [
        layer.seen[mode].batches // layer.calls
        for layer in capture.norms
        if mode in layer.seen and not layer.per_sample
    ]
    return max(calls, default=0)


def live_facts(capture: Capture) -> dict[str, Value]:
    """How much was looked at, and the outputs' gap.

    `values` counts those that all layers took in, in one propagation; `ratio` is the gap over its
    floor, None where that is 0 or not known. `renewals` is there where several parts have found new
    statistics, each its own: `gap_floor` is what these leave together.
    """
    seen = [(layer, sums) for layer in capture.norms if (sums := seen_first(layer)) is not None]
    gap, floor = capture.gap(Propagation.EVAL), capture.gap_floor
    return {
        "layers": len(capture.norms),
        "batches": batches_of(capture),
        "values": sum(layer.num_features * sums.values for layer, sums in seen),
        "modes": modes_of(capture),
        "gap": gap,
        "gap_floor": floor,
        "ratio": capture.ratio,
        **({"renewals": capture.renewals} if capture.renewals > 1 else {}),
    }


def live_subject(capture: Capture) -> tuple[str, ...]:
    """What was looked at, in two lines: the model with its weights, and the data."""
    source = capture.source
    channels = sum(layer.num_features for layer in capture.norms)
    layers = f"{counted(len(capture.norms), 'BatchNorm layer')}, {counted(channels, 'channel')}"
    model = [_said(source.get("model", source.get("class"))), _weights(capture), layers]
    k, n = capture.shard
    data = [_said(source.get("data")), _amount(capture), _place(source)]
    data += [f"shard {k}/{n}"] if n > 1 else []
    return tuple(filter(None, ("  ".join(filter(None, line)) for line in (model, data))))


def gap_line(capture: Capture) -> str:
    """How far the outputs of the two modes are apart and would be at best, or why it is unknown."""
    gap, floor = capture.gap(Propagation.EVAL), capture.gap_floor
    if gap is None:
        return f"the gap between train() and eval() is not known: {_why_unknown(capture)}"
    if gap == 0:
        return "the outputs of train() and eval() are the same"
    said = f"gap between train() and eval(): {gap:.3g} std of the output"
    if floor is None:
        return f"{said}; its floor was not measured"
    where = "all layers"
    if any(layer.frozen for layer in capture.norms):
        where = "all layers that are not frozen"
    if capture.renewals > 1:
        return (
            f"{said}; new statistics in {where}, found in each of {capture.renewals} parts for its "
            f"own batches, leave {floor:.3g}; the floor for all batches is not the same, and mostly"
            " higher"
        )
    return (
        f"{said}; new statistics in {where} leave {floor:.3g}, its floor, because training "
        "normalises each batch by itself"
    )


def left_out_lines(capture: Capture) -> list[str]:
    """What the capture left out: batches that cannot train, and layers that no batch reaches."""
    lines = []
    if number := len(capture.left_out):
        which, they = ("1 batch", "it") if number == 1 else (f"{number} batches", "them")
        lines.append(f"{which} of 1 sample left out, as training refuses {they}")
    if capture.uncalled:
        lines.append(f"no batch reaches {examples(capture.uncalled)}")
    return lines


def _why_unknown(capture: Capture) -> str:
    """Why the outputs' gap is not known."""
    if capture.refused_training:
        return "BatchNorm cannot run in training mode on these batches"
    if capture.no_gap or not capture.outputs:
        return capture.no_gap.rstrip(".") or "the outputs were not captured"
    sums = [value for out in capture.outputs for value in (*out.squares, *out.apart.values())]
    if not all(map(math.isfinite, sums)):
        return "the outputs hold NaN or Inf"
    return "the outputs in training mode do not vary"


def momentum_of(layer: WatchedLayer) -> float | str | None:
    """A layer's momentum; "none" for the cumulative average, None where it has none at all."""
    module = layer.state.module if layer.state is not None else None
    if module is None or not module.has_momentum:
        return None
    return "none" if module.momentum is None else module.momentum


def weights_path(capture: Capture) -> str:
    """The file that the weights are from, as it was typed; "" where the code made them."""
    checkpoint = capture.source.get("checkpoint")
    path = checkpoint.get("path") if isinstance(checkpoint, Mapping) else None
    return path if isinstance(path, str) else ""


def _weights(capture: Capture) -> str:
    """Where the weights are from, or how they came to be recorded."""
    if capture.source.get("recorded"):
        return "as it ran in Python"
    if "model" not in capture.source:
        return ""
    checkpoint = capture.source.get("checkpoint")
    if isinstance(checkpoint, Mapping):
        part = checkpoint.get("part")
        return f"{checkpoint.get('path')}{f'::{part}' if part else ''}"
    return _said(checkpoint) or "weights as built"


def _amount(capture: Capture) -> str:
    """How many batches and samples went through the model, mode by mode where that differs."""
    amounts = {mode: _amount_in(capture, mode) for mode in MODES if batches_in(capture, mode)}
    if len(set(amounts.values())) < 2:
        return next(iter(amounts.values()), "")
    return "; ".join(f"{mode.value}: {said}" for mode, said in amounts.items())


def _amount_in(capture: Capture, mode: Propagation) -> str:
    """How many batches and samples a mode had."""
    batches = counted(batches_in(capture, mode), "batch", "batches")
    if capture.input is None:
        return batches
    return f"{batches}, {counted(capture.input.seen[mode].samples, 'sample')}"


def _place(source: Mapping[str, Any]) -> str:
    """Where the model ran, if not on the CPU."""
    device = source.get("device")
    return "" if device in (None, "cpu") else f"on {_said(device)}"


def _said(value: Any) -> str:
    """A value of `Capture.source` for people; several after merging are listed."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return listed([_said(each) for each in value])
    return str(value)
