"""Statistics found anew in the eval propagation: those of all layers that suit each other.

What a layer sees depends on the statistics of those before it. To renew all at once, again and
again, is no way: while the layers in front still move, those behind are driven far off, and as many
passes as layers go by before the last one rests. There are two better ones. In evaluation each
sample runs by itself, so that all data may run as a single batch in which every layer takes its
statistics from what it sees just then: one pass. Where that needs too much memory, layer after
layer is taken, and the model runs as far as that layer alone.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from bncli.errors import BncliError, ModelError
from bncli.light import dataclass, np
from bncli.live.batch import Batch, Statistics, joined
from bncli.live.watching import add_input, watched
from bncli.loaders.names import quoted
from bncli.model.capture import InputSums, Propagation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from torch import Tensor

    from bncli.live.capture_run import CaptureRun
    from bncli.live.layers import LiveLayer
    from bncli.live.session import Session
    from bncli.model import FloatArray
    from bncli.moments.batches import BatchSums

SETTLED = 0.1
"""Statistics found anew have come to rest when none moves by more of its standard error."""

MOST_TOGETHER = 1 << 25
"""Values that a layer may take in at once when batches are joined: 128 MiB in float32."""

MOST_PASSES = 12.0
"""Whole passes that layer after layer may take: enough for 23 layers."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What was found, layer by layer, after `rounds` passes; None where nothing was tried."""

    statistics: dict[str, Statistics] = field(default_factory=dict)
    rounds: int | None = None
    settled: bool = True


def renewal_of(
    session: Session,
    run: CaptureRun,
    wanted: Collection[str] | None = None,
    of: Callable[[InputSums], Statistics] | None = None,
    *,
    whole: bool = False,
) -> Renewal:
    """The statistics of all layers that are not frozen, after `run` saw the training propagation.

    `wanted` names other layers than these; all the rest keep the statistics that they have. `of`
    makes statistics of sums, `statistics_of` unless it is given. `whole` says that they are to be
    found whatever it takes: as many passes as there are layers at most.

    All data run as one batch where that has room (MOST_TOGETHER), and the next pass measures what
    was found. Where a layer moves then, such as one that is called twice or in a model whose
    samples depend on each other, it and those behind it are taken one after the other, unless that
    takes more than MOST_PASSES. For such deep models on much data, the batches are joined as far as
    there is room: the statistics are not exact then, and rarely settle, unless `whole` is given.

    What is returned is what the last pass ran with, so that the gap of that pass is theirs; what
    this pass saw differs by a tenth of its standard error at most, if they settled.
    """
    of = of or statistics_of
    seen = run.results(Propagation.TRAINING)
    free = {layer.name for layer in session.layers if not layer.frozen}
    free = free if wanted is None else set(wanted)
    names = [name for name in run.order if name in free]
    current = {name: of(seen[name]) for name in names}
    rounds = 1
    room = _room(seen, run.samples)
    most = max(MOST_PASSES, len(names)) if whole else MOST_PASSES
    deep = _cost(names, 0) > most
    if names and (room >= run.samples or (deep and room >= 2 * run.largest)):
        rounds += 1
        current.update(_together(session, names, room, of))
    moving = _first_moving(names, current, run.one(Propagation.RENEWED, current), of)
    spent = 0.0
    while moving is not None and (spent := spent + _cost(names, moving)) <= most:
        for name in names[moving:]:
            rounds += 1
            current[name] = of(run.until(name, current))
        rounds += 1
        moving = _first_moving(names, current, run.one(Propagation.RENEWED, current), of)
    return Renewal(current, rounds, settled=moving is None)


def _room(seen: Mapping[str, InputSums], samples: int) -> int:
    """How many samples may run at once."""
    values = max((sums.values * sums.num_features for sums in seen.values()), default=1)
    return max(1, MOST_TOGETHER * samples // values)


def _cost(names: Sequence[str], begin: int) -> float:
    """The whole passes that it takes to run as far as each layer from the one at `begin` on."""
    return sum(range(begin + 1, len(names) + 1)) / max(len(names), 1)


def _together(
    session: Session, names: Sequence[str], room: int, of: Callable[[InputSums], Statistics]
) -> dict[str, Statistics]:
    """The statistics with batches joined up to `room` samples, each normalised with its own.

    Nothing where the model does not take such batches.
    """
    from bncli.moments.batches import BatchSums, merge_sums

    layers = [layer for layer in session.layers if layer.name in names]
    own: dict[str, BatchSums] = {}
    parts: dict[str, list[InputSums]] = {}

    def seen(layer: LiveLayer, x: Tensor) -> None:
        if layer.name not in own:
            own[layer.name] = BatchSums(x.shape[1], per_sample=layer.per_sample)
        add_input(own[layer.name], x)
        session.runner.give(layer, of(own[layer.name].result()))

    def batches() -> Iterator[Batch]:
        for _, batch in session.batches():
            yield batch
            session.done()

    try:
        for number, batch in enumerate(joined(batches(), room)):
            own.clear()
            with watched(layers, seen):
                session.runner.forward(batch, Propagation.RENEWED, number=number)
            for name, sums in own.items():
                parts.setdefault(name, []).append(sums.result())
    except BncliError:
        return {}
    return {name: of(merge_sums(each)) for name, each in parts.items()}


def _first_moving(
    names: Sequence[str],
    current: Mapping[str, Statistics],
    seen: Mapping[str, InputSums],
    of: Callable[[InputSums], Statistics],
) -> int | None:
    """The place of the first layer that did not rest; None where all did.

    Raises ModelError where one is not called any more.
    """
    lost = next((name for name in names if name not in seen), None)
    if lost is not None:
        raise ModelError(
            f"'{quoted(lost)}' took in nothing in a later pass over the same data, so that its new "
            "statistics cannot be found; leave its module in the model, and call it in every pass."
        )
    moving = (i for i, name in enumerate(names) if moved(current[name], seen[name], of) > SETTLED)
    return next(moving, None)


def statistics_of(sums: InputSums) -> Statistics:
    """Mean and unbiased variance of all values, as running_mean and running_var are to hold them.

    The biased variance where there is one value.
    """
    return Statistics(sums.mean, sums.unbiased_var if sums.values > 1 else sums.var)


def moved(
    before: Statistics,
    sums: InputSums,
    of: Callable[[InputSums], Statistics] = statistics_of,
) -> float:
    """How far new statistics are from those before, in standard errors; the farthest channel.

    The error of a mean follows from the samples' scatter within their batches, and that of a
    variance from the batches' scatter, or from the number of samples if there are few batches.
    """
    after = of(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_error = error_of_mean(sums)
        var_error = after.var * np.sqrt(2 / max(sums.samples - 1, 1))
        if sums.batches_with_var > 2:
            scatter = sums.batch_var_squares / (sums.batches_with_var - 1)
            var_error = np.maximum(np.sqrt(scatter / sums.batches_with_var), 1e-12 * after.var)
        steps = [
            np.abs(new - old) / np.where(error > 0, error, np.inf)
            for new, old, error in zip(after, before, (mean_error, var_error), strict=True)
        ]
    finite = np.concatenate(steps)
    finite = finite[np.isfinite(finite)]
    return float(finite.max()) if finite.size else 0.0


def error_of_mean(sums: InputSums) -> FloatArray:
    """The standard error of the mean, as the samples scatter within their batches.

    Where each batch has one sample, as the batches scatter; the standard deviation for one sample.
    """
    inner = sums.samples - sums.batches
    with np.errstate(invalid="ignore", divide="ignore"):
        if inner > 0:
            by_sample = sums.sample_squares / inner
        elif sums.batches > 1:
            by_sample = sums.batch_mean_squares / (sums.batches - 1)
        else:
            by_sample = sums.var
        return np.sqrt(by_sample / sums.samples)
