"""What a page shows of two files: the states and measures of the table, and every finding."""

from __future__ import annotations

import shutil

import pytest

from bncli.commands.compare_checkpoints.answer import ORDER
from bncli.commands.compare_checkpoints.pictures import STATES, pictures
from bncli.model.changes import State
from bncli.pictures import Kind
from bncli.report import Finding, Severity
from tests.conftest import REPOSITORY

FILES = tuple(REPOSITORY / f"examples/compare/{name}.pt" for name in ("before", "after"))
HOSTILE = "</svg><script>alert(1)</script>$x_1$\n\x1b[31m\u202e"


def row(name, state="trained", **numbers):
    usual = {"z_min": 0.1, "z_max": 0.4, "var_ratio_min": 0.5, "var_ratio_max": 2.0}
    return {"name": name, "other_name": name, "state": state, **usual, **numbers}


def still(name, state="identical"):
    return row(name, state, z_min=0.0, z_max=0.0, var_ratio_min=1.0, var_ratio_max=1.0)


def made(*rows, findings=()):
    shown = pictures(findings, rows=rows)
    return shown[0] if shown else None


def of_kind(panel, kind):
    return [each for each in panel.series if each.kind is kind and each.severity is None]


def states_of(panel):
    """Each layer's state as it is drawn, and its mark if it has one."""
    (layers,) = of_kind(panel, Kind.POINTS)
    states = {panel.x.names[x]: panel.y.names[y] for x, y in zip(layers.x, layers.y, strict=True)}
    marks = {}
    for series in panel.series:
        if series.severity is not None:
            for x, y, codes in zip(series.x, series.y, series.names, strict=True):
                name = panel.x.names[x]
                assert states[name] == panel.y.names[y]
                assert name not in marks
                marks[name] = (series.severity, codes)
    return states, marks


def test_the_numbers_are_those_of_the_table(pictured):
    report, shown = pictured("compare-checkpoints", *FILES)
    rows = report["tables"]["layers"]
    state, means, ratios = shown["layers"].panels
    states, marks = states_of(state)
    assert states == {each["name"]: STATES[each["state"]] for each in rows}
    assert marks == {
        each["subject"]: (Severity.WARNING, each["code"]) for each in report["findings"]
    }
    for panel, keys in ((means, ("z_min", "z_max")), (ratios, ("var_ratio_min", "var_ratio_max"))):
        (bars,) = of_kind(panel, Kind.RANGE)
        assert panel.x.names == tuple(each["name"] for each in rows)
        assert (list(bars.y), list(bars.upper)) == tuple(
            [each[key] for each in rows] for key in keys
        )
        assert panel.y.log
    text = shown["layers"].text
    assert "The states of 4 layers: 1 statistics moved, 2 trained on, 1 identical." in text
    assert f"up to {rows[1]['z_max']:.3g} standard deviations, in layer1.bn." in text
    assert "BN611 in " in text


def test_findings_that_are_ignored_are_not_marked(pictured):
    _, shown = pictured("compare-checkpoints", *FILES, "--ignore", "BN611")
    assert states_of(shown["layers"].panels[0])[1] == {}
    assert "BN611" not in shown["layers"].text


def test_equal_files_have_no_picture(pictured, folder):
    shutil.copy(FILES[0], "same.pt")
    _, shown = pictured("compare-checkpoints", FILES[0], "same.pt")
    assert shown == {}


def test_files_with_nothing_in_common_have_no_picture(pictured, save):
    import torch

    _, shown = pictured("compare-checkpoints", FILES[0], save("a.pt", {"a": torch.ones(2, 2)}))
    assert shown == {}


def test_every_state_has_a_name_and_a_place():
    assert {*STATES} == {state.value for state in State}
    assert list(STATES) == [state.value for state in ORDER]
    picture = made(*(row(state, state) for state in STATES))
    states, _ = states_of(picture.panels[0])
    assert states == STATES
    assert picture.panels[0].y.names == tuple(STATES.values())


def test_layers_that_stand_still_need_no_panels_of_moves():
    assert made(still("a"), still("b")) is None
    (state,) = made(still("a"), still("b", "counter-moved")).panels
    assert states_of(state)[0] == {"a": "identical", "b": "counter moved"}
    finding = Finding("BN620", Severity.ERROR, "a", "should have moved")
    (state,) = made(still("a"), findings=[finding]).panels
    assert states_of(state)[1] == {"a": (Severity.ERROR, "BN620")}
    text = made(still("a"), still("b", "counter-moved")).text
    assert "No mean moved. No variance changed." in text


def test_one_state_for_all_is_said_and_not_drawn():
    picture = made(row("a"), row("b"))
    assert [panel.title for panel in picture.panels] == [
        "Shift of the means",
        "Second variance over the first",
    ]
    assert picture.title == "How far each layer moved"
    assert "The state of all 2 layers: trained on." in picture.text
    finding = Finding("BN611", Severity.WARNING, "b", "moved")
    state, *_ = made(row("a"), row("b"), findings=[finding]).panels
    assert states_of(state)[1] == {"b": (Severity.WARNING, "BN611")}


def test_what_is_not_known_leaves_a_gap():
    nothing = dict.fromkeys(("z_min", "z_max", "var_ratio_min", "var_ratio_max"))
    picture = made(row("a"), row("b", "lost", **nothing))
    _, means, ratios = picture.panels
    assert list(of_kind(means, Kind.RANGE)[0].upper) == [0.4, None]
    assert list(of_kind(ratios, Kind.RANGE)[0].y) == [0.5, None]
    lost = made(row("b", "lost", **nothing), row("c", "identical", **nothing))
    assert len(lost.panels) == 1
    assert lost.text == "The states of 2 layers: 1 lost, 1 identical."


def test_a_layer_of_the_second_file_alone_has_its_name_there():
    picture = made(row("a"), {**row("b", "lost"), "name": None})
    assert picture.panels[0].x.names == ("a", "b")


def test_many_layers_are_thinned():
    finding = Finding("BN611", Severity.WARNING, "l1999", "moved")
    picture = made(*(row(f"l{at}") for at in range(2000)), findings=[finding])
    assert len(picture.panels[0].x.names) == 1000
    assert set(states_of(picture.panels[0])[1]) == {"l1999"}
    assert "The state of all 2000 layers: trained on." in picture.text


@pytest.mark.parametrize("name", [HOSTILE, "", "$"])
def test_hostile_names_are_data(name):
    assert made(row(name)).panels[0].x.names == (name,)
