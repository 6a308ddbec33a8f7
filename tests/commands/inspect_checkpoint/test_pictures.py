"""What a page shows of checkpoints: the numbers of the table and of the file, and every finding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.commands.inspect_checkpoint.layer_rows import BINS, LEAST_DECADE
from bncli.pictures import Kind
from bncli.report import Severity
from tests.conftest import REPOSITORY

HOSTILE = "</svg><script>alert(1)</script>$x_1$\n\x1b[31m\u202e"


def layer(name, mean, var, weight, count=500):
    tensors = {
        "weight": torch.tensor(weight),
        "bias": torch.zeros(len(var)),
        "running_mean": torch.tensor(mean),
        "running_var": torch.tensor(var),
        "num_batches_tracked": torch.tensor(count),
    }
    return {f"{name}.{leaf}": value for leaf, value in tensors.items()}


def network(number=3, seed=0, **spoilt):
    """A state_dict of so many layers; `spoilt` has other vectors for some, by "layer_leaf"."""
    rng = np.random.default_rng(seed)
    state = {}
    for at in range(number):
        mean, var, weight = (rng.normal(size=8), rng.uniform(0.1, 9, 8), rng.uniform(-1, 2, 8))
        state |= layer(f"n{at}", *(each.astype(np.float32) for each in (mean, var, weight)))
    for place, values in spoilt.items():
        name, _, leaf = place.partition("_")
        state[f"{name}.{leaf}"] = torch.as_tensor(values)
    return state


def ranges(panel):
    (one,) = [each for each in panel.series if each.kind is Kind.RANGE]
    assert list(one.x) == list(range(len(panel.x.names)))
    return panel.x.names, list(one.y), list(one.upper)


def marked(panel):
    """The severity and the codes of every mark, by the layer's name."""
    found = {}
    for series in panel.series:
        if series.severity is not None:
            assert len(series.x) == len(series.y) == len(series.names)
            for x, codes in zip(series.x, series.names, strict=True):
                name = panel.x.names[x]
                assert name not in found, "a layer is marked once"
                found[name] = series.severity, set(codes.split())
    return found


def test_the_ranges_are_those_of_the_table_and_of_the_file(pictured, save):
    state = network()
    state["n1.weight"] *= -1  # so that in one layer the least scale is the greatest in size
    report, shown = pictured("inspect-checkpoint", save("a.pt", state))
    rows = report["tables"]["layers"]
    var, scale = shown["statistics"].panels
    names, lows, highs = ranges(var)
    assert names == tuple(row["name"] for row in rows) == ("n0", "n1", "n2")
    assert lows == [row["var_min"] for row in rows]
    assert highs == [row["var_max"] for row in rows]
    _, lows, highs = ranges(scale)
    for at, name in enumerate(names):
        vectors = (state[f"{name}.{leaf}"].double().numpy() for leaf in ("weight", "running_var"))
        weight, stored = vectors
        sizes = np.abs(weight) / np.sqrt(stored + 1e-5)
        assert weight.min() < 0 < weight.max()  # so that the ends of the scale do not tell its size
        assert (lows[at], highs[at]) == pytest.approx((sizes.min(), sizes.max()), rel=1e-12)
    assert var.y.log
    assert scale.y.log
    assert set(shown) == {"statistics"}  # as all layers have the same counter
    text = shown["statistics"].text
    assert text.startswith("A bar goes from a layer's least channel to its greatest. ")
    assert text.endswith(
        " In the table, |scale| counts the channels by half decades, from below 0.03 to above 30."
    )
    ends = [10 ** (LEAST_DECADE + bins / 2) for bins in (0, BINS - 2)]
    assert ends == pytest.approx([0.03, 30], rel=0.06)  # what `sketch` counts by


def test_every_finding_with_a_layer_is_marked_once(pictured, save):
    nan = np.r_[np.nan, np.ones(7)].astype(np.float32)
    state = network(6, n1_running_var=nan, n3_running_var=-nan[::-1].copy(), n4_weight=0 * nan[1:])
    state["n4.weight"] = torch.zeros(8)
    report, shown = pictured("inspect-checkpoint", save("a.pt", state))
    expected: dict[str, set[str]] = {}
    for finding in report["findings"]:
        if "layer" in finding["evidence"]:
            expected.setdefault(finding["evidence"]["layer"], set()).add(finding["code"])
    assert {"n1", "n3"} <= set(expected)
    var, scale = shown["statistics"].panels
    found = marked(var)
    assert {name: codes for name, (_, codes) in found.items()} == expected
    assert found["n1"][0] is Severity.ERROR
    assert not marked(scale)
    text = shown["statistics"].text
    for finding in report["findings"]:
        if "layer" in finding["evidence"]:
            assert f"{finding['code']} in " in text
    assert "2 layers (n1 and n3) hold NaN or infinite values" in text
    heights = [y for each in var.series if each.severity for y in each.y]
    _, _, highs = ranges(var)
    assert min(heights) > max(high for high in highs if high is not None)


def test_findings_that_are_ignored_are_not_marked(pictured):
    path = REPOSITORY / "examples/checkpoint/nan.pt"
    _, shown = pictured("inspect-checkpoint", path)
    assert marked(shown["statistics"].panels[0]) == {"layer3.0.bn1": (Severity.ERROR, {"BN201"})}
    text = shown["statistics"].text
    assert "The marks stand for findings: BN201 in layer3.0.bn1." in text
    assert "There are no findings" not in text
    _, shown = pictured("inspect-checkpoint", path, "--ignore", "BN201")
    assert not marked(shown["statistics"].panels[0])
    text = shown["statistics"].text
    assert "BN201" not in text
    assert " There are no findings." in text  # that count
    assert "1 layer (layer3.0.bn1) holds NaN or infinite values" in text


def test_a_finding_of_many_layers_is_marked_at_each(pictured, save):
    dead = np.full(8, 1e-20, np.float32)
    spoilt = {f"n{at}_{leaf}": dead for at in range(9) for leaf in ("running_var", "weight")}
    report, shown = pictured("inspect-checkpoint", save("a.pt", network(10, **spoilt)))
    (found,) = [each for each in report["findings"] if "layer" not in each["evidence"]]
    assert found["evidence"]["layers"] == [f"n{at}" for at in range(9)]
    marks = marked(shown["statistics"].panels[0])
    assert [name for name, (_, codes) in marks.items() if found["code"] in codes] == [
        f"n{at}" for at in range(9)
    ]
    assert f"{found['code']} in 9 layers" in shown["statistics"].text


def test_layers_without_numbers_leave_gaps(pictured, save):
    ones = np.ones(8, np.float32)
    spoilt = {f"n{at}_running_var": value * ones for at, value in enumerate((0, np.nan, np.inf))}
    state = network(4, n3_weight=0 * ones, **spoilt)
    report, shown = pictured("inspect-checkpoint", save("a.pt", state))
    names, lows, _ = ranges(shown["statistics"].panels[0])
    assert [row["name"] for row in report["tables"]["layers"]] == list(names)
    assert lows[:3] == [0.0, None, None]
    text = shown["statistics"].text
    assert "2 layers (n1 and n2) have no finite running_var" in text
    assert "1 layer (n0) has a running_var of 0 or below" in text
    assert "2 layers (n2 and n3) have a scale of 0" in text  # as 1 / sqrt(Inf) is
    assert "Over 2 of 4 layers, running_var goes from" in text


def test_nothing_that_could_be_drawn(pictured, save, run):
    nothing = np.full(8, np.nan, np.float32)
    _, shown = pictured("inspect-checkpoint", save("a.pt", network(1, n0_running_var=nothing)))
    assert shown == {}
    _, shown = pictured("inspect-checkpoint", save("b.pt", {"a": torch.ones(2, 2)}))
    assert shown == {}


def test_statistics_that_are_all_0_have_a_linear_axis(pictured, save):
    zero = {f"n{at}_running_var": np.zeros(8, np.float32) for at in range(2)}
    report, shown = pictured("inspect-checkpoint", save("a.pt", network(2, **zero)))
    assert [row["var_max"] for row in report["tables"]["layers"]] == [0, 0]
    panel = shown["statistics"].panels[0]
    assert not panel.y.log
    assert "Over 2 layers, running_var is 0." in shown["statistics"].text
    assert set(marked(panel)) == {"n0", "n1"}


def test_one_layer(pictured, save):
    report, shown = pictured("inspect-checkpoint", save("a.pt", network(1)))
    names, lows, highs = ranges(shown["statistics"].panels[0])
    (row,) = report["tables"]["layers"]
    assert (names, lows, highs) == (("n0",), [row["var_min"]], [row["var_max"]])
    assert "in n0." in shown["statistics"].text


def test_counters_by_group(pictured, save):
    counts = {"n1_num_batches_tracked": 700, "n2_num_batches_tracked": 700}
    report, shown = pictured("inspect-checkpoint", save("a.pt", network(4, **counts)))
    (panel,) = shown["counters"].panels
    drawn = {each.label: dict(zip(each.x, each.y, strict=True)) for each in panel.series}
    assert drawn == {
        "500 (2 layers)": {0: 500, 3: 500},
        "700 (2 layers)": {1: 700, 2: 700},
    }
    tracked = [row["num_batches_tracked"] for row in report["tables"]["layers"]]
    assert [
        count for _, count in sorted((drawn["500 (2 layers)"] | drawn["700 (2 layers)"]).items())
    ] == tracked
    assert shown["counters"].text.endswith(f"{report['facts']['counters']}.")


def test_many_counters_are_one_series(pictured, save):
    counts = {f"n{at}_num_batches_tracked": 3 * 10**at for at in range(8)}
    report, shown = pictured("inspect-checkpoint", save("a.pt", network(8, **counts)))
    (panel,) = shown["counters"].panels
    (series,) = panel.series
    assert list(series.y) == [row["num_batches_tracked"] for row in report["tables"]["layers"]]
    assert panel.y.log
    assert shown["counters"].text.endswith(" of batches: 8 values from 3 to 30000000.")


def test_the_order_is_the_files_own(pictured, save):
    state = layer("b", [0.0], [1.0], [1.0]) | layer("a", [0.0], [2.0], [1.0])
    _, shown = pictured("inspect-checkpoint", save("a.pt", state), "--sort", "name")
    assert ranges(shown["statistics"].panels[0])[0] == ("b", "a")


def test_a_shared_layer_is_drawn_once(pictured, save):
    state = network(2)
    state |= {name.replace("n0.", "twin."): value for name, value in state.items() if "n0." in name}
    report, shown = pictured("inspect-checkpoint", save("a.pt", state))
    assert len(report["tables"]["layers"]) == 3
    assert ranges(shown["statistics"].panels[0])[0] == ("n0", "n1")


def test_hostile_names_are_data(pictured, save):
    report, shown = pictured(
        "inspect-checkpoint", save("a.pt", layer(HOSTILE, [0.0], [2.0], [1.0]))
    )
    assert report["tables"]["layers"][0]["name"] == HOSTILE
    assert ranges(shown["statistics"].panels[0])[0] == (HOSTILE,)


def test_a_thousand_layers_and_more(pictured, save):
    nan = np.full(8, np.nan, np.float32)
    state = network(1203, n7_running_var=nan, n1200_running_var=nan)
    report, shown = pictured("inspect-checkpoint", save("a.pt", state))
    panel = shown["statistics"].panels[0]
    names, lows, _ = ranges(panel)
    assert len(names) == len(set(names)) == 1000
    known = {row["name"]: row["var_min"] for row in report["tables"]["layers"]}
    assert lows == [known[name] for name in names]
    assert [name for name in known if name in set(names)] == list(names)  # in their order
    assert {"n7", "n1200"} <= set(marked(panel))
    assert "Shown are 1000 of 1203 layers" in shown["statistics"].text


def test_several_files_side_by_side(pictured, save):
    nan = np.full(8, np.nan, np.float32)
    for at in range(8):
        spoilt = {5: {"n1_running_var": nan}, 7: {"n0_weight": nan}}.get(at, {})
        save(f"{at}.pt", network(2, seed=at, **spoilt))
    report, shown = pictured("inspect-checkpoint", "?.pt")
    assert set(shown) == {"files"}
    panels = shown["files"].panels
    assert [panel.title for panel in panels] == [f"{at}.pt" for at in (5, 7, 0, 1, 2, 3)]
    for panel in panels:
        rows = [row for row in report["tables"]["layers"] if row["path"] == panel.title]
        assert ranges(panel)[1:] == tuple(
            [row[key] for row in rows] for key in ("var_min", "var_max")
        )
    assert set(marked(panels[0])) == {"n1"}
    assert set(marked(panels[1])) == {"n0"}
    assert "Shown are 6 of 8 files, those with the worst findings first." in shown["files"].text
    assert "5.pt: over 1 of 2 layers, running_var goes from" in shown["files"].text
    for finding in report["findings"]:
        assert f"{finding['code']} in n" in shown["files"].text


def test_among_several_files_a_nan_has_a_mark_and_a_sentence_of_its_own(pictured, save):
    fresh = {
        f"n{at}_{leaf}": np.full(8, value, np.float32)
        for at in range(3)
        for leaf, value in (("running_mean", 0), ("running_var", 1))
    }
    spoilt = fresh["n1_running_var"].copy()
    spoilt[5] = np.nan
    save("a.pt", network(3, **{**fresh, "n1_running_var": spoilt}))
    save("b.pt", network(3))
    _, shown = pictured("inspect-checkpoint", "?.pt")
    first, second = shown["files"].panels
    assert first.title == "a.pt"
    assert {"n0", "n1", "n2"} == set(marked(first))  # by their errors, which look alike
    (nan,) = [each for each in first.series if each.label == "NaN or infinite values"]
    assert [first.x.names[at] for at in nan.x] == ["n1"]
    assert 1 < nan.y[0] < min(y for each in first.series if each.severity for y in each.y)
    assert "a.pt: over 3 layers, running_var is 1. 1 layer (n1) holds NaN" in shown["files"].text
    assert len(second.series) == 1
