"""The tables of a diagnosis and its chart, from captures made of arrays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bncli.commands.diagnose.rows import (
    codes_of,
    depth_charts,
    known,
    layer_rows,
    layers_table,
    tried_table,
)
from bncli.model.capture import Trial, Trials
from bncli.rulebook.live.measures import measures
from tests.findings import finding
from tests.rulebook.live.captures import capture, watched


def batches(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(1, 2, (6, 3, 4, 4)).astype(np.float32) for _ in range(8)]


@pytest.fixture
def seen():
    """A right layer, one whose stored mean is 3 too high in channel 1, and one without buffers."""
    data = batches()
    right = watched("a", data, order=1)
    mean = right.state.running_mean + np.array([0, 3, 0], np.float32)
    wrong = watched("b", data, order=2, mean=mean, weight=2)
    bare = watched("c", data, order=3, track=False, momentum=None)
    return capture(right, wrong, bare, gap=0.8, floor=0.2)


def test_a_row_holds_the_numbers_of_its_layer(seen):
    rows = layer_rows(seen, measures(seen), [], {"b": 0.5})
    first, second, third = rows
    assert (first["name"], first["order"], first["channels"]) == ("a", 1, 3)
    assert (first["values"], first["batches"], first["judged_in"]) == (8 * 6 * 16, 8, "training")
    data = np.concatenate(batches()).astype(np.float64)[:, 1]
    assert second["worst_channel"] == 1
    assert second["mean"] == pytest.approx(data.mean(), rel=1e-6)
    assert second["var"] == pytest.approx(data.var(), rel=1e-6)
    layer = seen.norms[1].state
    assert second["running_mean"] == float(layer.running_mean[1])
    assert second["z_max"] == pytest.approx(3 / np.sqrt(layer.running_var[1] + 1e-5), rel=0.02)
    assert second["predicted_error"] == pytest.approx(
        2 * second["z_max"] / np.sqrt(3), rel=0.02
    )  # rms of one channel of three, with a weight of 2
    assert [row["closes"] for row in rows] == [None, 0.5, None]
    assert (first["momentum"], third["momentum"]) == (0.1, "none")


def test_what_is_not_known_is_none(seen):
    row = layer_rows(seen, measures(seen), [], {})[2]
    assert (row["name"], row["batches"]) == ("c", 8)
    for key in ("predicted_error", "noise", "z_max", "var_ratio_min", "mean", "running_mean"):
        assert row[key] is None


def test_a_row_has_the_codes_of_its_findings_once(seen):
    findings = [
        finding("BN806", "a", evidence={"layer": "a", "layers": ["a", "b"]}),
        finding("BN701", "b", evidence={"layer": "b"}),
        finding("BN806", "a", evidence={"layer": "a"}),
        finding("BN302", "num_batches_tracked"),
    ]
    assert codes_of(findings) == {"a": ["BN806"], "b": ["BN806", "BN701"]}
    rows = layer_rows(seen, measures(seen), findings, {})
    assert [row["flags"] for row in rows] == ["BN806", "BN806 BN701", None]


def test_the_model_itself_may_be_a_layer():
    found = codes_of([finding("BN1", "(the file itself)", evidence={"layer": ""})])
    whole = capture(watched("", batches()))
    (row,) = layer_rows(whole, measures(whole), [], {})
    assert [row["name"]] == list(found)


def test_the_table_of_what_was_tried(seen):
    trials = Trials(
        (
            Trial("one", "b alone", ("b",), 0.35, 1.5),
            Trial("all", "all 2 layers", ("a", "b"), 0.2, math.nan),
            Trial("input", "input divided by 255", (), None),
        )
    )
    one, every, mapped = tried_table(seen, trials).rows
    assert one == {
        "what": "b alone", "layers": ["b"], "gap": 0.35, "closes": pytest.approx(0.75),
        "metric": 1.5, "kind": "one",
    }  # fmt: skip
    assert (every["closes"], every["metric"]) == (pytest.approx(1), None)
    assert (mapped["gap"], mapped["closes"], mapped["metric"]) == (None, None, None)
    assert tried_table(seen, None).rows == []


def test_shares_of_next_to_nothing_are_left_out(seen):
    trials = Trials((Trial("one", "b alone", ("b",), 0.5),))
    found = replace(seen, outputs=capture(gap=0.21, floor=0.2).outputs)
    assert [row["closes"] for row in tried_table(found, trials).rows] == [None]


def test_tables_without_rows_have_no_note(seen):
    assert layers_table([]).note == tried_table(seen, Trials()).note == ""
    assert layers_table(layer_rows(seen, measures(seen), [], {})).note


def test_the_chart_over_depth(seen):
    found = measures(seen)
    (chart,) = depth_charts(found)
    assert chart.x == [1, 2]
    assert chart.series["output off by"] == [each.predicted_error for each in found]
    assert chart.series["noise"] == [each.noise for each in found]
    assert depth_charts(found[:1]) == ()
    unknown = [replace(each, chance=math.inf, bound=math.inf) for each in found]
    assert list(depth_charts(unknown)[0].series) == ["output off by"]


def test_what_is_not_finite_is_not_known():
    assert [known(value) for value in (1.5, math.nan, math.inf, None)] == [1.5, None, None, None]
