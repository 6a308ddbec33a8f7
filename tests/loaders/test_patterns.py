"""Patterns that a shell did not expand."""

from __future__ import annotations

from pathlib import Path

import pytest

from bncli.errors import FileError
from bncli.loaders.patterns import expanded, natural, once


@pytest.fixture
def files(folder):
    """Numbered files, and a folder that fits the same patterns."""
    for number in (1, 9, 10):
        Path(f"b{number}.pt").touch()
    Path("b2.pt").mkdir()
    return folder


def test_a_pattern_means_files_in_the_order_asked_for(files):
    assert expanded(["b*.pt"]) == ["b1.pt", "b10.pt", "b9.pt"]
    assert expanded(["b*.pt"], key=natural) == ["b1.pt", "b9.pt", "b10.pt"]
    assert expanded(["b9.pt", "b*.pt::x"], key=natural) == [
        "b9.pt",
        "b1.pt::x",
        "b9.pt::x",
        "b10.pt::x",
    ]
    assert expanded(["b9.pt", "b[19].pt"]) == ["b9.pt", "b1.pt"]
    assert expanded(["no.pt"]) == ["no.pt"]  # a name, which is missed where it is opened
    with pytest.raises(FileError, match=r"^c\*.pt: no file fits this pattern\.$"):
        expanded(["c*.pt"])


def test_brackets_mean_sets_and_themselves(files):
    Path("run[1].pt").touch()
    Path("run1.pt").touch()
    assert expanded(["run[1].pt"]) == ["run[1].pt"]  # a file that is called so
    assert expanded(["run[1]*"]) == ["run1.pt", "run[1].pt"]


def test_the_same_file_stands_once(files):
    assert once(["b1.pt", "./b1.pt", "b1.pt::x", "b9.pt"]) == ["b1.pt", "b1.pt::x", "b9.pt"]


def test_natural_order():
    names = ["a10", "a9", "a", "a9b", "b1", "a010"]
    assert sorted(names, key=natural) == ["a", "a9", "a9b", "a10", "a010", "b1"]
