"""The ways to update: each there once, in words, and the expected one first."""

from __future__ import annotations

import pytest

from bncli.running_stats.frameworks import CONVENTIONS
from bncli.verify.identify import updates
from bncli.verify.identify.updates import (
    KERAS2,
    MOST_SHARDS,
    NO_UPDATE,
    STD,
    TOGETHER,
    TWICE,
    USUAL,
    WEIGHTS,
    Update,
    oddness,
    usual_updates,
)


@pytest.mark.parametrize("shards", [1, 2, 200])
def test_every_way_is_there_once(shards):
    found = usual_updates(shards)
    assert len(found) == len(set(found))
    plain = {(way.weight, way.variance) for way in found if way.variant in ("", KERAS2)}
    expected = {
        (weight, kind) for weight in (*WEIGHTS, 1.0) for kind in ("unbiased", "biased", "keras2")
    }
    assert plain == expected | {(0.0, "unbiased")}
    together = [way for way in found if way.variant in TOGETHER]
    alone = {way.part for way in found if way.part is not None}
    assert bool(together) == (shards > 1)
    assert alone == (set(range(min(shards, MOST_SHARDS))) if shards > 1 else set())
    assert {way.kept_eps for way in found} == {0.0, *updates.KEPT_EPS}
    twice = next(way for way in found if way.variant == f"{TWICE} 0.1")
    assert twice.weight == pytest.approx(0.19)  # 1 - 0.9 * 0.9
    assert {way.weight for way in found if way.variant == STD} == set(WEIGHTS[:3])


def test_the_usual_update_is_the_least_odd():
    found = sorted(usual_updates(3), key=oddness)
    assert found[0] == USUAL == Update(0.1, "unbiased")
    assert oddness(USUAL) == 0
    order = [
        USUAL, Update(0.01, "unbiased"), Update(0.1, "biased"), Update(0.1, "keras2", KERAS2),
        Update(0.19, "unbiased", f"{TWICE} 0.1"), Update(0.1, "unbiased", "INPUT 1 alone", part=0),
        Update(0.123, "unbiased", updates.FITTED),
        Update(0.123, "unbiased", f"{updates.APART} 0.4", mean_weight=0.4),
    ]  # fmt: skip
    assert sorted(order, key=oddness) == order


@pytest.mark.parametrize(
    ("way", "ddof", "none"),
    [
        (USUAL, 1, False),
        (Update(0.1, "biased"), 0, False),
        (Update(0.1, "keras2"), 1, False),
        (NO_UPDATE, None, True),
        (Update(0.0, "unbiased", mean_weight=0.1), None, False),
    ],
)
def test_what_an_update_divides_by(way, ddof, none):
    assert (way.ddof, way.is_none) == (ddof, none)


def test_frameworks_that_update_so():
    assert "pytorch" in USUAL.frameworks
    keras = Update(0.01, "biased").frameworks
    assert keras
    for row in CONVENTIONS:
        if row.name in keras:
            assert row.variance == "biased"
            assert row.new_weight(float(row.momentum)) == 0.01
    assert set(Update(0.123, "unbiased").frameworks) > {"pytorch"}  # by another momentum
    assert NO_UPDATE.frameworks == Update(0.1, "unbiased", STD).frameworks == ()


def test_words():
    assert USUAL.words == "momentum 0.1 (0.9 in Keras) and the unbiased variance"
    assert NO_UPDATE.words == "no update"
    assert Update(0.1, "biased", STD).words.endswith(f"the biased variance ({STD})")
    assert Update(0.1, "keras2").words.endswith("Keras 2's variance")
    mean_alone = Update(0.0, "unbiased", "running_mean with momentum 0.1", mean_weight=0.1)
    assert mean_alone.words == "running_var unchanged (running_mean with momentum 0.1)"
