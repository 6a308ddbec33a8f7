"""Repairs tried on a running model, in memory: which of them close the gap, and how far."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import field
from itertools import islice

from bncli.light import dataclass
from bncli.live.batch import inputs_of
from bncli.live.input_maps import InputMap, input_maps
from bncli.live.session import Measured, Metric, Session
from bncli.model.capture import Capture, Propagation, Trial, Trials
from bncli.rulebook.live.evidence import REAL

MOST_TRIED = 5
"""Suspicious layers that are tried alone, and maps of the input, unless asked otherwise."""

ENOUGH = 0.9
"""The share of the gap above its floor that the first k layers are to close."""


def run_trials(
    session: Session,
    capture: Capture,
    suspects: Sequence[str],
    *,
    input_suspected: bool,
    metric: Metric | None = None,
    most: int = MOST_TRIED,
) -> Trials:
    """Try the data's statistics in some layers of the model, and maps of its input.

    Runs inside `session.open()`, after `session.capture()`, which gave `capture`. The statistics
    are those of `session.renewed`. They are tried in each of the `suspects` alone, those first in
    the list, at most `most`; in all layers but each of these; in the first k layers in the order
    of execution; in all. k is found by halving: the first k layers close at least 90% of what can
    close, and the first k - 1 do not; it is looked for where the gap is above 1.1 times its floor.
    Frozen layers are never among them. Where `input_suspected`, the `most` maps of the input that
    suit the first layer best are tried with the layers as they are, the simplest first.

    The gap of a map is that between the two propagations of the mapped input. That is the question:
    whether statistics and input suit each other, in which case both propagations normalise alike.
    Training outputs of the input as it came are no measure of it: a map that is right may change
    them (zeros that pad an image mean something else then, channels swap places), and would be
    held against itself. The price is that a map under which the outputs say nothing closes the gap
    as well; so all maps are invertible, and a gap without spread in the training outputs is None.

    `metric` is also measured in the training and the eval propagation and with all statistics found
    anew. Nothing is tried with `most` 0, and only maps where nothing was found anew.

    `passes_needed` says how many passes over the data all this takes at most. Raises BncliError
    where the model, the data or the metric fail.
    """
    training = not capture.refused_training
    trials = _Running(session, capture, metric)
    if metric is not None:
        trials.measure_metrics(training=training)
    if most > 0 and training and (metric is not None or capture.gap(Propagation.EVAL) is not None):
        if session.renewed:
            trials.layers(suspects, most)
        if input_suspected:
            for each in input_maps(capture, most, whole=_whole(session)):
                trials.input(each)
    return Trials(tuple(trials.made), trials.metrics)


def passes_needed(
    layers: int, suspects: int, *, input_suspected: bool, metric: bool, most: int = MOST_TRIED
) -> int:
    """How many passes over the data `run_trials` takes at most, for this many layers not frozen.

    A pass in which the input is mapped runs the model twice on each batch; so does one of the
    others for batches whose training outputs did not find room.
    """
    passes = 3 if metric else 0
    if most > 0:
        passes += 2 * min(suspects, most) + layers.bit_length() + most * input_suspected
        passes += not metric
    return passes


@dataclass(slots=True)
class _Running:
    """Trials while they are made. Layers that were tried once are not measured again."""

    session: Session
    capture: Capture
    metric: Metric | None
    made: list[Trial] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    _measured: dict[frozenset[str], Measured] = field(default_factory=dict)

    @property
    def order(self) -> list[str]:
        """The layers that can have new statistics, in the order of execution."""
        renewed = self.session.renewed
        return [layer.name for layer in self.capture.norms if layer.name in renewed]

    def measure_metrics(self, *, training: bool) -> None:
        """The user's metric where nothing is changed, and with all statistics found anew."""
        found = []
        if training:
            of = self.session.measure({}, self.metric, propagation=Propagation.TRAINING)
            found.append((Propagation.TRAINING, of.metric))
        found.append((Propagation.EVAL, self._measure([]).metric))
        if self.session.renewed:
            found.append((Propagation.RENEWED, self._measure(self.order).metric))
        self.metrics = {each.value: metric for each, metric in found if metric is not None}

    def layers(self, suspects: Sequence[str], most: int) -> None:
        """Each suspicious layer alone, all but that, the first k, and all."""
        order = self.order
        count = len(order)
        tried = [name for name in dict.fromkeys(suspects) if name in order][:most]
        if count > 1:
            for name in tried:
                self._try("one", f"{name} alone", [name])
            for name in tried:
                others = [each for each in order if each != name]
                self._try("all but one", f"all but {name}", others)
            k = self._least()
            if k is not None and not (k == 1 and order[0] in tried):
                what = f"the first {k} of {count} layers" if k > 1 else "the first layer alone"
                self._try("first", what, order[:k])
        what = f"all {count} layers" if count > 1 else f"{order[0]}, the only layer"
        self._try("all", what, order)

    def _least(self) -> int | None:
        """The least k whose first k layers close enough; None where that takes all, or nothing."""
        order, gap, floor = self.order, self.capture.gap(Propagation.EVAL), self.capture.gap_floor
        if gap is None or floor is None or gap <= REAL * floor:
            return None
        border = gap - ENOUGH * (gap - floor)

        def enough(k: int) -> bool:
            left = self._measure(order[:k]).gap
            return left is not None and left <= border

        too_few, k = 0, len(order)
        while k - too_few > 1:
            middle = (too_few + k) // 2
            if enough(middle):
                k = middle
            else:
                too_few = middle
        return k if k < len(order) else None

    def input(self, change: InputMap) -> None:
        """The layers as they are, and the input mapped."""
        measured = self.session.measure({}, self.metric, change)
        trial = Trial("input", change.what, (), *measured, numbers=change.numbers)
        self.made.append(trial)

    def _try(self, kind: str, what: str, names: Sequence[str]) -> None:
        self.made.append(Trial(kind, what, tuple(names), *self._measure(names)))

    def _measure(self, names: Collection[str]) -> Measured:
        key = frozenset(names)
        if key not in self._measured:
            known = self._known(key) if self.metric is None else None
            statistics = {name: self.session.renewed[name] for name in names}
            self._measured[key] = known or self.session.measure(statistics, self.metric)
        return self._measured[key]

    def _known(self, names: frozenset[str]) -> Measured | None:
        """What the capture measured already."""
        if names == frozenset(self.session.renewed):
            return Measured(self.capture.gap_floor, None)
        return None


def _whole(session: Session) -> bool:
    """Whether the first batch of the input holds whole numbers."""
    for _, batch in islice(session.batches(), 1):
        for x in inputs_of(batch)[:1]:
            return not x.is_floating_point() or bool((x == x.round()).all())
    return False
