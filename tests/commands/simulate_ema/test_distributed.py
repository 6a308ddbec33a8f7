"""Batches shared out among ranks: the report is one process's, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.process.ranks.launch import Group, environment, free_port, ranks


@pytest.fixture
def both(run, tmp_path):
    """The same call by one process and by ranks, as (one's JSON, each rank's `Done`)."""
    place = tmp_path / "ranks"
    place.mkdir()

    def both(world, *arguments):
        one = run("simulate-ema", *arguments, "-f", "json")
        done = ranks(place, world, "simulate-ema", *arguments, "--distributed", "-f", "json").done()
        return one, done

    return both


CASES = {
    "files of three sizes": ["b0.npy", "b1.npy", "b2.npy", "b3.npy"],
    "a pattern": ["b*.npy"],
    "shuffled samples": ["whole.npy", "--batch-size=8", "--shuffle", "--epochs=2"],
    "small batches": ["whole.npy", "--batch-size=2", "--buffer-dtype=float64"],
    "generated, in half precision": ["--generate=8,3,5", "--batches=9", "--buffer-dtype=float16"],
    "fewer batches than ranks": ["b0.npy"],
    "conventions": ["b*.npy", "--convention=keras3", "--convention=pytorch"],
}


SAMPLE = ("a pattern", "small batches", "fewer batches than ranks")


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[] if c in SAMPLE else pytest.mark.exhaustive) for c in CASES]
)
def test_the_report_is_one_processs(both, save, case):
    rng = np.random.default_rng(0)
    for i in range(4):
        save(f"b{i}.npy", rng.normal(i, 2, (8 + i, 3, 5)).astype(np.float32))
    save("whole.npy", rng.normal(1, 2, (37, 3)).astype(np.float32))
    one, (first, *others) = both(3, *CASES[case])
    assert (first.code, first.stdout) == (one.code, one.stdout)
    assert {each.code for each in others} == {one.code}
    assert len(json.loads(first.stdout)["tables"]["steps"]) > 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("case", CASES)
def test_the_report_is_one_processs_for_any_number_of_ranks(both, save, case, world):
    rng = np.random.default_rng(1)
    for i in range(4):
        save(f"b{i}.npy", rng.normal(i, 2, (8 + i, 3, 5)).astype(np.float32))
    save("whole.npy", rng.normal(1, 2, (37, 3)).astype(np.float32))
    one, (first, *_) = both(world, *CASES[case])
    assert (first.code, first.stdout) == (one.code, one.stdout)


def test_statistics_have_nothing_to_share_out(tmp_path, folder):
    Path("t.csv").write_text("batch,channel,mean,var,count\n0,0,1,2,8\n", encoding="utf-8")
    (done,) = ranks(tmp_path, 1, "simulate-ema", "t.csv", "--distributed").done()
    assert done.code == 2
    assert "t.csv holds statistics of batches, so there is nothing to compute" in done.stderr


def test_standard_input_is_refused(tmp_path, folder):
    (done,) = ranks(tmp_path, 1, "simulate-ema", "-", "--distributed").done()
    assert done.code == 2
    assert "standard input can be read by one process only" in done.stderr


def test_ranks_that_see_other_files_are_told(tmp_path, save):
    """As on machines that do not share a file system."""
    group, port = Group(tmp_path), free_port()
    for rank, number in ((0, 2), (1, 3)):
        (tmp_path / f"node{rank}").mkdir()
        for i in range(number):
            save(tmp_path / f"node{rank}" / f"b{i}.npy", np.zeros((4, 2), np.float32))
        group.start(
            ("simulate-ema", "b*.npy", "--distributed"),
            environment(rank, 2, port) | {"FOLDER": str(tmp_path / f"node{rank}")},
        )
    done = group.done()
    assert [each.code for each in done] == [2, 2]
    said = "".join(each.stderr for each in done)
    assert "sees other batches than rank 0: their number, their sizes" in said
