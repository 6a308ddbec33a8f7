"""What a script reads of a recalibration, and the lines that say what was looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.model.capture import Capture, Propagation
from bncli.sections.answer import counted
from bncli.sections.live import batches_of, live_subject

if TYPE_CHECKING:
    from bncli.commands.recalibrate.flags import EffectFlags
    from bncli.commands.recalibrate.run import Found
    from bncli.commands.recalibrate.writing import Written
    from bncli.live.recalibration import Wish
    from bncli.report import Value
    from bncli.rulebook.live.repair import Judgement


def facts_of(
    found: Found,
    wish: Wish,
    judgement: Judgement,
    written: Written | None,
    effect: EffectFlags,
) -> dict[str, Value]:
    """How many layers change, what it does, and what was written.

    `changed` counts the layers with new statistics and `bytes_changed` the bytes that are replaced
    in the new file, whether it was written or not; `output` is the file, None where there is none.
    """
    done = found.done
    layers = len(done.layers) if done is not None else 0
    facts: dict[str, Value] = {
        "layers": layers + len(found.left),
        "changed": layers,
        "bytes_changed": None if written is None else written.nbytes,
        "gap_before": None if done is None else done.gap_before,
        "gap_after": None if done is None else done.gap_after,
        "gap_floor": None if done is None else done.gap_floor,
        "output": None if written is None else written.output,
        "part": None if found.checkpoint is None else found.checkpoint.targets.part,
        "outcome": judgement.outcome.value if done is not None and done.checked else None,
        "average": wish.average.value,
        "propagation": wish.propagation.value,
        "convention": wish.convention.name,
        "batches": 0 if done is None else batches_of(done.capture),
        "rounds": None if done is None or wish.propagation is Propagation.TRAINING else done.rounds,
        "settled": None if done is None else done.settled,
        "verified": None if written is None else written.verified,
        "serialization_id": None if written is None else written.serialization_id,
    }
    if effect.metric is not None and done is not None:
        facts["metric"] = effect.metric
        for key in ("training", "before", "after"):
            facts[f"metric_{key}"] = done.metrics.get(key)
    return facts


def subject_of(found: Found) -> tuple[str, ...]:
    """What was looked at: the model or the statistics files, the checkpoint, and the data."""
    capture = Capture(()) if found.done is None else found.done.capture
    if found.done is None:
        return ()
    lines = live_subject(capture)
    if found.ran:
        return lines
    channels = sum(layer.num_features for layer in capture.norms)
    layers = f"{counted(len(capture.norms), 'BatchNorm layer')}, {counted(channels, 'channel')}"
    place = "" if found.checkpoint is None else f"{found.checkpoint.targets.label}  "
    return (f"{place}{layers}", f"{found.label}  {lines[-1]}")
