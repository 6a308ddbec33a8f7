"""PyTorch's files inside another ZIP archive: read where they lie, and named."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from torch import nn

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.files.edits import write_edited
from bncli.loaders import open_file, open_layer
from bncli.loaders.nested import INNER, NOT_HERE
from bncli.loaders.patches import edits_of
from bncli.state_dict import batch_norm_layers

from . import memory
from .files import assert_same, packed, samples, saved, scripted, tarred


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


def test_every_format_that_lies_in_one_piece_is_read(tmp_path):
    arrays = io.BytesIO()
    np.savez(arrays, a=np.arange(3))
    one = io.BytesIO()
    np.save(one, np.arange(4.0))
    tensors = {key: value.clone() for key, value in state().items()}
    members = {
        "old.pth": saved(state(), _use_new_zipfile_serialization=False),
        "m.safetensors": safetensors.torch.save(tensors),
        "arrays.npz": arrays.getvalue(),
        "one.npz": one.getvalue(),  # what it is called does not matter
    }
    file = open_file(write(tmp_path, members))
    assert file.container == "npy, npz, safetensors and torch-legacy in zip"
    for prefix in ("old", "m"):
        assert_same(file.tensors, {f"{prefix}.{key}": value for key, value in state().items()})
    assert_same(file.tensors, {"arrays.a": np.arange(3), "one": np.arange(4.0)})
    assert [layer.name for layer in batch_norm_layers(file)] == ["old.1", "m.1"]


SAMPLES = {
    name: sample
    for name, sample in samples().items()
    if sample.container in {row.container for row in INNER} and [*sample.files] == ["x"]
}
WAYS = {
    "zip": lambda data: packed({"before": b"x" * 999, "net.pt": data}),
    "deflated": lambda data: packed({"net.pt": data}, zipfile.ZIP_DEFLATED),
    "tar": lambda data: tarred({"before": b"x" * 999, "net.pt": data}),
    "gzip": gzip.compress,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_that_is_read_inside(name, way, tmp_path):
    """Its offsets count from its own begin, wherever that lies."""
    sample = SAMPLES[name]
    path = tmp_path / "x"
    path.write_bytes(WAYS[way](sample.files["x"]))
    file = open_file(path)
    assert file.container == f"{sample.container} in {'zip' if way == 'deflated' else way}"
    prefix = "" if way == "gzip" else "net"
    joined = {
        ".".join(filter(None, (prefix, key))): value for key, value in sample.expected.items()
    }
    assert_same(file.tensors, joined)
    plain = tmp_path / "plain"
    plain.write_bytes(sample.files["x"])
    names = [layer.name for layer in batch_norm_layers(open_file(plain))]
    found = [layer.name.removeprefix(f"{prefix}.") for layer in batch_norm_layers(file)]
    assert found == names


def test_compressed_ones_are_read_and_each_is_a_tensor_of_its_own(tmp_path):
    """The same places in two unpacked members are not the same bytes."""
    members = {f"{name}.pth": saved(state(seed)) for seed, name in enumerate("ab")}
    path = write(tmp_path, members, zipfile.ZIP_DEFLATED)
    file = open_file(path)
    assert_same(file.tensors, {f"a.{key}": value for key, value in state().items()})
    assert_same(file.tensors, {f"b.{key}": value for key, value in state(1).items()})
    assert len({ref.place for ref in file.tensors.values()}) == len(file.tensors)
    assert str(file.tensors["a.0.weight"].path) == str(path)
    assert file.tensors["a.0.weight"].label == f"{path}::a.0.weight"


def test_a_stored_and_a_compressed_one_keep_apart(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.pth", saved(state()))
        archive.writestr("b.pth", saved(state(1)), zipfile.ZIP_DEFLATED)
    path = tmp_path / "x.zip"
    path.write_bytes(out.getvalue())
    file = open_file(path)
    assert_same(file.tensors, {f"b.{key}": value for key, value in state(1).items()})
    new = {"a.1.bias": np.ones(6)}
    assert all(edit.end <= path.stat().st_size for edit in edits_of(file, new)[path])
    with pytest.raises(UnsupportedFileError, match=r"'b\.1\.bias' is compressed"):
        edits_of(file, {"b.1.bias": np.ones(6)})


def test_values_in_an_old_file_inside_of_an_archive_can_be_replaced(tmp_path):
    path = write(tmp_path, {"a.pth": saved(state(), _use_new_zipfile_serialization=False)})
    file = open_file(path)
    (edits,) = edits_of(file, {"a.1.bias": np.full(6, 7.0)}).values()
    write_edited(path, tmp_path / "new.zip", edits)
    assert open_file(tmp_path / "new.zip").tensors["a.1.bias"].read().tolist() == [7.0] * 6
    with zipfile.ZipFile(tmp_path / "new.zip") as archive:
        assert archive.testzip() is None


def test_what_is_not_read_is_said(tmp_path):
    members = {"policy.pth": saved(state()), "other.bin": bytes(99), "readme.txt": b"x"}
    assert open_file(write(tmp_path, members)).skipped == {"other.bin": NOT_HERE}


def test_where_none_can_be_read_it_says_which_to_unzip(tmp_path):
    path = write(tmp_path, {"policy.pth": b"other" * 9}, zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsupportedFileError, match=r"unzip .*policy\.pth"):
        open_file(path)


def test_what_would_take_too_much_memory_is_left(tmp_path):
    """Zeros that were packed a thousandfold: their header alone makes them a checkpoint."""
    header = io.BytesIO()
    np.save(header, np.zeros(6 << 20, np.uint8))
    members = {"zeros.npy.pth": header.getvalue(), "small.pth": saved(state())}
    path = write(tmp_path, members, zipfile.ZIP_DEFLATED)
    before = memory.mark()
    assert open_file(path).skipped == {"zeros.npy.pth": NOT_HERE}
    assert memory.grown(before) < 4_000


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_archive(form, tmp_path):
    """As NeMo writes its .nemo files; a long name stands in a header of its own."""
    deep = "deep/" * 30 + "old.pth"
    members = {
        "./model_config.yaml": b"a: 1",
        "./model_weights.ckpt": saved(state()),
        deep: saved(state(1), _use_new_zipfile_serialization=False),
        "other.bin": bytes(99),
    }
    path = tmp_path / "x.nemo"
    path.write_bytes(tarred(members, form))
    file = open_file(path)
    assert file.container == "torch-legacy and torch-zip in tar"
    assert_same(file.tensors, {f"model_weights.{key}": value for key, value in state().items()})
    prefix = deep.removesuffix(".pth").replace("/", ".")
    assert_same(file.tensors, {f"{prefix}.{key}": value for key, value in state(1).items()})
    assert file.skipped == {"other.bin": NOT_HERE}
    with pytest.raises(UnsupportedFileError, match=r"torch-zip in tar files cannot be replaced"):
        edits_of(file, {"model_weights.1.bias": np.ones(6)})


def test_a_damaged_one_is_named(tmp_path):
    good = saved(state())
    path = write(tmp_path, {"good.pt": good, "bad.pt": good[: len(good) // 2]})
    with pytest.raises(
        CorruptFileError, match=r"agent\.zip: its member bad\.pt cannot be read, as .*cut short"
    ):
        open_file(path)


def test_an_inner_archive_stays_inside_of_its_member(tmp_path):
    """Its directory may name no byte of the outer file that is not its own."""
    inner = packed({"a/data.pkl": b"", "a/version": b"3"})
    for wrong in (0, 1 << 20, len(inner)):
        broken = bytearray(inner)
        broken[-6:-2] = wrong.to_bytes(4, "little")  # where the directory begins
        path = write(tmp_path, {"before.bin": bytes(1 << 16), "x.pt": bytes(broken)})
        with pytest.raises(CorruptFileError, match=r"its member x\.pt cannot be read, as "):
            open_file(path)


def test_parts_of_other_formats_are_no_checkpoints(tmp_path):
    path = write(tmp_path, {"m/archive_format": b"pt2", "m/data/x.pt": saved(state())})
    with pytest.raises(UnsupportedFileError, match=r"torch\.export"):
        open_file(path)


def test_a_members_long_name_is_not_repeated_without_a_bound(tmp_path):
    one = torch.zeros(1)
    inner = saved({f"{i}": one for i in range(3000)})
    path = write(tmp_path, {"a" * 60_000 + ".pth": inner})
    before = memory.mark()
    with pytest.raises(UnsupportedFileError, match="the names of its tensors take more than 64 MB"):
        open_file(path)
    assert memory.grown(before) < 120_000


def test_a_folder_of_a_distributed_checkpoint_is_to_be_unpacked(tmp_path):
    members = {"run/.metadata": b"x" * 30, "run/__0_0.distcp": saved(state())}
    with pytest.raises(UnsupportedFileError, match="it has a folder in it that torch"):
        open_file(write(tmp_path, members))


@pytest.mark.parametrize("where", ["m.data", "sub/m.data", "other/m.data"])
def test_where_the_data_of_an_onnx_model_lie_that_is_in_an_archive(tmp_path, where):
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=1)
    tensor.external_data.add(key="location", value="m.data")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    data = onnx.helper.make_model(graph).SerializeToString()
    with pytest.raises(FileError) as error:
        open_file(write(tmp_path, {"sub/m.onnx": data, where: bytes(8)}))
    if where == "sub/m.data":
        assert "the tensors of its member sub/m.onnx are in m.data, another of" in str(error.value)
        assert str(error.value).endswith("unpack both and name m.onnx.")
    else:
        assert (
            "its member sub/m.onnx cannot be read, as its tensors are in m.data, which is missing"
            in str(error.value)
        )
