"""How the new statistics are found: a model that runs over data, or statistics files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.commands.recalibrate.checkpoint import Checkpoint
from bncli.errors import FileError, ModelError, UsageError
from bncli.files.save import refuse_overwriting
from bncli.light import dataclass
from bncli.live.recalibration import chosen_layers, recalibrated, recalibrated_from
from bncli.loaders import split_spec
from bncli.model.capture import Capture, WatchedLayer
from bncli.model.recalibration import Average, Recalibration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.commands.recalibrate.flags import EffectFlags, RunFlags, SavedFlags
    from bncli.live.recalibration import Wish
    from bncli.live.session import Metric, Session


@dataclass(frozen=True, slots=True)
class Found:
    """The new statistics, and the checkpoint that they are for; None where there is none.

    `label` is what the user named, the model or the statistics files, and `left` says why each
    other layer stays as it is. `ran` says whether a model ran. `done` is None where there is no
    layer to change.
    """

    label: str
    done: Recalibration | None
    left: Mapping[str, str]
    checkpoint: Checkpoint | None = None
    ran: bool = False


def from_model(
    model: str, flags: RunFlags, wish: Wish, effect: EffectFlags, saved: SavedFlags
) -> Found:
    """New statistics from a model that runs over its data.

    What can be refused without running it, is refused before. Raises the errors of `open_session`,
    of the checkpoint and of `recalibrated`.
    """
    from bncli.arguments.model import open_session
    from bncli.live.metric import open_metric

    session = open_session(flags, model)
    metric = None if effect.metric is None else open_metric(effect.metric)
    if not session.layers:
        return Found(model, None, {}, ran=True)
    planned = _planned(session)
    chosen, left = chosen_layers(planned, wish.layers)
    checkpoint = None
    if flags.checkpoint is not None:
        checkpoint = Checkpoint.of(
            _loaded(flags.checkpoint, session), planned, chosen, counter=saved.counts
        )
    if saved.save_checkpoint is not None:
        refuse_overwriting(saved.save_checkpoint, "--save-checkpoint")  # as more was read since
    if not chosen:
        return Found(model, None, left, checkpoint, ran=True)
    done = _run(session, wish, checkpoint, metric, check=not effect.no_check)
    return Found(model, done if done.layers else None, done.left, checkpoint, ran=True)


def from_files(
    specs: Sequence[str], checkpoint: str | None, wish: Wish, saved: SavedFlags
) -> Found:
    """New statistics from files that bncli capture saved; no model runs.

    Raises FileError for other files and for statistics of other weights, and the errors of
    `recalibrated_from`.
    """
    from bncli.live.targets import check_weights
    from bncli.loaders.patterns import expanded
    from bncli.loaders.statistics import is_statistics_file, read_statistics

    paths = expanded(specs)
    for path in paths:
        if not is_statistics_file(path):
            raise FileError(path, "it is not a statistics file; save one with bncli capture.")
    if wish.average is Average.EMA and len(paths) > 1:
        raise UsageError(
            "--average ema takes the batches in their order, which several statistics files do not "
            "hold; give one file."
        )
    capture = read_statistics(paths)
    label = " ".join(specs)
    if not capture.norms:
        return Found(label, None, dict.fromkeys(capture.uncalled, "no batch reaches it"))
    chosen, left = chosen_layers(capture, wish.layers)
    target = None
    if checkpoint is not None:
        target = Checkpoint.of(checkpoint, capture, chosen, counter=saved.counts)
        check_weights(target.targets, capture)
    if saved.save_checkpoint is not None:
        refuse_overwriting(saved.save_checkpoint, "--save-checkpoint")  # as more was read since
    if not chosen:
        return Found(label, None, left, target)
    done = recalibrated_from(capture, wish)
    return Found(label, done if done.layers else None, done.left, target)


def _planned(session: Session) -> Capture:
    """The layers of a model that has not run, as far as the choice and the checkpoint need them."""
    layers = [
        WatchedLayer(
            layer.name, 0, 0, layer.state(), frozen=layer.frozen, per_sample=layer.per_sample
        )
        for layer in session.layers
    ]
    return Capture(tuple(layers))


def _loaded(spec: str, session: Session) -> str:
    """The checkpoint with the part of it that the model's weights are from."""
    loaded = session.source["checkpoint"]
    part = loaded["part"] if isinstance(loaded, dict) else ""
    return f"{split_spec(spec)[0]}::{part}" if part else spec


def _run(
    session: Session,
    wish: Wish,
    checkpoint: Checkpoint | None,
    metric: Metric | None,
    *,
    check: bool,
) -> Recalibration:
    """Run the model, with progress on standard error. Raises ModelError where its weights move."""
    from bncli.live.weights import fingerprint
    from bncli.process.progress import batch_progress

    hold = None if checkpoint is None else checkpoint.hold
    with session.open(), batch_progress("recalibrate", lambda: session.data.length) as advance:
        session.advance = advance
        before = fingerprint(session.model)["weights"]
        done = recalibrated(session, wish, hold, metric, check=check)
        if fingerprint(session.model)["weights"] != before:
            raise ModelError(
                "the weights of the model changed while it ran, so the new statistics do "
                "not belong to one model; run it without what changes them, such as an optimiser."
            )
    return done
