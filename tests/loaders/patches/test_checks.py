"""Tensors that cannot get new values where they are: refused with what to do instead."""

import json
import warnings
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import FileError, TensorError, UnsupportedFileError
from bncli.files.reading import reading
from bncli.loaders import open_file
from bncli.loaders.patches import edits_of
from tests.loaders.files import packed, saved, scripted

from .written import LEGACY


def refusal(path, name, values=None):
    file = open_file(path)
    values = np.ones(file.tensors[name].shape) if values is None else values
    with pytest.raises((FileError, TensorError)) as error:
        edits_of(file, {name: values})
    assert str(error.value).count(str(path)) == 1
    return getattr(error.value, "problem", str(error.value))


def test_bytes_that_another_tensor_takes_too(tmp_path):
    flat = torch.rand(12)
    state = {
        "a.running_mean": flat[:4], "a.running_var": flat[3:7], "b.running_mean": flat[8:],
        "same.bits": flat[8:].view(2, 2),
    }  # fmt: skip
    path = tmp_path / "net.pth"
    path.write_bytes(saved(state))
    assert refusal(path, "a.running_mean") == (
        "'a.running_mean' shares bytes with 'a.running_var', which would change, too; save the file"
        " again after .clone() of one of them, and run again."
    )
    assert "'b.running_mean' shares bytes with 'same.bits'" in refusal(path, "b.running_mean")
    both = {"a.running_mean": np.ones(4), "a.running_var": np.ones(4)}
    with pytest.raises(UnsupportedFileError, match="shares bytes"):
        edits_of(open_file(path), both)


def test_elements_that_are_the_same_bytes(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(saved({"a.running_var": torch.ones(1).expand(4)}))
    assert refusal(path, "a.running_var") == (
        "several elements of 'a.running_var' are the same bytes, so they cannot have values of "
        "their own; save it again after .clone(), and run again."
    )


def test_compressed_members(tmp_path):
    path = tmp_path / "net.npz"
    np.savez_compressed(path, mean=np.ones(4))
    assert refusal(path, "mean") == (
        "'mean' is compressed, so that its bytes cannot be replaced; save the file again with "
        "np.savez, which does not compress, and run again."
    )
    path = tmp_path / "net.pth"
    out = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(saved({"mean": torch.ones(400)}))) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    path.write_bytes(out.getvalue())
    assert "with torch.save, which does not compress" in refusal(path, "mean")


@pytest.mark.parametrize("how", [{}, LEGACY])
def test_arrays_inside_the_pickle(tmp_path, how):
    path = tmp_path / "net.pth"
    path.write_bytes(saved({"mean": np.ones(4)}, pickle_protocol=4, **how))
    assert refusal(path, "mean") == (
        "'mean' is a NumPy array inside the pickle, which stays as it is; save it as a tensor "
        "(torch.from_numpy) and run again."
    )


def test_tensors_without_values(tmp_path):
    path = tmp_path / "net.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)
    path.write_bytes(saved({"q": quantised, "meta": torch.ones(4, device="meta")}))
    assert refusal(path, "q") == (
        "the values of 'q' cannot be replaced (it is quantised); save it as a plain tensor, and "
        "run again."
    )
    assert "it was on the meta device and has no values" in refusal(path, "meta")


@pytest.mark.parametrize("nested", [False, True])
def test_torchscript(tmp_path, nested):
    data = scripted(nn.Sequential(nn.BatchNorm1d(3)))
    path = tmp_path / "net.pt"
    path.write_bytes(
        packed({"a.pt": data, "b.pth": saved({"x": torch.ones(3)})}) if nested else data
    )
    name = f"{'a.' * nested}0.running_mean"
    assert refusal(path, name).startswith("it is a TorchScript archive, whose tensors cannot be")
    if nested:
        assert edits_of(open_file(path), {"b.x": np.zeros(3)})


def test_text_and_standard_input(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    path.write_text("1,2\n3,4\n")
    assert refusal(path, "") == (
        "tensors in csv files cannot be replaced; save them with torch.save or as safetensors, and "
        "name that file."
    )
    out = BytesIO()
    np.save(out, np.ones(3))
    out.seek(0)
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"closed": False, "buffer": out})())
    with pytest.raises(UnsupportedFileError, match="standard input cannot be edited"):
        edits_of(open_file("-"), {"": np.zeros(3)})


def test_values_that_a_tensor_cannot_hold(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(saved({"bn.running_var": torch.ones(3).half()}))
    sentence = refusal(path, "bn.running_var", np.array([1, 1e-12, 1]))
    assert sentence.startswith(
        f"{path}::bn.running_var: channel 1 gets 1e-12, which would become 0"
    )


def test_a_tensor_of_a_shard_that_its_index_does_not_list(tmp_path):
    flat = torch.rand(8)
    (tmp_path / "a.bin").write_bytes(saved({"bn.running_mean": flat[:4], "hidden": flat[2:]}))
    index = tmp_path / "a.index.json"
    index.write_text(json.dumps({"weight_map": {"bn.running_mean": "a.bin"}}))
    with pytest.raises(UnsupportedFileError, match=r"'bn.running_mean' shares bytes with 'hidden'"):
        edits_of(open_file(index), {"bn.running_mean": np.zeros(4)})


def test_a_weight_that_is_the_same_tensor(tmp_path):
    flat = torch.rand(4)
    path = tmp_path / "net.pth"
    path.write_bytes(saved({"bn.running_mean": flat, "head.bias": flat, "tied.running_mean": flat}))
    assert refusal(path, "bn.running_mean") == (
        "'bn.running_mean' shares bytes with 'head.bias', which would change, too; save the file "
        "again after .clone() of one of them, and run again."
    )


def test_a_buffer_that_does_not_match_its_checksum(tmp_path):
    path = tmp_path / "net.pth"
    data = bytearray(saved({"bn.running_mean": torch.full((4,), 0.3)}))
    data[data.index(torch.full((4,), 0.3).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    with reading():
        assert "archive/data/0 does not match its checksum" in refusal(path, "bn.running_mean")
    with reading(checksum=False):
        assert edits_of(open_file(path), {"bn.running_mean": np.ones(4)})
