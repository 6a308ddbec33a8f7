"""A capture while its passes run: what the layers see, and how far the outputs are apart."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from bncli.errors import BncliError
from bncli.live.batch import Batch, Statistics, inputs_of, model_input
from bncli.live.layers import active_dropout, still_training
from bncli.live.outputs import OutputPool, floating_tensors
from bncli.live.passes import BY_BATCH
from bncli.live.watching import KernelFinder, add_input, watched
from bncli.live.weights import fingerprint
from bncli.model.capture import Capture, InputSums, Propagation, WatchedLayer

if TYPE_CHECKING:
    from torch import Tensor

    from bncli.live.layers import LiveLayer
    from bncli.live.renewal import Renewal
    from bncli.live.session import Session
    from bncli.moments.batches import BatchSums

ONE_VALUE = "Expected more than 1"
"""How PyTorch refuses a batch whose channels have one value each, "when training"."""


class _ReachedError(BncliError):
    """The model has run as far as it was to."""


class CaptureRun:
    """The sums of a capture of a session, while its passes run."""

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
        self._still = still_training(session.model)  # before a pass switches modes
        self._by_batch = BY_BATCH if self._dropout else BY_BATCH[:1]
        self._looked = self._takes_one = self._moments_only = False
        self._why = ""
        self.refused = ""
        self.samples = 0
        self.largest = 0

    def both(self) -> None:
        """The training and the eval propagation, batch by batch; and dropout's, if there is any.

        Batches of one sample that training refuses are left out of all passes, unless there are no
        others: evaluation alone runs then.
        """
        for number, batch in self._session.batches():
            if not self._refuses(number, batch):
                self._both(number, batch)
        if not self.samples:
            self.refused = self._why
            self._session.left_out.clear()
            for number, batch in self._session.batches():
                self._both(number, batch)
        if self.refused:
            for propagation in BY_BATCH:
                self._sums.pop(propagation, None)
            self._outputs.problem = self.refused

    def training(self) -> None:
        """The training propagation alone, for its moments: no outputs are compared.

        What the run sees from now on has no extremes and no kernels.
        """
        self._moments_only = True
        for number, batch in self._session.batches():
            if not self._refuses(number, batch):
                self.samples += batch.samples
                self.largest = max(self.largest, batch.samples)
                try:
                    self._forward(Propagation.TRAINING, number, batch)
                except BncliError as error:
                    if ONE_VALUE not in str(error):
                        raise
                    self.refused = str(error)
                    return
                self._session.done()
        self.refused = "" if self.samples else self._why

    def _refuses(self, number: int, batch: Batch) -> bool:
        """Whether training refuses a batch, as one sample may be one value a channel.

        It is tried without watching, as the layers in front would have seen it already. What holds
        for one such batch is taken to hold for all.
        """
        session = self._session
        if batch.samples != 1 or self._takes_one:
            return False
        if not session.left_out:
            try:
                session.runner.forward(batch, Propagation.TRAINING, number=number)
            except BncliError as error:
                if ONE_VALUE not in str(error):
                    raise
                self._why = str(error)
            else:
                self._takes_one = True
                return False
        session.left_out[number] = batch.label
        return True

    def _both(self, number: int, batch: Batch) -> None:
        """All propagations of one batch."""
        session, training = self._session, None
        self._see_input(batch)
        self.samples += batch.samples
        self.largest = max(self.largest, batch.samples)
        for propagation in self._by_batch:
            if self.refused:
                break
            try:
                output = self._forward(propagation, number, batch)
            except BncliError as error:
                if ONE_VALUE not in str(error):
                    raise
                self.refused = str(error)
                break
            if propagation is Propagation.TRAINING:
                training = floating_tensors(output, copied=True)
        output = self._forward(Propagation.EVAL, number, batch)
        if training is not None:
            session.keep_output(number, batch, training)
            self._outputs.add_training(training)
            self._outputs.add(Propagation.EVAL, floating_tensors(output), training)
        session.done()

    def one(
        self, propagation: Propagation, statistics: Mapping[str, Statistics]
    ) -> dict[str, InputSums]:
        """One pass with these statistics; its sums take the place of those of an earlier one.

        After `training` alone, outputs are not compared.
        """
        session = self._session
        self._sums.pop(propagation, None)
        self._outputs.forget(propagation)
        for number, batch in session.batches():
            training = {} if self._moments_only else session.training_output(number, batch)
            output = self._forward(propagation, number, batch, statistics)
            if not self._moments_only:
                self._outputs.add(propagation, floating_tensors(output), training)
            session.done()
        return self.results(propagation)

    def until(self, name: str, statistics: Mapping[str, Statistics]) -> InputSums:
        """What one layer sees in evaluation with these statistics in the layers before it.

        The model runs no further than to that layer.
        """
        session = self._session
        layer = next(layer for layer in session.layers if layer.name == name)
        seen: list[BatchSums] = []
        left = 0

        def take_in(layer: LiveLayer, x: Tensor) -> None:
            nonlocal left
            if not seen:
                seen.append(self._new_sums(x.shape[1], layer))
            add_input(seen[0], x)
            left -= 1
            if not left:
                raise _ReachedError

        with watched([layer], take_in):
            for number, batch in session.batches():
                left = self._most_calls[name]
                with suppress(_ReachedError):
                    session.runner.forward(batch, Propagation.RENEWED, statistics, number)
                session.done()
        return seen[0].result()

    @property
    def order(self) -> list[str]:
        """The names of the layers in the order of execution."""
        return list(self._order)

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
        look, self._looked = not (self._looked or self._moments_only), True

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

        with ExitStack() as stack:
            if look:
                stack.enter_context(self._kernels.looking(session.model, inputs_of(batch)))
            stack.enter_context(watched(session.layers, seen))
            output = session.runner.forward(batch, propagation, statistics, number)
        for name, calls in self._calls.items():
            self._most_calls[name] = max(calls, self._most_calls.get(name, 0))
        return output

    def _new_sums(self, channels: int, layer: LiveLayer | None = None) -> BatchSums:
        from bncli.moments.batches import BatchSums

        per_sample = layer is not None and layer.per_sample
        return BatchSums(
            channels,
            per_batch=self._per_batch,
            per_sample=per_sample,
            moments_only=self._moments_only,
        )

    def _see_input(self, batch: Batch) -> None:
        """Take in the model's own input."""
        x = model_input(batch)
        if x is None:
            return
        if self._input is None:
            self._input = self._new_sums(x.shape[1])
        if self._input.num_features == x.shape[1]:
            add_input(self._input, x)

    def capture(self, found: Renewal) -> Capture:
        """All that was seen."""
        session = self._session
        layers = [self._watched(layer) for layer in session.layers if layer.name in self._order]
        layers.sort(key=lambda layer: layer.order)
        if self._input is not None:
            seen = dict.fromkeys(self._sums, self._input.result())
            first = WatchedLayer("input", 0, self._input.num_features, seen=seen)
            layers.insert(0, first)
        sums = fingerprint(session.model)
        if session.checkpoint:
            sums["checkpoint"] = session.checkpoint
        return Capture(
            tuple(layers),
            self._outputs.sums(),
            still_training=tuple(self._still),
            dropout=tuple(self._dropout),
            rounds=found.rounds,
            settled=found.settled,
            refused_training=self.refused,
            no_gap=self._outputs.why_no_gap,
            source=session.source,
            fingerprint=sums,
            uncalled=tuple(each.name for each in session.layers if each.name not in self._order),
            left_out=tuple(session.left_out.values()),
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
