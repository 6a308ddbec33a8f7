"""What a call knows of files elsewhere: each is looked at once."""

from __future__ import annotations

import os
import stat
import threading
import time
from io import BufferedReader

import pytest

from bncli.errors import FileError
from bncli.files.reading import open_to_read, read_bytes
from bncli.files.remote.store import Store
from bncli.files.save import UNFINISHED, remove_unfinished
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


@pytest.mark.skipif(os.name != "posix", reason="Windows removes no file that is open")
def test_what_was_downloaded_is_removed_where_the_process_ends_on_the_spot(
    memory, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    memory.pipe("/a", b"123")
    store = Store(download=True)
    with store.file(as_path("memory://a")).opened():
        remove_unfinished()
    assert not list(tmp_path.iterdir())
    store.close()
    assert not UNFINISHED


def test_several_files_are_checked_together(memory):
    store = Store()
    for name in ("a", "b", "c"):
        memory.pipe(f"/{name}", b"123")
        store.file(as_path(f"memory://{name}")).opened().readall()
    store.check()
    store.file(as_path("memory://b")).fetched = True
    memory.pipe("/b", b"124")
    for _ in range(2):  # and it stays so
        with pytest.raises(FileError, match=r"memory://b: it changed"):
            store.check()


def test_a_pattern_that_is_refused(memory):
    with pytest.raises(FileError, match="fsspec does not take this pattern"):
        Store().fitting(as_path("memory://run/a**b"))


def test_a_thread_of_a_call_knows_what_the_call_knows(call):
    with web_server(files={"/a": b"123"}) as server:
        path = as_path(f"{server.url}/a")
        assert read_bytes(path) == b"123"
        found = []
        thread = threading.Thread(target=lambda: found.append(read_bytes(path)))
        thread.start()
        thread.join()
        assert found == [b"123"]
        assert len(server.asked) == 1


def test_outside_of_a_call_files_are_read_too(memory):
    memory.pipe("/outside", b"123")
    assert read_bytes(as_path("memory://outside")) == b"123"


def test_files_are_looked_at_together():
    at_once, most = [0], [0]

    def count(asked):
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.02)
        at_once[0] -= 1

    with web_server(files={f"/{k}": b"123" for k in range(12)}, on_request=count) as server:
        store = Store()
        paths = [as_path(f"{server.url}/{k}") for k in range(13)]
        store.look(paths)
        assert 1 < most[0] <= 8
        assert len(server.asked) == 13
        assert store.file(paths[3]).size == 3
        with pytest.raises(FileError, match="404"):
            store.file(paths[12])
        assert len(server.asked) == 13


def test_a_listing_tells_sizes(memory):
    for name in "ab":
        memory.pipe(f"/run/{name}", b"123")
    store = Store()
    assert store.fitting(as_path("memory://run/*")) == ["memory://run/a", "memory://run/b"]
    store._opened = None  # which would ask
    assert store.stat(as_path("memory://run/b")).st_size == 3


def test_outside_of_a_call_a_file_is_looked_at_again():
    with web_server(files={"/a": b"123"}) as server:
        store, path = Store(lasting=0.05), as_path(f"{server.url}/a")
        assert store.file(path).size == store.file(path).size == 3
        assert len(server.asked) == 1
        server.files["/a"], server.etag = b"1234", '"2"'
        time.sleep(0.06)
        assert store.file(path).opened().readall() == b"1234"
