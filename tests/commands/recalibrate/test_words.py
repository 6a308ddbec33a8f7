"""The sentences: the effect in numbers, what was left alone, and the verdict of every outcome."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bncli.commands.recalibrate.words import change, left_alone, remarks, verdict
from bncli.live.recalibration import Wish
from bncli.model.capture import Capture, Propagation
from bncli.model.recalibration import Average, Recalibration
from bncli.rulebook.live.repair import Outcome
from bncli.running_stats.frameworks import convention
from tests.commands.recalibrate.test_rows import change as layer

WISH = Wish(convention("pytorch"))


def found(done=None, left=None, *, checkpoint=True, ran=True):
    return SimpleNamespace(
        label="net.py:Net", done=done, left=left or {}, checkpoint=checkpoint or None, ran=ran
    )


def done(**flags):
    numbers = {"gap_before": 1.5, "gap_after": 0.25, "gap_floor": 0.24, "checked": True}
    return Recalibration(**{"layers": (layer(),)} | numbers | flags)


def written(output=None):
    return SimpleNamespace(output=output, nbytes=4816, remarks=lambda: iter(["compared"]))


def test_the_effect_and_how_it_was_found():
    metrics = {"before": 0.5, "after": 0.75, "training": 0.8}
    said = [*remarks(found(done(metrics=metrics, rounds=3)), WISH, written(), "seg.py:dice")]
    assert said == [
        "gap between train() and eval(): 1.5 -> 0.25 std of the output (floor 0.24)",
        "seg.py:dice: 0.5 -> 0.75 (0.8 in training)",
        "new statistics: mean and variance of all values, in the eval propagation (3 passes)",
        "compared",
    ]
    told = remarks(found(done(metrics=metrics, rounds=3)), WISH, written(), "a", told=True)
    assert [*told] == said[2:]
    assert change(math.nan, 1.0) == change(None, 1.0) == "not finite -> 1"


def test_a_counter_that_stays_0_is_said():
    fresh = replace(layer(), state=replace(layer().state, num_batches_tracked=0))
    both = found(done(layers=(fresh, layer())))
    line = "num_batches_tracked stays 0 in 1 of 2 layers (--counter batches stores the number)"
    assert line in [*remarks(both, WISH, written(), "", kept=True)]
    assert line not in [*remarks(both, WISH, written(), "")]


def test_what_was_not_measured_is_said():
    unchecked = Recalibration((layer(),))
    ema = Wish(convention("pytorch"), Average.EMA, Propagation.TRAINING)
    how, last = remarks(found(unchecked), ema, None, "")
    assert last == "whether they help was not measured, as --no-check asks"
    assert how == (
        "new statistics: running average from the stored statistics on, in the training propagation"
    )
    _, last = remarks(found(unchecked, ran=False), ema, None, "")
    assert last == "whether they help was not measured, because that needs the model"


def test_statistics_that_still_move_are_said():
    (*_, how) = remarks(found(done(rounds=12, settled=False)), WISH, None, "")
    assert how.endswith("(12 passes, after which some layers still moved)")


def test_batches_and_layers_that_were_left_out():
    capture = Capture((), left_out=("7",))
    said = [*remarks(found(done(capture=capture), {"a": "frozen"}), WISH, None, "")]
    assert said[-2:] == [
        "left alone: 1 layer is frozen (a)",
        "1 batch of 1 sample left out, as training refuses it",
    ]


def test_layers_are_grouped_by_why_they_stay():
    left = {"a": "frozen", "b": "not chosen", "c": "frozen", "d": "no batch reaches it"}
    assert left_alone(left) == (
        "2 layers are frozen (a and c), 1 layer is not chosen (b), 1 layer is reached by no batch "
        "(d)"
    )
    assert left_alone({"a": "InstanceNorm"}) == "1 layer is an InstanceNorm (a)"


@pytest.mark.parametrize(
    ("outcome", "new", "flags", "said"),
    [
        (
            Outcome.HELPS,
            written("new.pth"),
            {},
            "1 layer of new.pth has new statistics; the gap goes from 1.5 to 0.25",
        ),
        (
            Outcome.HELPS,
            written(),
            {},
            (
                "1 layer would get new statistics; the gap goes from 1.5 to 0.25; "
                "--save-checkpoint FILE writes them (4,816 bytes change)"
            ),
        ),
        (
            Outcome.UNKNOWN,
            None,
            {},
            (
                "1 layer would get new statistics; --checkpoint FILE and --save-checkpoint FILE "
                "write them"
            ),
        ),
        (
            Outcome.NO_HELP,
            written(),
            {"asked": True},
            "new statistics do not make this model better, so nothing was written",
        ),
        (Outcome.NO_HELP, None, {}, "new statistics do not make this model better"),
        (
            Outcome.NO_HELP,
            written("new.pth"),
            {"asked": True, "forced": True},
            "1 layer of new.pth has new statistics",
        ),
        (
            Outcome.TOO_LITTLE,
            written(),
            {"asked": True},
            "there are too few samples to renew the statistics, so nothing was written",
        ),
        (
            Outcome.TOO_LITTLE,
            written("new.pth"),
            {"asked": True, "forced": True},
            "1 layer of new.pth has new statistics; the gap goes from 1.5 to 0.25",
        ),
        (
            Outcome.NOTHING,
            written(),
            {"asked": True},
            (
                "nothing to repair: no layer is off, and the gap is 1.5 std and 0.24 at best, so "
                "nothing was written"
            ),
        ),
    ],
)
def test_the_verdict(outcome, new, flags, said):
    assert verdict(found(done()), outcome, new, **{"asked": False} | flags) == said


def test_the_verdict_where_a_metric_decides():
    metrics = {"before": 0.5, "after": 0.75}
    said = verdict(found(done(metrics=metrics)), Outcome.HELPS, written("n"), asked=True)
    assert said == "1 layer of n has new statistics; the metric goes from 0.5 to 0.75"


def test_the_verdict_where_the_old_numbers_were_not_finite():
    said = verdict(found(done(gap_before=None)), Outcome.HELPS, written("n"), asked=True)
    assert said == "1 layer of n has new statistics; the gap becomes 0.25, and was not finite"


def test_nothing_to_change():
    assert verdict(found(), Outcome.UNKNOWN, None, asked=False) == (
        "net.py:Net has no BatchNorm layer"
    )
    left = {"a": "no running statistics"}
    assert verdict(found(left=left), Outcome.UNKNOWN, None, asked=True) == (
        "no layer changes: 1 layer has no running statistics (a)"
    )
    assert [*remarks(found(left=left), WISH, None, "")] == []
