"""What is diagnosed: a model that runs over data, or statistics files of such a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.errors import FileError, UsageError
from bncli.given import is_given
from bncli.light import dataclass
from bncli.live.imports import code_name
from bncli.loaders import split_spec
from bncli.loaders.names import listed, missing, quoted
from bncli.loaders.patterns import expanded
from bncli.loaders.statistics import is_statistics_file, read_statistics
from bncli.model.capture import Capture, Propagation
from bncli.paths import lexists

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.arguments.model import ModelFlags
    from bncli.live.session import Metric, Session
    from bncli.model.capture import Trials

MOST_TRIED = 5
"""Layers that are tried alone, unless the user says how many."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a model's layers saw, and which repairs were tried: None where there is no model.

    `path` is the file under whose name the layers stand, "" for none, and `read` has the files that
    it is all from. `label` is what the user typed, and `layers` the names of all BatchNorm layers,
    whether a batch reached them or not.
    """

    capture: Capture
    trials: Trials | None
    label: str
    layers: tuple[str, ...]
    path: str
    read: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrialFlags:
    """What is measured beside the capture; None where a flag was not given."""

    metric: str | None
    most: int | None
    train_batch_size: float | None

    def refuse_any(self, what: str) -> None:
        """Raise UsageError where one was given that needs the model."""
        for flag, value in (("--metric", self.metric), ("--try", self.most)):
            if value is not None:
                raise UsageError(f"{flag} does not apply to {what}: it needs the model.")


def run(given: Sequence[str], model: ModelFlags, tried: TrialFlags) -> Run:
    """The run of a model, or what statistics files hold of one; patterns mean the latter.

    Raises UsageError for both together and for several models, and what opening them raises.
    """
    if all(code_name(name) is None for name in given):
        given = expanded(given)
    stored = [name for name in given if is_statistics_file(name)]
    if len(stored) == len(given):
        what = "a statistics file" if len(given) == 1 else "statistics files"
        model.refuse_any(what)
        tried.refuse_any(what)
        return _stored(stored)
    if stored:
        other = next(name for name in given if name not in stored)
        raise UsageError(
            f"{quoted(stored[0])} is a statistics file and {quoted(other)} is not: give one MODEL, "
            "or statistics files alone."
        )
    if len(given) > 1:
        raise UsageError(
            f"{listed([quoted(name) for name in given])}: give one MODEL, or statistics files that "
            "bncli capture saved."
        )
    if not model.data:
        _check_model(given[0])
    return _running(given[0], model, tried)


def _check_model(spec: str) -> None:
    """Raise for what is neither a model nor a statistics file, before data are asked for."""
    if code_name(spec) is not None:
        return
    path = split_spec(spec)[0]
    if not is_given(spec) and not lexists(path):
        raise missing(path)
    from bncli.live.model_source import load_model

    load_model(spec, {})


def reference_of(path: str, capture: Capture) -> Capture:
    """The training data's capture of the same layers. Raises FileError for other layers."""
    if not is_statistics_file(path):
        raise FileError(path, "it is not a statistics file; save one with bncli capture.")
    known = read_statistics([path])
    names = {layer.name for layer in known.norms}
    missing = [layer.name for layer in capture.norms if layer.name not in names]
    if missing:
        raise FileError(
            path, f"it is not of the same model: it has no layer {listed(missing, ' or ')}."
        )
    return known


def _stored(paths: Sequence[str]) -> Run:
    """What statistics files hold. Raises FileError where training was not captured."""
    capture = read_statistics(paths)
    trained = any(Propagation.TRAINING in layer.seen for layer in capture.norms)
    if capture.norms and not trained and not capture.refused_training:
        raise FileError(
            paths[0],
            "the model ran only in eval mode when it was made. Layers are judged by what they see "
            "in train mode: make it with bncli capture, which runs both, or in Python run a few "
            "batches after model.train() as well.",
        )
    names = (*(layer.name for layer in capture.norms), *capture.uncalled)
    path = paths[0] if len(paths) == 1 else ""
    return Run(capture, None, " ".join(map(quoted, paths)), names, path, tuple(paths))


def _running(spec: str, flags: ModelFlags, tried: TrialFlags) -> Run:
    """A model, run over its data, and repairs tried on it."""
    from bncli.arguments.model import open_session

    session = open_session(flags, spec)
    metric = None
    if tried.metric is not None:
        from bncli.live.metric import open_metric

        metric = open_metric(tried.metric)
    capture, trials = Capture(()), None
    if session.layers:
        capture, trials = _captured(session, tried, metric)
    path = "" if flags.checkpoint is None else str(split_spec(flags.checkpoint)[0])
    names = tuple(layer.name for layer in session.layers)
    return Run(capture, trials, spec, names, path, tuple(filter(None, [path])))


def _captured(
    session: Session, tried: TrialFlags, metric: Metric | None
) -> tuple[Capture, Trials | None]:
    """What the layers saw, and what was tried with progress on standard error."""
    from bncli.live.trials import run_trials
    from bncli.live.weights import fingerprint
    from bncli.process.progress import batch_progress
    from bncli.rulebook.live.causes import input_suspected, suspects
    from bncli.rulebook.live.measures import measures

    with session.open(), batch_progress("diagnose", lambda: session.data.length) as advance:
        session.advance = advance
        before = fingerprint(session.model)
        capture = session.capture()
        moved = fingerprint(session.model)["weights"] != before["weights"]
        capture = replace(capture, weights_moved=moved)
        if not capture.norms:
            return capture, None
        found = measures(capture, tried.train_batch_size)
        return capture, run_trials(
            session,
            capture,
            suspects(found),
            input_suspected=input_suspected(capture, found),
            metric=metric,
            most=MOST_TRIED if tried.most is None else tried.most,
        )
