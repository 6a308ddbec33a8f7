"""Ranks that work together: against one process, and with ranks that fail, hang or never come."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from bncli.errors import ExitCode
from bncli.process import signals
from bncli.process.ranks.board import Board
from bncli.process.ranks.together import _Run
from bncli.process.ranks.watcher import Watcher
from tests.process.ranks import launch
from tests.process.ranks.fakes import FakeStore, place
from tests.process.ranks.launch import Group, environment, free_port, ranks, torchrun

pytestmark = pytest.mark.skipif(os.name != "posix", reason="it takes signals of POSIX")

HOST = re.escape(socket.gethostname())
VALUES = "bncli.commands.simulate_ema.distributed:values_of"
JOIN = "bncli.process.ranks.meeting:JOIN_SECONDS"


TERMINATED = (
    rf"bncli: rank {{rank}} on {HOST}: it was terminated, as torchrun does when another rank ends; "
    r"torchrun's own block names that rank\.\n"
)


@pytest.fixture
def group(tmp_path):
    """Starts ranks that run the same call."""
    place = tmp_path / "ranks"
    place.mkdir()

    def group(world, *arguments, **kwargs):
        return ranks(place, world, *arguments, **kwargs)

    return group


@pytest.fixture
def batches(save):
    for i in range(7):
        rng = np.random.default_rng(i)
        save(f"b{i}.npy", rng.normal(i, 2, (8 + i, 5, 4)).astype(np.float32))
    return [f"b{i}.npy" for i in range(7)]


def line(sentence: str, rank: int | str = "[0-9]+", code: int = 2) -> str:
    return rf"bncli: rank {rank} on {HOST}: {sentence} All ranks end with exit code {code}\.\n"


# ------------------------------------------------------------------ all goes well


@pytest.mark.parametrize("world", [1, 3])
def test_the_report_is_that_of_one_process_and_rank_0s_alone(run, batches, group, world):
    one = run("simulate-ema", *batches, "-f", "json")
    call = ("simulate-ema", *batches, "--distributed", "-f", "json")
    pieces = {"bncli.process.ranks.meeting:PIECE": 1000}  # of which a payload has several
    first, *others = group(world, *call, constants=pieces).done()
    assert (first.code, first.stdout, first.stderr) == (0, one.stdout, "")
    assert [(each.code, each.stdout, each.stderr) for each in others] == [(0, "", "")] * (world - 1)


def test_every_rank_ends_with_rank_0s_code_which_its_last_line_names(run, batches, group):
    flags = ("simulate-ema", *batches, "--fail-on=info", "-q", "-o", "r.json")
    assert run(*flags).code == 1
    first, second = group(2, *flags, "--distributed").done()
    assert (first.code, second.code) == (1, 1)
    assert first.stderr == (
        "bncli: exit code 1 on all ranks; torchrun ends with 1 for any code but 0.\n"
    )
    assert (first.stdout, second.stdout, second.stderr) == ("", "", "")
    assert json.loads(Path("r.json").read_text("utf-8"))["exit_code"] == 1


# ------------------------------------------------------------------ a rank that fails


def test_ranks_that_fail_alike_say_it_once(group, folder):
    done = group(3, "simulate-ema", "absent.npy", "--distributed").done()
    said = "".join(each.stderr for each in done)
    assert [each.code for each in done] == [2, 2, 2]
    assert re.fullmatch(line(r"absent\.npy: there is no such file\."), said), said
    assert [each.stdout for each in done] == ["", "", ""]


@pytest.mark.parametrize("stuck", [launch.stuck_in_python, launch.stuck_in_c])
def test_one_that_fails_ends_the_others_while_they_compute(batches, group, stuck):
    constants = {VALUES: stuck, "bncli.process.ranks.watcher:GRACE": 0.5}
    done = group(3, "simulate-ema", *batches, "--distributed", constants=constants).done()
    assert [each.code for each in done] == [2, 2, 2]
    assert re.fullmatch(line(r"b1\.npy: it is broken\.", 1), done[1].stderr), done[1].stderr
    assert [(each.stdout, each.stderr) for each in (done[0], done[2])] == [("", "")] * 2
    assert max(each.seconds for each in done) < 20  # beside an hour


def test_one_that_is_ended_on_the_spot_leaves_no_temporary_file(batches, group, folder):
    grace = {"bncli.process.ranks.watcher:GRACE": 0.2}
    constants = {VALUES: launch.stuck_in_c_with_a_file} | grace
    done = group(2, "simulate-ema", *batches, "--distributed", constants=constants).done()
    assert [each.code for each in done] == [2, 2]
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    assert files == [*batches, "begun0"]


def test_a_bug_on_one_rank_is_4_on_all(batches, group):
    constants = {VALUES: launch.broken}
    done = group(2, "simulate-ema", *batches, "--distributed", constants=constants).done()
    assert [each.code for each in done] == [4, 4]
    assert "All ranks end with exit code 4." in done[1].stderr
    assert re.match(rf"bncli: rank 1 on {HOST}: a bug in bncli ", done[1].stderr)
    assert done[0].stderr == ""


# ------------------------------------------------------------------ signals


@pytest.mark.parametrize(("how", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_to_one_rank_ends_all_with_its_code(batches, group, folder, how, code):
    constants = {VALUES: launch.stuck_with_a_sign}
    running = group(2, "simulate-ema", *batches, "--distributed", constants=constants)
    for rank in range(2):
        running.wait_for(folder / f"begun{rank}")
    running.kill(1, getattr(signal, how))
    done = running.done()
    assert [(each.code, each.stdout) for each in done] == [(code, "")] * 2
    said = TERMINATED.format(rank=1) if code == 143 else ""
    assert re.fullmatch(said, done[0].stderr), done[0].stderr
    assert done[1].stderr == ""


@pytest.mark.parametrize("first", [0, 1])
def test_where_torchrun_ends_all_rank_0_says_so(batches, group, folder, first):
    """One was killed, so that nobody of the ranks can know why; both of the others are ended."""
    constants = {VALUES: launch.stuck_with_a_sign}
    running = group(3, "simulate-ema", *batches, "--distributed", constants=constants)
    for rank in range(3):
        running.wait_for(folder / f"begun{rank}")
    running.kill(2)
    for rank in (first, 1 - first):
        running.kill(rank, signal.SIGTERM)
    done = running.done()
    assert [each.code for each in done] == [143, 143, -signal.SIGKILL]
    assert re.fullmatch(TERMINATED.format(rank="[01]"), done[0].stderr), done[0].stderr
    assert [each.stderr for each in done[1:]] == ["", ""]


def test_one_that_is_killed_is_missed_by_its_signs_of_life(batches, group, folder):
    constants = {
        VALUES: launch.stuck_with_a_sign,
        "bncli.process.ranks.watcher:BEAT": 0.2,
        "bncli.process.ranks.watcher:SILENCE": 1.0,
        "bncli.process.ranks.together:GRACE": 0.0,
    }
    running = group(2, "simulate-ema", *batches, "--distributed", constants=constants)
    for rank in range(2):
        running.wait_for(folder / f"begun{rank}")
    running.kill(1)
    first, second = running.done()
    assert second.code == -signal.SIGKILL
    assert first.code == 2
    wanted = line(r"it has given no sign of life for 1 s\.", 1)
    assert re.fullmatch(wanted, first.stderr), first.stderr


def test_where_rank_0_is_killed_the_connection_is_lost(batches, group, folder):
    constants = {VALUES: launch.stuck_with_a_sign}
    running = group(2, "simulate-ema", *batches, "--distributed", constants=constants)
    for rank in range(2):
        running.wait_for(folder / f"begun{rank}")
    running.kill(0)
    first, second = running.done()
    assert (first.code, second.code) == (-signal.SIGKILL, 2)
    lost = r"the connection to the other ranks at 127\.0\.0\.1:[0-9]+ was lost\."
    assert re.fullmatch(line(lost, 1), second.stderr), second.stderr


# ------------------------------------------------------------------ ranks that do not fit


@pytest.fixture
def mixed(tmp_path):
    """A group whose ranks differ."""
    place = tmp_path / "mixed"
    place.mkdir()
    return Group(place)


def test_a_rank_that_never_comes_is_named(mixed, batches):
    port = free_port()
    call = ("simulate-ema", *batches, "--distributed")
    for rank in (0, 2):
        mixed.start(call, environment(rank, 4, port), {JOIN: 1.5})
    done = mixed.done()
    said = "".join(each.stderr for each in done)
    assert [each.code for each in done] == [2, 2]
    late = (
        r"ranks 1, 3 of 4 did not come within 1\.5 s; what they print says why, or they were not "
        r"started\."
    )
    assert re.fullmatch(line(late), said), said


def test_rank_0_that_never_comes_is_named(mixed, batches):
    port = free_port()
    mixed.start(("simulate-ema", *batches, "--distributed"), environment(1, 2, port), {JOIN: 0.5})
    (done,) = mixed.done()
    assert done.code == 2
    assert re.fullmatch(
        rf"bncli: rank 1 on {HOST}: rank 0 did not answer at 127\.0\.0\.1:{port} within 0\.5 s "
        r"\(Connection refused\)\.\n",
        done.stderr,
    )


def test_a_port_in_use_is_said_by_rank_0(mixed, batches):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        call = ("simulate-ema", *batches, "--distributed")
        mixed.start(call, environment(0, 2, port), {JOIN: 0.5})
        (done,) = mixed.done()
    assert done.code == 2
    assert re.fullmatch(
        rf"bncli: rank 0 on {HOST}: cannot listen at 127\.0\.0\.1:{port} \(another process uses "
        r"the port; choose another with --master-port\)\.\n",
        done.stderr,
    )


DIFFERING = {
    "flags": ((), ("--epochs=2",), 2, r"was called with other flags; all ranks need the same call"),
    "world": ((), (), 3, r"has WORLD_SIZE [23] and this rank [23]; they must be the same"),
}


@pytest.mark.parametrize("case", DIFFERING)
def test_ranks_that_differ_are_told(mixed, batches, case):
    first, second, world, sentence = DIFFERING[case]
    call, port = ("simulate-ema", *batches, "--distributed"), free_port()
    mixed.start((*call, *first), environment(0, 2, port))
    mixed.start((*call, *second), environment(1, world, port), {JOIN: 5.0})
    done = mixed.done()
    assert [each.code for each in done] == [2, 2]
    said = "".join(each.stderr for each in done)
    assert re.fullmatch(line(rf"rank [01] on {HOST} {sentence}\."), said), said


def test_a_rank_that_is_there_twice_leaves_the_group_alone(mixed, batches, run):
    call, port = ("simulate-ema", *batches, "--distributed", "-f", "json"), free_port()
    for rank in (0, 1, 1):
        mixed.start(call, environment(rank, 2, port))
    first, *others = mixed.done()
    assert first.code == 0
    assert first.stdout == run(*call[:-3], "-f", "json").stdout
    assert sorted(each.code for each in others) == [0, 2]
    said = "".join(each.stderr for each in others)
    assert re.fullmatch(
        rf"bncli: rank 1 on {HOST}: another process is rank 1 of the group at 127\.0\.0\.1:{port} "
        r"already; each process needs a RANK of its own\.\n",
        said,
    )


# ------------------------------------------------------------------ torchrun itself


def test_under_torchrun(run, batches):
    one = run("simulate-ema", *batches, "-f", "json")
    done = torchrun(2, "simulate-ema", *batches, "--distributed", "-f", "json")
    assert (done.returncode, done.stdout, done.stderr) == (0, one.stdout, "")


@pytest.mark.exhaustive
def test_a_failure_is_said_before_torchruns_own_block(folder):
    done = torchrun(2, "simulate-ema", "absent.npy", "--distributed")
    assert done.returncode == 1  # which torchrun makes of any code
    first, _, rest = done.stderr.partition("\n")
    assert re.fullmatch(line(r"absent\.npy: there is no such file\."), first + "\n")
    assert "bncli:" not in rest
    assert "exitcode  : 2" in rest


def test_who_leaves_is_not_ended_by_signals_any_more(monkeypatch):
    """torchrun ends the others as soon as the first has ended with another code than 0."""
    calls, board = [], Board(FakeStore(), 0)
    monkeypatch.setattr(signals, "decided", lambda: calls.append("decided"))
    assert board.come()
    _Run(place(0, 1), board, Watcher(board, place(0, 1)))._finish(ExitCode.NOTHING)
    assert (calls, board.code(), board.all_gone()) == (["decided"], ExitCode.NOTHING, True)


def test_a_store_that_is_gone_keeps_nobody_from_leaving(monkeypatch):
    store = FakeStore()
    store.lost = True
    monkeypatch.setattr(signals, "decided", lambda: None)
    board = Board(store, 1)
    _Run(place(1, 2), board, Watcher(board, place(1, 2)))._leave(60)
