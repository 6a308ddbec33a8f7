"""The files of a baseline: relative to its folder, and known by where they lead to."""

from __future__ import annotations

import os

import pytest

from bncli.gate.files import Folder, reached

links = pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")


@pytest.mark.parametrize("path", ["", "-", "<Net>", "<ndarray 2>"])
def test_standard_input_and_objects_are_no_file(folder, path):
    here = Folder.of("known.json")
    assert here.kept(path) == here.reached(path) == reached(path) == path


def test_paths_are_kept_relative_to_the_baseline(folder):
    (folder / "ci").mkdir()
    beside, below = Folder.of("known.json"), Folder.of("ci/known.json")
    assert beside.kept("a/b.pt") == "a/b.pt"
    assert beside.kept("./a/../b.pt") == "b.pt"
    assert below.kept("a.pt") == "../a.pt"
    assert below.kept("ci/a.pt") == below.kept(str(folder / "ci/a.pt")) == "a.pt"
    assert below.reached("../a.pt") == beside.reached("a.pt") == reached("a.pt")
    assert reached("a.pt") == os.path.normcase(os.path.realpath(folder / "a.pt"))


@links
def test_inside_of_the_folder_a_link_stays_itself_and_outside_it_is_followed(folder):
    for name in ("ci", "real", "other"):
        (folder / name).mkdir()
    (folder / "ci/best.pt").symlink_to(folder / "real/1.pt")
    (folder / "linked").symlink_to(folder / "other", target_is_directory=True)
    here = Folder.of("ci/known.json")
    assert here.kept("ci/best.pt") == "best.pt"
    assert here.reached("best.pt") == reached("real/1.pt")
    assert here.kept("linked/a.pt") == "../other/a.pt"


@links
def test_a_baseline_that_is_a_link_lies_where_that_leads_to(folder):
    (folder / "ci").mkdir()
    (folder / "known.json").symlink_to(folder / "ci/known.json")
    assert Folder.of("known.json") == Folder.of("ci/known.json")


def test_a_name_with_a_nul_leads_to_itself():
    assert reached("a\0b") == "a\0b"
