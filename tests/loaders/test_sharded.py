import json

import pytest
import safetensors.torch
import torch

from bncli.errors import CorruptFileError, FileError, MissingTensorError, UnsupportedFileError
from bncli.files.reading import reading
from bncli.loaders import open_file, open_model
from bncli.paths import as_path
from bncli.state_dict import batch_norm_layers, read_state
from tests.files.remote.web_server import web_server

from . import memory
from .files import assert_same, saved

STATE = {
    "bn.weight": torch.rand(3),
    "bn.bias": torch.rand(3),
    "bn.running_mean": torch.rand(3),
    "bn.running_var": torch.rand(3).bfloat16(),
    "fc.weight": torch.rand(2, 2),
}


def shard(directory, save, suffix):
    names = [f"model-0000{n}-of-00002.{suffix}" for n in (1, 2)]
    parts = [dict(list(STATE.items())[:3]), dict(list(STATE.items())[3:])]
    for name, part in zip(names, parts, strict=True):
        (directory / name).write_bytes(save(part))
    places = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    return write(directory, places)


def write(directory, places):
    path = directory / "model.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}, indent=2))
    return path


@pytest.mark.parametrize(
    ("save", "suffix", "container"),
    [
        (safetensors.torch.save, "safetensors", "safetensors"),
        (saved, "bin", "torch-zip"),
        (lambda part: saved(part, _use_new_zipfile_serialization=False), "bin", "torch-legacy"),
    ],
)
def test_an_index_opens_all_shards(save, suffix, container, tmp_path):
    file = open_file(shard(tmp_path, save, suffix))
    assert file.container == container
    assert list(file.tensors) == list(STATE)
    assert_same(file.tensors, STATE)
    (layer,) = batch_norm_layers(file)  # its tensors lie in two files
    assert read_state(layer).running_var.shape == (3,)


def test_shards_that_are_not_there_or_do_not_fit(tmp_path):
    path = shard(tmp_path, safetensors.torch.save, "safetensors")
    second = tmp_path / "model-00002-of-00002.safetensors"
    second.write_bytes(safetensors.torch.save({"other": torch.zeros(1)}))
    with pytest.raises(
        MissingTensorError, match=r"its tensor bn.running_var is not in model-00002"
    ):
        open_file(path)
    second.unlink()
    with pytest.raises(FileError, match=r"its shard model-00002.* is missing.*; download it too"):
        open_file(path)
    second.mkdir()
    with pytest.raises(FileError, match=r"model-00002.*: it should be a shard, but it is a"):
        open_file(path)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    second.rmdir()
    with pytest.raises(
        FileError, match=r"its shards model-00001-.*, model-00002-.* are missing; .* them too"
    ):
        open_file(path)
    shard(tmp_path, safetensors.torch.save, "safetensors")
    second.write_bytes(b"hello")
    with pytest.raises(
        UnsupportedFileError, match=r"neither safetensors nor written by torch.save"
    ):
        open_file(path)


OUTSIDE = ["../x", "/etc/passwd", "a/../../x", "a/..", "a//b", "a/", "./a", "..", ".", ""]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_shard_that_is_refused_is_not_called_missing(tmp_path, status, indexed):
    shard(tmp_path, safetensors.torch.save, "safetensors")
    files = {f"/{path.name}": path.read_bytes() for path in tmp_path.iterdir()}
    first, second = "/model-00001-of-00002.safetensors", "/model-00002-of-00002.safetensors"
    with web_server(files=files, refused={second: status}) as server, reading():
        if not indexed:
            del files["/model.index.json"]
        url = server.url + ("/model.index.json" if indexed else first)
        with pytest.raises(FileError) as caught:
            open_file(url) if indexed else open_model(as_path(url))
    if status in (404, 410):
        assert f"{second[1:]} is missing" in str(caught.value)
    else:
        assert f"{second}: the server answered {status}" in str(caught.value)
        assert "credentials" in str(caught.value)


@pytest.mark.parametrize("name", [*OUTSIDE, "C:x", "a\\b", "a\0b"])
def test_a_shard_lies_beside_the_index_or_below_it(name, tmp_path):
    path = tmp_path / "inner"
    path.mkdir()
    (path / "a").mkdir()
    (tmp_path / "x").write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(CorruptFileError, match="but such files lie beside it or in folders below"):
        open_file(write(path, {"a": name}))


def test_a_shard_in_a_folder_below_the_index(tmp_path):
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    shard = tmp_path / "sub" / "deeper" / "x.safetensors"
    shard.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    file = open_file(write(tmp_path, {"a": "sub/deeper/x.safetensors"}))
    assert file.tensors["a"].path == shard
    with pytest.raises(FileError, match=r"its shard sub/y is missing"):
        open_file(write(tmp_path, {"a": "sub/y"}))


def test_an_index_of_lists_takes_little_memory(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b'{"weight_map":[' + b"[]," * 10_000_000 + b"1]}")
    before = memory.mark()
    with pytest.raises(CorruptFileError, match="far more lists and values than a table of tensors"):
        open_file(path)
    assert memory.grown(before) < 150_000


def test_a_large_honest_index_is_read(tmp_path):
    places = {f"layers.{n}.experts.{n % 64}.down_proj.weight": "x" for n in range(200_000)}
    path = write(tmp_path, places)
    with pytest.raises(FileError, match="its shard x is missing"):
        open_file(path)


def test_an_index_names_no_index(tmp_path):
    with pytest.raises(UnsupportedFileError):
        open_file(write(tmp_path, {"a": "model.index.json"}))


def test_an_index_that_is_none(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b'{"weight_map": {"a": 1}}')
    with pytest.raises(CorruptFileError, match="its weight_map is not a table of file names"):
        open_file(path)
    path.write_bytes(b'{"weight_map": {"a": ')
    with pytest.raises(CorruptFileError, match="it is not valid JSON"):
        open_file(path)
