"""The tables of a trace: first and last rows, digits, widths."""

from __future__ import annotations

import re

import numpy as np

import bncli.commands.trace.tracing
from tests.commands.conftest import random
from tests.commands.trace.samples import column


def test_the_terminal_shows_them_too(run, tutorial):
    for width in (80, 140):
        text = run("trace", tutorial, "--at", "0,0,0", "-v", "--width", width).stdout
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
    text = run("trace", "x.npy", "-v").stdout
    assert "The first 4 and the last 4 of 50 elements per channel; --at follows any other." in text
    assert "The first 4" not in run("trace", "x.npy", "--at", "0,0", "-v").stdout


def test_elements_far_from_0_can_be_told_apart(run, save):
    x = 1e6 + np.arange(16.0).reshape(8, 2).astype(np.float32) / 16
    text = run("trace", save("x.npy", x.astype(np.float32)), "--channel", 0, "-v").stdout
    assert all(f"{value:.10g}" in text.split("Elements")[1] for value in x[:, 0])


def answer(run, *arguments) -> dict[str, list[str]]:
    """The lines of the answer's table by quantity; of the head, by its first title."""
    text = run("trace", *arguments, "--width", 80).stdout
    (part,) = [part for part in text.split("\n\n") if "quantity" in part]
    assert max(map(len, part.splitlines())) <= 80
    lines = part.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("quantity"))
    return {line.split()[0]: re.split(" {3,}", line.strip()) for line in lines[head:-1]}


def test_each_step_is_told_once_with_its_numbers_and_value(run, tutorial):
    assert [*answer(run, tutorial).values()] == [
        ["quantity", "formula", "value"],
        ["count", "2 * 2 * 2", "8"],
        ["mean", "(1 + 2 + 3 + ... + 12) / 8", "6.5"],
        ["var", "((-5.5)^2 + (-4.5)^2 + ... + 5.5^2) / 8", "17.25"],
        ["unbiased_var", "138 / (8 - 1)", "19.71429"],
        ["invstd", "1 / sqrt(17.25 + 1e-05)", "0.2407716"],
        ["output[0,0,0,0]", "(1 - 6.5) * 0.2407716", "-1.324244"],
        ["running_mean", "(1 - 0.1) * 0 + 0.1 * 6.5", "0.65"],
        ["running_var", "(1 - 0.1) * 1 + 0.1 * 19.71429", "2.871429"],
    ]


def test_a_weight_and_a_bias_are_told_where_they_change_anything(run, save, tutorial):
    weight, bias = save("w.npy", np.array([2.0, 1.0])), save("b.npy", np.array([-0.5, 0.0]))
    flags = ("--weight", weight, "--bias", bias)
    found = answer(run, tutorial, *flags)
    assert found["weight"] == ["weight", "of this channel", "2"]
    assert found["bias"] == ["bias", "of this channel", "-0.5"]
    output = 2 * (1 - 6.5) / 17.25001**0.5 - 0.5
    formula = "2 * (1 - 6.5) * 0.2407716 + (-0.5)"
    assert found["output[0,0,0,0]"] == ["output[0,0,0,0]", formula, f"{output:.7g}"]
    assert {"weight", "bias"}.isdisjoint(answer(run, tutorial, *flags, "--channel", 1))


def test_a_followed_element_has_its_steps(run, tutorial):
    found = answer(run, tutorial, "--at", "0,1,1", "--backward", "--eval")
    assert found["x"][:2] == ["x", "4"]
    assert {"deviation", "x_hat", "scaled", "output", "g", "grad_input"} <= {*found}
    assert {"squared", "grad_x_hat"}.isdisjoint(found)


def test_beside_other_values_the_value_comes_first_and_formulas_need_room(run, tutorial):
    def head(*flags):
        return answer(run, tutorial, *flags)["quantity"][1:]

    assert head("--eval") == ["value", "training", "formula"]
    assert head("--against", "torch") == ["value", "torch", "difference"]
    assert head("--eval", "--against", "torch") == ["value", "training", "torch", "difference"]
    assert head("--arithmetic", "float32") == ["value", "exact", "difference", "ulps"]
    both = head("--arithmetic", "float32", "--against", "torch")
    assert both == ["value", "exact", "torch", "difference"]
    assert "count" not in answer(run, tutorial, "--against", "torch")
    wide = run("trace", tutorial, "--against", "torch", "--width", 140).stdout
    assert "(1 - 0.1) * 0 + 0.1 * 6.5" in wide


def test_no_line_is_longer_than_the_terminal_however_many_formulas(run, save):
    x = random(16, 3, 28, 28) - np.float32(1000)
    for flags in ((), ("--backward",), ("--at", "3,4,5", "--backward"), ("--eval", "--backward")):
        text = run("trace", save("x.npy", x), *flags, "--width", 80).stdout
        assert max(map(len, text.splitlines())) <= 80, flags
