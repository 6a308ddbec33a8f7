"""Which tensors are one tensor under several names, by the bytes that they lie in."""

import copy
import io
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import CorruptFileError, TensorError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import open_file, torch_places

from .files import saved
from .pickles import dictionary, tensor, torch_zip
from .test_torch_zip import opened


def places(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    return {name: ref.place for name, ref in open_file(path).tensors.items()}


def deflated(data):
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return out.getvalue()


def two_names():
    """A BatchNorm under two names, and an equal one of its own."""
    bn = nn.BatchNorm2d(4)
    return nn.ModuleDict({"a": bn, "b": bn, "c": copy.deepcopy(bn)})


@pytest.mark.parametrize(
    "data",
    [
        saved(two_names().state_dict()),
        saved(two_names()),
        deflated(saved(two_names().state_dict())),
        saved(two_names().state_dict(), _use_new_zipfile_serialization=False),
    ],
    ids=["state_dict", "module", "deflated", "legacy"],
)
def test_one_layer_under_two_names(data, tmp_path):
    found = places(tmp_path, data)
    assert len(found) == 15
    for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        assert found[f"a.{leaf}"] == found[f"b.{leaf}"] is not None
        assert found[f"c.{leaf}"] not in {None, found[f"a.{leaf}"]}
    assert len(set(found.values())) == 10


@pytest.mark.parametrize("change", [lambda data: data, deflated])
def test_parts_of_one_storage_are_not_one_tensor(change, tmp_path):
    flat = torch.arange(12.0)
    state = {
        "first": flat[:4],
        "second": flat[4:8],
        "again": flat[:4],
        "square": flat[:4].view(2, 2),
        "every other": flat[:8:2],
        "none": flat[:0],
        "row": flat[:4].expand(1, 4)[0],
        "table": flat[:9].view(3, 3),
        "turned": flat[:9].view(3, 3).T,
    }
    found = places(tmp_path, change(saved(state)))
    assert found["none"] is None
    assert found["again"] == found["first"] == found["row"]
    assert found["table"] != found["turned"]
    assert len(set(found.values())) == 7


def test_arrays_and_their_files(tmp_path):
    x = np.ones(3, np.float32)
    np.savez(tmp_path / "x.npz", a=x, b=x)  # written twice
    one, other = (ref.place for ref in open_file(tmp_path / "x.npz").tensors.values())
    assert one != other
    np.savez(tmp_path / "y.npz", a=x, b=x)
    assert open_file(tmp_path / "y.npz").tensors["a"].place != one
    pickled = places(tmp_path, saved({"a": x, "b": x, "c": x.copy()}))
    assert pickled["a"] == pickled["b"] != pickled["c"]


def test_tensors_that_share_more_than_the_file_holds_are_unreadable(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_places, "MOST_REPEATED", 50)
    monkeypatch.setattr(torch_places, "MOST_READ_AGAIN", 4)
    shared = torch.randn(1_000)
    file = opened(tmp_path, saved({f"k{n}": shared for n in range(7)} | {"own": torch.ones(3)}))
    unreadable = [name for name, ref in file.tensors.items() if ref.unreadable]
    assert unreadable == ["k4", "k5", "k6"]
    assert "too often" in file.tensors["k4"].unreadable
    with pytest.raises(TensorError):
        file.tensors["k4"].read()


def test_views_of_one_storage_share_its_bytes(tmp_path):
    base = torch.arange(20.0)
    file = opened(tmp_path, saved({"base": base, "tail": base[12:], "even": base[::2]}))
    places = {name: ref.storage for name, ref in file.tensors.items()}
    assert all(isinstance(place, FileBytes) for place in places.values())
    assert places["tail"].offset == places["base"].offset + 48
    assert file.tensors["even"].strides == (2,)
    assert file.tensors["even"].read().tolist() == base[::2].tolist()


def test_an_expanded_tensor_that_repeats_too_much_is_not_unfolded(tmp_path):
    wide = torch.zeros(1).expand(1 << 40)
    file = opened(tmp_path, saved({"wide": wide, "small": torch.zeros(1).expand(100)}))
    assert file.tensors["wide"].shape == (1 << 40,)
    with pytest.raises(TensorError, match="spreads 1 stored elements over 1099511627776"):
        file.tensors["wide"].read()
    assert file.tensors["small"].read().shape == (100,)


@pytest.mark.parametrize("named", [True, False])
def test_a_tensor_that_leaves_its_storage_is_named(named, tmp_path):
    value = dictionary(weight=tensor((5,))) if named else tensor((5,))
    where = "weight" if named else "at the top"
    with pytest.raises(CorruptFileError, match=f"its tensor {where} reaches outside its storage"):
        opened(tmp_path, torch_zip(value))
    assert len(opened(tmp_path, torch_zip(tensor((4,)))).tensors) == 1
