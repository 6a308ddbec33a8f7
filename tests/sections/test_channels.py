"""The channels of a pass that a person sees first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.report import ANSWER_ROWS
from bncli.rulebook.batch_rules import CONSTANT, NOT_FINITE
from bncli.rulebook.comparison import DIFFERS
from bncli.sections.channels import troubles, worst_first
from tests.commands.samples import random


def shown(run, *arguments) -> tuple[list[str], list[list[str]], list[str]]:
    """The titles, the rows' cells and the lines below of the table of channels."""
    lines = run("compute", *arguments).stdout.splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("channel "))
    end = lines.index("", head)
    rows = [line.split("   ") for line in lines[head:end]]
    titles, *rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    number = sum(row[0].isdecimal() for row in rows)
    return titles, rows[:number], lines[head + 1 + number : end]


def test_channels_of_a_finding_and_of_a_difference():
    findings = [
        CONSTANT.finding("channels", "", {"channels": [4, 7]}),
        NOT_FINITE.finding("channels", "", {"channels": [7]}),
        DIFFERS.finding("running_mean", "", {"index": (2,)}),
        DIFFERS.finding("output", "", {"index": (0, 3, 5)}),
        DIFFERS.finding("num_batches_tracked", "", {"index": ()}),
        DIFFERS.finding("elsewhere", "", {"channels": 12}),
    ]
    found = troubles(findings, 2)
    assert {channel: [item.code for item in items] for channel, items in found.items()} == {
        4: ["BN009"], 7: ["BN009", "BN001"], 2: ["BN901"], 5: ["BN901"]
    }  # fmt: skip
    assert worst_first(range(9), found).tolist() == [2, 5, 7, 4, 0, 1, 3, 6, 8]
    assert worst_first([8, 4], found).tolist() == [4, 8]


def test_healthy_channels_do_not_hide_a_sick_one(run, save):
    x = random(8, 64, 5)
    x[3, 61, 2] = np.nan
    x[:, 40] = 2.5
    titles, rows, below = shown(run, save("x.npy", x), "--width", 80)
    assert titles[:5] == ["channel", "mean", "var", "running_mean", "running_var"]
    assert [row[0] for row in rows] == ["61", "40"]
    assert [row[-1] for row in rows] == ["BN001", "BN009"]
    rest = np.delete(x.astype(np.float64), [61, 40], 1)
    var = rest.var((0, 2))
    text = " ".join(below)
    assert text.startswith("62 more channels without findings: mean ")
    assert f"var {var.min():.4g} .. {var.max():.4g} (-v lists them)" in text


def test_what_all_channels_have_is_not_repeated_in_each_row(run, save):
    x = save("x.npy", random(16, 30, 3) * np.float32(1e-4))
    titles, rows, below = shown(run, x, "--width", 120)
    assert "findings" not in titles
    assert len(rows) == ANSWER_ROWS
    assert below[0].startswith("10 more channels (10 with findings): mean ")


@pytest.mark.parametrize("width", [80, 100, 140])
def test_wider_terminals_show_more_columns(run, save, width):
    titles, rows, _ = shown(run, save("x.npy", random(16, 3, 5)), "--width", width)
    assert titles[:3] == ["channel", "mean", "var"]
    assert ("min .. max" in titles) is (width > 80)
    assert ({"std", "unbiased_var"} <= {*titles}) is (width == 140)
    assert titles[-1] == "output"
    module = torch.nn.BatchNorm1d(3)
    output = module(torch.from_numpy(random(16, 3, 5)))[:, 1].detach()
    low, high = (float(end) for end in rows[1][-1].split(" .. "))
    assert low == pytest.approx(output.min().item(), rel=1e-3)
    assert high == pytest.approx(output.max().item(), rel=1e-3)


def test_a_layer_without_running_statistics_has_no_columns_for_them(run, save):
    titles, _, _ = shown(run, save("x.npy", random(16, 3)), "--no-track-running-stats")
    assert {"running_mean", "running_var"}.isdisjoint(titles)


def test_each_input_has_as_many_channels_as_there_is_room_for(run, save):
    names = [save(f"{n}.npy", random(4, 30, seed=n)) for n in range(3)]
    text = run("compute", *names, "--per-input", "--width", 80).stdout.split("Each input\n")[1]
    rows = [line.split()[:2] for line in text.splitlines()[1:19]]
    assert rows == [[name, str(channel)] for name in names for channel in range(6)]
    assert "72 more rows (-v lists them)" in text


def test_channels_that_may_differ_are_not_said_to_be_without_findings(run, save):
    """A comparison names the worst channel of each quantity alone."""
    x = save("x.npy", random(8, 40, 5))
    exact = ("--against", "torch", "--rtol", 0, "--atol", 0)
    text = run("compute", x, *exact, "--width", 80).stdout
    assert "of 40 " in text or "40 of 40" in text
    assert " more channels: mean " in text
    assert "without findings" not in text
