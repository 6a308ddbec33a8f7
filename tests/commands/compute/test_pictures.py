"""What `bncli compute` shows: histograms beside the standard normal, and what is between inputs."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch

from bncli.commands.compute import histograms
from bncli.errors import CorruptFileError
from bncli.pictures import Kind, pictures_of
from bncli.report import Severity
from tests.commands.samples import random


def drawn(report) -> dict:
    return {picture.key: picture for picture in pictures_of(report)}


def series(panel) -> dict:
    return {each.label: each for each in panel.series}


def torchs(x, **state) -> np.ndarray:
    """The output of torch.nn.BatchNorm1d in float64; in eval mode where it has running_mean."""
    x = torch.from_numpy(np.asarray(x)).double()
    module = torch.nn.BatchNorm1d(x.shape[1], dtype=torch.float64).train(not state)
    for name, value in state.items():
        getattr(module, name).copy_(torch.from_numpy(value))
    return module(x).detach().numpy()


def test_bars_are_the_outputs_histogram_and_the_curve_the_normals_density(reported, save):
    x = random(500, 3)
    report = reported("compute", save("x.npy", x))
    (picture,) = pictures_of(report)
    y = torchs(x)
    assert (picture.key, len(picture.panels)) == ("normalised", 3)
    for panel in picture.panels:
        channel = int(panel.title.removeprefix("channel "))
        found = series(panel)
        bars, curve = found["values"], found["standard normal"]
        assert (bars.kind, curve.kind) == (Kind.BARS, Kind.LINE)
        wanted = np.histogram(y[:, channel], 32, (-4, 4))[0]
        np.testing.assert_allclose(bars.y, wanted / 500 / 0.25)
        np.testing.assert_allclose(np.diff(bars.x), 0.25)
        step = 1e-4
        for at, density in zip(curve.x, curve.y, strict=True):
            ends = (math.erf((at + sign * step) / math.sqrt(2)) / 2 for sign in (1, -1))
            assert density == pytest.approx((next(ends) - next(ends)) / (2 * step), rel=1e-5)
    assert "normalised by the batch's own mean and biased variance; the curve" in picture.text
    channel = int(np.abs(y).max(0).argmax())
    farthest = y[np.abs(y[:, channel]).argmax(), channel]
    assert f"The value farthest from 0 is {farthest:.3g}, in channel {channel}." in picture.text


@pytest.mark.parametrize(("count", "few"), [(3, True), (99, True), (100, False)])
def test_bars_of_few_values_are_said_to_be_of_few(reported, save, count, few):
    (picture,) = pictures_of(reported("compute", save("x.npy", random(count, 2))))
    said = f"density. Each channel has only {count} values: bars of so few need not look like"
    assert (said in picture.text) is few
    assert ("only" in picture.text) is few


def test_weight_and_bias_come_after_what_is_shown(reported, save):
    x = random(200, 2)
    plain = drawn(reported("compute", save("x.npy", x)))["normalised"]
    save("w.npy", np.array([3.0, 0.1]))
    save("b.npy", np.array([5.0, -1.0]))
    affine = drawn(reported("compute", "x.npy", "--weight=w.npy", "--bias=b.npy"))["normalised"]
    assert affine.panels == plain.panels
    assert "biased variance, before weight and bias;" in affine.text
    assert "before" not in plain.text


def test_evaluation_is_drawn_where_its_values_are(reported, save):
    x = random(300, 2)
    state = {"running_mean": np.array([1.0, 9.0]), "running_var": np.array([4.0, 0.25])}
    save("x.npy", x)
    save("m.npy", state["running_mean"])
    save("v.npy", state["running_var"])
    report = reported("compute", "x.npy", "--eval", "--running-mean=m.npy", "--running-var=v.npy")
    picture = drawn(report)["normalised"]
    y = torchs(x, **state)
    assert "normalised by running_mean and running_var, so that they need not have" in picture.text
    assert (
        f"Channel 1 has mean {y[:, 1].mean():.3g} and standard deviation {y[:, 1].std():.3g}."
        in picture.text
    )
    assert "Channel 0 has" not in picture.text
    by_title = {panel.title.partition(" (")[0]: series(panel)["values"] for panel in picture.panels}
    near, far = by_title["channel 0"], by_title["channel 1"]
    assert (near.x[0], near.x[-1]) == (-3.875, 3.875)
    width = far.x[1] - far.x[0]
    low, high = far.x[0] - width / 2, far.x[-1] + width / 2
    assert low < y[:, 1].mean() - 4 * y[:, 1].std()
    assert high == 4
    np.testing.assert_allclose(
        far.y, np.histogram(y[:, 1], 32, (low, high))[0] / 300 / width, atol=1e-12
    )


def test_channels_with_findings_come_first_and_then_the_worst(reported, save):
    x = random(400, 20)
    x[:, 17] = 3  # constant: BN009
    x[7, 9] = 90  # an outlier: far from the standard normal, and no finding
    report = reported("compute", save("x.npy", x))
    picture = drawn(report)["normalised"]
    codes = {finding.code for finding in report.findings}
    assert len(codes) == 1
    titles = [panel.title for panel in picture.panels]
    assert titles[:2] == [f"channel 17 ({codes.pop()})", "channel 9"]
    assert (len(titles), picture.columns) == (12, 3)
    assert "12 of 20 channels are drawn: those with findings first" in picture.text
    assert "Channel 17 has mean 0 and standard deviation 0." in picture.text
    y = torchs(x)
    shown = [int(title.split()[1]) for title in titles]
    outside = {c: int((np.abs(y[:, c]) > 4).sum()) for c in shown}
    assert outside[9] == max(outside.values()) == 1
    rest = sum(outside.values()) - 1
    more = f", and {rest} of the other channels' values beyond theirs" if rest else ""
    assert (
        "1 of the 400 values of channel 9 lies beyond its panel, which reaches from -4 to 4" + more
        in picture.text
    )
    assert np.argmax(series(picture.panels[0])["values"].y) == 16  # where 0 is
    few = drawn(reported("compute", "x.npy", "--channel=3,4"))["normalised"]
    assert sorted(panel.title for panel in few.panels) == ["channel 3", "channel 4"]


def test_channels_that_all_have_room_stand_as_in_the_answer(reported, save):
    x = random(100, 6) * np.linspace(1, 3, 6)
    x[3, 1] = 30  # farthest from a standard normal, without a finding
    x[:, 4] = 3
    report = reported("compute", save("x.npy", x))
    rows = [row["channel"] for row in report.answer[0].rows]
    panels = drawn(report)["normalised"].panels
    assert [int(panel.title.split()[1]) for panel in panels] == rows == [4, 0, 1, 2, 3, 5]


def test_the_worst_of_the_channels_with_findings_come_first(reported, save):
    """In evaluation all are far from their statistics; one has a NaN, which is an error."""
    x = random(100, 15)
    x[:, 11] += 30
    x[2, 4] = np.nan
    save("m.npy", np.zeros(15))
    save("v.npy", np.ones(15))
    files = ("--running-mean=m.npy", "--running-var=v.npy")
    picture = drawn(reported("compute", save("x.npy", x), "--eval", *files))["normalised"]
    first, second, *_ = picture.panels
    assert first.title.startswith("channel 4 (BN")
    assert second.title.startswith("channel 11 (BN")
    bars = series(first)["values"]
    y = np.delete(x[:, 4], 2) / np.sqrt(1 + 1e-5)
    ends = min(-4, np.floor(y.min())), max(4, np.ceil(y.max()))
    width = (ends[1] - ends[0]) / 32
    np.testing.assert_allclose(bars.y, np.histogram(y, 32, ends)[0] / 99 / width)


def test_a_channel_without_numbers_has_no_panel(reported, save):
    x = random(50, 3)
    x[4, 1] = np.nan
    picture = drawn(reported("compute", save("x.npy", x)))["normalised"]
    assert sorted(panel.title for panel in picture.panels) == ["channel 0", "channel 2"]
    assert picture.text.endswith("Channel 1 has no finite normalised value and no panel.")
    x[:] = np.nan
    assert pictures_of(reported("compute", save("x.npy", x))) == ()


def test_one_value_a_channel_is_no_distribution(reported, save):
    assert pictures_of(reported("compute", save("x.npy", random(1, 3)), "--eval")) == ()


def test_a_finding_that_a_gate_leaves_out_is_not_marked(reported, save):
    x = random(40, 3)
    x[:, 1] = 3
    report = reported("compute", save("x.npy", x))
    code = report.findings[0].code
    title = pictures_of(report)[0].panels[0].title
    assert title == f"channel 1 ({code})"
    from dataclasses import replace

    (picture,) = pictures_of(replace(report, findings=()))
    assert "channel 1" in [panel.title for panel in picture.panels]


def test_of_a_large_input_the_text_says_how_much_was_read(reported, save, monkeypatch):
    monkeypatch.setattr(histograms, "MOST_READ", 4_000)
    monkeypatch.setattr(histograms, "PIECE", 500)
    picture = drawn(reported("compute", save("x.npy", random(6_000, 2))))["normalised"]
    assert (
        "The histograms are made of 2000 of the 6000 values of each channel, in 8 pieces at even "
        "distances." in picture.text
    )


# ------------------------------------------------------------------ when the values are read


def test_nothing_is_read_before_the_picture_is_wanted(run, save, monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("the values were read again")

    monkeypatch.setattr("bncli.commands.compute.pictures.pass_pictures", refuse)
    save("x.npy", random(20, 3))
    for form in ("table", "json", "csv", "markdown", "junit"):
        assert run("compute", "x.npy", "-f", form).code == 0


def test_a_file_that_has_changed_is_an_error(reported, save, folder):
    x = random(30, 3)
    report = reported("compute", save("x.npy", x))
    assert len(pictures_of(report)) == 1
    there = (folder / "x.npy").stat()
    save("x.npy", x[::-1])  # the same values at other places
    os.utime("x.npy", ns=(there.st_atime_ns, there.st_mtime_ns + 1))
    with pytest.raises(CorruptFileError, match=r"^x\.npy: it was written to or replaced after"):
        pictures_of(report)
    (folder / "x.npy").unlink()
    with pytest.raises(CorruptFileError, match=r"^x\.npy: it was removed or cut short"):
        pictures_of(report)


def test_typed_values_need_no_file(reported):
    (picture,) = pictures_of(reported("compute", "--values=[[1],[2],[4]]"))
    found = series(picture.panels[0])["values"]
    y = torchs(np.array([[1.0], [2], [4]]))
    np.testing.assert_allclose(found.y, np.histogram(y, 32, (-4, 4))[0] / 3 / 0.25)


# ------------------------------------------------------------------------- several inputs


@pytest.fixture
def shards(save):
    """Four inputs, in whose channel 2 the means are apart."""
    arrays = [random(40, 5, seed=seed) for seed in range(4)]
    for number, x in enumerate(arrays):
        x[:, 2] += 3 * number
        save(f"b{number}.npy", x)
    return arrays


def test_variance_within_and_between_inputs(reported, shards):
    report = reported("compute", "b0.npy", "b1.npy", "b2.npy", "b3.npy")
    picture = drawn(report)["spread"]
    variances, ratios = picture.panels
    means = np.array([x.astype(np.float64).mean(0) for x in shards])
    within = np.mean([x.astype(np.float64).var(0) for x in shards], 0)
    between = means.var(0)
    ratio = between / within * (160 - 4) / 3
    found = series(variances)
    assert (variances.y.log, [*found["within inputs"].x]) == (True, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(found["within inputs"].y, within, rtol=1e-9)
    np.testing.assert_allclose(found["between inputs"].y, between, rtol=1e-9)
    found = series(ratios)
    np.testing.assert_allclose(found["F ratio"].y, ratio, rtol=1e-6)
    assert found["shuffled samples, on average"].y == [1.0]
    (finding,) = report.findings
    assert found["what chance explains"].y == [finding.evidence["border"]]
    marked = found[finding.code]
    assert (marked.severity, [*marked.x]) == (Severity.WARNING, finding.evidence["channels"])
    assert [*marked.names] == [finding.code] * len(marked.x)
    assert np.argmax(ratio) == 2
    assert (
        f"The inputs differ most in channel 2: {between[2]:.3g} of variance is between inputs and "
        f"{within[2]:.3g} within them; the F ratio is {ratio[2]:.3g}." in picture.text
    )


def test_a_statistics_file_has_no_values_and_so_the_spread_alone(reported, run, shards):
    files = [f"b{number}.npy" for number in range(4)]
    assert run("compute", *files, "--save-stats=all.npz", "-q").code == 0
    pictures = drawn(reported("compute", "all.npz"))
    assert list(pictures) == ["spread"]
    of_values = drawn(reported("compute", *files))["spread"]
    for stored, panel in zip(pictures["spread"].panels, of_values.panels, strict=True):
        for name, each in series(panel).items():
            if name in ("within inputs", "between inputs", "F ratio"):
                np.testing.assert_allclose(series(stored)[name].y, each.y, rtol=1e-9)
    assert run("compute", "b0.npy", "--save-stats=one.npz", "-q").code == 0
    assert pictures_of(reported("compute", "one.npz")) == ()


def test_of_many_channels_the_worst_of_neighbours_is_drawn(reported, save):
    for number in range(3):
        x = random(6, 1000, seed=number)
        x[:, 503] += 9 * number
        save(f"b{number}.npy", x)
    picture = drawn(reported("compute", "b0.npy", "b1.npy", "b2.npy"))["spread"]
    ratios = series(picture.panels[1])["F ratio"]
    assert len(ratios.x) == 200
    assert ratios.x[np.argmax(ratios.y)] == 503
    assert np.all(np.diff(ratios.x) > 0)
    assert "200 of 1000 channels are drawn" in picture.text


def test_constant_inputs_have_no_ratio(reported, save):
    save("a.npy", np.ones((4, 2), np.float32))
    save("b.npy", np.ones((4, 2), np.float32))
    assert list(drawn(reported("compute", "a.npy", "b.npy"))) == ["normalised"]
