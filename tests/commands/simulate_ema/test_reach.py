"""The momenta that were asked for come first, with what each of them leaves."""

from __future__ import annotations

import re

import pytest
import torch

from tests.commands.simulate_ema.samples import table

NORMAL = ("--generate", "16,8", "--batches", 300)


@pytest.fixture
def asked(run):
    """What stands before the course: `asked(*flags)`, the cells row by row and the note."""

    def asked(*flags):
        lines = run("simulate-ema", *flags, "--width", 80).stdout.splitlines()
        assert max(map(len, lines)) <= 80
        at = next(n for n, line in enumerate(lines) if line.startswith("asked for "))
        end = lines.index("", at)
        rows = [re.split("  +", line) for line in lines[at:end]]
        last = next(n for n, row in enumerate(rows) if row[0] == "simulated")
        return rows[: last + 1], " ".join(lines[at + last + 1 : end])

    return asked


def test_each_momentum_has_its_errors_its_steps_and_what_is_left_then(asked, run):
    flags = (*NORMAL, "--reach-steps", 200, "--reach-noise", 0.1)
    (head, *rows), note = asked(*flags)
    assert head == [
        "asked for", "momentum", "mean error", "var error", "steps to 1%", "left after 300",
    ]  # fmt: skip
    plan = {
        row["quantity"]: row["value"]
        for row in table(run("simulate-ema", *flags, "-f", "json"), "plan")
    }
    slow, fast = plan["momentum for 1% after 200"], plan["momentum for se 0.1, e"]
    # Of normal values: a/(2 - a) times 1/16 and 2/15, but for what their kurtosis is off.
    assert fast == pytest.approx(2 * 0.01 / (2 / 15 + 0.01), rel=0.05)
    assert rows[0][:2] == ["1% after 200", f"{slow:.6g}"]
    assert rows[1][:2] == ["se 0.1", f"{fast:.6g}"]
    assert [row[2] for row in rows] == [
        f"{(new / (2 - new) / 16) ** 0.5:.2g} std" for new in (slow, fast, 0.1)
    ]
    assert rows[1][3] == "10%"
    assert [rows[0][4], rows[2][4]] == ["200", "44"]
    assert [rows[0][5], rows[2][:2]] == ["0.1%", ["simulated", "0.1"]]
    assert note == f"Any momentum from {slow:.6g} to {fast:.6g} meets both. Errors: once settled."


def test_what_no_momentum_meets(asked):
    _, note = asked(*NORMAL, "--reach-steps", 10, "--reach-noise", 0.1)
    assert note.startswith(
        "No momentum meets both: 1% after 10 takes at least 0.369043, se 0.1 at most 0.1"
    )
    flags = (*NORMAL, "--convention", "keras3", "--reach-steps", 10, "--reach-noise", 0.1)
    assert "1% after 10 takes at most 0.630957, se 0.1 at least 0.8" in asked(*flags)[1]


def test_a_small_momentum_leaves_the_start_as_it_is(asked):
    rows, note = asked(*NORMAL, "--reach-noise", 0.001)
    assert rows[1][-1].startswith("99.")
    assert re.search(r"Momentum 1\.\d+e-05 leaves 99\.\d+% of the start after 300 updates", note)


def test_an_error_above_that_of_one_batch(asked):
    rows, note = asked(*NORMAL, "--reach-noise", 5)
    assert rows[1][:3] == ["se 5", "1", "0.25 std"]
    assert "No momentum leaves an error of 5: 1, which keeps the newest batch alone, leaves" in note
    assert re.search("leaves only 0.3[5-9]. Errors", note)
    flags = (*NORMAL, "--convention", "keras3", "--reach-noise", 5)
    assert "No momentum leaves an error of 5: 0, which keeps" in asked(*flags)[1]


def test_batches_of_one_value_have_no_error_of_running_var(asked, run):
    flags = ("--generate", "1,2", "--batches", 9, "--reach-noise", 0.1)
    rows, note = asked(*flags)
    assert rows[1] == ["se 0.1", "-", "-", "-", "-", "-"]
    assert (
        note == "No momentum leaves an error of 0.1 in batches of one value. Errors: once settled."
    )
    plan = table(run("simulate-ema", *flags, "-f", "json"), "plan")
    assert plan[-1]["value"] is None


@pytest.mark.parametrize("convention", ["pytorch", "keras3", "equinox", "equinox-batch"])
@pytest.mark.parametrize("tracked", [None, 3])
def test_what_is_left_is_what_a_simulation_of_that_momentum_leaves(
    asked, convention, tracked, tmp_path
):
    flags = [*NORMAL[:2], "--batches", 12, "--convention", convention, "--reach-steps", 30]
    if tracked is not None:
        state = {"running_mean": torch.zeros(8), "running_var": torch.ones(8)}
        torch.save(state | {"num_batches_tracked": torch.tensor(tracked)}, tmp_path / "state.pt")
        flags += ["--state", tmp_path / "state.pt"]
    found = asked(*flags)[0][1]
    _, again, simulated = asked(*flags, "--momentum", found[1])[0]
    assert again == found
    assert simulated[2:4] == found[2:4]
    assert simulated[-1] == found[-1]
