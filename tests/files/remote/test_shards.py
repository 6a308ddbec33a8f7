"""Tasks of many that share files elsewhere: each reads its own, and little is asked of the rest."""

from __future__ import annotations

import io
import time
from collections import Counter

import numpy as np
import pytest

from tests.files.remote.web_server import web_server


@pytest.fixture
def x():
    """Seven inputs of three channels."""
    return np.random.default_rng(0).normal(1, 2, (7, 4, 3)).astype(np.float32)


def content(array) -> bytes:
    """The array as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("named", ["a pattern", "one by one"])
def test_a_task_reads_of_other_urls_nothing(run, folder, x, memory, monkeypatch, named):
    kind, asked, fetched = type(memory), Counter(), set()
    info, cat_file = kind.info, kind.cat_file
    for i in range(7):
        memory.pipe(f"/d/s{i}.npy", content(x[i]))

    def count(self, path, *args, **kwargs):
        asked[path] += 1
        return info(self, path, *args, **kwargs)

    def fetch(self, path, *args, **kwargs):
        fetched.add(path)
        return cat_file(self, path, *args, **kwargs)

    monkeypatch.setattr(kind, "info", count)
    monkeypatch.setattr(kind, "cat_file", fetch)
    every = [f"memory://d/s{i}.npy" for i in range(7)]
    urls = ["memory://d/s*.npy"] if named == "a pattern" else every
    call = ("compute", *urls, "--shard", "1/3", "--save-stats", "p.npz")
    assert run(*call).code == 0
    assert fetched == {"/d/s1.npy", "/d/s4.npy"}
    others = {asked[f"/d/s{i}.npy"] for i in (0, 2, 3, 5, 6)}
    assert others == ({0} if named == "a pattern" else {1})
    fetched.clear()
    assert "none was read again" in run(*call, "--resume").stdout
    assert fetched == {"/d/s1.npy", "/d/s4.npy"}  # whether they have changed


def test_a_task_asks_a_server_for_a_byte_of_other_files(run, folder, x):
    files = {f"/s{i}.npy": content(x[i]) for i in range(7)}
    at_once, most = [0], [0]

    def count(_):
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.02)
        at_once[0] -= 1

    with web_server(files=files, on_request=count) as server:
        urls = [f"{server.url}{name}" for name in files]
        result = run("compute", *urls, "--shard", "1/3", "--save-stats", "p.npz")
        assert result.code == 0, result.stderr
        others = [each for each in server.asked if each.path not in {"/s1.npy", "/s4.npy"}]
    assert sorted(each.path for each in others) == [f"/s{i}.npy" for i in (0, 2, 3, 5, 6)]
    assert {(each.wanted, each.sent) for each in others} == {((0, 1), 1)}
    assert most[0] > 1
