"""One process at a time, by the folder or by a mark, and never longer than a minute."""

from __future__ import annotations

import os
import sys

import pytest

from bncli.errors import FileError
from bncli.gate import lock
from bncli.gate.lock import locked


@pytest.fixture
def at_once(monkeypatch):
    """A clock that goes on by a second whenever one waits."""
    waited = []
    monkeypatch.setattr(lock.time, "sleep", waited.append)
    monkeypatch.setattr(lock.time, "monotonic", lambda: float(len(waited)))
    return waited


@pytest.fixture
def without_flock(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks a folder")
def test_who_comes_second_waits_for_a_minute(folder, at_once):
    with locked(folder / "known.json"):
        assert list(folder.iterdir()) == []  # nothing lies beside it
        busy = pytest.raises(FileError, match="another process has been writing it for a minute")
        with busy, locked(folder / "other.json"):  # the folder is held, for all in it
            raise AssertionError
        assert 60 <= len(at_once) <= 62
    with locked(folder / "known.json"):
        pass


def test_a_mark_stands_while_the_block_runs_and_goes_with_it(folder, at_once, without_flock):
    mark = folder / ".known.json.lock"
    with locked(folder / "known.json"):
        assert mark.exists()
        with pytest.raises(FileError, match="another process"), locked(folder / "known.json"):
            raise AssertionError
        with locked(folder / "other.json"):
            pass
    assert not mark.exists()
    with pytest.raises(ZeroDivisionError), locked(folder / "known.json"):
        raise ZeroDivisionError
    assert not mark.exists()


@pytest.mark.parametrize(("age", "left"), [(70, False), (50, True)])
def test_a_mark_of_a_crash_is_taken_away(folder, at_once, without_flock, age, left):
    mark = folder / ".known.json.lock"
    mark.touch()
    then = mark.stat().st_mtime - age
    os.utime(mark, (then, then))
    if left:
        with pytest.raises(FileError), locked(folder / "known.json"):
            raise AssertionError
    else:
        with locked(folder / "known.json"):
            assert at_once == []
    assert mark.exists() is left


def test_a_folder_that_is_not_there_cannot_be_written(folder, at_once):
    refused = pytest.raises(FileError, match=r"cannot be written \(No such file or directory\)")
    with refused, locked(folder / "nowhere/known.json"):
        raise AssertionError
