"""What a call knows of files elsewhere: each is looked at once."""

from __future__ import annotations

import os
import stat
from io import BufferedReader

import pytest

from bncli.errors import FileError
from bncli.files.reading import open_to_read, read_bytes
from bncli.files.remote.store import Store
from bncli.paths import as_path
from tests.files.remote.web_server import web_server


def test_the_questions_of_a_path(call, memory):
    memory.pipe("/run/a.pt", b"12345")
    path = as_path("memory://run/a.pt")
    assert path.exists()
    assert path.is_file()
    assert not path.is_dir()
    assert path.stat().st_size == 5
    assert stat.S_ISREG(path.stat().st_mode)
    assert path.parent.is_dir()
    assert stat.S_ISDIR(path.parent.stat().st_mode)
    assert not path.parent.is_file()
    assert [str(each) for each in path.parent.iterdir()] == ["memory://run/a.pt"]
    assert not path.with_name("b.pt").exists()
    with pytest.raises(FileError, match="there is no such file"):
        path.with_name("b.pt").stat()
    with pytest.raises(OSError, match="no such file"):
        list(as_path("memory://nowhere/").iterdir())


def test_a_reader_is_like_a_file(call, memory):
    memory.pipe("/a", b"0123456789")
    with open_to_read("memory://a") as file:
        assert file.seek(0, os.SEEK_END) == 10
        assert file.seek(-3, os.SEEK_CUR) == 7
        assert file.tell() == 7
        assert (file.read(9), file.read(9)) == (b"789", b"")
        file.seek(2)
        assert file.readall() == b"23456789"
        with pytest.raises(OSError):
            file.seek(-1)
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
    assert read_bytes(as_path("memory://a")) == b"0123456789"
    assert BufferedReader(open_to_read("memory://a")).readline() == b"0123456789"


def test_a_call_asks_for_a_file_once(call):
    with web_server(files={"/a": b"123"}) as server:
        path = as_path(f"{server.url}/a")
        for _ in range(3):
            assert path.exists()
            assert read_bytes(path) == b"123"
        assert len(server.asked) == 1
        missing = path.with_name("b")
        assert not missing.exists()
        assert not missing.exists()
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("memory://run/*.pt", ["memory://run/a.pt", "memory://run/b.pt"]),
        ("memory:///run/*.pt", ["memory:///run/a.pt", "memory:///run/b.pt"]),
        ("memory://run/[bc].pt", ["memory://run/b.pt"]),
        ("memory://run/**/?.pt", ["memory://run/a.pt", "memory://run/b.pt", "memory://run/d/c.pt"]),
        ("memory://no*", []),
    ],
)
def test_patterns(memory, pattern, found):
    for name in ("a.pt", "b.pt", "x.npy", "d/c.pt"):
        memory.pipe(f"/run/{name}", b"1")
    assert Store().fitting(as_path(pattern)) == found


def test_a_pattern_where_a_server_lists():
    with web_server(files={"/run/a.pt": b"1", "/run/b.npy": b"2"}, listing=True) as server:
        found = Store().fitting(as_path(f"{server.url}/run/*.pt"))
        assert found == [f"{server.url}/run/a.pt"]


def test_what_was_downloaded_is_removed(memory, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    memory.pipe("/a", b"123")
    store = Store(download=True)
    with store.file(as_path("memory://a")).opened() as file:
        assert file.readall() == b"123"
    assert len(list(tmp_path.rglob("*"))) == 2
    store.close()
    assert not list(tmp_path.iterdir())


def test_several_files_are_checked_together(memory):
    store = Store()
    for name in ("a", "b", "c"):
        memory.pipe(f"/{name}", b"123")
        store.file(as_path(f"memory://{name}")).opened().readall()
    store.check()
    store.file(as_path("memory://b")).fetched = True
    memory.pipe("/b", b"124")
    with pytest.raises(FileError, match=r"memory://b: it changed"):
        store.check()
