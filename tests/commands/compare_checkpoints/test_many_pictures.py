"""What a page shows of many files: the rows of the tables, and every finding at file and layer."""

from __future__ import annotations

import math
import shutil

import pytest
import torch

from bncli.commands.compare_checkpoints.many_pictures import files_pictures, target_pictures
from bncli.pictures import Kind
from bncli.report import Finding, Severity
from tests.conftest import REPOSITORY

EPOCHS = REPOSITORY / "examples/compare/epoch*.pt"
CLIENTS = REPOSITORY / "examples/compare/client*.pt"
HOSTILE = "</svg><script>alert(1)</script>$x_1$\n\x1b[31m\u202e"


def row(path, **numbers):
    return {
        "path": path,
        "z": 0.1,
        "z_max": 0.4,
        "var_ratio": 1.1,
        "var_ratio_worst": 0.5,
    } | numbers


def move(path, name, **numbers):
    return {**row(path, **numbers), "name": name}


def made(rows, moves, findings=()):
    paths = {each["path"]: each["path"] for each in rows}
    shown = files_pictures(findings, rows=rows, moves=moves, paths=paths, against="the first file")
    return {each.key: each for each in shown}


def of_kind(panel, kind):
    return [each for each in panel.series if each.kind is kind and each.severity is None]


def marked(panel):
    return {
        panel.x.names[x]: codes
        for series in panel.series
        if series.severity is not None
        for x, codes in zip(series.x, series.names, strict=True)
    }


def test_the_numbers_of_a_series_are_those_of_the_tables(pictured):
    report, shown = pictured("compare-checkpoints", EPOCHS)
    files, moves = (report["tables"][key] for key in ("files", "moves"))
    shift, ratio = shown["files"].panels
    assert shift.x.names == tuple(f"epoch{at}.pt" for at in range(1, 6))
    (bars,) = of_kind(shift, Kind.RANGE)
    assert (list(bars.y), list(bars.upper)) == tuple(
        [each[key] for each in files] for key in ("z", "z_max")
    )
    assert [list(each.y) for each in of_kind(ratio, Kind.POINTS)] == [
        [each[key] for each in files] for key in ("var_ratio", "var_ratio_worst")
    ]
    assert [panel.title for panel in shown["moves"].panels] == [*shift.x.names[1:]]
    for panel, other, path in zip(
        shown["moves"].panels, shown["ratios"].panels, [each["path"] for each in files[1:]],
        strict=True,
    ):  # fmt: skip
        own = [each for each in moves if each["path"] == path]
        assert panel.x.names == other.x.names == tuple(each["name"] for each in own)
        (bars,) = of_kind(panel, Kind.RANGE)
        assert (list(bars.y), list(bars.upper)) == tuple(
            [each[key] for each in own] for key in ("z", "z_max")
        )
        (bars,) = of_kind(other, Kind.RANGE)
        ends = [sorted((each["var_ratio"], each["var_ratio_worst"])) for each in own]
        assert list(map(list, zip(bars.y, bars.upper, strict=True))) == ends
    assert shown["moves"].one_scale


def test_findings_are_marked_at_their_file_and_their_layers(pictured):
    report, shown = pictured("compare-checkpoints", EPOCHS)
    (found,) = report["findings"]
    assert (found["code"], found["subject"]) == ("BN618", "stem.bn")
    assert marked(shown["files"].panels[0]) == {"epoch3.pt": "BN618"}
    marks = {panel.title: marked(panel) for panel in shown["moves"].panels}
    assert {title: each for title, each in marks.items() if each} == {
        "epoch3.pt": {"stem.bn": "BN618"}
    }
    assert "in the worst; BN618 in stem.bn." in shown["moves"].text
    _, shown = pictured("compare-checkpoints", EPOCHS, "--ignore", "BN618")
    assert not any(map(marked, (*shown["files"].panels, *shown["moves"].panels)))


def test_each_caption_tells_of_the_layer_that_its_picture_shows_most_of(pictured):
    report, shown = pictured("compare-checkpoints", EPOCHS)
    for at in range(2, 6):
        name = f"epoch{at}.pt"
        own = [each for each in report["tables"]["moves"] if each["path"].endswith(name)]
        furthest = max(own, key=lambda each: each["z_max"])
        assert (
            f"{name}: the means of {furthest['name']} moved furthest, by {furthest['z']:.3g} "
            f"standard deviations in the median channel and by {furthest['z_max']:.3g} in the worst"
        ) in shown["moves"].text
        most = max(own, key=lambda each: abs(math.log(each["var_ratio_worst"])))
        assert (
            f"{name}: the variances of {most['name']} changed most, the median channel's to "
            f"{most['var_ratio']:.3g} times and the worst one's to {most['var_ratio_worst']:.3g} "
            "times what it was."
        ) in shown["ratios"].text


def test_a_caption_says_what_did_not_move_or_is_not_known():
    numbers = {"z": 0.0, "z_max": 0.0, "var_ratio": 1.0, "var_ratio_worst": 1.0}
    nothing = dict.fromkeys(numbers)
    moves = [move("a", "x", **numbers), move("b", "x"), move("c", "x", **nothing)]
    zero = {"var_ratio": 0.0, "var_ratio_worst": 0.0}
    moves += [move("b", "y", **{**zero, "z": None})]
    shown = made([row(path) for path in "abc"], moves)
    text = shown["moves"].text
    assert "a: no mean moved." in text
    assert "c: no shift is known." in text
    text = shown["ratios"].text
    assert "a: no variance changed." in text
    assert "b: the variances of y changed most, to 0 times what they were." in text
    assert "c: no ratio is known." in text


def test_a_caption_says_once_what_is_alike_and_of_no_move_that_there_is_none():
    still = {"var_ratio": 1.0, "var_ratio_worst": 1.0}
    alike = {"z": 0.4, "z_max": 0.4, **still}
    shown = made([row("a", **alike)], [move("a", "x", **alike)])
    assert "0.4 standard deviations, in a. No variance changed." in shown["files"].text
    assert "x moved furthest, by 0.4 standard deviations." in shown["moves"].text
    moved = {"z": 0.0, "z_max": 0.0}
    text = made([row("a", **moved)], [move("a", "x", **moved)])["files"].text
    assert "No mean moved. A variance became 0.5 times as large in a." in text


def test_a_file_without_one_to_be_compared_with_has_no_mark(pictured, folder):
    first = {
        "bn.running_mean": torch.zeros(2),
        "bn.running_var": torch.ones(2),
        "bn.weight": torch.ones(2),
        "bn.num_batches_tracked": torch.tensor(100),
    }
    for at in range(3):
        mean = torch.tensor([1.0, 2.0]) * at
        var = torch.tensor([0.5, 0.1] if at else [1.0, 1.0])
        state = {**first, "bn.running_mean": mean, "bn.running_var": var}
        torch.save({**state, "bn.num_batches_tracked": torch.tensor(100 + at)}, f"{at}.pt")
    report, shown = pictured("compare-checkpoints", "?.pt")
    assert [each["code"] for each in report["findings"]] == ["BN613"]
    compared = ("z", "z_max", "var_ratio", "var_ratio_worst", "worst")
    rows = report["tables"]["files"]
    assert [[each[key] for key in compared] for each in rows[:2]] == [[None] * 5] * 2
    assert rows[2]["z_max"] == pytest.approx(2 / math.sqrt(0.1 + 1e-5))
    assert [each["path"] for each in report["tables"]["moves"]] == ["2.pt"]
    (bars,) = of_kind(shown["files"].panels[0], Kind.RANGE)
    assert [value is None for value in bars.y] == [True, True, False]
    assert [panel.title for panel in shown["moves"].panels] == ["2.pt"]
    assert "1.pt" not in shown["files"].text + shown["moves"].text
    assert "No variance changed." in shown["files"].text


def test_a_finding_of_the_first_file_is_marked_there(pictured):
    report, shown = pictured("compare-checkpoints", CLIENTS)
    (found,) = report["findings"]
    assert found["path"].endswith("client0.pt")
    assert marked(shown["files"].panels[0]) == {"client0.pt": found["code"]}
    assert "is compared with the first file" in shown["files"].text


def test_the_weights_of_a_target(pictured):
    target = REPOSITORY / "examples/compare/global.pt"
    report, shown = pictured("compare-checkpoints", CLIENTS, "--with", target)
    panels = {panel.title: panel for panel in shown["weights"].panels}
    for origin in report["tables"]["origins"]:
        if len(origin["weights"]) == 3 and origin["unique"]:
            (bars,) = panels.pop(origin["group"]).series
            assert list(bars.y) == origin["weights"]
    assert not panels
    assert "statistics: client0.pt's, bit for bit." in shown["weights"].text


def test_a_target_that_is_no_sum_has_no_picture():
    origin = {"group": "parameters", "what": "untold", "weights": [], "unique": True}
    assert target_pictures([origin], ["a", "b"]) == ()
    many = {**origin, "weights": [0.5, 0.5], "unique": False}
    assert target_pictures([many], ["a", "b"]) == ()


def test_files_that_are_equal_have_no_picture(pictured, folder):
    for at in range(3):
        shutil.copy(REPOSITORY / "examples/compare/epoch1.pt", f"{at}.pt")
    report, shown = pictured("compare-checkpoints", "?.pt")
    assert len(report["tables"]["moves"]) == 8
    assert shown == {}


def test_what_is_not_known_leaves_a_gap():
    nothing = dict.fromkeys(("z", "z_max", "var_ratio", "var_ratio_worst"))
    rows = [row("a", **nothing), row("b"), row("c", **nothing)]
    moves = [move("b", "x"), move("b", "y", z=None, var_ratio_worst=None)]
    shown = made(rows, moves)
    assert list(of_kind(shown["files"].panels[0], Kind.RANGE)[0].y) == [None, 0.1, None]
    assert list(of_kind(shown["ratios"].panels[0], Kind.RANGE)[0].y) == [0.5, None]
    assert made([row("a", **nothing)], []) == {}


def test_only_what_moved_is_drawn():
    still = {"var_ratio": 1.0, "var_ratio_worst": 1.0}
    assert set(made([row("b", **still)], [move("b", "x", **still)])) == {"files", "moves"}
    still = {"z": 0.0, "z_max": 0.0}
    assert set(made([row("b", **still)], [move("b", "x", **still)])) == {"files", "ratios"}


def test_of_many_files_those_with_findings_and_those_that_moved_most():
    finding = Finding("BN618", Severity.WARNING, "x", "jumps", {"layers": ["x"]}, path="f3")
    rows = [row(f"f{at}") for at in range(40)]
    moves = [move(f"f{at}", "x", z=0.01 * at) for at in range(40)]
    shown = made(rows, moves, [finding])
    titles = [panel.title for panel in shown["moves"].panels]
    assert titles == ["f3", *(f"f{at}" for at in range(29, 40))]
    assert shown["moves"].text.startswith("Shown are 12 of 40 files, those with findings")
    assert marked(shown["moves"].panels[0]) == {"x": "BN618"}


@pytest.mark.parametrize("name", [HOSTILE, "", "$"])
def test_hostile_names_are_data(name):
    shown = made([row(name), row("b")], [move(name, name), move("b", name)])
    assert shown["files"].panels[0].x.names == (name.rpartition("/")[2], "b")
    assert [panel.x.names for panel in shown["moves"].panels] == [(name,), (name,)]
