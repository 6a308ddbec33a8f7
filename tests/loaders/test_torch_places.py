"""Which tensors are one tensor under several names, by the bytes that they lie in."""

import copy
import io
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from bncli.loaders import open_file

from .files import saved


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
