"""What a simulation shows, beside the recursion written out here."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from bncli.pictures import Kind, pictures_of
from tests.commands.samples import random

BAND = "population ± 2 standard errors at each step"
EXACT = ("--buffer-dtype", "float64")


def drawn(report) -> dict:
    return {picture.key: picture for picture in pictures_of(report)}


def series(panel) -> dict:
    return {each.label: each for each in panel.series}


@pytest.fixture
def x(save):
    """50 batches of 8 samples in 6 channels, whose means and standard deviations differ."""
    x = random(50, 8, 6).astype(np.float64) * np.arange(1, 7)
    save("x.npy", x)
    return x


def averaged(batches: np.ndarray, start: float, momentum: float = 0.1) -> np.ndarray:
    """running = (1 - momentum) * running + momentum * batch, after each step."""
    running, found = np.full(batches.shape[1:], start), []
    for batch in batches:
        running = (1 - momentum) * running + momentum * batch
        found.append(running)
    return np.array(found)


def test_a_panel_has_the_recursion_the_batches_and_the_population(reported, x):
    report = reported("simulate-ema", "x.npy", "--batch-axis=0", *EXACT, "--channel=4")
    pictures = drawn(report)
    assert list(pictures) == ["running_mean", "running_var", "initial_weight"]
    mean, var = x.mean(1)[:, 4], x.var(1)[:, 4]
    whole = x[:, :, 4].reshape(-1)
    squares = sum((0.1 * 0.9**k) ** 2 for k in range(50))
    within = var.mean() * 8 / 7
    for name, batches, running, population, error in (
        ("running_mean", mean, averaged(mean, 0), whole.mean(), math.sqrt(squares * within / 8)),
        ("running_var", var, averaged(var * 8 / 7, 1), whole.var(), None),
    ):
        (panel,) = pictures[name].panels
        found = series(panel)
        assert panel.title == "channel 4"
        assert found["batches"].kind is Kind.POINTS
        assert [*found["batches"].x] == [*found[name].x] == [*range(1, 51)]
        np.testing.assert_allclose(found["batches"].y, batches, rtol=1e-12)
        np.testing.assert_allclose(found[name].y, running, rtol=1e-12)
        assert found["population"].y == pytest.approx([population])
        band = found[BAND]
        assert (band.kind, [*band.x]) == (Kind.BAND, [*range(44, 51)])  # 0.9 ** 44 is below 1%
        assert np.add(band.y, band.upper) / 2 == pytest.approx([population] * 7)
        if error is not None:
            assert np.subtract(band.upper, band.y)[-1] / 4 == pytest.approx(error)
            apart = abs(running[-1] - population) / error
            assert f"ends at {running[-1]:.4g}, {apart:.2g} standard errors" in pictures[name].text
    (panel,) = pictures["initial_weight"].panels
    np.testing.assert_allclose(panel.series[0].y, 0.9 ** np.arange(1, 51), rtol=1e-9)
    assert "90% after step 1 and 0.52% after step 50" in pictures["initial_weight"].text


def test_the_band_of_running_var_is_that_of_the_table(reported, x):
    report = reported("simulate-ema", "x.npy", "--batch-axis=0")
    rows = {row["channel"]: row for row in report.tables[-1].rows}
    for name, error in (("running_mean", "se_mean"), ("running_var", "se_var")):
        for panel in drawn(report)[name].panels:
            row = rows[int(panel.title.removeprefix("channel "))]
            band = series(panel)[BAND]
            assert (band.upper[-1] - band.y[-1]) / 4 == pytest.approx(row[error])


def test_the_band_follows_the_step(reported, x):
    """The mean of t batches is sqrt(50 / t) times as uncertain as that of 50."""
    picture = drawn(reported("simulate-ema", "x.npy", "--batch-axis=0", "--momentum=none"))
    for name in ("running_mean", "running_var"):
        for panel in picture[name].panels:
            band = series(panel)[BAND]
            half = np.subtract(band.upper, band.y) / 2
            assert [*band.x] == [*range(1, 51)]
            np.testing.assert_allclose(half / half[-1], np.sqrt(50 / np.array(band.x)), rtol=1e-9)
        assert (
            f"The shaded band reaches to 2 standard errors of {name} at that step on either side "
            "of the level; it begins where at most 1% of the initial value is left."
        ) in picture[name].text


def test_while_the_initial_value_counts_there_is_no_band(reported, x):
    picture = drawn(reported("simulate-ema", "x.npy", "--batch-axis=0", "--momentum=0.01"))
    assert not any(BAND in series(panel) for panel in picture["running_mean"].panels)
    assert "band" not in picture["running_mean"].text


def test_channels_that_all_have_room_stand_in_their_order(reported, save):
    x = random(20, 8, 3) + np.array([0, 5, 0]) * np.linspace(0, 1, 20)[:, None, None]
    picture = drawn(reported("simulate-ema", save("x.npy", x), "--batch-axis=0"))["running_mean"]
    assert [panel.title for panel in picture.panels] == [f"channel {at}" for at in range(3)]
    assert "farthest" not in picture.text


def test_points_are_the_batches_in_the_order_that_they_came(reported, x):
    arguments = ("--batch-axis=0", "--epochs=20", "--shuffle", "--seed=3", "--channel=1")
    picture = drawn(reported("simulate-ema", "x.npy", *arguments, *EXACT))["running_mean"]
    points = series(picture.panels[0])["batches"]
    rng = np.random.default_rng(3)
    order = np.concatenate([rng.permutation(50) for _ in range(20)])
    assert len(points.x) == 400
    at = np.array(points.x) - 1
    np.testing.assert_allclose(points.y, x.mean(1)[order[at], 1], rtol=1e-12)


def test_the_farthest_channels_are_drawn_unless_some_were_chosen(reported, x):
    report = reported("simulate-ema", "x.npy", "--batch-axis=0")
    rows = report.tables[-1].rows

    def far(row) -> float:
        pairs = (
            ("running_mean", "population_mean", "se_mean"),
            ("running_var", "population_var", "se_var"),
        )
        return max(abs(row[a] - row[b]) / row[c] for a, b, c in pairs)

    farthest = sorted(rows, key=far, reverse=True)[:4]
    picture = drawn(report)["running_mean"]
    assert [panel.title for panel in picture.panels] == [
        f"channel {row['channel']}" for row in farthest
    ]
    assert (picture.columns, "2 more channels are in the tables." in picture.text) == (2, True)
    assert "Those drawn end farthest from the population, the farthest first." in picture.text
    chosen = drawn(reported("simulate-ema", "x.npy", "--batch-axis=0", "--channel=5,1"))
    assert [panel.title for panel in chosen["running_var"].panels] == ["channel 1", "channel 5"]
    assert "more" not in chosen["running_var"].text


def test_conventions_stand_side_by_side(reported, x):
    report = reported(
        "simulate-ema", "x.npy", "--batch-axis=0", *EXACT,
        "--convention=keras3", "--convention=pytorch", "--momentum=0.9",
    )  # fmt: skip
    picture = drawn(report)["running_var"]
    assert [panel.title for panel in picture.panels] == ["keras3", "pytorch"]
    assert picture.title.endswith("of channel 5")  # with the largest variance, beside the first 1
    assert "Of 6 channels it is that in which running_var differs most." in picture.text
    assert picture.one_scale
    var = x.var(1)[:, 5]
    for panel, factor in zip(picture.panels, (1, 8 / 7), strict=True):
        running = averaged(var * factor, 1)
        np.testing.assert_allclose(series(panel)["running_var"].y, running, rtol=1e-12)
        assert f"In {panel.title}, running_var ends at {running[-1]:.4g}" in picture.text
    weights = drawn(report)["initial_weight"]
    assert [each.label for each in weights.panels[0].series] == ["keras3", "pytorch", "1%"]
    assert "0.52% in keras3, 0.52% in pytorch" in weights.text


def test_many_steps_are_thinned_and_said(reported):
    report = reported(
        "simulate-ema", "--generate=4,2", "--batches=100", "--epochs=100", "--channel=0"
    )
    picture = drawn(report)["running_mean"]
    (panel,) = picture.panels
    found = series(panel)["running_mean"]
    assert len(found.x) == 400
    assert (found.x[0], found.x[-1]) == (1, 10_000)
    assert set(np.diff(found.x)) <= {25, 26}
    assert "400 of the 10000 steps are drawn, at even distances." in picture.text
    assert (
        "steps are drawn"
        not in drawn(reported("simulate-ema", "--generate=4,2"))["initial_weight"].text
    )


def test_while_the_initial_value_counts_nothing_is_said_of_chance(reported, x):
    texts = [
        drawn(reported("simulate-ema", "x.npy", "--batch-axis=0", "--channel=2", *more))[
            "running_mean"
        ].text
        for more in (("--freeze-after=10",), ("--freeze-after=0",), ("--momentum=none",))
    ]
    share = f"of which the initial value has a share of {100 * 0.9**10:.2g}%; the population's"
    assert share in texts[0]
    assert "standard errors from" not in texts[0]
    assert "the level is the mean of all batches' values pooled." in texts[1]
    assert "band" not in texts[1]
    assert "standard errors from the population's" in texts[2]


@pytest.mark.parametrize("how", ["nan", "constant", "one value", "cumulative"])
def test_odd_batches(reported, save, how):
    x = random(6, 4, 3)
    more = ()
    if how == "nan":
        x[2, 1, 0] = np.nan
    elif how == "constant":
        x[:] = 3
    elif how == "one value":
        x = x[:, :1]
        more = ("--convention=tf-unfused",)
    else:
        more = ("--momentum=none",)
    report = reported("simulate-ema", save("x.npy", x), "--batch-axis=0", *more)
    pictures = drawn(report)
    # The first batch replaces the initial value in a cumulative average.
    weight = set() if how == "cumulative" else {"initial_weight"}
    assert set(pictures) == {"running_mean", "running_var"} | weight
    for picture in pictures.values():
        assert re.search(r"\.$", picture.text)
        for panel in picture.panels:
            for each in panel.series:
                assert len(each.x) in (len(each.y), 0)
                assert len(each.upper) in (len(each.y), 0)
                assert each.kind is not Kind.BAND or np.isfinite([*each.y, *each.upper]).all()
    if how == "cumulative":
        np.testing.assert_allclose(
            series(pictures["running_mean"].panels[0])["running_mean"].y[-1],
            x.reshape(-1, 3).mean(0)[int(pictures["running_mean"].panels[0].title[-1])],
            rtol=1e-5,
        )


def test_one_step_shows_nothing(reported, save):
    assert pictures_of(reported("simulate-ema", save("x.npy", random(8, 3)))) == ()


def test_a_plot_is_of_the_same_pictures(reported, x, folder, monkeypatch):
    drawings = []
    monkeypatch.setattr(
        "bncli.renderers.drawing.plot.draw", lambda path, shown: drawings.append((path, shown))
    )
    report = reported("simulate-ema", "x.npy", "--batch-axis=0", "--plot=course.png")
    assert drawings == [("course.png", pictures_of(report))]
    assert {chart.key for chart in report.charts} == {each.key for each in drawings[0][1]}
