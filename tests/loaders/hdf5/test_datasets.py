"""Datasets by path: every dtype and layout, and nothing outside the file."""

import h5py
import numpy as np
import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import open_file
from bncli.loaders.hdf5 import datasets
from bncli.state_dict import batch_norm_layers
from tests.loaders import memory
from tests.loaders.keras_files import vectors


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.h5"


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize(
    "dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<i2", ">i8", "u1", "?", "<c8", ">c16"]
)
def test_plain_values_are_read_from_where_they_lie(path, dtype, libver):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    with h5py.File(path, "w", libver=libver) as file:
        file["a/b"] = values
    ref = open_file(path).tensors["a/b"]
    assert isinstance(ref.storage, FileBytes)
    assert ref.shape == (3, 4)
    assert ref.dtype == np.dtype(dtype).newbyteorder("=").name
    assert np.array_equal(ref.read(), values)
    assert ref.read().dtype == np.dtype(dtype).newbyteorder("=")


def test_pytorch_names_are_found_by_path(path):
    with h5py.File(path, "w") as file:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            file[f"features/1/{leaf}"] = np.ones(3, np.float32)
        file["features.2.num_batches_tracked"] = 7
        for leaf in ("running_mean", "running_var"):
            file[f"features.2.{leaf}"] = np.ones(3, np.float32)
    file = open_file(path)
    assert file.container == "hdf5"
    assert [layer.name for layer in batch_norm_layers(file)] == ["features/1", "features.2"]
    assert file.tensors["features.2.num_batches_tracked"].read() == 7


def test_a_block_of_the_user_moves_all_offsets(path):
    with h5py.File(path, "w", userblock_size=1024) as file:
        file["a"] = np.arange(5.0)
        file.create_dataset("b", data=np.arange(90.0), chunks=(20,), compression="gzip")
    tensors = open_file(path).tensors
    assert tensors["a"].read().tolist() == list(range(5))
    assert tensors["b"].read().tolist() == list(range(90))


def test_small_datasets_in_their_header(path):
    with h5py.File(path, "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((3,))
        h5py.Dataset(h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32BE, space, made))[...] = [
            1,
            2,
            3,
        ]
    assert open_file(path).tensors["a"].read().tolist() == [1, 2, 3]


def test_bfloat16_of_hdf5_and_of_keras(path):
    with h5py.File(path, "w") as file:
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_size(2)
        kind.set_ebias(127)
        kind.set_precision(16)
        space = h5py.h5s.create_simple((2,))
        h5py.h5d.create(file.id, b"float", kind, space).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.array([1.5, -2], np.float32), h5py.h5t.IEEE_F32LE
        )
        file["opaque"] = np.array([0x3FC0, 0xC000], np.uint16).view("V2")
        file["other"] = np.array([0x3FC0, 0xC000], np.uint16).view("V2")
        file["opaque"].attrs["dtype"] = "bfloat16"
    opened = open_file(path)
    for name in ("float", "opaque"):
        assert opened.tensors[name].dtype == "bfloat16"
        assert opened.tensors[name].read().tolist() == [1.5, -2]
    assert opened.skipped == {"other": "it holds no numbers"}


def test_what_holds_no_numbers_is_said(path):
    with h5py.File(path, "w") as file:
        file["text"] = "abc"
        file["empty"] = h5py.Empty("f4")
        file["table"] = np.zeros(2, [("a", "i4"), ("b", "f8")])
        file["none"] = np.zeros((0, 3))
        file.create_dataset("unwritten", (4,), "f4")
    opened = open_file(path)
    assert opened.skipped == {
        "text": "it holds no numbers", "empty": "it is empty", "table": "it holds no numbers"
    }  # fmt: skip
    assert opened.tensors["none"].read().shape == (0, 3)
    assert opened.tensors["unwritten"].unreadable == "no values were written into it"


def test_no_other_file_is_ever_opened(path, tmp_path):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.arange(4.0)
    raw = tmp_path / "raw"
    raw.write_bytes(np.arange(4.0).tobytes())
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink(str(other), "/secret")
        file["soft"] = h5py.SoftLink("/soft")
        file["group/same"] = h5py.SoftLink("/own")
        file["group/near"] = h5py.SoftLink("./same")
        file["own"] = np.ones(2)
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(str(other), "secret", (4,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("external", (4,), "f8", external=[(str(raw), 0, 32)])
    opened = open_file(path)
    for name in ("own", "group/same"):
        assert opened.tensors[name].read().tolist() == [1, 1]
    assert opened.skipped == {
        "link": "it is a link to another file, which is not followed",
        "soft": "it is a link to a name in the file that is not there",
        "group/near": "it is a link to a name in the file that is not there",
    }
    for name in ("virtual", "external"):
        assert opened.tensors[name].storage is None
        assert opened.tensors[name].unreadable.startswith("its values lie in other files")


def test_groups_in_a_circle_are_read_once(path):
    with h5py.File(path, "w") as file:
        file["a/b/x"] = np.ones(2)
        file["a/b/again"] = file["a"]
        file["a/b/root"] = file["/"]
        file["y"] = file["a/b/x"]
    assert sorted(open_file(path).tensors) == ["a/b/x", "y"]


def test_groups_without_an_end_are_refused(path):
    with h5py.File(path, "w") as file:
        file["/".join(["g"] * (datasets.MOST_DEPTH + 2))] = np.ones(2)
    with pytest.raises(CorruptFileError, match="nested without an end"):
        open_file(path)


def test_a_matlab_file_stays_refused(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["a"] = np.ones(2)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    with pytest.raises(UnsupportedFileError, match="it is a MATLAB file"):
        open_file(path)


def test_a_dataset_that_reaches_outside_the_file(path):
    with h5py.File(path, "w", libver="earliest") as file:
        file["before"] = np.zeros(77)
        file["a"] = np.arange(7.0)
        where = file["a"].id.get_offset()
    data = path.read_bytes()
    assert data.count(where.to_bytes(8, "little")) == 1
    path.write_bytes(
        data.replace(where.to_bytes(8, "little"), (len(data) - 8).to_bytes(8, "little"))
    )
    with pytest.raises(CorruptFileError, match=r"contradicts itself|reaches outside"):
        open_file(path)


def test_without_h5py_one_sentence_says_what_to_install(path, monkeypatch):
    with h5py.File(path, "w") as file:
        for name, values in vectors().items():
            file[name] = values
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(UnsupportedFileError, match=r"needs h5py; install it: pip install h5py\.$"):
        open_file(path)


def test_names_that_repeat_long_ones_are_bounded(path):
    with h5py.File(path, "w", libver="latest") as file:
        group = file
        for _ in range(60):
            group = group.create_group("a" * 1000)
        group["d"] = np.zeros(4, "f4")
        for number in range(3000):
            group[f"{number}"] = group["d"]
    before = memory.mark()
    with pytest.raises(UnsupportedFileError, match="the names of its tensors take more than 64 MB"):
        open_file(path)
    assert memory.grown(before) < 120_000


def test_a_list_of_more_names_than_a_model_has_is_not_read(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["layer_names"] = np.full(7_000_000, b"ab", "S2")
        file["bn/bn/moving_mean:0"] = file["bn/bn/moving_variance:0"] = np.ones(3, "f4")
    before = memory.mark()
    assert len(open_file(path).tensors) == 2
    assert memory.grown(before) < 80_000
