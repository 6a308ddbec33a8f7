"""The tables of a trace: first and last rows, digits, widths."""

from __future__ import annotations

import numpy as np

import bncli.commands.trace.tracing
from tests.commands.conftest import random
from tests.commands.trace.samples import column


def test_the_terminal_shows_them_too(run, tutorial):
    for width in (80, 140):
        text = run("trace", tutorial, "--at", "0,0,0", "--width", width).stdout
        for shown in ("= 6.5", "= 17.25", "19.714285714285715", "4.15331", "-1.324244", "0.65",
                      "2.871429", "normalises the batch", "enters running_var"):  # fmt: skip
            assert shown in text
        assert max(map(len, text.splitlines())) <= width


def test_many_elements_are_the_first_and_the_last(run, save, monkeypatch):
    monkeypatch.setattr(bncli.commands.trace.tracing, "MOST_ELEMENTS", 24)
    x = random(10, 3, 5)
    result = run("trace", save("x.npy", x), "--backward", "-f", "json")
    for channel in range(3):
        flat = x[:, channel].reshape(-1)
        shown = column(result, "x", channel=channel)
        np.testing.assert_array_equal(shown, [*flat[:4], *flat[-4:]])
    text = run("trace", "x.npy").stdout
    assert "The first 4 and the last 4 of 50 elements a channel; --at follows any." in text
    assert "The first 4" not in run("trace", "x.npy", "--at", "0,0").stdout


def test_elements_far_from_0_can_be_told_apart(run, save):
    x = 1e6 + np.arange(16.0).reshape(8, 2).astype(np.float32) / 16
    text = run("trace", save("x.npy", x.astype(np.float32)), "--channel", 0).stdout
    assert all(f"{value:.10g}" in text.split("Elements")[1] for value in x[:, 0])
