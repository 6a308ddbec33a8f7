"""What `trace` follows: channels, and an element."""

from __future__ import annotations

from tests.commands.conftest import random
from tests.commands.trace.samples import rows, values


def test_channels(run, save):
    x = save("x.npy", random(4, 9, 5))
    assert {row["channel"] for row in rows(run("trace", x, "-f", "json"), "steps")} == {0, 1, 2}
    assert "The first 3 of 9 channels" in run("trace", x, "-v", "--width", 80).stdout
    result = run("trace", x, "--channel", "8,3", "-f", "json")
    assert {row["channel"] for row in rows(result, "elements")} == {3, 8}
    assert "channels; --channel" not in run("trace", x, "--channel", "0", "-v").stdout
    for flags in (("--at", "1,4"), ("--at", "1,4", "--channel", "0-8")):
        assert "elements per channel" not in run("trace", x, *flags, "-v").stdout


def test_the_answer_tells_of_the_first_channel_or_of_the_first_few_named(run, save):
    x = save("x.npy", random(4, 9, 5))

    def told(*flags):
        lines = run("trace", x, *flags).stdout.splitlines()
        return [line for line in lines if line.startswith("Channel ")], lines

    titles, lines = told()
    assert titles == ["Channel 0 of 9"]
    assert "--channel shows another of the 9 channels; -v shows every step and element" in lines
    titles, lines = told("--channel", "8,3")
    assert titles == ["Channel 3 of 9", "Channel 8 of 9"]
    assert "-v shows every step and element" in lines
    titles, lines = told("--channel", "2-7")
    assert titles == ["Channel 2 of 9", "Channel 3 of 9", "Channel 4 of 9"]
    assert "3 more channels; -v shows every step and element" in lines
    assert told("--at", "1,8,4")[0] == ["Channel 8 of 9"]
    single = run("trace", save("one.npy", random(4, 1, 5))).stdout
    assert "Channel 0" not in single
    assert "--channel" not in single


def test_an_element_is_followed(run, save):
    x = save("x.npy", random(4, 3, 5))
    everything = run("trace", x, "-f", "json")
    result = run("trace", x, "--at", "2,4", "-f", "json")
    assert result.report["facts"]["at"] == [2, 4]
    for channel in range(3):
        (row,) = rows(result, "elements", channel=channel)
        assert row["index"] == [2, channel, 4]
        assert row in rows(everything, "elements")
        found = values(result, channel)
        for key in ("x", "deviation", "squared", "x_hat", "output"):
            assert found[key] == row[key]
        shared = values(everything, channel)
        assert {key: found[key] for key in shared} == shared
    named = run("trace", x, "--at", "2,1,4", "-f", "json")
    assert {row["channel"] for row in rows(named, "steps")} == {1}
    assert values(named, 1) == values(result, 1)
    assert run("trace", x, "--at", "2,1,4", "--channel", "1").code == 0
