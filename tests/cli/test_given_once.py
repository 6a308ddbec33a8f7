"""Two answers to one question are refused; typer keeps the last of them."""

from __future__ import annotations

import numpy as np
import pytest
import typer.main

from bncli.cli import build_app
from bncli.cli.given_once import FORMER
from tests.calls import CALLS, NAMES


def options(name):
    """The options of a command that have one value."""
    command = typer.main.get_command(build_app()).commands[name]
    return [param for param in command.params if param.param_type_name == "option"]


PAIRS = [
    (name, option.opts[0], option.secondary_opts[0])
    for name in NAMES
    for option in options(name)
    if option.secondary_opts
]


def test_there_are_pairs():
    assert ("compute", "--training", "--eval") in PAIRS
    assert len(PAIRS) >= 10


@pytest.mark.parametrize(("name", "on", "off"), PAIRS)
def test_on_and_off(run, repository, monkeypatch, name, on, off):
    monkeypatch.chdir(repository)
    for flags in ((on, off), (off, on), (off, on, off)):
        code, stdout, stderr = run(name, *CALLS[name], *flags)
        assert (code, stdout) == (2, "")
        assert stderr == f"bncli: {on} and {off} contradict each other; leave one out.\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_value_is_not_dropped_for_a_later_one(run, repository, monkeypatch, name):
    """Every flag with one value, in the command that has it; those that collect take both."""
    monkeypatch.chdir(repository)
    for option in options(name):
        if option.is_flag or option.multiple:
            continue
        code, stdout, stderr = run(name, option.opts[0], "1", option.opts[0], "2")
        assert (code, stdout) == (2, ""), option.opts
        assert stderr == f"bncli: {option.opts[0]} is given as 1 and as 2; it takes one value.\n"


def test_the_same_again_is_no_contradiction(run, save):
    x = save("x.npy", np.random.default_rng(0).normal(size=(4, 3)))
    once = run("compute", x, "--eval", "--eps", "1e-3", "-q", "-f", "json", "--no-affine")
    again = run(
        "compute", x, *("--eval", "--eps", "1e-3", "-q", "-f", "json", "--no-affine") * 2,
        "--format", "json",
    )  # fmt: skip
    assert once == again
    assert once.code == 0


@pytest.mark.parametrize("form", ["--double-backward", "--double-backward=1"])
def test_a_flag_that_is_gone_is_refused_with_what_to_type(run, save, form):
    x = save("x.npy", np.random.default_rng(0).normal(size=(4, 3)))
    sentence = (
        "bncli: --double-backward was removed: leave it out; gradients are compared without it.\n"
    )
    assert tuple(run("diff", x, form)) == (2, "", sentence)
    assert "has no flag --double-backward" in run("compute", x, "--double-backward").stderr
    after = run("diff", x, "--", "--double-backward")  # a name of a file, as it says
    assert after.stderr == "bncli: --double-backward: there is no such file.\n"


def test_what_is_gone_is_not_there():
    for name, flag in FORMER:
        assert name in NAMES
        assert all(flag not in option.opts for option in options(name))


CHANNELS = {
    "compute": (("compute", "x.npy"), "channels"),
    "trace": (("trace", "x.npy"), "steps"),
    "simulate-ema": (("simulate-ema", "x.npy", "--batch-size", "4"), "steps"),
    "diff": (("diff", "x.npy"), "channels"),
    "diff stored": (("diff", "x.npy", "x.npy"), "channels"),
    "compare-norms": (("compare-norms", "x.npy"), "noise"),
}


def test_every_command_with_channels_is_here():
    assert {name for name in NAMES if any(o.name == "channel" for o in options(name))} == {
        name.split()[0] for name in CHANNELS
    }


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (("0", "3"), {0, 3}),
        (("3", "0"), {0, 3}),
        (("0,3,8-11",), {0, 3, 8, 9, 10, 11}),
        (("0", "3,8-9", "9-11"), {0, 3, 8, 9, 10, 11}),
        ((), None),
    ],
)
def test_channels_add_up(run, save, name, given, shown):
    save("x.npy", np.random.default_rng(0).normal(size=(8, 13, 5)).astype(np.float32))
    arguments, table = CHANNELS[name]
    flags = [word for text in given for word in ("--channel", text)]
    rows = run(*arguments, *flags, "-f", "json").report["tables"][table]
    found = {row["channel"] for row in rows}
    assert found == shown if shown is not None else found >= set(range(3))


def test_a_later_list_of_channels_is_checked_too(run, save):
    x = save("x.npy", np.ones((4, 3)))
    assert tuple(run("compute", x, "--channel", "0", "--channel", "3")) == (
        2, "", "bncli: --channel 3: 3 is not among the channels 0 to 2.\n",
    )  # fmt: skip
