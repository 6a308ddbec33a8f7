"""Which rank this process is, from an environment of any kind."""

from __future__ import annotations

import pytest

from bncli.errors import UsageError
from bncli.process.ranks.place import Place, is_echo

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RUN_ID": "job7", "TORCHELASTIC_RESTART_COUNT": "2",
}  # fmt: skip
BARE = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}


def test_torchruns_environment():
    place = Place.here(TORCHRUN)
    assert (place.rank, place.world, place.local_rank) == (3, 8, 1)
    assert place.local_world == 4
    assert (place.address, place.port, place.attempt) == ("node0", 29500, "job7/2")
    assert place.hosted
    assert not place.keeps_store
    assert place.said == f"rank 3 on {place.host}"


def test_without_torchruns_store_rank_0_keeps_it():
    assert Place.here(BARE).keeps_store
    assert not Place.here(BARE | {"RANK": "1"}).keeps_store
    assert Place.here(BARE | {"RANK": "1"}).local_rank == 1


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.3.0.1", True),
     ("10.0.0.1", False), ("node0", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_which_addresses_are_this_machines_alone(address, loopback):
    assert Place.here(BARE | {"MASTER_ADDR": address}).loopback is loopback


REFUSED = {
    "no torchrun": ({}, "torchrun did not start this process; begin the call with torchrun"),
    "one missing": (
        {**BARE, "MASTER_PORT": ""},
        "MASTER_PORT is not set, but RANK and WORLD_SIZE and MASTER_ADDR are",
    ),
    "one alone": (
        {"RANK": "0"}, "WORLD_SIZE and MASTER_ADDR and MASTER_PORT are not set, but RANK is"
    ),
    "rank too high": (
        BARE | {"RANK": "2"}, "RANK is '2', and it must be a whole number from 0 to 1"
    ),
    "negative": (BARE | {"RANK": "-1"}, "RANK is '-1'"),
    "word": (BARE | {"RANK": "first"}, "RANK is 'first'"),
    "no ranks": (BARE | {"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
    "world": (BARE | {"WORLD_SIZE": "9" * 9}, "WORLD_SIZE is '999999999'"),
    "long": (BARE | {"WORLD_SIZE": "9" * 99}, "WORLD_SIZE is '99999999999999999999...'"),
    "port": (BARE | {"MASTER_PORT": "65536"}, "MASTER_PORT is '65536'"),
    "port 0": (BARE | {"MASTER_PORT": "0"}, "MASTER_PORT is '0'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_place_is_refused(case):
    environment, words = REFUSED[case]
    with pytest.raises(UsageError) as caught:
        Place.here(environment)
    assert str(caught.value).startswith("--distributed: ")
    assert words in str(caught.value)


def test_a_local_rank_that_is_no_number_is_the_rank():
    assert Place.here(BARE | {"LOCAL_RANK": "x"}).local_rank == 0


@pytest.mark.parametrize(
    ("text", "expected"), [("2", 2), ("9", 2), ("0", 1), ("", 1), ("x", 1), ("9" * 99, 1)]
)
def test_how_many_ranks_share_a_machine_is_a_hint(text, expected):
    assert Place.here(BARE | {"LOCAL_WORLD_SIZE": text}).local_world == expected


def test_of_ranks_with_the_same_wrong_call_the_first_one_says_it(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert not is_echo(["compute", "--distributed"])
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not is_echo(["compute", "--distributed"])
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert is_echo(["compute", "--distributed"])
    assert not is_echo(["compute"])


def test_without_torchrun_the_command_is_2(run, monkeypatch):
    for name in BARE:
        monkeypatch.delenv(name, raising=False)
    result = run("simulate-ema", "x.npy", "--distributed")
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr == (
        "bncli: --distributed: torchrun did not start this process; begin the call with torchrun "
        "--nproc-per-node 4 -m bncli.\n"
    )


def test_a_wrong_call_is_said_once(run, monkeypatch):
    said = []
    for rank in range(3):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        result = run("simulate-ema", "--bogus", "--distributed")
        assert result.code == 2
        said.append(result.stderr)
    assert [bool(each) for each in said] == [True, False, False]
