"""`bncli compute --shard`: parts of the inputs, whose report is that of the file they make."""

import numpy as np
import pytest

from tests.commands.samples import random, table


@pytest.fixture
def shards(save):
    """Seven inputs of one tensor, in files."""
    x = random(21, 3, 4, 5) + np.array([1, -50, 1e4], np.float32)[:, None, None]
    for i in range(7):
        save(f"s{i}.npy", x[3 * i : 3 * i + 3])
    return x


def test_the_parts_come_to_the_whole(run, shards):
    for k in range(3):
        run("compute", "s*.npy", "--shard", f"{k}/3", "--save-stats", f"p{k}.npz", "-q")
    merged = table(run("compute", "p2.npz", "p0.npz", "p1.npz", "-f", "json"))
    whole = table(run("compute", "s*.npy", "-f", "json"))
    for row, wanted in zip(merged, whole, strict=True):
        assert [row[key] for key in ("count", "min", "max")] == [
            wanted[key] for key in ("count", "min", "max")
        ]
        assert row["mean"] == pytest.approx(wanted["mean"], rel=1e-12)
        assert row["var"] == pytest.approx(wanted["var"], rel=1e-12)


def test_the_report_of_a_shard_is_that_of_its_part(run, shards):
    mine = run("compute", "s*.npy", "--shard", "1/3", "--save-stats", "p1.npz", "-f", "json")
    again = run("compute", "p1.npz", "--allow-missing-parts", "-f", "json")
    assert table(mine) == table(again)


def test_what_a_finished_part_holds_is_not_read_again(run, shards, save):
    call = ("compute", "s*.npy", "--shard", "0/3", "--save-stats", "p.npz")
    assert run(*call).code == 0
    twice = run(*call)
    assert (twice.code, "it exists already" in twice.stderr) == (2, True)
    assert "none was read again" in run(*call, "--resume").stdout
    save("s3.npy", np.zeros((3, 3, 4, 5), np.float32))
    changed = run(*call, "--resume")
    assert (changed.code, "s3.npy has changed" in changed.stderr) == (2, True)


def test_a_shard_without_inputs_has_nothing_to_do(run, shards):
    result = run("compute", "s*.npy", "--shard", "7/8", "--save-stats", "p.npz")
    assert (result.code, "there are only 7 inputs" in result.stdout) == (3, True)
