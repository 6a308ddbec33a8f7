"""`bncli capture --distributed`: the whole of what ranks saw, and ranks whose models differ."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from bncli.loaders.statistics import open_statistics
from tests.commands.capture.conftest import SMALL
from tests.commands.capture.test_shards import check_same
from tests.process.ranks import launch
from tests.process.ranks.launch import ranks

pytestmark = pytest.mark.skipif(os.name != "posix", reason="it takes signals of POSIX")

CODE = """
import os
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from tests.live.small import Net, images

RANK = int(os.environ.get("RANK", 0))

def net(other="", rank=1):
    torch.manual_seed(0)
    model = Net()
    if RANK == rank and other == "buffers":  # as DDP with broadcast_buffers=False leaves them
        model.bn2.running_mean += 0.25
    if RANK == rank and other == "weights":
        model.conv1.weight.data[0] = 1
    return model

SET = TensorDataset(torch.cat(images(batches=5)))

def loader():
    return DataLoader(SET, batch_size=8)

def divided():
    return DataLoader(SET, batch_size=4, sampler=DistributedSampler(SET, shuffle=False))

def uneven():
    part = torch.utils.data.Subset(SET, range(39))
    return DataLoader(part, batch_size=4, sampler=DistributedSampler(part, shuffle=False))

def wrong():
    return DataLoader(SET, batch_size=4, sampler=DistributedSampler(SET, 7, 3))

def dropping():
    part = torch.utils.data.Subset(SET, range(37))
    sampler = DistributedSampler(part, shuffle=False, drop_last=True)
    return DataLoader(part, batch_size=4, sampler=sampler)

WORLD = int(os.environ.get("WORLD_SIZE", 1))
ALL = [(x,) for x in images(batches=5)]

def shard():  # as webdataset's split_by_node: some ranks have more batches than others
    yield from ALL[RANK::WORLD]

own = ALL[RANK::WORLD]
few = [] if RANK == 1 else ALL[RANK::WORLD]
same_first = ALL[:1] + ALL[1 + RANK :: WORLD] if RANK < 2 else ALL[3:]
same_later = [ALL[RANK], ALL[4]]
"""


@pytest.fixture
def user(folder):
    Path("small_code.py").write_text(CODE, encoding="utf-8")
    return "small_code.py"


@pytest.fixture
def start(tmp_path):
    number = iter(range(100))

    def start(world, *arguments, **kwargs):
        place = tmp_path / f"ranks{next(number)}"
        place.mkdir()
        return ranks(place, world, "capture", *arguments, "--distributed", **kwargs).done()

    return start


@pytest.mark.parametrize(
    "world", [3, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (1, 2, 4, 6))]
)
def test_ranks_come_to_what_one_process_sees(run, small, start, world):
    assert run("capture", *SMALL, "--save-stats", "one.npz", "-q").code == 0
    done = start(world, *SMALL, "--save-stats", "all.npz", "-f", "json")
    assert [(each.code, each.stderr) for each in done] == [(0, "")] * world
    assert [each.stdout for each in done[1:]] == [""] * (world - 1)
    check_same(open_statistics("all.npz"), open_statistics("one.npz"))
    one = run("capture", *SMALL, "-f", "json").report["facts"]
    facts = json.loads(done[0].stdout)["facts"]
    assert [facts[key] for key in ("layers", "batches", "values")] == [
        one[key] for key in ("layers", "batches", "values")
    ]
    assert not [*Path().glob("all.part*")]


def test_code_gives_each_rank_its_batches(run, user, start):
    """By bncli, which takes every second of them, and by a DistributedSampler of the user's."""
    one = run("capture", f"{user}:net", "--data", f"{user}:loader", "--save-stats", "one.npz", "-q")
    assert one.code == 0
    for data in ("loader", "divided"):
        done = start(2, f"{user}:net", f"--data={user}:{data}", f"--save-stats={data}.npz", "-q")
        assert [(each.code, each.stderr) for each in done] == [(0, "")] * 2
        found, wanted = (open_statistics(name) for name in (f"{data}.npz", "one.npz"))
        for mine, theirs in zip(found.layers[:2], wanted.layers[:2], strict=True):
            sums = [next(iter(layer.seen.values())) for layer in (mine, theirs)]
            assert sums[0].samples == sums[1].samples == 40
        if data == "loader":
            check_same(found, wanted)
    again = start(
        2, f"{user}:net", f"--data={user}:divided", "--save-stats=divided.npz", "--resume"
    )
    assert [(each.code, each.stderr) for each in again] == [(0, "")] * 2


def test_samples_that_a_sampler_repeats_or_leaves_out_are_told(user, start):
    for data, said in (
        ("uneven", "gives 1 sample twice, so that all ranks have the same number"),
        ("dropping", "leaves out 1 sample, so that all ranks have the same number"),
    ):
        first, _ = start(2, f"{user}:net", f"--data={user}:{data}")
        assert first.code == 0
        assert said in " ".join(first.stdout.split())


@pytest.mark.parametrize(
    ("data", "world"), [("shard", 2), pytest.param("own", 3, marks=pytest.mark.exhaustive)]
)
def test_code_may_divide_the_data_itself(run, user, start, data, world):
    """5 batches over 2 or 3 ranks, so that some have one more: each is taken once."""
    one = run("capture", f"{user}:net", "--data", f"{user}:{data}", "--save-stats", "one.npz", "-q")
    assert one.code == 0
    call = (f"{user}:net", f"--data={user}:{data}", "--save-stats=all.npz")
    done = start(world, *call, "-f", "json")
    assert [(each.code, each.stderr) for each in done] == [(0, "")] * world
    check_same(open_statistics("all.npz"), open_statistics("one.npz"))
    report = json.loads(done[0].stdout)
    assert report["facts"]["divided_by"] == [f"{user}:{data}"]
    assert report["facts"]["batches"] == 5
    assert sum("it is taken to divide the data itself" in each for each in report["remarks"]) == 1
    assert not [*Path().glob("all.part*")]
    again = start(world, *call, "--resume")
    assert [(each.code, each.stderr) for each in again] == [(0, "")] * world
    assert "finished already" in again[0].stdout


def test_a_rank_to_which_code_gives_nothing_is_not_missed(user, start):
    done = start(2, f"{user}:net", f"--data={user}:few", "-f", "json")
    assert [(each.code, each.stderr) for each in done] == [(0, "")] * 2
    assert json.loads(done[0].stdout)["facts"]["batches"] == 3


def test_parts_of_ranks_that_divide_the_data_themselves_are_resumed(user, start, folder):
    call = (f"{user}:net", f"--data={user}:own", "--save-stats=whole.npz")
    failing = {"bncli.commands.capture.command:_captured": launch.capture_fails_on_1}
    done = start(2, *call, constants=failing)
    assert [each.code for each in done] == [2, 2]
    counting = {"bncli.commands.capture.command:_captured": launch.capture_once}
    done = start(2, *call, "--resume", constants=counting)
    assert [(each.code, each.stderr) for each in done] == [(0, "")] * 2
    assert [path.name for path in folder.glob("ran-*")] == ["ran-1"]
    assert open_statistics("whole.npz").part.batches == 5


REFUSED = {
    "wrong": (2, "its DistributedSampler is that of rank 3 of 7, and this is shard"),
    "same_first": (3, "batch 1 on rank 1 on {host} is batch 1 on rank 0 on {host}, so it would"),
    "same_later": (2, "batch 2 on rank 1 on {host} is batch 2 on rank 0 on {host}, so it would"),
}


@pytest.mark.parametrize("data", REFUSED)
def test_data_that_are_divided_otherwise_are_refused(user, start, data):
    world, wanted = REFUSED[data]
    done = start(world, f"{user}:net", f"--data={user}:{data}", "--save-stats=all.npz")
    assert [each.code for each in done] == [2] * world
    said = "".join(each.stderr for each in done)
    assert wanted.format(host=socket.gethostname()) in said
    assert said.count("\n") == 1
    assert not [*Path().glob("all*")]


@pytest.mark.parametrize("rank", [0, 2])
def test_buffers_that_differ_are_found_and_nothing_is_saved(user, start, rank):
    call = (f"{user}:net", "--arg=other=buffers", f"--arg=rank={rank}", f"--data={user}:loader")
    done = start(3, *call, "--save-stats=all.npz", "-f", "json")
    assert [each.code for each in done] == [1, 1, 1]
    report = json.loads(done[0].stdout)
    (found,) = report["findings"]
    assert (found["code"], found["subject"]) == ("BN908", "bn2")
    assert found["evidence"]["tensors"] == ["running_mean"]
    assert found["evidence"]["ranks"] == ([1, 2] if rank == 0 else [2])
    assert found["evidence"]["max_abs_diff"] == pytest.approx(0.25, rel=1e-6)
    assert not [*Path().glob("all*")]


def test_weights_that_differ_are_found(user, start):
    call = (f"{user}:net", "--arg=other=weights", f"--data={user}:loader")
    done = start(2, *call, "-f", "json")
    assert [each.code for each in done] == [1, 1]
    report = json.loads(done[0].stdout)
    assert "1 module of small_code.py:net differs between the ranks" in report["verdict"]
    (found,) = report["findings"]
    assert (found["subject"], found["evidence"]["tensors"]) == ("conv1", ["weight"])
    healthy = start(2, f"{user}:net", f"--data={user}:loader", "-f", "json")
    assert [each.code for each in healthy] == [0, 0]
    assert not [f for f in json.loads(healthy[0].stdout)["findings"] if f["code"] == "BN908"]


def test_resume_runs_the_model_where_no_part_is_finished(run, small, start, folder):
    failing = {"bncli.commands.capture.command:_captured": launch.capture_fails_on_1}
    done = start(2, *SMALL, "--save-stats", "whole.npz", constants=failing)
    assert [each.code for each in done] == [2, 2]
    assert [path.name for path in folder.glob("whole*")] == ["whole.part-0-of-2.npz"]
    counting = {"bncli.commands.capture.command:_captured": launch.capture_once}
    done = start(2, *SMALL, "--save-stats", "whole.npz", "--resume", constants=counting)
    assert [(each.code, each.stderr) for each in done] == [(0, "")] * 2
    assert [path.name for path in folder.glob("ran-*")] == ["ran-1"]
    run("capture", *SMALL, "--save-stats", "one.npz", "-q")
    check_same(open_statistics("whole.npz"), open_statistics("one.npz"))
    again = start(2, *SMALL, "--save-stats", "whole.npz", "--resume")
    assert [each.code for each in again] == [0, 0]
    assert "finished already" in again[0].stdout
