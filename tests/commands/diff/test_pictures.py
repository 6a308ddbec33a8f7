"""How much of its tolerance a comparison uses, in its pictures as in PyTorch's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.pictures import Kind, pictures_of
from tests.commands.samples import random


def drawn(report) -> dict:
    return {picture.key: picture for picture in pictures_of(report)}


def test_two_tensors_by_channel(reported, save):
    expected = random(50, 6)
    actual = expected.copy()
    actual[3, 4] += 0.5
    actual[:, 1] += 1e-6
    save("a.npy", actual)
    save("b.npy", expected)
    pictures = drawn(reported("diff", "a.npy", "b.npy"))
    assert list(pictures) == ["tolerances_by_channel"]
    (panel,) = pictures["tolerances_by_channel"].panels
    points, limit = panel.series
    assert (limit.kind, limit.y, panel.y.log) == (Kind.LEVEL, [1.0], True)
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    used = (np.abs(a - b) / (1e-5 + 1.3e-6 * np.abs(b))).max(0)  # as torch.testing.assert_close
    assert [*points.x] == [*range(6)]
    np.testing.assert_allclose(points.y, used, rtol=1e-6)
    text = pictures["tolerances_by_channel"].text
    assert f"exceeded by {(used > 1).sum()} of the 6 channels." in text
    assert f"The largest share is that of channel 4: {used[4]:.3g} times the tolerance." in text


def test_quantities_in_both_modes(reported, save):
    report = reported("diff", save("x.npy", random(30, 3)))
    (panel,) = drawn(report)["tolerances"].panels
    rows = report.tables[0].rows
    *modes, _ = panel.series
    assert [each.label for each in modes] == ["training", "eval"]
    for each in modes:
        own = {row["quantity"]: row["tolerance_used"] for row in rows if row["mode"] == each.label}
        assert {panel.x.names[int(x)]: y for x, y in zip(each.x, each.y, strict=True)} == own
    text = drawn(report)["tolerances"].text
    assert "exceeded by none of the 10 quantities in training mode and none of the 7" in text
    worst = max(rows, key=lambda row: row["tolerance_used"])
    assert f"that of {worst['quantity']} in {worst['mode']} mode: " in text
    by_channel = drawn(report)["tolerances_by_channel"].panels[0].series[0]
    assert [*by_channel.x] == [0, 1, 2]


def test_tensors_of_two_files(reported, save):
    state = torch.nn.BatchNorm1d(3).state_dict()
    save(
        "a.pt",
        {f"bn{number}.{name}": value for number in range(9) for name, value in state.items()},
    )
    state["running_var"] = state["running_var"] * 1.5
    state["num_batches_tracked"] = torch.tensor(7)
    save(
        "b.pt",
        {f"bn{number}.{name}": value for number in range(9) for name, value in state.items()},
    )
    pictures = drawn(reported("diff", "a.pt", "b.pt"))
    assert list(pictures) == ["tolerances"]
    (panel,) = pictures["tolerances"].panels
    assert len(panel.x.names) == len(panel.series[0].x) == 24
    used = 0.5 / (1e-5 + 1.3e-6 * 1.5)
    points = panel.series[0]
    shares = {panel.x.names[int(x)]: y for x, y in zip(points.x, points.y, strict=True)}
    assert shares["bn4.running_var"] == pytest.approx(used, rel=1e-6)
    assert {shares[f"bn{number}.num_batches_tracked"] for number in range(9)} == {None}
    text = pictures["tolerances"].text
    assert "exceeded by 18 of the 45 tensors." in text
    assert "9 have no point: the difference is not finite, or none is tolerated." in text
    assert text.endswith("24 of 45 are drawn, those that use most.")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_without_a_measure_nothing_is_drawn(reported, save, value):
    x = random(8, 3)
    save("a.npy", x)
    save("b.npy", x + np.float32(value))
    assert pictures_of(reported("diff", "a.npy", "b.npy")) == ()


def test_of_many_channels_those_that_use_most_are_drawn(reported, save):
    x = random(4, 500)
    save("a.npy", x)
    x[0, 499] += 1
    x[0, :100] += 1e-7
    save("b.npy", x)
    picture = drawn(reported("diff", "a.npy", "b.npy"))["tolerances_by_channel"]
    points = picture.panels[0].series[0]
    assert (len(points.x), points.x[-1]) == (200, 499)
    assert set(range(100)) & {*points.x}
    assert "200 of 500 channels are drawn, those that use most." in picture.text
