"""Names of files in models, which may lead anywhere."""

import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.held import held
from bncli.loaders.beside import beside
from bncli.paths import as_path

OUTSIDE = [
    "../x", "/etc/passwd", "a/../../x", "a/..", "a//b", "a/", "./a", "..", ".", "", "C:x", "a\\b",
    "a\0b", "\ud800", "x" * 256, "x/" * 600 + "x",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_of_the_folder_or_nowhere(name, tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(CorruptFileError, match="lie beside it or in folders below"):
        beside(tmp_path / "in" / "model", name)


@pytest.mark.parametrize("name", ["a", "sub/a", "a" * 255, "é ü"])
def test_names_of_files_that_may_be_missing(name, tmp_path):
    path = tmp_path / name
    assert beside(tmp_path / "model", name) == path
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert beside(tmp_path / "model", name) == path


def test_links_out_of_the_folder(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "x").touch()
    (inside / "link").symlink_to(tmp_path / "x")
    (inside / "sub").symlink_to(tmp_path)
    (inside / "lost").symlink_to(tmp_path / "missing")
    for name in ("link", "sub/x", "lost"):
        with pytest.raises(UnsupportedFileError, match="is a link to a place outside of its"):
            beside(inside / "model", name)


def test_links_of_a_cache_and_a_folder_that_is_a_link(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for name in ("model", "part"):
        (blobs / name).touch()
        (snapshot / name).symlink_to(blobs / name)
    assert beside(snapshot / "model", "part") == snapshot / "part"
    (tmp_path / "short").symlink_to(blobs)
    assert beside(tmp_path / "short" / "model", "part").exists()
    (snapshot / "own").touch()
    assert beside(snapshot / "model", "own").exists()


def test_files_beside_one_that_is_held_in_memory(tmp_path):
    """They are opened by their own bytes."""
    (tmp_path / "part").write_bytes(b"own")
    path = beside(held(tmp_path / "model.gz", b"held"), "part")
    assert type(path) is type(tmp_path)
    assert path.read_bytes() == b"own"


def test_beside_a_model_elsewhere():
    model = as_path("https://host/run/model.onnx?token=1")
    assert beside(model, "data/x.bin").url == "https://host/run/data/x.bin?token=1"
    assert beside(model, "x?a=1").url == "https://host/run/x%3Fa%3D1?token=1"
    assert beside(as_path("s3://bucket/m.onnx"), "x?.bin").url == "s3://bucket/x?.bin"
    for name in ("../x", "/x", "a/../../x", ""):
        with pytest.raises(CorruptFileError):
            beside(model, name)
