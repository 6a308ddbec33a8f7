"""What the causes are judged by: a capture with its measures, and what else is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.light import dataclass
from bncli.model.capture import Capture, Propagation, Trial, Trials, WatchedLayer
from bncli.rulebook.layers import label
from bncli.rulebook.live.measures import LayerMeasure, measures
from bncli.rulebook.live.training_data import MISFIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bncli.report import Certainty, Finding, Severity, Value
    from bncli.rulebook.interface import Rule

THE_INPUT = "the model's input"
"""What findings call the input, where a layer's name would stand."""

REAL = 1.1
"""How many times its floor a gap is at least, for it to be more than the training's own noise."""

FEWEST_BATCHES = 8
"""The batches from which the floor is believed: statistics found anew in few batches fit these too
well, so that a healthy model's gap is 1.5 times its floor with 4 of them."""

APART = 0.3
"""How many standard deviations the input's means are from those of training, to be elsewhere."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A capture, its measures, what was tried, and the training data's capture, if there is one.

    `excused` are the layers whose own numbers explain them, and `reference` the measures of the
    same layers on the training data, by name.
    """

    capture: Capture
    measures: tuple[LayerMeasure, ...]
    trials: Trials | None = None
    reference: dict[str, LayerMeasure] | None = None
    excused: frozenset[str] = frozenset()
    train_batch_size: float | None = None

    @property
    def gap(self) -> float | None:
        """The gap of the outputs between the modes."""
        return self.capture.gap(Propagation.EVAL)

    @property
    def ratio(self) -> float | None:
        """The gap over its floor, as `Capture.ratio`.

        None where each of several parts found a floor of its own in few batches: it may be 0.
        """
        return self.capture.ratio if self.capture.renewals == 1 or self.believed else None

    @property
    def real(self) -> bool:
        """Whether there may be a gap to explain."""
        return self.ratio is None or self.ratio >= REAL

    @property
    def believed(self) -> bool:
        """Whether there were enough batches for a small excess of the gap to mean something.

        In each of the parts that found new statistics of their own, as few batches leave them a
        floor that is too low.
        """
        each = self.measures[0].batches / self.capture.renewals if self.measures else 0
        return each >= FEWEST_BATCHES

    @property
    def single(self) -> bool:
        """Whether the batches have one sample each, by which layers behind the first differ."""
        return any(each.samples == each.batches and not each.per_sample for each in self.measures)

    @property
    def living(self) -> list[LayerMeasure]:
        """The layers that are not frozen."""
        return [each for each in self.measures if not each.frozen]

    @property
    def blamed(self) -> list[LayerMeasure]:
        """The layers that are off and store the wrong numbers, and whose own do not explain it."""
        return [
            each
            for each in self.living
            if each.blamed and each.stored_wrong and each.name not in self.excused
            if each is self.measures[0] or not self.single
        ]

    @property
    def first(self) -> LayerMeasure | None:
        """The layer that comes first, if it is not frozen."""
        first = next(iter(self.measures), None)
        return None if first is None or first.frozen else first

    @property
    def first_blamed(self) -> bool:
        """Whether the first layer is blamed."""
        return bool(self.blamed) and self.blamed[0] is self.first

    @property
    def fits(self) -> bool | None:
        """Whether the first layer's statistics and the weights are of one training, if known."""
        origin = self.measures[0].origin if self.measures else None
        return None if origin is None else origin.residual <= MISFIT

    @property
    def elsewhere(self) -> bool:
        """Whether the input's means are known not to be those of training."""
        origin = self.measures[0].origin if self.measures and self.fits else None
        return origin is not None and (origin.apart or 0.0) > APART

    def best(self, *kinds: str) -> tuple[Trial, float] | None:
        """The trial of these kinds that closes most, and how much; None where none is known.

        Of maps of the input alone, the simplest of those that close about as much.
        """
        tried = self.trials.trials if self.trials is not None else ()
        if self.trials is not None and kinds == ("input",):
            tried = () if self.trials.input_map is None else (self.trials.input_map,)
        found = [
            (trial, share)
            for trial in tried
            if (not kinds or trial.kind in kinds)
            and (share := self.capture.closes(trial)) is not None
        ]
        return max(found, key=lambda pair: pair[1], default=None)


def evidence(
    capture: Capture,
    trials: Trials | None = None,
    train_batch_size: float | None = None,
    reference: Capture | None = None,
) -> Evidence:
    """The evidence of a capture; `reference` is the same model's capture of its training data."""
    known = None
    if reference is not None:
        of_data = _storing(reference, capture)
        known = {each.name: each for each in measures(of_data, train_batch_size)}
    return Evidence(
        capture,
        measures(capture, train_batch_size),
        trials,
        known,
        train_batch_size=train_batch_size,
    )


def _storing(reference: Capture, capture: Capture) -> Capture:
    """A capture of the training data with the stored statistics of the one that is judged.

    What layers see in training does not depend on these.
    """
    states = {layer.name: layer.state for layer in capture.norms}
    layers = (
        replace(layer, state=states.get(layer.name, layer.state)) for layer in reference.layers
    )
    return replace(reference, layers=tuple(layers))


def at_layers(
    rule: Rule,
    names: Sequence[str],
    message: str,
    numbers: dict[str, Value] | None = None,
    *,
    detail: str = "",
    hint: str = "",
    severity: Severity | None = None,
    sure: Certainty | None = None,
) -> Finding:
    """A finding that stands at some layers, the first of which is its subject."""
    labels = tuple(label(name) for name in names)
    return rule.finding(
        labels[0],
        message,
        {"layer": names[0], "layers": list(names), "cause": rule.name, **(numbers or {})},
        detail=detail,
        hint=hint,
        severity=severity,
        sure=sure,
        extent=labels,
        places=labels,
    )


def off_by(each: LayerMeasure) -> str:
    """How far off a layer's output is, as a sentence says it."""
    return f"{each.error:.3g} std"


def named_layers(found: Iterable[WatchedLayer | LayerMeasure]) -> list[str]:
    """Their names."""
    return [each.name for each in found]


def is_fast(found: Evidence, name: str) -> bool:
    """Whether a layer's momentum is known to be large: BN701."""
    layer = next(each for each in found.capture.norms if each.name == name)
    module = layer.state.module if layer.state is not None else None
    return module is not None and module.momentum is not None and module.momentum > 0.5
