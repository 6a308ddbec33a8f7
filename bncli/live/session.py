"""A model and its data, over which several passes run: the capture, and repairs that are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bncli.light import dataclass, np
from bncli.live.batch import Batch, Statistics
from bncli.live.layers import LiveLayer, active_dropout, find_layers, still_training
from bncli.live.outputs import NamedTensors, OutputPool, floating_tensors
from bncli.live.passes import Runner, reseed
from bncli.live.watching import KernelFinder, add_input, watched
from bncli.model.capture import Capture, InputSums, Propagation, WatchedLayer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bncli.live.data_source import Data
    from bncli.moments.batches import BatchSums
    from bncli.process.progress import Advance

MOST_KEPT = 1 << 28
"""Bytes of training outputs that are kept from pass to pass; beyond, they are made anew."""

SETTLED = 0.1
"""Statistics found anew have come to rest when none moves by more of its standard error."""

ONE_VALUE = "Expected more than 1 value per channel when training"
"""How PyTorch refuses a batch whose channels have one value each."""

Metric = Callable[[Any, Any], Any]
Change = Callable[["Tensor"], "Tensor"]


class Measured(NamedTuple):
    """The outputs' gap to the training propagation, and the user's metric, where there is one."""

    gap: float | None
    metric: float | None


@dataclass(slots=True)
class _Kept:
    """The training outputs of the batches, as far as there is room, each by its batch's CRC."""

    outputs: dict[int, tuple[int, NamedTensors]] = field(default_factory=dict)
    room: int = MOST_KEPT

    def add(self, number: int, crc: int, outputs: NamedTensors) -> None:
        """Keep the outputs of batch `number`, if there is room."""
        size = sum(tensor.nbytes for tensor in outputs.values())
        if size <= self.room:
            self.room -= size
            self.outputs[number] = crc, {name: tensor.cpu() for name, tensor in outputs.items()}

    def get(self, number: int, crc: int) -> NamedTensors | None:
        """The outputs of that batch, if they were kept and it is the same batch."""
        kept = self.outputs.get(number)
        return kept[1] if kept is not None and kept[0] == crc else None


@dataclass(slots=True)
class Session:
    """Passes of one model over one set of batches.

    `frozen` has patterns of layers that stay as they are. `advance` is called with the number of
    forward passes just done. Everything that runs the model belongs inside `open`.
    """

    model: nn.Module
    data: Data
    frozen: Sequence[str] = ()
    seed: int = 0
    device: str = "cpu"
    advance: Advance | None = None
    layers: list[LiveLayer] = field(init=False)
    renewed: dict[str, Statistics] = field(init=False, default_factory=dict)
    _runner: Runner = field(init=False)
    _kept: _Kept = field(init=False, default_factory=_Kept)
    _gap_spread: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Find the layers."""
        self.layers = find_layers(self.model, self.frozen)
        self._runner = Runner(self.model, self.layers, self.device, self.seed)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Run the model inside: its modes, buffers, hooks and random state are kept."""
        with self._runner.kept():
            yield

    def capture(self, *, per_batch: bool = False, renew: bool = True) -> Capture:
        """What the layers see in every propagation, and how far the outputs are apart.

        `renew` finds the statistics anew afterwards, which takes some passes more, and measures the
        gap that is left. Raises BncliError where the model or the data fail.
        """
        run = _CaptureRun(self, per_batch=per_batch)
        run.both()
        rounds, settled = None, True
        if renew and not run.refused:
            rounds, settled = self._renew(run)
        return run.capture(rounds, settled=settled)

    def measure(
        self,
        statistics: Mapping[str, Statistics],
        metric: Metric | None = None,
        change: Change | None = None,
        propagation: Propagation = Propagation.EVAL,
    ) -> Measured:
        """The gap of a propagation with these statistics in the layers of these names.

        `change` maps the model's input before both propagations see it. `metric` is called with
        each output and batch, and its mean is weighted by samples.
        """
        pool, scores = OutputPool(), _Scores(metric)
        for number, batch in self.batches():
            if change is not None:
                changed = with_input(batch, change)
                training = None
            else:
                changed = batch
                training = self.kept_output(number, batch)
            if training is None:
                training = self.training_output(number, changed)
            output = self._runner.forward(changed, propagation, statistics, number)
            pool.add_training(training)
            pool.add(propagation, floating_tensors(output), training)
            scores.add(output, batch)
            self._done()
        capture = Capture((), pool.sums())
        return Measured(capture.gap(propagation), scores.mean)

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """The batches with their numbers, shuffled alike in every pass if a loader shuffles."""
        reseed(self.seed)
        yield from enumerate(self.data)

    def training_output(self, number: int, batch: Batch) -> NamedTensors:
        """The floating-point outputs of the training propagation."""
        return floating_tensors(
            self._runner.forward(batch, Propagation.TRAINING, number=number)
        )

    def keep_output(self, number: int, batch: Batch, outputs: NamedTensors) -> None:
        """Remember a training output for later passes."""
        self._kept.add(number, _crc(batch), outputs)

    def kept_output(self, number: int, batch: Batch) -> NamedTensors | None:
        """The training output of this batch, if it was kept and the batch is the same."""
        return self._kept.get(number, _crc(batch))

    def _done(self) -> None:
        if self.advance is not None:
            self.advance(1)

    def _renew(self, run: _CaptureRun) -> tuple[int, bool]:
        """Find all statistics anew, pass by pass; how many passes it took, and whether they rest.

        Begins with those of the training propagation. A layer can only rest after those before it,
        so that there are at most as many passes as layers, and one.
        """
        renewable = [layer for layer in self.layers if not layer.frozen]
        seen = run.results(Propagation.TRAINING)
        current = {
            layer.name: statistics_of(seen[layer.name])
            for layer in renewable
            if layer.name in seen
        }
        rounds = 0
        settled = not current
        while not settled and rounds <= len(current):
            rounds += 1
            sums = run.one(Propagation.RENEWED, current)
            settled = all(
                moved(current[name], sums[name]) <= SETTLED for name in current if name in sums
            )
            current |= {name: statistics_of(sums[name]) for name in current if name in sums}
        self.renewed = current
        return rounds, settled


@dataclass(slots=True)
class _Scores:
    """The mean of the user's metric, weighted by samples."""

    metric: Metric | None
    _total: float = 0.0
    _samples: int = 0

    def add(self, output: Any, batch: Batch) -> None:
        """Take in one batch."""
        if self.metric is None:
            return
        from bncli.live.model_source import users_code

        with users_code(f"the metric on {batch.label}"):
            self._total += float(self.metric(output, batch.whole)) * batch.samples
        self._samples += batch.samples

    @property
    def mean(self) -> float | None:
        """The mean so far; None without a metric."""
        return self._total / self._samples if self._samples else None


class _CaptureRun:
    """The sums of a capture while its passes run."""

    def __init__(self, session: Session, *, per_batch: bool) -> None:
        self._session = session
        self._per_batch = per_batch
        self._sums: dict[Propagation, dict[str, BatchSums]] = {}
        self._input: BatchSums | None = None
        self._order: dict[str, int] = {}
        self._calls: dict[str, int] = {}
        self._most_calls: dict[str, int] = {}
        self._kernels = KernelFinder()
        self._outputs = OutputPool()
        self._left: set[str] = set()
        self._dropout = [name for name, _ in active_dropout(session.model)]
        self.refused = ""

    def both(self) -> None:
        """The training and the eval propagation, batch by batch; and dropout's, if there is any."""
        from bncli.errors import BncliError

        session, wanted = self._session, [Propagation.TRAINING]
        if self._dropout:
            wanted.append(Propagation.AS_TRAINED)
        for number, batch in session.batches():
            self._see_input(batch)
            training = None
            for propagation in () if self.refused else wanted:
                try:
                    output = self._forward(propagation, number, batch)
                except BncliError as error:
                    if ONE_VALUE not in str(error):
                        raise
                    self.refused = str(error)
                    break
                if propagation is Propagation.TRAINING:
                    training = floating_tensors(output)
            output = self._forward(Propagation.EVAL, number, batch)
            if training is not None:
                session.keep_output(number, batch, training)
                self._outputs.add_training(training)
                self._outputs.add(Propagation.EVAL, floating_tensors(output), training)
            session._done()  # noqa: SLF001
        if self.refused:
            for propagation in wanted:
                self._sums.pop(propagation, None)
            self._outputs.problem = self.refused

    def one(
        self, propagation: Propagation, statistics: Mapping[str, Statistics]
    ) -> dict[str, InputSums]:
        """One pass with these statistics; its sums take the place of those of an earlier one."""
        session = self._session
        self._sums.pop(propagation, None)
        self._outputs.forget(propagation)
        for number, batch in session.batches():
            output = self._forward(propagation, number, batch, statistics)
            training = session.kept_output(number, batch)
            if training is None:
                training = session.training_output(number, batch)
            self._outputs.add(propagation, floating_tensors(output), training)
            session._done()  # noqa: SLF001
        return self.results(propagation)

    def results(self, propagation: Propagation) -> dict[str, InputSums]:
        """What the layers saw in a propagation, by name."""
        return {name: sums.result() for name, sums in self._sums.get(propagation, {}).items()}

    def _forward(
        self,
        propagation: Propagation,
        number: int,
        batch: Batch,
        statistics: Mapping[str, Statistics] | None = None,
    ) -> Any:
        """One forward pass whose layers' inputs are taken in."""
        session = self._session
        self._calls.clear()
        look = propagation is Propagation.TRAINING and number == 0

        def seen(layer: LiveLayer, x: Tensor) -> None:
            name = layer.name
            self._order.setdefault(name, len(self._order) + 1)
            self._calls[name] = self._calls.get(name, 0) + 1
            if propagation is Propagation.EVAL and layer.module.training and not layer.frozen:
                self._left.add(name)
            if look:
                self._kernels.look(layer, x)
            sums = self._sums.setdefault(propagation, {})
            if name not in sums:
                sums[name] = self._new_sums(x.shape[1], layer)
            add_input(sums[name], x)

        looking = nullcontext()
        if look:
            self._kernels.inputs.extend(_inputs(batch))
            looking = self._kernels.looking(session.model)
        with looking, watched(session.layers, seen):
            output = session._runner.forward(batch, propagation, statistics, number)  # noqa: SLF001
        for name, calls in self._calls.items():
            self._most_calls[name] = max(calls, self._most_calls.get(name, 0))
        return output

    def _new_sums(self, channels: int, layer: LiveLayer | None = None) -> BatchSums:
        from bncli.moments.batches import BatchSums

        per_sample = layer is not None and layer.per_sample
        return BatchSums(channels, per_batch=self._per_batch, per_sample=per_sample)

    def _see_input(self, batch: Batch) -> None:
        """Take in the model's own input, the first tensor of at least two axes."""
        for x in _inputs(batch)[:1]:
            if not x.is_floating_point():
                if x.ndim < 3:  # such as the numbers of tokens
                    return
                x = x.float()
            if self._input is None:
                self._input = self._new_sums(x.shape[1])
            if self._input.num_features == x.shape[1]:
                add_input(self._input, x)

    def capture(self, rounds: int | None, *, settled: bool) -> Capture:
        """All that was seen."""
        session = self._session
        layers = [self._watched(layer) for layer in session.layers if layer.name in self._order]
        layers.sort(key=lambda layer: layer.order)
        if self._input is not None:
            seen = dict.fromkeys(self._sums, self._input.result())
            first = WatchedLayer("input", 0, self._input.num_features, seen=seen)
            layers.insert(0, first)
        return Capture(
            tuple(layers),
            self._outputs.sums(),
            still_training=tuple(still_training(session.model)),
            dropout=tuple(self._dropout),
            rounds=rounds,
            settled=settled,
            refused_training=self.refused,
            no_gap=self._outputs.problem,
            uncalled=tuple(each.name for each in session.layers if each.name not in self._order),
            per_batch=self._every_batch(),
        )

    def _watched(self, layer: LiveLayer) -> WatchedLayer:
        """A layer with what it saw."""
        name = layer.name
        seen = {
            propagation: sums[name].result()
            for propagation, sums in self._sums.items()
            if name in sums
        }
        return WatchedLayer(
            name,
            self._order[name],
            next(iter(seen.values())).num_features,
            state=layer.state(),
            frozen=layer.frozen,
            in_training=layer.in_training or name in self._left,
            calls=self._most_calls[name],
            per_sample=layer.per_sample,
            kernel=self._kernels.found.get(name),
            seen=seen,
        )

    def _every_batch(self) -> dict[tuple[str, Propagation], Mapping[str, Any]]:
        """The statistics of each batch, where they were asked for."""
        if not self._per_batch:
            return {}
        return {
            (name, propagation): each.batches()
            for propagation, sums in self._sums.items()
            for name, each in sums.items()
        }


def statistics_of(sums: InputSums) -> Statistics:
    """Mean and unbiased variance of all values, as running_mean and running_var are to hold them.

    The biased variance where there is one value.
    """
    return Statistics(sums.mean, sums.unbiased_var if sums.values > 1 else sums.var)


def moved(before: Statistics, sums: InputSums) -> float:
    """How far new statistics are from those before, in standard errors; the farthest channel.

    The error of a mean follows from the samples' scatter within their batches, and that of a
    variance from the batches' scatter, or from the number of samples if there are few batches.
    """
    after = statistics_of(sums)
    inner = sums.samples - sums.batches
    with np.errstate(invalid="ignore", divide="ignore"):
        by_sample = sums.sample_squares / inner if inner > 0 else after.var
        mean_error = np.sqrt(by_sample / sums.samples)
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


def with_input(batch: Batch, change: Change) -> Batch:
    """The batch with its first tensor of at least two axes mapped."""
    first = next(iter(_inputs(batch)), None)
    args = tuple(change(each) if each is first else each for each in batch.args)
    kwargs = {key: change(each) if each is first else each for key, each in batch.kwargs.items()}
    return replace(batch, args=args, kwargs=kwargs)


def _inputs(batch: Batch) -> list[Tensor]:
    """The tensors of a batch of at least two axes, floating-point ones first."""
    import torch

    tensors = [
        value
        for value in (*batch.args, *batch.kwargs.values())
        if isinstance(value, torch.Tensor) and value.ndim >= 2
    ]
    return sorted(tensors, key=lambda tensor: not tensor.is_floating_point())


def _crc(batch: Batch) -> int:
    from bncli.live.data_source import batch_crc

    return batch_crc(batch)
