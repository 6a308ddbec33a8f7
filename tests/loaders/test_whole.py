"""Folders and shards: which files are one model, and what is said where they are not."""

import json
import os

import pytest
import safetensors.torch
import torch

from bncli.errors import FileError, UnsupportedFileError
from bncli.loaders import open_file, open_model
from bncli.loaders.whole import Models, files_of

from .files import assert_same, saved
from .pickles import zipped

STATE = {f"bn.{leaf}": torch.rand(3) for leaf in ("weight", "bias", "running_mean", "running_var")}
PARTS = [{key: value} for key, value in STATE.items()]


def shards(folder, stem="model", suffix="safetensors", save=safetensors.torch.save, first=1):
    """The state in four numbered files; their paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, part in enumerate(PARTS, first):
        paths.append(folder / f"{stem}-{number:05d}-of-00004.{suffix}")
        paths[-1].write_bytes(save(part))
    return paths


def index(folder, paths, name="model.safetensors.index.json"):
    places = {key: path.name for path, part in zip(paths, PARTS, strict=True) for key in part}
    (folder / name).write_text(json.dumps({"weight_map": places}))
    return folder / name


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("suffix", "save", "first"),
    [("safetensors", safetensors.torch.save, 1), ("bin", saved, 1), ("pt", saved, 0)],
)
def test_a_folder_and_every_shard_open_the_whole(tmp_path, suffix, save, first, indexed):
    paths = shards(tmp_path, suffix=suffix, save=save, first=first)
    main = index(tmp_path, paths) if indexed else paths[0]
    (tmp_path / "config.json").write_text("{}")
    for path in (tmp_path, main, *paths):
        file = open_model(path)
        assert file.path == main
        assert_same(file.tensors, STATE)
    assert list(open_file(tmp_path).tensors) == list(STATE)
    assert list(open_file(paths[1]).tensors) == list(PARTS[1])  # a shard can still be looked at


@pytest.mark.parametrize("indexed", [True, False])
def test_what_is_missing_is_named(tmp_path, indexed):
    paths = shards(tmp_path)
    if indexed:
        index(tmp_path, paths)
    paths[1].unlink()
    for gone in (1, 2):
        for path in (tmp_path, paths[0], paths[3]):
            with pytest.raises(FileError, match=r"missing; download") as caught:
                open_model(path)
            assert all(name.name in str(caught.value) for name in paths[1 : gone + 1])
            assert paths[3].name not in str(caught.value)
        paths[2].unlink(missing_ok=True)


def test_files_that_share_a_name_are_no_shards(tmp_path):
    """As an epoch of ten, or a fold of a cross-validation, may be called."""
    for number in (1, 2):
        torch.save(STATE, tmp_path / f"epoch-{number:05d}-of-00010.pt")
    path = tmp_path / "epoch-00002-of-00010.pt"
    assert open_model(path).path == path
    with pytest.raises(UnsupportedFileError, match="several models; name one of them"):
        open_model(tmp_path)


@pytest.mark.parametrize(
    "name", ["m-00001-of-00001.pt", "m-1-of-2.pt", "m-00009-of-00002.pt", "m-00001-of-00002.txt"]
)
def test_names_that_are_none_of_a_set(tmp_path, name):
    torch.save(STATE, tmp_path / name)
    assert open_model(tmp_path / name).path == tmp_path / name


def test_two_sets_in_one_folder(tmp_path):
    model, ema = shards(tmp_path), shards(tmp_path, "ema")
    assert open_model(ema[2]).path == ema[0]
    assert open_model(model[2]).path == model[0]
    with pytest.raises(UnsupportedFileError, match="several models; name one of them"):
        open_model(tmp_path)


def test_a_folder_with_one_checkpoint(tmp_path):
    torch.save(STATE, tmp_path / "net.pt")
    (tmp_path / "config.json").write_text("{}")
    assert open_model(tmp_path).path == tmp_path / "net.pt"
    (tmp_path / "stats.npz").write_bytes(zipped({"bncli.json": b"{}"}))  # no model
    assert open_model(tmp_path).path == tmp_path / "net.pt"
    (tmp_path / "stats.npz").unlink()
    (tmp_path / "optimizer.pt").write_bytes(saved({}))
    with pytest.raises(UnsupportedFileError, match=r"several models.*\(net.pt, optimizer.pt\)"):
        open_model(tmp_path)
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    assert open_model(tmp_path).path == tmp_path / "model.safetensors"


def test_an_index_whose_shards_are_not_there_gives_way_to_one_that_is_whole(tmp_path):
    gone = shards(tmp_path, suffix="bin", save=saved)
    index(tmp_path, gone, "pytorch_model.bin.index.json")
    for path in gone:
        path.unlink()
    whole = index(tmp_path, shards(tmp_path))
    assert open_model(tmp_path).path == whole
    shards(tmp_path, suffix="bin", save=saved)
    with pytest.raises(UnsupportedFileError, match="several models"):
        open_model(tmp_path)


def test_shards_in_a_folder_below_their_index(tmp_path):
    paths = shards(tmp_path / "sub")
    places = {
        key: f"sub/{path.name}" for path, part in zip(paths, PARTS, strict=True) for key in part
    }
    main = tmp_path / "x.index.json"
    main.write_text(json.dumps({"weight_map": places}))
    assert open_model(paths[1]).path == main


def test_a_folder_without_a_checkpoint(tmp_path):
    (tmp_path / "readme.txt").touch()
    with pytest.raises(UnsupportedFileError, match="a directory without a checkpoint in it"):
        open_model(tmp_path)


def test_a_damaged_shard_is_named(tmp_path):
    paths = shards(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:-4])
    with pytest.raises(FileError, match=paths[2].name):
        open_model(tmp_path)


def test_each_folder_is_looked_at_once(tmp_path, monkeypatch):
    paths = shards(tmp_path)
    looked = []
    real = os.listdir
    monkeypatch.setattr("os.listdir", lambda folder: looked.append(folder) or real(folder))
    models = Models()
    for path in paths:
        models.path_of(path)
    assert sorted(looked) == [tmp_path.parent, tmp_path]


def test_a_shard_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="there is no such file"):
        open_model(tmp_path / "x-00001-of-00002.pt")
    shards(tmp_path)[3].unlink()
    assert Models().path_of(tmp_path / "x-00001-of-00004.pt").name == "x-00001-of-00004.pt"


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_model_that_is_a_folder_is_one_of_several_beside_a_file(tmp_path):
    """A distributed checkpoint or a SavedModel, in the folder of a file or beside it."""
    from torch.distributed import checkpoint

    folder = tmp_path / "dcp"
    checkpoint.save(STATE, checkpoint_id=folder, no_dist=True)
    (folder / "meta.pt").write_bytes(saved({}))  # what trainers save with it
    assert Models().path_of(folder) == folder
    assert_same(open_model(folder).tensors, STATE)
    torch.save(STATE, folder / "net.pth")
    assert Models().path_of(folder) == folder
    several = r"with several models; name one of them \(\.metadata, net\.pth\)"
    for opened in (open_model, open_file):
        with pytest.raises(UnsupportedFileError, match=several):
            opened(folder)
    assert open_model(folder / ".metadata").path == folder
    assert open_model(folder / "net.pth").path == folder / "net.pth"
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    with pytest.raises(UnsupportedFileError, match=r"several models; .* \(dcp, saved\)"):
        open_model(tmp_path)
    torch.save(STATE, tmp_path / "net.pth")
    assert Models().path_of(tmp_path) == tmp_path
    with pytest.raises(UnsupportedFileError, match=r"several models; .* \(net.pth, dcp, saved\)"):
        open_model(tmp_path)
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    assert open_model(tmp_path).path == tmp_path / "model.safetensors"


def test_all_files_of_a_model(tmp_path):
    paths = shards(tmp_path / "numbered")
    for given in (tmp_path / "numbered", paths[2]):
        assert files_of(given, Models()) == paths
    indexed = shards(tmp_path / "indexed")
    table = index(tmp_path / "indexed", indexed)
    for given in (tmp_path / "indexed", table, indexed[1]):
        assert files_of(given, Models()) == [table, *indexed]
    alone = tmp_path / "alone.pt"
    assert files_of(alone, Models()) == [alone]
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        (tmp_path / "saved" / name).write_bytes(b"")
    assert [path.name for path in files_of(tmp_path / "saved", Models())] == [
        "saved_model.pb", "variables.index",
    ]  # fmt: skip
