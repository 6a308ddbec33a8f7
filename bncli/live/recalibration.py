"""New running statistics for a model's layers: from a run over data, or from a statistics file."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bncli.errors import ModelError, UsageError
from bncli.gate.places import matches
from bncli.light import dataclass, np
from bncli.live.batch import Statistics
from bncli.live.renewal import Renewal, error_of_mean, renewal_of
from bncli.live.wrong_pairs import WrongPairs, clearest
from bncli.loaders.names import quoted
from bncli.model.capture import InputSums, Propagation
from bncli.model.recalibration import Average, LayerChange, Recalibration
from bncli.rulebook.interface import examples

if TYPE_CHECKING:
    from bncli.live.capture_run import CaptureRun
    from bncli.live.session import Metric, Session
    from bncli.model import BatchNormState, FloatArray
    from bncli.model.capture import Capture, WatchedLayer
    from bncli.running_stats.conventions import Convention

Hold = Callable[[str, Statistics], Statistics]
"""Gives a layer's new statistics as its buffers will hold them, rounded to their dtype."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted.

    `convention` gives the divisor of the variance and what `momentum` is the weight of; a momentum
    of None is that of each layer. `propagation` is the one whose inputs count, TRAINING or EVAL.
    `layers` has patterns of the layers that are to change, None for all that are not frozen and are
    no InstanceNorm.
    """

    convention: Convention
    average: Average = Average.POPULATION
    propagation: Propagation = Propagation.EVAL
    momentum: float | None = None
    layers: Sequence[str] | None = None

    @property
    def batch_by_batch(self) -> bool:
        """Whether every batch's own numbers are needed, and not only their sums."""
        if self.average is Average.BATCHES:
            return self.convention.variance != "unbiased"
        return self.average is Average.EMA

    def population(self, sums: InputSums) -> Statistics:
        """The mean and the variance of all values; the biased variance where there is one value."""
        divisor = self.convention.variance_divisor(sums.values)
        divisor = divisor if divisor > 0 else sums.values
        with np.errstate(invalid="ignore"):
            return Statistics(sums.mean, (sums.within + sums.between) / np.float64(divisor))


def recalibrated(
    session: Session,
    wish: Wish,
    hold: Hold | None = None,
    metric: Metric | None = None,
    *,
    check: bool = True,
) -> Recalibration:
    """New statistics from a model that runs over its data, inside `session.open()`.

    `hold` rounds the statistics that are measured; without `check` nothing is. Raises UsageError
    for a pattern that fits no layer, ModelError where the model cannot run in training mode or a
    layer sees what is not finite, and what `hold` raises.
    """
    from bncli.live.capture_run import CaptureRun

    run = CaptureRun(session, per_batch=wish.batch_by_batch)
    if check:
        run.both()
    else:
        run.training()
    _check_ran(run)
    whole = renewal_of(session, run, whole=True) if check else Renewal()
    session.renewed = whole.statistics
    capture = run.capture(whole)
    chosen, left = chosen_layers(capture, wish.layers)
    _check_kinds(capture, chosen, wish)
    if wish.propagation is Propagation.EVAL:
        found = whole
        same = check and set(chosen) == set(whole.statistics)
        if not same or wish.convention.variance != "unbiased":
            found = renewal_of(session, run, chosen, wish.population, whole=True)
        seen = run.results(Propagation.RENEWED)
        new = {name: (found.statistics[name], seen[name], 1.0) for name in chosen}
    else:
        found = Renewal(rounds=1)
        new = _in_training(_all_training(session, capture, chosen, wish), chosen, wish)
    layers = _changes(capture, new, wish)
    done = Recalibration(layers, left, found.rounds or 1, found.settled, capture)
    return _measured(session, done, hold, metric) if check else done


def recalibrated_from(capture: Capture, wish: Wish) -> Recalibration:
    """New statistics from what a statistics file holds: from its training propagation.

    Raises UsageError as `recalibrated`, and where the file does not hold what is wished for.
    """
    if capture.weights_moved:
        raise UsageError(
            "the weights of the model changed while the statistics were captured, so they do "
            "not belong to one model; capture them again from a model that stays as it is."
        )
    chosen, left = chosen_layers(capture, wish.layers)
    seen = {layer.name for layer in capture.norms if Propagation.TRAINING in layer.seen}
    trained = [name for name in chosen if name in seen]
    if chosen and not trained:
        raise UsageError(
            "the statistics file has nothing of the model in train mode; make it with bncli "
            "capture, which runs both modes."
        )
    left |= dict.fromkeys((name for name in chosen if name not in trained), "no batch reaches it")
    _check_frozen(capture, trained)
    _check_kinds(capture, trained, wish)
    layers = _changes(capture, _in_training(capture, trained, wish), wish)
    return Recalibration(layers, left, capture=capture)


def _check_ran(run: CaptureRun) -> None:
    """Raise ModelError where PyTorch refused the training propagation."""
    if run.refused:
        raise ModelError(
            f"{run.refused.removesuffix('.')}: in training mode each channel needs more than one "
            "value; give larger batches (--batch-size)."
        )


def _all_training(session: Session, capture: Capture, chosen: Sequence[str], wish: Wish) -> Capture:
    """The capture, or another where all chosen layers normalise with the batch, frozen ones too.

    What the layers behind a frozen one see would else be that of the statistics which it loses.
    """
    from torch.nn.modules.batchnorm import _NormBase

    from bncli.live.capture_run import CaptureRun

    frozen = {layer.name for layer in capture.norms if layer.frozen}
    if frozen.isdisjoint(chosen):
        return capture
    trainable = {each.name for each in session.layers if isinstance(each.module, _NormBase)}
    _check_frozen(capture, chosen, trainable)
    before = session.layers
    layers = [replace(each, frozen=each.frozen and each.name not in chosen) for each in before]
    session.layers = session.runner.layers = layers
    try:
        run = CaptureRun(session, per_batch=wish.batch_by_batch)
        run.training()
        _check_ran(run)
        return run.capture(Renewal())
    finally:
        session.layers = session.runner.layers = before


# ------------------------------------------------------------------ which layers


def chosen_layers(
    capture: Capture, patterns: Sequence[str] | None
) -> tuple[list[str], dict[str, str]]:
    """The layers to change, in the order of execution, and why each other one stays as it is.

    Raises UsageError for a pattern that fits no layer.
    """
    layers = _by_name(capture)
    names = [*layers, *capture.uncalled]
    for pattern in patterns or ():
        if not any(matches(name, pattern) for name in names):
            raise UsageError(
                f"--layer {quoted(pattern)}: the model has no such BatchNorm layer; it has "
                f"{examples(names)}."
            )
    chosen: list[str] = []
    left: dict[str, str] = {}
    for name in names:
        named = any(matches(name, pattern) for pattern in patterns or ())
        why = _why_left(layers.get(name), named=named)
        if patterns is not None and not named:
            left[name] = "not chosen"
        elif why:
            left[name] = why
        else:
            chosen.append(name)
    return chosen, left


def _check_frozen(capture: Capture, chosen: Sequence[str], trainable: Collection[str] = ()) -> None:
    """Raise UsageError where a layer behind a frozen one saw what that one's old statistics make.

    Those that are `trainable` normalised with the batch instead.
    """
    layers = _by_name(capture)
    for name, behind in pairwise(chosen):
        if layers[name].frozen and name not in trainable:
            raise UsageError(
                f"{quoted(name)} is frozen, so what {quoted(behind)} behind it sees in train mode "
                "depends on the statistics that it has now; give the model and its data, with "
                "--propagate eval and --average population, or one of these layers alone (--layer)."
            )


def _why_left(layer: WatchedLayer | None, *, named: bool) -> str:
    """Why a layer stays as it is; "" where it need not."""
    if layer is None:
        return "no batch reaches it"
    state = layer.state
    if state is None or state.running_mean is None or state.running_var is None:
        return "no running statistics"
    if layer.frozen and not named:
        return "frozen"
    return "InstanceNorm" if layer.per_sample and not named else ""


def _check_kinds(capture: Capture, names: Sequence[str], wish: Wish) -> None:
    """Raise UsageError for an InstanceNorm whose samples would be pooled."""
    pooled = {layer.name for layer in capture.norms if layer.per_sample}
    for name in names:
        if name in pooled and wish.average is Average.POPULATION:
            raise UsageError(
                f"{quoted(name)} is an InstanceNorm, whose variance is that within a sample, not "
                "that of all values; take the average of the samples' with --average batches."
            )


def _by_name(capture: Capture) -> dict[str, WatchedLayer]:
    return {layer.name: layer for layer in capture.norms}


# ------------------------------------------------------------------ the statistics


def _in_training(
    capture: Capture, names: Sequence[str], wish: Wish
) -> dict[str, tuple[Statistics, InputSums, float]]:
    """The statistics of what layers see in the training propagation, and the sums behind them.

    And how many times the error of all samples their error is.
    """
    found, layers = {}, _by_name(capture)
    for name in names:
        layer = layers[name]
        sums = layer.seen[Propagation.TRAINING]
        if wish.average is Average.POPULATION:
            found[name] = wish.population(sums), sums, 1.0
        elif not wish.batch_by_batch:
            found[name] = Statistics(sums.mean_of_batches, sums.batch_var), sums, 1.0
        else:
            batches = capture.per_batch.get((name, Propagation.TRAINING))
            if batches is None:
                raise UsageError(
                    f"--average {wish.average.value} needs every batch's own statistics, which the "
                    "file does not hold; capture it with --per-batch."
                )
            statistics, times = _over_batches(layer, batches, wish)
            found[name] = statistics, sums, times
    return found


def _over_batches(
    layer: WatchedLayer, batches: Mapping[str, Any], wish: Wish
) -> tuple[Statistics, float]:
    """The batches' statistics averaged, or taken in one after the other.

    `batches` is as in `Capture.per_batch`. The second is how many times the standard error is that
    of all samples: of means with the weights w and n samples of N each, sqrt(sum(w^2 N / n)).
    """
    convention, state = wish.convention, layer.state
    factors = [convention.variance_factor(int(count), layer.eps) for count in batches["count"]]
    mean, var = batches["mean"], batches["var"] * np.array(factors)[:, None]
    assert state is not None
    if wish.average is Average.BATCHES:
        return Statistics(mean.mean(axis=0), var.mean(axis=0)), 1.0
    weight = _weight(layer, wish)
    counted = int(state.num_batches_tracked or 0)
    now = _running(state)
    weights = np.zeros(len(mean))
    for k, batch in enumerate(np.stack((mean, var), axis=1)):
        new = 1 / (counted + k + 1) if weight is None else weight
        weights *= 1 - new
        weights[k] = new
        # A weight of 1 leaves nothing of what was there; PyTorch would keep NaN, which is 0 * NaN.
        now = batch if new == 1 else now * (1 - new) + batch * new
    count = batches["count"]
    return Statistics(*now), math.sqrt(float((weights**2 * (count.sum() / count)).sum()))


def _weight(layer: WatchedLayer, wish: Wish) -> float | None:
    """The weight of each new batch; None for a plain average with what was counted before.

    Raises UsageError for a layer that knows none, or whose batches are its samples.
    """
    if layer.per_sample:
        raise UsageError(
            f"--average ema goes from batch to batch, but {quoted(layer.name)} is an InstanceNorm, "
            "which takes each sample by itself; leave it out (--layer), or choose another average."
        )
    if wish.momentum is not None:
        return wish.convention.new_weight(wish.momentum)
    module = None if layer.state is None else layer.state.module
    if module is None or not module.has_momentum:
        raise UsageError(
            f"--average ema needs a momentum, which {quoted(layer.name)} does not have; give it "
            "with --momentum."
        )
    return module.momentum


def _running(state: BatchNormState) -> FloatArray:
    return np.array((state.running_mean, state.running_var), np.float64)


def _changes(
    capture: Capture, new: Mapping[str, tuple[Statistics, InputSums, float]], wish: Wish
) -> tuple[LayerChange, ...]:
    """The layers with their new statistics. Raises ModelError for what is not finite."""
    layers, before = [], _by_name(capture)
    for name, (statistics, sums, times) in new.items():
        state = before[name].state
        assert state is not None
        with np.errstate(all="ignore"):
            error = np.where(sums.var > 0, times * error_of_mean(sums) / np.sqrt(sums.var), 0.0)
        counts = sums.values, sums.samples, sums.batches
        layers.append(LayerChange(name, state, *statistics, *counts, error, wish.average))
    _check_finite(layers, wish)
    return tuple(layers)


def _check_finite(layers: Sequence[LayerChange], wish: Wish) -> None:
    for layer in layers:
        wrong = ~(np.isfinite(layer.mean) & np.isfinite(layer.var))
        stored = wrong & ~np.isfinite(_running(layer.state)).all(axis=0)
        if wish.average is Average.EMA and stored.any():
            raise UsageError(
                f"the running statistics of {quoted(layer.name)} are not finite (channel "
                f"{int(np.argmax(stored))}), and --average ema goes on from them; choose another "
                "average."
            )
        if wrong.any():
            channel = int(np.argmax(wrong))
            raise ModelError(
                f"the data's statistics in {quoted(layer.name)} are not finite (channel {channel}: "
                f"mean {layer.mean[channel]:.4g}, variance {layer.var[channel]:.4g}), so they "
                "cannot be stored; look for NaN or Inf in the data and the weights with bncli "
                "diagnose."
            )


# ------------------------------------------------------------------ what they do


def _measured(
    session: Session, done: Recalibration, hold: Hold | None, metric: Metric | None
) -> Recalibration:
    """The same with the gap and the metric before and after, measured with these statistics."""
    new = {layer.name: Statistics(layer.mean, layer.var) for layer in done.layers}
    if hold is not None:
        new = {name: hold(name, statistics) for name, statistics in new.items()}
    metrics: dict[str, float | None] = {}
    if metric is None:
        after = session.measure(new)
    else:
        trained, renewed = WrongPairs(metric), WrongPairs(metric)
        training = session.measure({}, trained, propagation=Propagation.TRAINING)
        _check_metric(training.metric)
        after = session.measure(new, renewed)
        before = session.measure({}, metric)
        metrics = {"training": training.metric, "before": before.metric, "after": after.metric}
        told = clearest(trained, renewed)
        if told is not None and told.worse is not None:
            metrics |= {"right": told.right, "chance": told.right + told.worse}
    return replace(
        done,
        gap_before=done.capture.gap(Propagation.EVAL),
        gap_after=after.gap,
        gap_floor=done.capture.gap_floor,
        metrics={key: value for key, value in metrics.items() if value is not None},
        checked=True,
    )


def _check_metric(training: float | None) -> None:
    """Raise ModelError for a metric that is not finite where nothing is wrong."""
    if training is not None and not math.isfinite(training):
        number = "NaN" if math.isnan(training) else "infinite"
        raise ModelError(
            f"the metric is {number} already for the outputs of training, so it cannot tell "
            "whether new statistics help; look at the metric and the data."
        )
