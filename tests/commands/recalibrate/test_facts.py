"""What a script reads, and the subject lines of a model and of statistics files."""

from __future__ import annotations

from types import SimpleNamespace

from bncli.commands.recalibrate.facts import facts_of, subject_of
from bncli.commands.recalibrate.flags import EffectFlags
from bncli.model.capture import Propagation
from bncli.rulebook.live.repair import Judgement, Outcome
from tests.commands.recalibrate.test_words import WISH, done, found

PROMISED = ("layers", "changed", "bytes_changed", "gap_before", "gap_after", "output")


def test_the_promised_keys():
    written = SimpleNamespace(nbytes=40, output="new.pth", verified=1, serialization_id="kept")
    one = found(done(), {"other": "frozen"}, checkpoint=False)
    facts = facts_of(one, WISH, Judgement(Outcome.HELPS), written, EffectFlags())
    assert [facts[key] for key in PROMISED] == [2, 1, 40, 1.5, 0.25, "new.pth"]
    assert (facts["outcome"], facts["rounds"], facts["gap_floor"]) == ("helps", 1, 0.24)
    assert (facts["average"], facts["propagation"]) == ("population", "eval")
    assert "metric" not in facts


def test_what_is_not_known_is_null():
    none = found(None, {"other": "frozen"}, checkpoint=False)
    facts = facts_of(none, WISH, Judgement(Outcome.UNKNOWN), None, EffectFlags(metric="a.py:f"))
    assert [facts[key] for key in PROMISED] == [1, 0, None, None, None, None]
    assert facts["outcome"] is None
    assert subject_of(none) == ()


def test_the_metric():
    metrics = {"training": 0.9, "before": 0.5, "after": 0.8, "chance": 0.1}
    one = found(done(metrics=metrics), checkpoint=False)
    flags = EffectFlags(metric="a.py:f")
    facts = facts_of(one, WISH, Judgement(Outcome.HELPS), None, flags)
    assert {key: facts[key] for key in facts if key.startswith("metric")} == {
        "metric": "a.py:f",
        "metric_training": 0.9,
        "metric_before": 0.5,
        "metric_after": 0.8,
    }


def test_passes_count_in_the_eval_propagation_alone():
    from dataclasses import replace

    wish = replace(WISH, propagation=Propagation.TRAINING)
    one = found(done(), checkpoint=False)
    assert facts_of(one, wish, Judgement(Outcome.HELPS), None, EffectFlags())["rounds"] is None


def test_the_subject(run, captured):
    del captured
    result = run("recalibrate", "--stats=stats.npz", "--checkpoint=spoilt.pth", "--max-error=1")
    assert result.stdout.splitlines()[:2] == [
        "spoilt.pth  3 BatchNorm layers, 19 channels",
        "stats.npz  *.pt  10 batches, 80 samples",
    ]
