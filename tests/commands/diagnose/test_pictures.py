"""What a page shows of a diagnosis: the numbers of its tables, and every finding at its layers."""

from __future__ import annotations

import pytest

from bncli.commands.diagnose.pictures import pictures
from bncli.pictures import Kind
from bncli.report import Finding, Severity
from tests.commands.diagnose.conftest import CALL

FACTS = {"gap": 2.0, "gap_floor": 0.5}
HOSTILE = "</svg><script>alert(1)</script>$x_1$\n\x1b[31m\u202e"


def row(name, error=0.5, noise=0.2, **numbers):
    usual = {"z_median": 0.1, "z_max": 0.4, "var_ratio_min": 0.5, "var_ratio_max": 2.0}
    return {"name": name, "predicted_error": error, "noise": noise, **usual, **numbers}


def trial(what, gap, closes, kind="one", metric=None):
    return {"what": what, "gap": gap, "closes": closes, "kind": kind, "metric": metric}


def made(rows=(), tried=(), findings=(), **facts):
    shown = pictures(findings, rows=rows, tried=tried, facts={**FACTS, **facts})
    return {each.key: each for each in shown}


def of_kind(panel, kind):
    return [each for each in panel.series if each.kind is kind and each.severity is None]


def marked(panel):
    """The severity and the codes of every mark, by the layer's name."""
    return {
        panel.x.names[x]: (series.severity, set(codes.split()))
        for series in panel.series
        if series.severity is not None
        for x, codes in zip(series.x, series.names, strict=True)
    }


def test_the_numbers_are_those_of_the_tables(pictured, spoilt):
    report, shown = pictured(*CALL, "--checkpoint=spoilt.pth", "--metric=metrics.py:square")
    rows, tried = (report["tables"][key] for key in ("layers", "tried"))
    off, means, ratios = shown["predicted_error"].panels
    assert off.x.names == means.x.names == tuple(each["name"] for each in rows)
    (error,), (band,) = of_kind(off, Kind.POINTS), of_kind(off, Kind.BAND)
    assert list(error.y) == [each["predicted_error"] for each in rows]
    assert list(band.upper) == [each["noise"] for each in rows]
    assert max(band.y) <= min(*error.y, *band.upper, 0.1)
    for panel, keys in (
        (means, ("z_median", "z_max")),
        (ratios, ("var_ratio_min", "var_ratio_max")),
    ):
        (bars,) = of_kind(panel, Kind.RANGE)
        assert (list(bars.y), list(bars.upper)) == tuple(
            [each[key] for each in rows] for key in keys
        )
        assert panel.y.log
    gaps, metrics = shown["tried"].panels
    for panel, key in ((gaps, "gap"), (metrics, "metric")):
        assert panel.x.names == tuple(each["what"] for each in tried)
        assert list(of_kind(panel, Kind.BARS)[0].y) == [each[key] for each in tried]
    facts = report["facts"]
    assert {each.label: each.y[0] for each in of_kind(gaps, Kind.LEVEL)} == {
        "gap as it is": facts["gap"],
        "its floor": facts["gap_floor"],
    }
    assert {each.label: each.y[0] for each in of_kind(metrics, Kind.LEVEL)} == {
        "metric in training": facts["metric_training"],
        "metric in evaluation": facts["metric_eval"],
    }
    worst = max(rows, key=lambda each: each["predicted_error"])
    assert worst["name"] == "bn2"
    said = f"The output of bn2 is off by {worst['predicted_error']:.3g} standard deviations"
    assert shown["predicted_error"].text.startswith(said)


def test_every_finding_is_marked_at_its_layers(pictured, spoilt):
    report, shown = pictured(*CALL, "--checkpoint=spoilt.pth", "--try=0")
    expected: dict[str, set[str]] = {}
    for found in report["findings"]:
        for name in found["evidence"].get("layers", ()):
            expected.setdefault(name, set()).add(found["code"])
    assert expected
    marks = marked(shown["predicted_error"].panels[0])
    assert {name: codes for name, (_, codes) in marks.items()} == expected
    for found in report["findings"]:
        assert f"{found['code']} in " in shown["predicted_error"].text
        assert found["message"] not in shown["predicted_error"].text
    assert "tried" not in shown
    codes = ",".join({each["code"] for each in report["findings"]})
    _, shown = pictured(*CALL, "--checkpoint=spoilt.pth", "--try=0", f"--ignore={codes}")
    assert not marked(shown["predicted_error"].panels[0])


def test_a_healthy_model_has_no_marks(pictured, healthy):
    report, shown = pictured(*CALL, "--checkpoint=right.pth")
    assert not marked(shown["predicted_error"].panels[0])
    number = len(report["tables"]["layers"])
    assert f"0 of {number} layers are off by 0.1 or more." in shown["predicted_error"].text


def test_nothing_is_drawn_of_nothing():
    assert made() == {}
    nothing = dict.fromkeys(("z_median", "z_max", "var_ratio_min", "var_ratio_max"))
    assert made([row("a", None, None, **nothing)]) == {}
    assert made(tried=[trial("a alone", None, None)]) == {}


def test_what_is_not_known_leaves_a_gap():
    nothing = dict.fromkeys(("z_median", "z_max", "var_ratio_min", "var_ratio_max"))
    rows = [row("a"), row("b", None, None, **nothing), row("c", 0.0, None)]
    finding = Finding("BN801", Severity.ERROR, "b", "is odd", {"layers": ["b"]})
    shown = made(rows, findings=[finding])["predicted_error"]
    assert list(of_kind(shown.panels[0], Kind.POINTS)[0].y) == [0.5, None, 0.0]
    assert marked(shown.panels[0]) == {"b": (Severity.ERROR, {"BN801"})}
    assert "1 of 2 layers is off by 0.1 or more, 1 of them by more than chance gives." in shown.text
    lone = made([row("a", None, None)])["predicted_error"]
    assert "How far the outputs are off is not known of any layer." in lone.text
    assert [each.title for each in lone.panels] == ["Distance of the means", lone.panels[1].title]


def test_layers_without_noise_have_no_band():
    assert not of_kind(made([row("a", noise=None)])["predicted_error"].panels[0], Kind.BAND)


def test_findings_that_name_one_layer_or_none():
    one = Finding("BN801", Severity.ERROR, "a", "is odd", {"layer": "a"})
    none = Finding("BN802", Severity.ERROR, "the model's input", "is odd")
    shown = made([row("a"), row("b")], findings=[one, none])["predicted_error"]
    assert marked(shown.panels[0]) == {"a": (Severity.ERROR, {"BN801"})}


def test_what_trials_close_is_said():
    tried = [
        trial("b3 alone", 1.25, 0.5),
        trial("b4 alone", 2.45, -0.3),
        trial("input divided by 255", 0.4, 1.06, "input"),
    ]
    text = made(tried=tried)["tried"].text
    assert text == (
        "The gap between train() and eval() is 2. Its floor is 0.5. Of what lies above the floor, "
        "100% closes with the input divided by 255; 50% closes with new statistics in b3 alone; "
        "the gap widens by 30% with new statistics in b4 alone."
    )
    text = made(tried=[trial(f"b{at} alone", 1.0, 0.5) for at in range(14)])["tried"].text
    assert text.endswith("; 2 more trials not better than these.")
    floor = made(tried=[trial("b3 alone", 1.25, None)], gap_floor=None)["tried"].text
    assert "Its floor" not in floor
    assert floor.endswith(
        "The share that each repair closes is not known, or the gap is at its floor."
    )


def test_many_layers_are_thinned():
    finding = Finding("BN801", Severity.ERROR, "l1999", "is odd", {"layers": ["l1999"]})
    shown = made([row(f"l{at}") for at in range(2000)], findings=[finding])["predicted_error"]
    assert len(shown.panels[0].x.names) == 1000
    assert set(marked(shown.panels[0])) == {"l1999"}
    assert shown.text.startswith("Shown are 1000 of 2000 layers")


@pytest.mark.parametrize("name", [HOSTILE, "", "$", "a.b"])
def test_hostile_names_are_data(name):
    shown = made([row(name)], [trial(f"{name} alone", 1.0, 0.5)])
    assert shown["predicted_error"].panels[0].x.names == (name,)
    assert shown["tried"].panels[0].x.names == (f"{name} alone",)


def test_what_chance_gives_and_why_a_layer_within_it_is_marked():
    """The numbers are made up; 0.12 is above 0.1 and within its noise, 0.3 is beyond it."""
    rows = [row("a", 0.12, 0.7), row("b", 0.3, 0.2), row("c", 0.05, None)]
    momentum = Finding("BN701", Severity.WARNING, "a", "x", {"layers": ["a", "b", "c"]})
    text = made(rows, findings=[momentum])["predicted_error"].text
    assert text.startswith(
        "The output of b is off by 0.3 standard deviations, the most of all layers; chance, which "
        'is how the batches scatter, gives a healthy layer up to 0.2 there ("noise up to" in the '
        "table). 2 of 3 layers are off by 0.1 or more, 1 of them by more than chance gives. "
        "The mean of a channel is off by up to 0.4 standard deviations, in a, and the variances "
        "of the data are 0.5 to 2 times as large in a. The marks "
    )
    within = "1 of the marked layers is within 0.1 or chance: "
    assert text.endswith(
        f" BN701 in 3 layers. {within}BN701 needs no larger distance, but a momentum above 0.5."
    )
    other = Finding("BN806", Severity.WARNING, "a", "x", {"layers": ["a"]})
    text = made(rows[:1], findings=[other])["predicted_error"].text
    assert "1 of 1 layer is off by 0.1 or more, none of them by more than chance gives." in text
    assert text.endswith(
        f"{within}BN806 needs no larger distance (bncli rules BN806 says what BN806 needs)."
    )
    text = made(rows[:1], findings=[other, momentum])["predicted_error"].text
    assert text.endswith("BN701 and BN806 need no larger distance (BN701: a momentum above 0.5).")
    text = made(rows[1:2], findings=[other])["predicted_error"].text
    assert "no larger distance" not in text
