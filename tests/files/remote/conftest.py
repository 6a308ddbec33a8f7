"""What the tests of files elsewhere have: stores that end with the test."""

from __future__ import annotations

import fsspec
import pytest

from bncli.files.reading import reading
from bncli.files.remote import failures


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty before and after: `memory.pipe("/x", b"...")`."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def call():
    """A call that reads."""
    with reading() as call:
        yield call


@pytest.fixture
def impatient(monkeypatch):
    """Requests fail soon, and are made again at once."""
    monkeypatch.setattr(failures, "SECONDS", 0.3)
    monkeypatch.setattr(failures, "PAUSES", (0.0, 0.0))
