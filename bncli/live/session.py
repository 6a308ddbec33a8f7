"""A model and its data, over which several passes run: the capture, and repairs that are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from typing import TYPE_CHECKING, Any, NamedTuple

from bncli.light import dataclass
from bncli.live.batch import Batch, Statistics, with_input
from bncli.live.layers import LiveLayer, find_layers, model_to_run
from bncli.live.outputs import NamedTensors, OutputPool, floating_tensors
from bncli.live.passes import Runner
from bncli.live.random_streams import seed_all
from bncli.model.capture import Capture, Propagation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bncli.live.data_source import Data
    from bncli.process.progress import Advance
    from bncli.report import Value

MOST_KEPT = 1 << 28
"""Bytes of training outputs that are kept from pass to pass; beyond, they are made anew."""

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
        if number not in self.outputs and size <= self.room:
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
    forward passes just done, and `source` is as in `Capture`. `checkpoint` is the sum of the
    weights as the checkpoint stores them, "" where there is no checkpoint. Everything that runs the
    model belongs inside `open`.
    """

    model: nn.Module
    data: Data
    frozen: Sequence[str] = ()
    seed: int = 0
    device: str = "cpu"
    advance: Advance | None = None
    source: Mapping[str, Value | Mapping[str, Value]] = field(default_factory=dict)
    checkpoint: str = ""
    layers: list[LiveLayer] = field(init=False)
    renewed: dict[str, Statistics] = field(init=False, default_factory=dict)
    refused: bool = field(init=False, default=False)
    left_out: dict[int, str] = field(init=False, default_factory=dict)
    runner: Runner = field(init=False)
    _kept: _Kept = field(init=False, default_factory=_Kept)

    def __post_init__(self) -> None:
        """Find the layers. Raises ModelError for a model that cannot run, or not be watched."""
        self.model = model_to_run(self.model)
        self.layers = find_layers(self.model, self.frozen)
        self.runner = Runner(self.model, self.layers, self.device, self.seed)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Run the model inside: its modes, buffers, hooks and random state are kept."""
        with self.runner.kept():
            yield

    def capture(self, *, per_batch: bool = False, renew: bool = True) -> Capture:
        """What the layers see in every propagation, and how far the outputs are apart.

        `renew` finds the statistics anew afterwards, which takes some passes more, and measures the
        gap that is left. Raises BncliError where the model or the data fail.
        """
        from bncli.live.capture_run import CaptureRun
        from bncli.live.renewal import Renewal, renewal_of

        run = CaptureRun(self, per_batch=per_batch)
        run.both()
        self.refused = bool(run.refused)
        found = Renewal()
        if renew and not self.refused:
            found = renewal_of(self, run)
        self.renewed = found.statistics
        return run.capture(found)

    def measure(
        self,
        statistics: Mapping[str, Statistics],
        metric: Metric | None = None,
        change: Change | None = None,
        propagation: Propagation = Propagation.EVAL,
    ) -> Measured:
        """The gap of a propagation with these statistics in the layers of these names.

        `change` maps the model's input before both propagations see it. `metric` is called with
        each output and batch, and its mean is weighted by samples. One pass over the data.
        """
        pool, scores = OutputPool(), _Scores(metric)
        for number, batch in self.batches():
            changed = batch if change is None else with_input(batch, change)
            training = self.training_output(number, changed)
            output = self.runner.forward(changed, propagation, statistics, number)
            pool.add_training(training)
            pool.add(propagation, floating_tensors(output), training)
            scores.add(output, batch)
            self.done()
        capture = Capture((), pool.sums())
        return Measured(capture.gap(propagation), scores.mean)

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """The batches with their numbers, shuffled alike in every pass if a loader shuffles.

        A batch of a shard has the number that it has in the whole, so that its random numbers are
        the same.
        Those of `left_out` are not among them.
        """
        seed_all(self.seed)
        for place, batch in enumerate(self.data):
            number = place if batch.number is None else batch.number
            if number not in self.left_out:
                yield number, batch

    def training_output(self, number: int, batch: Batch) -> NamedTensors:
        """The floating-point outputs of the training propagation, kept or made anew.

        Nothing where the capture found that it cannot run.
        """
        if self.refused:
            return {}
        kept = self._kept.get(number, _crc(batch))
        if kept is not None:
            return kept
        output = self.runner.forward(batch, Propagation.TRAINING, number=number)
        return floating_tensors(output, copied=True)

    def keep_output(self, number: int, batch: Batch, outputs: NamedTensors) -> None:
        """Remember a training output for later passes."""
        self._kept.add(number, _crc(batch), outputs)

    def done(self) -> None:
        """Say that a batch went through."""
        if self.advance is not None:
            self.advance(1)


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
        from bncli.live.users_code import users_code

        with users_code(f"the metric on {batch.label}"):
            self._total += float(self.metric(output, batch.whole)) * batch.samples
        self._samples += batch.samples

    @property
    def mean(self) -> float | None:
        """The mean so far; None without a metric."""
        return self._total / self._samples if self._samples else None


def _crc(batch: Batch) -> int:
    from bncli.live.data_source import batch_crc

    crc: int = batch_crc(batch)
    return crc
