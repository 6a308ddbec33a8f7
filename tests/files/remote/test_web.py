"""A file behind HTTP, from servers good and bad."""

from __future__ import annotations

import errno
import io
import random

import pytest

from bncli.errors import FileError
from bncli.files.remote import failures
from bncli.files.remote.pieces import FIRST, LEAST
from bncli.files.remote.store import Store, asked
from bncli.paths import as_path
from tests.files.remote.web_server import web_server

DATA = random.Random(0).randbytes(3 * FIRST)


@pytest.fixture
def server():
    with web_server(files={"/x": DATA, "/small": b"12345", "/empty": b""}) as server:
        yield server


def read(server, name="x", at=FIRST + 7, count=9, store=None):
    file = (store or Store()).file(as_path(f"{server.url}/{name}"))
    with file.opened() as opened:
        opened.seek(at)
        return opened.read(count)


def test_a_range_is_a_request_behind_the_first(server):
    assert read(server) == DATA[FIRST + 7 : FIRST + 16]
    assert [each.wanted[0] for each in server.asked] == [0, FIRST + 7]
    assert server.bodies < 2 * FIRST


def test_the_first_bytes_and_small_files_are_one_request(server):
    assert read(server, at=3) == DATA[3:12]
    assert read(server, "small", at=2) == b"345"
    assert read(server, "empty", at=0) == b""
    assert len(server.asked) == 3
    server.ranges = False
    assert read(server, "small", at=2) == b"345"
    assert read(server, "empty", at=0) == b""


@pytest.mark.parametrize("name", ["x", "small"])
def test_redirects_are_followed(server, name):
    server.moved["/there"] = f"/{name}"
    assert read(server, "there", at=1, count=3) == server.files[f"/{name}"][1:4]


@pytest.mark.parametrize("fault", [500, 503, 429, "cut"])
@pytest.mark.parametrize("times", [1, 2])
def test_what_passes_is_tried_again(server, impatient, fault, times):
    server.faults = [fault] * times
    assert read(server) == DATA[FIRST + 7 : FIRST + 16]
    store = Store()
    read(server, at=0, store=store)
    server.faults = [fault] * times
    assert read(server, store=store) == DATA[FIRST + 7 : FIRST + 16]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (404, "404 Not Found"),
        (403, "403 Forbidden"),
        (500, "500 Internal Server Error in 3 tries"),
        (416, "416"),
        ("cut", "cut short in 3 tries"),
        ("hang", "no answer in time, in 3 tries"),
        ("short", "it changed"),
    ],
)
def test_what_stays_wrong_is_one_sentence(server, impatient, fault, said):
    server.faults = [fault] * failures.TRIES
    with pytest.raises(FileError, match=said):
        read(server)
    server.faults = []
    store = Store()
    read(server, at=0, store=store)
    server.faults = [fault] * failures.TRIES
    with pytest.raises(FileError, match="it changed" if fault == 416 else said):
        read(server, store=store)


def test_a_body_of_unknown_length_that_is_cut(server, impatient):
    store = Store()
    read(server, at=0, store=store)
    server.length = False
    server.faults = ["cut"]
    assert read(server, store=store) == DATA[FIRST + 7 : FIRST + 16]
    server.faults = ["cut"] * failures.TRIES
    with pytest.raises(FileError, match="cut short in 3 tries"):
        read(server, at=2 * FIRST + LEAST, store=store)


def test_no_server(impatient):
    with web_server() as server:
        pass
    with pytest.raises(FileError, match=r"cannot be reached, in 3 tries \(connection refused\)"):
        read(server)


@pytest.mark.parametrize("length", [True, False])
def test_without_ranges_nothing_is_read_but_downloaded(server, length):
    server.ranges, server.length = False, length
    server.files["/x"] = DATA * 40
    with pytest.raises(FileError, match="--download"):
        read(server)
    store = Store(download=True)
    try:
        assert read(server, store=store) == DATA[FIRST + 7 : FIRST + 16]
        assert len(server.asked) == 2
        store.check()
        assert len(server.asked) == 2
    finally:
        store.close()


def test_a_download_is_tried_again(server, impatient):
    server.faults = [500, "cut"]
    store = Store(download=True)
    try:
        file = store.file(as_path(f"{server.url}/x"))
        with file.opened() as opened:
            assert opened.readall() == DATA
    finally:
        store.close()


@pytest.mark.parametrize("change", ["size", "etag", "gone", "ranges"])
def test_a_change_between_two_reads(server, change):
    store = Store()
    read(server, at=0, store=store)
    if change == "size":
        server.files["/x"] = DATA + b"1"
    elif change == "etag":
        server.etag = '"2"'
    elif change == "gone":
        del server.files["/x"]
    else:
        server.ranges = False
    said = {"gone": "no such file", "ranges": "--download"}.get(change, "it changed")
    with pytest.raises(FileError, match=said):
        read(server, store=store)


def test_a_change_is_seen_at_the_end(server):
    store = Store()
    read(server, store=store)
    store.check()
    asked = len(server.asked)
    store.check()
    assert len(server.asked) == asked  # nothing was read since
    read(server, at=2 * FIRST + 99, store=store)
    server.etag = '"2"'
    with pytest.raises(FileError, match="it changed"):
        store.check()


def test_a_body_that_is_encoded_has_no_ranges(server):
    from bncli.files.remote.web import _check

    class Answer:
        status = 206
        headers = {"Content-Encoding": "gzip"}  # noqa: RUF012

    with pytest.raises(failures.NoRangesError):
        _check(Answer)


def test_a_download_into_a_full_disk(server):
    class Full(io.RawIOBase):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    class Place:
        def open(self, mode):
            return Full()

    path = as_path(f"{server.url}/x")
    transport = Store().file(path).transport
    with pytest.raises(FileError, match="no space left on device"):
        asked(path, lambda: transport.download(Place()))


def test_a_size_is_asked_with_a_byte(server):
    store = Store()
    paths = [as_path(f"{server.url}/{name}") for name in ("x", "small", "empty", "absent")]
    store.measure(paths)
    store.measure(paths)
    assert [store.stat(path).st_size for path in paths[:3]] == [3 * FIRST, 5, 0]
    with pytest.raises(FileError, match="404 Not Found"):
        store.stat(paths[3])
    assert {each.path: (each.wanted, each.sent) for each in server.asked} == {
        "/x": ((0, 1), 1), "/small": ((0, 1), 1), "/empty": ((0, 1), 0), "/absent": ((0, 1), 0)
    }  # fmt: skip
    assert len(server.asked) == 4


@pytest.mark.parametrize("length", [True, False])
def test_a_size_without_ranges(server, length):
    """A length is enough; without one, only a download tells."""
    server.ranges, server.length = False, length
    server.files["/x"] = DATA * 40
    path, store = as_path(f"{server.url}/x"), Store()
    store.measure([path])
    if length:
        assert store.stat(path).st_size == len(DATA) * 40
        assert server.bodies < len(DATA) * 40
    else:
        with pytest.raises(FileError, match="--download"):
            store.stat(path)
    store = Store(download=True)
    try:
        store.measure([path])
        assert store.stat(path).st_size == len(DATA) * 40
    finally:
        store.close()
