"""New running statistics for a model's layers: from a run over data, or from a statistics file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.errors import ModelError, UsageError
from bncli.gate.places import matches
from bncli.light import dataclass, np
from bncli.live.batch import Statistics
from bncli.live.renewal import Renewal, error_of_mean, renewal_of
from bncli.loaders.names import listed, quoted
from bncli.model.capture import InputSums, Propagation
from bncli.model.recalibration import Average, LayerChange, Recalibration

if TYPE_CHECKING:
    from bncli.live.session import Metric, Session
    from bncli.model import BatchNormState
    from bncli.model.capture import Capture, WatchedLayer
    from bncli.running_stats.conventions import Convention

Hold = Callable[[str, Statistics], Statistics]
"""Gives a layer's new statistics as its buffers will hold them, rounded to their dtype."""

CLEAR, FEW, LARGE = 3.0, 5, 0.1
"""How many standard errors the metric of wrong pairs must be from that of right ones; the number of
batches that give such an error; and the part of the metric that it must be with fewer."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted.

    `convention` gives the divisor of the variance and what `momentum` is the weight of; a momentum
    of None is that of each layer. `propagation` is the one whose inputs count, TRAINING or EVAL.
    `layers` has patterns of the layers that are to change, None for all that are not frozen and are
    no InstanceNorm. `max_error` is the largest standard error of a mean, in standard deviations.
    """

    convention: Convention
    average: Average = Average.POPULATION
    propagation: Propagation = Propagation.EVAL
    momentum: float | None = None
    layers: Sequence[str] | None = None
    max_error: float = 0.01

    @property
    def batch_by_batch(self) -> bool:
        """Whether every batch's own numbers are needed, and not only their sums."""
        if self.average is Average.BATCHES:
            return self.convention.variance != "unbiased"
        return self.average is Average.EMA

    def population(self, sums: InputSums) -> Statistics:
        """The mean and the variance of all values; the biased variance where there is one value."""
        divisor = self.convention.variance_divisor(sums.values) or sums.values
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
    for too little data and for a pattern that fits no layer, ModelError where the model cannot run
    in training mode or a layer sees what is not finite, and what `hold` raises.
    """
    from bncli.live.capture_run import CaptureRun

    run = CaptureRun(session, per_batch=wish.batch_by_batch)
    if check:
        run.both()
    else:
        run.training()
    if run.refused:
        raise ModelError(
            f"{run.refused.removesuffix('.')}: in training mode each channel needs more than one "
            "value; give larger batches (--batch-size)."
        )
    whole = renewal_of(session, run, whole=True) if check else Renewal()
    session.renewed = whole.statistics
    capture = run.capture(whole)
    chosen, left = chosen_layers(capture, wish.layers)
    if wish.propagation is Propagation.EVAL:
        found = whole
        if (
            not check
            or set(chosen) != set(whole.statistics)
            or wish.convention.variance != "unbiased"
        ):
            found = renewal_of(session, run, chosen, wish.population, whole=True)
        seen = run.results(Propagation.RENEWED)
        new = {name: (found.statistics[name], seen[name]) for name in chosen}
    else:
        found = Renewal(rounds=1)
        new = _in_training(capture, chosen, wish)
    layers = _changes(capture, new, wish)
    done = Recalibration(layers, left, found.rounds or 1, found.settled, capture)
    return _measured(session, done, hold, metric) if check else done


def recalibrated_from(capture: Capture, wish: Wish) -> Recalibration:
    """New statistics from what a statistics file holds: from its training propagation.

    Raises UsageError as `recalibrated`, and where the file does not hold what is wished for.
    """
    if capture.weights_moved:
        raise UsageError(
            "the weights of the model changed while the statistics were captured, so that they are "
            "those of no single model; capture them again from a model that stays as it is."
        )
    chosen, left = chosen_layers(capture, wish.layers)
    trained = [name for name in chosen if Propagation.TRAINING in _layer(capture, name).seen]
    if chosen and not trained:
        raise UsageError(
            "the statistics file has nothing of the model in train mode; make it with bncli "
            "capture, which runs both modes."
        )
    left |= dict.fromkeys((name for name in chosen if name not in trained), "no batch reaches it")
    layers = _changes(capture, _in_training(capture, trained, wish), wish)
    return Recalibration(layers, left, capture=capture)


# ------------------------------------------------------------------ which layers


def chosen_layers(
    capture: Capture, patterns: Sequence[str] | None
) -> tuple[list[str], dict[str, str]]:
    """The layers to change, in the order of execution, and why each other one stays as it is.

    Raises UsageError for a pattern that fits no layer, and for a layer that was named and cannot
    change.
    """
    layers = {layer.name: layer for layer in capture.norms}
    names = [*layers, *capture.uncalled]
    for pattern in patterns or ():
        if not any(matches(name, pattern) for name in names):
            raise UsageError(
                f"--layer {quoted(pattern)}: the model has no such BatchNorm layer; it has "
                f"{listed(names[:4])}."
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


def _layer(capture: Capture, name: str) -> WatchedLayer:
    return next(layer for layer in capture.norms if layer.name == name)


# ------------------------------------------------------------------ the statistics


def _in_training(
    capture: Capture, names: Sequence[str], wish: Wish
) -> dict[str, tuple[Statistics, InputSums]]:
    """The statistics of what layers see in the training propagation, and the sums behind them."""
    found = {}
    for name in names:
        layer = _layer(capture, name)
        sums = layer.seen[Propagation.TRAINING]
        if wish.average is Average.POPULATION:
            found[name] = wish.population(sums), sums
        elif not wish.batch_by_batch:
            found[name] = Statistics(sums.mean_of_batches, sums.batch_var), sums
        else:
            batches = capture.per_batch.get((name, Propagation.TRAINING))
            if batches is None:
                raise UsageError(
                    f"--average {wish.average.value} needs every batch's own statistics, which the "
                    "file does not hold; capture it with --per-batch."
                )
            found[name] = _over_batches(layer, batches, wish), sums
    return found


def _over_batches(layer: WatchedLayer, batches: Mapping[str, Any], wish: Wish) -> Statistics:
    """The batches' statistics averaged, or taken in one after the other.

    `batches` is as in `Capture.per_batch`.
    """
    convention, state = wish.convention, layer.state
    factors = [convention.variance_factor(int(count), layer.eps) for count in batches["count"]]
    mean, var = batches["mean"], batches["var"] * np.array(factors)[:, None]
    assert state is not None
    if wish.average is Average.BATCHES:
        return Statistics(mean.mean(axis=0), var.mean(axis=0))
    momentum = wish.momentum
    weight = None if momentum is None else convention.new_weight(momentum)
    if weight is None and state.module is not None:
        weight = state.module.momentum
    counted = int(state.num_batches_tracked or 0)
    now = Statistics(*(np.asarray(each, np.float64) for each in _running(state)))
    for k, batch in enumerate(zip(mean, var, strict=True)):
        new = 1 / (counted + k + 1) if weight is None else weight
        # As PyTorch does it, so that a weight of 1 leaves nothing of what was there, NaN included.
        now = Statistics(
            *(
                each if new == 1 else old * (1 - new) + each * new
                for old, each in zip(now, batch, strict=True)
            )
        )
    return now


def _running(state: BatchNormState) -> tuple[Any, Any]:
    return state.running_mean, state.running_var


def _changes(
    capture: Capture, new: Mapping[str, tuple[Statistics, InputSums]], wish: Wish
) -> tuple[LayerChange, ...]:
    """The layers with their new statistics. Raises UsageError for data that do not suffice."""
    layers = []
    for name, (statistics, sums) in new.items():
        state = _layer(capture, name).state
        assert state is not None
        with np.errstate(all="ignore"):
            error = np.where(sums.var > 0, error_of_mean(sums) / np.sqrt(sums.var), 0.0)
        layers.append(
            LayerChange(name, state, *statistics, sums.values, sums.samples, sums.batches, error)
        )
    _check_finite(layers)
    _check_enough(layers, wish.max_error)
    return tuple(layers)


def _check_finite(layers: Sequence[LayerChange]) -> None:
    for layer in layers:
        wrong = ~(np.isfinite(layer.mean) & np.isfinite(layer.var))
        if wrong.any():
            channel = int(np.argmax(wrong))
            raise ModelError(
                f"the data's statistics in {quoted(layer.name)} are not finite (channel {channel}: "
                f"mean {layer.mean[channel]:.4g}, variance {layer.var[channel]:.4g}), so they "
                "cannot be stored; look for NaN or Inf in the data and the weights with bncli "
                "diagnose."
            )


def _check_enough(layers: Sequence[LayerChange], most: float) -> None:
    """Raise UsageError where there are too few samples to know the means well enough."""
    short = [layer for layer in layers if layer.standard_error > most]
    if not short:
        return
    worst = max(short, key=lambda layer: layer.standard_error)
    error = worst.standard_error
    needed = math.ceil(worst.samples * (error / most) ** 2) if most > 0 else 0
    digits = 10 ** max(len(str(needed)) - 2, 0)
    enough = f"takes about {math.ceil(needed / digits) * digits} samples" if most else "is none"
    raise UsageError(
        f"{worst.samples} samples are too few: they give the mean of {quoted(worst.name)} with a "
        f"standard error of {error:.3f} of its standard deviation, and --max-error {most:g} "
        f"{enough}; give more data, or accept this with --max-error "
        f"{math.ceil(error * 1000) / 1000:g}."
    )


# ------------------------------------------------------------------ what they do


def _measured(
    session: Session, done: Recalibration, hold: Hold | None, metric: Metric | None
) -> Recalibration:
    """The same with the gap and the metric before and after, measured with these statistics."""
    new = {layer.name: Statistics(layer.mean, layer.var) for layer in done.layers}
    if hold is not None:
        new = {name: hold(name, statistics) for name, statistics in new.items()}
    after = session.measure(new, metric)
    metrics: dict[str, float | None] = {}
    if metric is not None:
        mispaired = _Mispaired(metric)
        training = session.measure({}, mispaired, propagation=Propagation.TRAINING)
        before = session.measure({}, metric)
        metrics = {"training": training.metric, "before": before.metric, "after": after.metric}
        metrics["chance"] = mispaired.mean
    return replace(
        done,
        gap_before=done.capture.gap(Propagation.EVAL),
        gap_after=after.gap,
        gap_floor=done.capture.gap_floor,
        metrics={key: value for key, value in metrics.items() if value is not None},
        checked=True,
    )


class _Mispaired:
    """A metric that is also taken of outputs which are paired with the next sample's batch entry.

    What is right must be better than that, which shows whether more or less is better.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._right: list[float] = []
        self._wrong: list[float] = []
        self._fails = False

    def __call__(self, output: Any, batch: Any) -> Any:
        """The metric itself."""
        right = self._metric(output, batch)
        if not self._fails:
            try:
                self._wrong.append(float(self._metric(_rolled(output), batch)))
                self._right.append(float(right))
            except Exception:  # noqa: BLE001  # the user's code, asked what it was not written for
                self._fails = True
        return right

    @property
    def mean(self) -> float | None:
        """The mean over the batches of wrong pairs.

        None where a batch failed, or where wrong pairs and right ones may differ by chance: where
        the mean of the differences is not CLEAR times its standard error, or, of a few batches, not
        all of them are one way and large.
        """
        if self._fails or not self._wrong:
            return None
        right, wrong = np.array(self._right), np.array(self._wrong)
        apart = wrong - right
        if len(apart) >= FEW:
            error = apart.std(ddof=1) / math.sqrt(len(apart))
            clear = abs(apart.mean()) > CLEAR * error
        else:
            clear = bool(np.all(np.abs(apart) > LARGE * np.maximum(np.abs(right), np.abs(wrong))))
            clear = clear and abs(np.sign(apart).sum()) == len(apart)
        return float(wrong.mean()) if clear else None


def _rolled(output: Any) -> Any:
    """The output with its samples moved on by one; raises ValueError where they are not known."""
    import torch

    if isinstance(output, torch.Tensor):
        if not output.ndim or len(output) < 2:
            raise ValueError("a single sample")
        return output.roll(1, 0)
    if isinstance(output, Mapping):
        return type(output)({key: _rolled(value) for key, value in output.items()})  # type: ignore[call-arg]  # as dict
    if type(output) in {list, tuple}:
        return type(output)(map(_rolled, output))
    raise ValueError("no tensor")
