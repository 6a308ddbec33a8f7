"""What a simulation tells first: few steps, the farthest channels, and a verdict in a sentence."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.commands.samples import random
from tests.commands.simulate_ema.samples import table

TUTORIAL = ("examples/tutorial/x.npy", "--batch-size", 1)
BATCHES = ("--generate", "8,64,7", "--batches", 60)


@pytest.fixture
def shown(run, repository, monkeypatch):
    """What a terminal of some columns shows: `shown(*flags, width=80)`, line by line."""
    monkeypatch.chdir(repository)

    def shown(*flags, width=80, code=0):
        result = run("simulate-ema", *flags, "--width", width)
        assert (result.code, result.stderr) == (code, "")
        lines = result.stdout.splitlines()
        assert max(map(len, lines)) <= width
        return lines

    return shown


def rows_of(lines):
    """The titles of the table that answers, and the cells of its rows."""
    at = next(n for n, line in enumerate(lines) if re.match("(channel +)?(step|convention) ", line))
    rows = [re.split("  +", line.strip()) for line in lines[at + 1 :]]
    end = next(n for n, row in enumerate(rows) if len(row) != len(rows[0]))
    return re.split("  +", lines[at].strip()), rows[:end]


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--momentum", "none"),
        ("--convention", "pytorch", "--convention", "keras3"),
        ("--against", "torch"),
        ("--reach-steps", 9, "--reach-noise", 0.1),
        ("--epochs", 1000),
        ("--convention", "darknet"),
    ],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_the_tutorial_fits_a_screen(shown, flags):
    lines = shown(*TUTORIAL, *flags)
    assert len(lines) <= 24
    assert "  2 batches of 4 values in each of 2 channels" in lines[0]
    assert "" in lines[2:4]


@pytest.mark.parametrize("width", [80, 140])
def test_the_course_has_its_start_its_end_and_a_few_steps_between(shown, run, width):
    lines = shown(*BATCHES, "--channel", 0, width=width)
    head, rows = rows_of(lines)
    assert head == [
        "step", "batch mean", "batch var", "running_mean", "running_var", "initial",
    ]  # fmt: skip
    assert [row[0] for row in rows] == ["1", "4", "15", "60"]
    whole = {row["step"]: row for row in table(run("simulate-ema", *BATCHES, "-f", "json"))[::64]}
    for step, mean, var, running_mean, running_var, _ in rows:
        row = whole[int(step)]
        kept = ("batch_mean", "batch_var", "running_mean", "running_var")
        assert [mean, var, running_mean, running_var] == [f"{row[key]:.4g}" for key in kept]
    assert [row[-1] for row in rows] == ["90%", "66%", "21%", "0.18%"]
    assert "56 more steps: -v shows them" in lines


def test_the_steps_that_were_asked_for_are_shown(shown):
    lines = shown(*BATCHES, "--channel", "2,5", "--every", 10)
    _, rows = rows_of(lines)
    wanted = [str(step) for step in range(10, 61, 10)]
    assert [row[:2] for row in rows] == [[c, step] for c in "25" for step in wanted]
    assert "more step" not in " ".join(lines)
    lines = shown(*BATCHES, "--channel", "2,5", "--every", 2)
    _, rows = rows_of(lines)
    assert (rows[0][1], rows[-1][1], len(rows) <= 20) == ("2", "60", True)


def test_of_many_channels_the_farthest_from_the_population_are_shown(shown, run):
    report = run("simulate-ema", *BATCHES, "-f", "json").report
    far = []
    for row in report["tables"]["channels"]:
        mean = abs(row["running_mean"] - row["population_mean"]) / row["se_mean"]
        var = abs(row["running_var"] - row["population_var"]) / row["se_var"]
        far.append(max(mean, var))
    worst = np.argsort(far)[::-1][:2]
    lines = shown(*BATCHES)
    _, rows = rows_of(lines)
    assert list(dict.fromkeys(int(row[0]) for row in rows)) == worst.tolist()
    assert f"within {max(far):.2g} standard errors of the population's" in " ".join(lines)
    said = (
        "These channels are farthest from the population (all batches' values pooled). 56 more "
        "steps and 62 more channels: -v shows all 3840 rows, --channel and --every fewer"
    )
    assert said in " ".join(lines)


def test_all_channels_are_shown_where_the_steps_are_few(shown):
    lines = shown("examples/shards/batch0.npy", "examples/shards/batch1.npy")
    said = "examples/shards/batch0.npy and 1 more  2 batches of 32 values in each of 3 channels"
    assert " ".join(lines[:2]).startswith(said)
    _, rows = rows_of(lines)
    assert [row[:2] for row in rows] == [[c, step] for c in "012" for step in "12"]


def test_the_channels_that_were_asked_for_are_shown(shown):
    _, rows = rows_of(shown(*BATCHES, "--channel", "3,9,11"))
    assert {row[0] for row in rows} == {"3", "9", "11"}
    _, rows = rows_of(shown(*BATCHES, "--channel", "0-30"))
    assert len(rows) == 20
    assert {row[1] for row in rows} == {"1", "60"}


def test_a_channel_that_is_nan_is_shown_first(shown, save):
    x = random(12, 5, 4)
    x[3, 4, 2] = np.nan
    path = save("x.npy", x)
    lines = shown(path, "--batch-size", 4, code=1)
    _, rows = rows_of(lines)
    assert rows[0][0] == "4"
    assert "FAIL  1 error" in (said := " ".join(lines))
    assert said.endswith("; running_var was negative or not finite after step 1")


def test_the_verdict_says_how_far_off_unshuffled_batches_leave_the_variance(shown):
    flags = ("examples/ema/sorted.npy", "--batch-size", 16, "--epochs", 20)
    said = " ".join(" ".join(shown(*flags)).split())
    assert "WARN 1 warning in 12 batches of 2 channels (bncli rules BN703" in said
    assert "running_var of channel 0 is 27.1 standard errors from the population's" in said
    said = " ".join(" ".join(shown(*flags, "--shuffle")).split())
    assert "PASS after 240 updates the running statistics are within " in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--momentum", 0.1),
            "; after 2 updates, 81% of each statistic is still the initial value",
        ),
        (("--momentum", "none"), "Nothing of the initial value is left after the first update."),
        (("--momentum", "none"), "Expected error after 2 updates: 0.35 std for running_mean"),
        (("--momentum", 0.1), "Expected error once settled: 0.11 std for running_mean"),
        (("--momentum", 0.1), "44 steps until 1% of the initial value is left."),
    ],
)
def test_what_the_lines_below_say(shown, flags, said):
    assert said in " ".join(" ".join(shown(*TUTORIAL, *flags)).split())


def test_what_is_far_off_and_nobody_knows_why_is_no_pass(shown):
    """One sample a batch does not tell how far shuffled ones would lie apart."""
    lines = shown(*TUTORIAL, "--epochs", 1000)
    said = (
        "after 2000 updates, running_var of channel 0 is 67.3 standard errors from the population's"
    )
    assert " ".join(lines[-2:]) == said


def test_a_port_is_told_in_a_row_for_each_convention(shown, run):
    names = ["pytorch", "keras3", "flax", "caffe"]
    flags = [text for name in names for text in ("--convention", name)]
    lines = shown(*BATCHES, *flags, width=80)
    head, rows = rows_of(lines)
    assert head[:4] == ["convention", "momentum", "running_mean", "running_var"]
    assert [row[0] for row in rows] == names
    channel = next(line for line in lines if line.startswith("Channel ")).split()[1]
    report = run("simulate-ema", *BATCHES, *flags, "-f", "json").report
    whole = [r for r in report["tables"]["conventions"] if r["channel"] == int(channel)]
    assert [row[3] for row in rows] == [f"{r['running_var']:.4g}" for r in whole]
    most = max(report["tables"]["conventions"], key=lambda r: abs(r["var_ratio"] - 1))
    assert most["channel"] == int(channel)
    assert "63 more channels differ less: -v shows them" in " ".join(lines)
    said = (
        "running_var in keras3, flax is 0.9822 times pytorch's, running_var in caffe is 1 times "
        "pytorch's"
    )
    assert " ".join(lines).endswith(said)  # and no word: nothing was judged


def test_v_shows_every_table_and_chart(run, repository, monkeypatch):
    monkeypatch.chdir(repository)
    flags = (*TUTORIAL, "--convention", "pytorch", "--convention", "keras3")
    report = run("simulate-ema", *flags, "-f", "json").report
    text = run("simulate-ema", *flags, "-v", "--width", 80).stdout
    titles = (
        "Running statistics, step by step",
        "What a port would see, against pytorch",
        "What this momentum means",
        "After 2 updates, beside the population (pytorch)",
    )
    assert len(report["tables"]) == len(titles)
    for title in (*titles, *(f"{name} of channel 0" for name in ("running_mean", "running_var"))):
        assert f"\n{title}\n" in text
    for row in report["tables"]["plan"]:
        assert row["quantity"] in text
    for key in report["facts"]:
        assert report["facts"][key] is None or f"{key} " in text
    assert max(map(len, text.splitlines())) <= 80


def test_v_shows_the_long_table_of_steps_below_the_short_ones(run):
    flags = ("--generate", "4,3", "--batches", 50)
    text = run("simulate-ema", *flags, "-v").stdout
    titles = ("What this momentum means", "After 50 updates,", "Running statistics, step by step")
    assert sorted(titles, key=text.index) == list(titles)
    assert run("simulate-ema", *flags, "-f", "csv").stdout.startswith("step,channel,")


def test_charts_are_drawn_where_they_are_asked_for(run, repository, monkeypatch):
    monkeypatch.chdir(repository)
    plain = run("simulate-ema", *TUTORIAL).stdout
    drawn = run("simulate-ema", *TUTORIAL, "--chart").stdout
    titles = ("running_mean of channel 0", "Share that is still the initial value")
    assert [title in plain for title in titles] == [False, False]
    assert [title in drawn for title in titles] == [True, True]
    assert drawn.splitlines()[-1] == plain.splitlines()[-1]
