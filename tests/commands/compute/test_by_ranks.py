"""`bncli compute --distributed`: ranks agree with one process as parts do; failures leave parts."""

from __future__ import annotations

import json
import os
import re
import socket
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bncli.commands.compute import sums_first
from bncli.moments.team import default_threads
from tests.commands.samples import random
from tests.files.remote.web_server import web_server
from tests.process.ranks import launch
from tests.process.ranks.launch import Group, environment, free_port, ranks

pytestmark = pytest.mark.skipif(os.name != "posix", reason="it takes signals of POSIX")

SHIFTS = np.array([1, -50, 1e4], np.float32)[:, None]
CALL = ("compute", "s*.npy", "--distributed")


@pytest.fixture
def shards(save):
    """Seven inputs of three channels, which lie together."""
    x = random(24, 3, 4) + SHIFTS
    for i, part in enumerate(np.split(x, [3, 4, 9, 12, 18, 20])):
        save(f"s{i}.npy", part)
    return x


@pytest.fixture
def start(tmp_path):
    """Ranks that run a call, each time in a place of their own."""
    number = iter(range(100))

    def start(world, *arguments, **kwargs):
        place = tmp_path / f"ranks{next(number)}"
        place.mkdir()
        return ranks(place, world, *arguments, **kwargs)

    return start


def columns(stdout):
    rows = json.loads(stdout)["tables"]["channels"]
    return {key: [row[key] for row in rows] for key in rows[0]}


@pytest.mark.parametrize(
    "world", [2, 4, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (1, 3, 9))]
)
def test_ranks_agree_with_exact_arithmetic_and_with_parts(run, shards, start, world):
    done = start(world, *CALL, "--save-stats", "whole.npz", "-f", "json").done()
    assert [(each.code, each.stderr) for each in done] == [(0, "")] * world
    assert [each.stdout for each in done[1:]] == [""] * (world - 1)
    got = columns(done[0].stdout)
    for channel in range(3):
        values = [Fraction(float(v)) for v in shards[:, channel].ravel()]
        mean = sum(values) / len(values)
        var = sum((v - mean) ** 2 for v in values) / len(values)
        assert got["mean"][channel] == pytest.approx(float(mean), rel=1e-12)
        assert got["var"][channel] == pytest.approx(float(var), rel=1e-12)
        assert got["count"][channel] == len(values)
        assert got["min"][channel] == float(min(values))
        assert got["max"][channel] == float(max(values))
    for k in range(min(world, 7)):
        run("compute", "s*.npy", "--shard", f"{k}/{world}", "--save-stats", f"p{k}.npz", "-q")
    merged = run("compute", "p*.npz", "-f", "json")
    assert columns(merged.stdout) == got  # bit by bit
    assert columns(run("compute", "whole.npz", "-f", "json").stdout) == got
    assert not [*Path().glob("whole.part*")]


def test_a_rank_that_fails_leaves_the_others_parts_and_resume_reads_them_no_more(
    run, shards, start, folder
):
    """Rank 1 waits until the others have saved theirs, and fails."""
    call = (*CALL, "--save-stats", "whole.npz", "-f", "json")
    failing = {"bncli.commands.compute.sums_first:_read": launch.fails_after_the_others}
    done = start(3, *call, constants=failing).done()
    assert [each.code for each in done] == [2, 2, 2]
    host = re.escape(socket.gethostname())
    assert re.fullmatch(
        rf"bncli: rank 1 on {host}: s1\.npy: it is broken\. All ranks end with exit code 2\.\n",
        "".join(each.stderr for each in done),
    )
    parts = {path.name for path in folder.glob("whole*")}
    assert parts == {"whole.part-0-of-3.npz", "whole.part-2-of-3.npz"}

    refused = start(3, *call).done()
    assert {each.code for each in refused} == {2}
    assert "it exists already; add --resume" in "".join(d.stderr for d in refused)

    missing = run("compute", *sorted(parts))
    assert missing.code == 2
    again = "--shard=1/3 --save-stats whole.part-1-of-3.npz"
    assert again in missing.stderr  # the call that makes it alone

    counting = {"bncli.commands.compute.sums_first:_read": launch.read_once}
    done = start(3, *call, "--resume", constants=counting).done()
    assert [each.code for each in done] == [0, 0, 0], done
    assert "2 ranks had finished their parts already" in done[0].stdout
    assert sorted(path.name for path in folder.glob("read-*")) == ["read-1"]
    assert columns(done[0].stdout) == columns(start(3, *CALL, "-f", "json").done()[0].stdout)
    assert [path.name for path in folder.glob("whole*")] == ["whole.npz"]

    done = start(2, *call, "--resume", constants=counting).done()  # of any number of ranks
    assert [each.code for each in done] == [0, 0]
    assert "whole.npz holds all inputs already" in done[0].stdout


def test_no_rank_makes_a_part_of_two_versions_of_a_file(shards, start):
    files = {f"/{name}": Path(name).read_bytes() for name in ("s0.npy", "s1.npy")}
    with web_server(files=files) as server:

        def change(_):
            server.etag = f'"{len(server.asked)}"'

        server.on_request = change
        urls = [f"{server.url}{name}" for name in files]
        done = start(2, "compute", *urls, "--distributed", "--save-stats", "whole.npz").done()
    assert [each.code for each in done] == [2, 2]
    assert "it changed while bncli was reading it" in "".join(each.stderr for each in done)
    assert not [*Path().glob("whole*")]


def test_parts_that_the_whole_holds_are_removed_whoever_left_them(run, shards, start, folder, save):
    """Also where the whole is there already; what it does not hold stays."""

    def leave(k, n, *flags, inputs="s*.npy"):
        target = f"whole.part-{k}-of-{n}.npz"
        made = run("compute", inputs, "--shard", f"{k}/{n}", *flags, "-q", "--save-stats", target)
        assert made.code == 0, made.stderr
        return target

    def parts():
        return {path.name for path in folder.glob("*part-*")}

    save("other.npy", random(5, 3, 4))
    call = (*CALL, "--save-stats", "whole.npz", "--resume")
    leave(0, 2), leave(1, 3)  # which later runs of 1 do not take
    kept = {leave(2, 3, "--dtype", "float64"), leave(0, 4, inputs="*.npy")}
    for name in ("whole.part-9-of-99.npz", "my.part-0-of-2.npz"):
        kept.add(name)
        Path(name).write_bytes(b"no part")
    run("compute", "s0.npy", "-q", "--save-stats", "whole.part-0-of-5.npz")
    kept.add("whole.part-0-of-5.npz")  # which is a whole itself
    assert start(1, *call).done()[0].code == 0
    assert parts() == kept
    leave(1, 2), leave(0, 3)
    done = start(2, *call).done()
    assert [each.code for each in done] == [0, 0], done
    assert parts() == kept


def test_more_ranks_than_inputs(run, save, start):
    save("s0.npy", random(5, 3))
    done = start(2, *CALL, "--save-stats", "whole.npz", "-f", "json").done()
    assert [each.code for each in done] == [0, 0]
    assert columns(done[0].stdout)["count"] == [5, 5, 5]
    assert [path.name for path in Path().glob("whole*")] == ["whole.npz"]


def test_ranks_share_the_threads_of_their_machine(shards, tmp_path, folder):
    constants = {"bncli.commands.compute.sums_first:_read": launch.notes_threads}
    group, port = Group(tmp_path), free_port()
    for rank in range(2):
        values = environment(rank, 2, port) | {"LOCAL_WORLD_SIZE": "2"}
        group.start(CALL, values, constants)
    assert [each.code for each in group.done()] == [0, 0]
    assert sorted(path.name for path in folder.glob("threads*")) == ["threads-0-4", "threads-1-4"]


def test_without_it_the_environment_changes_nothing(run, shards, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    taken = []
    read = sums_first._read

    def noted(*arguments, **flags):
        taken.append(default_threads())
        return read(*arguments, **flags)

    monkeypatch.setattr(sums_first, "_read", noted)
    assert run("compute", "s*.npy", "--shard", "0/1").code == 0
    assert taken == [6]


REFUSED = {
    "a shard too": (("--shard", "0/2"), "with --distributed each rank takes its own shard"),
    "values": (("--against", "torch"), "--against needs all"),
    "resume without a file": (("--resume",), "--save-stats FILE.npz"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_said_once(shards, start, case):
    flags, words = REFUSED[case]
    done = start(2, *CALL, *flags).done()
    said = "".join(each.stderr for each in done)
    assert [each.code for each in done] == [2, 2]
    assert words in said
    assert said.count("\n") == 1


def test_statistics_files_are_merged_without_it(run, shards, start):
    run("compute", "s0.npy", "--save-stats", "one.npz", "-q")
    done = start(1, "compute", "one.npz", "--distributed").done()
    assert done[0].code == 2
    assert "one.npz" in done[0].stderr


def test_a_pattern_without_a_file_on_one_rank(shards, tmp_path, folder):
    """As on machines that do not share a file system."""
    (tmp_path / "empty").mkdir()
    group, port = Group(tmp_path), free_port()
    group.start(CALL, environment(0, 2, port))
    group.start(CALL, environment(1, 2, port) | {"FOLDER": str(tmp_path / "empty")})
    done = group.done()
    assert [each.code for each in done] == [2, 2]
    assert "rank 1 on" in done[1].stderr
    assert "no file fits this pattern" in done[1].stderr
    assert done[0].stderr == ""


def test_ranks_that_see_other_inputs_are_told(shards, tmp_path, folder):
    other = tmp_path / "other"
    other.mkdir()
    for i in range(7):
        np.save(other / f"s{i}.npy", random(2, 3, 4))
    group, port = Group(tmp_path), free_port()
    group.start((*CALL, "--save-stats", "whole.npz"), environment(0, 2, port))
    values = environment(1, 2, port) | {"FOLDER": str(other)}
    group.start((*CALL, "--save-stats", "whole.npz"), values)
    done = group.done()
    assert [each.code for each in done] == [2, 2]
    assert "sees 7 inputs of" in done[0].stderr
    assert not Path("whole.npz").exists()
