"""PyTorch's files inside another ZIP archive: read where they lie, and named."""

import io
import zipfile

import pytest
import torch
from torch import nn

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders import open_file, open_layer
from bncli.state_dict import batch_norm_layers

from .files import assert_same, packed, saved, scripted


def state(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    for _ in range(20):
        net(torch.randn(8, 4))
    return net.state_dict()


def write(tmp_path, members, compression=zipfile.ZIP_STORED):
    path = tmp_path / "agent.zip"
    path.write_bytes(packed(members, compression))
    return path


def test_layers_carry_the_name_of_their_file(tmp_path):
    members = {"data": b"{}", "policy.pth": saved(state()), "policy.optimizer.pth": saved({})}
    path = write(tmp_path, members)
    file = open_file(path)
    assert file.container == "torch-zip in zip"
    assert_same(file.tensors, {f"policy.{key}": value for key, value in state().items()})
    assert [layer.name for layer in batch_norm_layers(file)] == ["policy.1"]
    assert open_layer(f"{path}::policy.1").num_batches_tracked == 20
    assert not file.skipped


def test_a_lone_tensor_has_the_name_of_its_file(tmp_path):
    file = open_file(write(tmp_path, {"sub/x.pt": saved(torch.ones(2))}))
    assert list(file.tensors) == ["sub.x"]


def test_two_files_with_one_stem_keep_their_suffixes(tmp_path):
    file = open_file(write(tmp_path, {"m.pt": saved(state()), "m.pth": saved(state(1))}))
    assert [layer.name for layer in batch_norm_layers(file)] == ["m.pt.1", "m.pth.1"]


def test_a_scripted_module_is_read_too(tmp_path):
    net = nn.Sequential(nn.BatchNorm1d(3)).eval()
    file = open_file(write(tmp_path, {"MAR-INF/MANIFEST.json": b"{}", "model.pt": scripted(net)}))
    assert file.container == "torchscript in zip"
    assert file.modules["model.0"].class_name == "BatchNorm1d"


def test_what_is_not_read_is_said(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("policy.pth", saved(state()))
        archive.writestr("packed.pth", saved(state()), zipfile.ZIP_DEFLATED)
        archive.writestr("old.pth", saved(state(), _use_new_zipfile_serialization=False))
        archive.writestr("readme.txt", b"x")
    path = tmp_path / "x.zip"
    path.write_bytes(out.getvalue())
    assert list(open_file(path).skipped) == ["packed.pth", "old.pth"]


@pytest.mark.parametrize("old", [True, False])
def test_where_none_can_be_read_it_says_which_to_unzip(tmp_path, old):
    members = {"policy.pth": saved(state(), _use_new_zipfile_serialization=not old)}
    path = write(tmp_path, members, zipfile.ZIP_STORED if old else zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsupportedFileError, match=r"unzip .*policy\.pth"):
        open_file(path)


def test_a_damaged_one_is_named(tmp_path):
    good = saved(state())
    path = write(tmp_path, {"good.pt": good, "bad.pt": good[: len(good) // 2]})
    with pytest.raises(CorruptFileError, match=r"agent\.zip: its member bad\.pt: .*cut short"):
        open_file(path)


def test_an_inner_archive_stays_inside_of_its_member(tmp_path):
    """Its directory may name no byte of the outer file that is not its own."""
    inner = packed({"a/data.pkl": b"", "a/version": b"3"})
    for wrong in (0, 1 << 20, len(inner)):
        broken = bytearray(inner)
        broken[-6:-2] = wrong.to_bytes(4, "little")  # where the directory begins
        path = write(tmp_path, {"before.bin": bytes(1 << 16), "x.pt": bytes(broken)})
        with pytest.raises(CorruptFileError, match=r"its member x\.pt: "):
            open_file(path)


def test_parts_of_other_formats_are_no_checkpoints(tmp_path):
    path = write(tmp_path, {"m/archive_format": b"pt2", "m/data/x.pt": saved(state())})
    with pytest.raises(UnsupportedFileError, match=r"torch\.export"):
        open_file(path)
