"""Checkpoints that were compressed: read from memory, under the file's path."""

import bz2
import gzip
import io
import lzma

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.reading import reading
from bncli.loaders import open_file
from bncli.loaders.patches import edits_of
from bncli.state_dict import batch_norm_layers, read_state

from .files import assert_same, packed, saved, tarred

PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


def state():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)).state_dict()


def write(tmp_path, data):
    path = tmp_path / "x.gz"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("how", PACK)
def test_a_checkpoint(how, old, tmp_path):
    data = saved(state(), _use_new_zipfile_serialization=not old)
    path = write(tmp_path, PACK[how](data))
    file = open_file(path)
    assert file.container == f"torch-{'legacy' if old else 'zip'} in {how}"
    assert file.path == path
    assert_same(file.tensors, state())
    (layer,) = batch_norm_layers(file)
    assert read_state(layer).num_batches_tracked == 0


def test_an_array_and_the_arrays_of_an_archive(tmp_path):
    out = io.BytesIO()
    np.save(out, np.arange(5.0))
    assert_same(
        open_file(write(tmp_path, gzip.compress(out.getvalue()))).tensors, {"": np.arange(5.0)}
    )
    out = io.BytesIO()
    np.savez_compressed(out, a=np.arange(5.0))
    assert_same(
        open_file(write(tmp_path, gzip.compress(out.getvalue()))).tensors, {"a": np.arange(5.0)}
    )


def test_a_tar_archive(tmp_path):
    path = write(tmp_path, gzip.compress(tarred({"model.pth": saved(state())})))
    file = open_file(path)
    assert file.container == "torch-zip in tar in gzip"
    assert_same(file.tensors, {f"model.{key}": value for key, value in state().items()})


def test_its_bytes_cannot_be_replaced(tmp_path):
    file = open_file(write(tmp_path, gzip.compress(saved(state()))))
    with pytest.raises(UnsupportedFileError, match="torch-zip in gzip files cannot be replaced"):
        edits_of(file, {"1.bias": np.ones(6)})


def test_what_is_damaged_inside_is_said_with_the_file(tmp_path):
    data = saved(state())
    path = write(tmp_path, gzip.compress(data[: len(data) // 2]))
    with pytest.raises(CorruptFileError, match=r"x\.gz: in its gzip compression, .*cut short"):
        open_file(path)
    at = data.index(state()["0.weight"].numpy().tobytes())
    path = write(tmp_path, gzip.compress(data[:at] + b"xxxx" + data[at + 4 :]))
    with reading(), pytest.raises(CorruptFileError, match=r"x\.gz: its member .*checksum"):
        open_file(path).tensors["0.weight"].read()
    with reading(checksum=False):
        open_file(path).tensors["0.weight"].read()


@pytest.mark.parametrize(
    "inner",
    [
        packed({"policy.pth": saved(state())}),
        gzip.compress(saved(state())),
        b"text" * 99,
        tarred({"a.txt": b"text" * 99}),
    ],
    ids=["zip", "gzip", "text", "tar"],
)
def test_what_lies_deeper_is_left_to_the_user(inner, tmp_path):
    with pytest.raises(
        UnsupportedFileError, match=r"compressed by gzip; (decompress|unpack) it \("
    ):
        open_file(write(tmp_path, gzip.compress(inner)))
