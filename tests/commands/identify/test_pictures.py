"""How far off the hypotheses are, beside the differences themselves."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.commands.identify.pictures import residual_pictures
from bncli.pictures import Kind, pictures_of
from tests.commands.samples import random


def points(report) -> dict[str, tuple[float, bool]]:
    """The largest difference of each hypothesis drawn, and whether it explains, from the top."""
    (picture,) = pictures_of(report)
    (panel,) = picture.panels
    assert (picture.key, panel.x.log) == ("residuals", True)
    found = {}
    for each in panel.series:
        assert each.kind is Kind.POINTS
        for x, y in zip(each.x, each.y, strict=True):
            found[y] = (panel.y.names[y], x, each.label == "explains it")
    assert sorted(found) == [*range(len(panel.y.names))]
    return {name: (x, fits) for _, (name, x, fits) in sorted(found.items())}


def test_residuals_are_the_largest_differences(reported, layer):
    report = reported("identify", "x.npy", "y.npy", "--state=bn.pt")
    found = points(report)
    assert next(iter(found)) == "eval mode, eps 1e-3"
    (off, explains), *others = found.values()
    assert explains
    x, y = np.load("x.npy").astype(np.float64), np.load("y.npy")
    weight, bias, mean, var = (
        getattr(layer, name).detach().double().numpy()[:, np.newaxis]
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    same, smaller = (
        np.abs(weight * (x - mean) / np.sqrt(var + eps) + bias - y).max() for eps in (1e-3, 1e-5)
    )
    assert off == pytest.approx(same, rel=1e-6)
    assert found["eval mode, eps 1e-5"] == (pytest.approx(smaller, rel=1e-6), False)
    assert not any(fits for _, fits in others)
    text = pictures_of(report)[0].text
    assert f"The first, “eval mode, eps 1e-3”, explains it: {off:.2g} is left" in text
    nearest = min(found, key=lambda name: found[name][0] if not found[name][1] else np.inf)
    assert (
        f"Of those that leave more than rounding may, the nearest is “{nearest}”, off by "
        f"{found[nearest][0]:.2g}." in text
    )
    assert f"{len(found)} of the {report.facts['tried']} hypotheses tried are drawn." in text


def test_they_are_those_of_the_table_in_its_order(reported, layer):
    report = reported("identify", "x.npy", "y.npy", "--state=bn.pt")
    rows = report.tables[0].rows
    assert [off for off, _ in points(report).values()] == [row["max_abs_diff"] for row in rows[:16]]


def test_an_update(reported, save):
    x = random(16, 3)
    batch = x.astype(np.float64)
    save("x.npy", x)
    save("mean.npy", np.zeros(3))
    save("var.npy", np.ones(3))
    save("mean2.npy", 0.1 * batch.mean(0))
    save("var2.npy", 0.9 + 0.1 * batch.var(0))
    report = reported(
        "identify", "x.npy", "--running-mean-before=mean.npy", "--running-var-before=var.npy",
        "--running-mean-after=mean2.npy", "--running-var-after=var2.npy",
    )  # fmt: skip
    found = points(report)
    (first, (off, explains)), *_ = found.items()
    assert "momentum 0.1" in first
    assert "biased" in first
    assert explains
    assert off < 1e-12
    unbiased = [name for name in found if name.endswith("and the unbiased variance")]
    assert found[unbiased[0]] == (
        pytest.approx(np.abs(0.1 * (batch.var(0, ddof=1) - batch.var(0))).max()), False
    )  # fmt: skip
    assert "between the buffers after the update and what" in pictures_of(report)[0].text


def test_nothing_explains(reported, save):
    save("x.npy", random(16, 3))
    save("y.npy", random(16, 3, seed=1))
    report = reported("identify", "x.npy", "y.npy")
    assert not any(fits for _, fits in points(report).values())
    assert "None explains it." in pictures_of(report)[0].text


def test_an_output_without_numbers_shows_nothing(reported, save):
    save("x.npy", random(16, 3))
    save("y.npy", np.full((16, 3), np.nan, np.float32))
    assert pictures_of(reported("identify", "x.npy", "y.npy")) == ()


def test_nothing_may_be_left():
    rows = [{"max_abs_diff": 0.0, "explains": True}, {"max_abs_diff": 2e-9, "explains": True}]
    (picture,) = residual_pictures(rows, ["a way", "another"], "y.npy", [True, True], 70)
    assert "The first, “a way”, explains it exactly. 1 more of those drawn explains it too." in (
        picture.text
    )


def test_what_is_as_near_as_the_explanation_is_explained(reported, save):
    """running_var is about 10, so that float32 hides an eps that is added to it."""
    x = 10 * random(200, 3)
    batch = x.astype(np.float64)
    save("x.npy", x)
    save("zeros.npy", np.zeros(3, np.float32))
    save("mean2.npy", (0.1 * batch.mean(0)).astype(np.float32))
    save("var2.npy", (0.1 * batch.var(0) + 1e-6).astype(np.float32))
    report = reported(
        "identify", "x.npy", "--running-mean-before=zeros.npy", "--running-var-before=zeros.npy",
        "--running-mean-after=mean2.npy", "--running-var-after=var2.npy",
    )  # fmt: skip
    (picture,) = pictures_of(report)
    (panel,) = picture.panels
    found = {each.label: [panel.y.names[y] for y in each.y] for each in panel.series}
    assert list(found) == ["explains it", "is off", "within rounding too"]
    assert all("added into the kept variance" in name for name in found["within rounding too"])
    assert not any("added into" in name for name in found["explains it"])
    off = {each.label: min(each.x) for each in panel.series}
    assert off["within rounding too"] < off["explains it"] < off["is off"] / 100
    more = len(found["within rounding too"])
    assert f" {more} more of those drawn also leave no more than rounding may; they" in picture.text
    assert "An explanation may leave more" not in picture.text


@pytest.mark.parametrize("off", [2e-9, 2e-7])
def test_a_smaller_difference_that_explains_nothing_is_explained(off):
    rows = [{"max_abs_diff": 1e-8, "explains": True}, {"max_abs_diff": off, "explains": False}]
    (picture,) = residual_pictures(rows, ["a way", "another"], "y.npy", [True, False], 70)
    assert f"the nearest is “another”, off by {off:.2g}." in picture.text
    assert ("An explanation may leave more, because" in picture.text) == (off < 1e-8)


def test_what_anything_would_leave_is_no_explanation():
    rows = [{"max_abs_diff": 1e-8, "explains": False}]
    (picture,) = residual_pictures(rows, ["a way"], "y.npy", [True], 70)
    said = "None explains it. 1 of those drawn leaves no more than rounding may, but anything of"
    assert said in picture.text
