"""New values of tensors, in files of every container, as their own libraries read them back."""

import json
import warnings
import zipfile
from io import BytesIO

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import nn

from bncli.errors import FileError
from bncli.loaders import open_file, open_model
from bncli.loaders.patches import aliases_of, edits_of, has_serialization_id, rounded
from tests.loaders.files import packed, saved
from tests.loaders.pickles import ordered, pid, tensor, torch_zip

from .written import (
    LEGACY,
    assert_written,
    checksum_places,
    differing,
    edit,
    load,
    network,
    new_values,
    npz,
    without_crc,
    wrong,
)


def assert_only(path, old, new, values):
    """Nothing differs but the bytes of the tensors with new values, and checksums."""
    allowed = set()
    for name in values:
        ref = open_file(path).tensors[name]
        allowed |= {*range(ref.storage.offset, ref.storage.offset + ref.storage.nbytes)}
    if zipfile.is_zipfile(path):
        allowed |= checksum_places(old)
    found = differing(old, new)
    assert found
    assert found <= allowed


# ------------------------------------------------------------------ files of torch.save


@pytest.mark.parametrize("write", [saved, without_crc, lambda s: saved(s, **LEGACY)])
def test_files_of_pytorch(tmp_path, write):
    state = network()
    old = write(state)
    path = tmp_path / "net.pth"
    path.write_bytes(old)
    values = new_values(state)
    new = edit(open_file(path), values)[path]
    assert_written(load(old), load(new), values)
    assert_only(path, old, new, values)
    if old.startswith(b"PK"):
        assert wrong(new) == wrong(old)
        assert (wrong(old) is None) is (write is saved)


def test_what_is_between_the_steps_of_a_view_stays(tmp_path):
    state = network()
    path = tmp_path / "net.pth"
    path.write_bytes(saved(state))
    old = load(path.read_bytes())
    values = {"strided.running_mean": np.arange(5.0)}
    after = load(edit(open_file(path), values)[path])
    assert_written(old, after, values)
    whole, before = (
        np.array(each["view.running_mean"].untyped_storage().tolist()) for each in (after, old)
    )
    changed = set((np.flatnonzero(whole != before) // 4).tolist())
    assert changed == {20, 22, 24, 26, 28}


def test_a_flat_storage_of_all_buffers(tmp_path):
    sizes = [64, 128, 7, 256]
    flat = torch.rand(2 * sum(sizes))
    state, at = {"flat.first": torch.zeros(3)}, 0
    for i, size in enumerate(sizes):
        for leaf in ("running_mean", "running_var"):
            state[f"{i}.{leaf}"] = flat[at : at + size]
            at += size
    path = tmp_path / "net.pth"
    path.write_bytes(saved(state))
    values = {"1.running_mean": np.linspace(0, 1, 128), "2.running_var": np.linspace(1, 2, 7)}
    new = edit(open_file(path), values)[path]
    assert_written(load(path.read_bytes()), load(new), values)
    assert wrong(new) is None


def test_modules_that_are_tied_change_together(tmp_path):
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3))
    net.append(net[0])
    path = tmp_path / "net.pth"
    path.write_bytes(saved(dict(net.state_dict())))
    file = open_file(path)
    assert aliases_of(file, ["0.running_mean", "1.weight"]) == {
        "0.running_mean": ["2.running_mean"]
    }
    assert aliases_of(file, ["0.running_mean", "2.running_mean"]) == {}
    new = np.arange(1.0, 4.0)
    after = load(edit(file, {"2.running_mean": new})[path])
    assert after["0.running_mean"].tolist() == after["2.running_mean"].tolist() == [1, 2, 3]
    both = {"0.running_mean": new, "2.running_mean": new + 1e-12}  # the same once rounded
    assert edits_of(file, both) == edits_of(file, {"0.running_mean": new})
    with pytest.raises(FileError) as error:
        edits_of(file, {"0.running_mean": new, "2.running_mean": new + 1})
    assert error.value.problem == (
        "'0.running_mean' and '2.running_mean' are one tensor in it, which cannot have two values; "
        "leave one of them out."
    )


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_a_module_saved_as_an_object(tmp_path, container):
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    path = tmp_path / "net.pth"
    path.write_bytes(saved(net, **(LEGACY if container == "legacy" else {})))
    values = {"1.running_var": np.array([2.5, 3.5])}
    new = edit(open_file(path), values)[path]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        after = torch.load(BytesIO(new), weights_only=False)
    assert_written(net.state_dict(), after.state_dict(), values)


def test_bytes_in_the_other_order(tmp_path):
    old = np.arange(1, 5, dtype=">f4")
    path = tmp_path / "net.pth"
    references = {f"bn.running_{leaf}": tensor(reference=pid(leaf)) for leaf in ("mean", "var")}
    storages = {"mean": old.tobytes(), "var": old.tobytes()}
    path.write_bytes(torch_zip(ordered(**references), storages, **{"a/byteorder": b"big"}))
    values = {"bn.running_mean": np.array([0.1, 0.2, 0.3, 0.4])}
    new = edit(open_file(path), values)[path]
    before = {name: torch.arange(1.0, 5.0) for name in references}
    assert_written(before, load(new), values)
    assert wrong(new) is None


def test_the_old_serialization_id_stays(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(saved(network()))
    other = tmp_path / "old.pth"
    other.write_bytes(saved(network(), **LEGACY))
    assert has_serialization_id([other, path])
    assert not has_serialization_id([other])
    new = edit(open_file(path), {"1.running_mean": np.ones(4)})[path]
    with zipfile.ZipFile(path) as one, zipfile.ZipFile(BytesIO(new)) as two:
        name = "archive/.data/serialization_id"
        assert one.read(name) == two.read(name)


def test_a_file_of_torch_save_inside_an_archive(tmp_path):
    state = network()
    old = packed({"data": b"{}", "policy.pth": saved(state), "x/other.pth": saved(state, **LEGACY)})
    path = tmp_path / "agent.zip"
    path.write_bytes(old)
    values = new_values(state)
    new = edit(open_file(path), {f"policy.{name}": value for name, value in values.items()})[path]
    assert wrong(new) is None
    with zipfile.ZipFile(BytesIO(new)) as archive:
        inner = archive.read("policy.pth")
        assert archive.read("x/other.pth") == saved(state, **LEGACY)
    assert wrong(inner) is None
    assert_written(state, load(inner), values)


# ------------------------------------------------------------------ safetensors, NumPy, shards


def test_safetensors_of_pytorch(tmp_path):
    state = {name: value.clone() for name, value in network().items()}
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(state, path)
    old = path.read_bytes()
    values = new_values(state)
    new = edit(open_file(path), values)[path]
    order = sorted(state)
    after = safetensors.torch.load(new)
    assert_written({k: state[k] for k in order}, {k: after[k] for k in order}, values)
    assert_only(path, old, new, values)


def test_safetensors_of_numpy(tmp_path):
    arrays = {"bn.running_mean": np.ones(3, np.float32), "w": np.arange(4.0)}
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(arrays, path)
    target = tmp_path / "new.safetensors"
    target.write_bytes(edit(open_file(path), {"bn.running_mean": np.array([1.5, 2, 0.1])})[path])
    after = safetensors.numpy.load_file(target)
    assert np.array_equal(after["bn.running_mean"], np.array([1.5, 2, 0.1], np.float32))
    assert np.array_equal(after["w"], arrays["w"])


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", ">f8"])
@pytest.mark.parametrize("how", [{}, {"stream": True}, {"wide": True}])
def test_npz(tmp_path, dtype, how):
    arrays = {
        "bn/moving_mean": np.arange(5.0).astype(dtype),
        "bn/moving_variance": np.asfortranarray(np.arange(1, 7.0).reshape(2, 3).astype(dtype)),
        "w": np.arange(24.0).reshape(2, 3, 4),
        "steps": np.array(3, np.dtype(">i8")),
    }
    old = npz(arrays, **how)
    path = tmp_path / "net.npz"
    path.write_bytes(old)
    values = {
        "bn/moving_mean": np.linspace(-1, 1, 5),
        "bn/moving_variance": np.linspace(0.1, 1, 6).reshape(2, 3),
        "steps": np.array(-77),
    }
    new = edit(open_file(path), values)[path]
    after = np.load(BytesIO(new), allow_pickle=False)
    for name, array in arrays.items():
        assert after[name].dtype == array.dtype
        assert np.array_equal(after[name], values.get(name, array).astype(array.dtype)), name
    assert wrong(new) is None
    assert_only(path, old, new, values)


def test_npy(tmp_path):
    path = tmp_path / "var.npy"
    np.save(path, np.ones((2, 3), ">f8"))
    new = edit(open_file(path), {"": np.arange(6.0).reshape(2, 3)})[path]
    assert np.array_equal(np.load(BytesIO(new)), np.arange(6.0).reshape(2, 3))


def shards(folder, suffix, write):
    """An index with two shards, and a third with a tensor that the index does not list."""
    state = {name: value.clone() for name, value in network().items()}
    names = list(state)
    files = {f"m-0000{i + 1}-of-00002.{suffix}": names[i::2] for i in range(2)}
    for file, each in files.items():
        (folder / file).write_bytes(write({name: state[name] for name in each}))
    index = {"weight_map": {name: file for file, each in files.items() for name in each}}
    path = folder / f"m.{suffix}.index.json"
    path.write_text(json.dumps(index))
    return state, path, files


@pytest.mark.parametrize(
    ("suffix", "write", "read"),
    [
        ("safetensors", safetensors.torch.save, safetensors.torch.load),
        ("bin", saved, load),
        ("bin", lambda state: saved(state, **LEGACY), load),
    ],
)
def test_only_the_shards_that_change(tmp_path, suffix, write, read):
    state, index, files = shards(tmp_path, suffix, write)
    values = new_values(state)
    file = open_model(index)
    changed = edit(file, values)
    assert list(changed) == [tmp_path / name for name in files]
    after = {name: value for path in changed for name, value in read(changed[path]).items()}
    assert_written(state, {name: after[name] for name in state}, values)
    second = [*files][1]
    one = {name: value for name, value in values.items() if name in files[second]}
    assert list(edits_of(file, one)) == [tmp_path / second]


def test_nothing_to_change(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(saved({"x": torch.ones(3), "empty": torch.zeros(0)}))
    file = open_file(path)
    assert edits_of(file, {}) == {}
    assert edits_of(file, {"empty": np.zeros(0)}) == {}
    new = edit(file, {"x": np.ones(3)})[path]
    assert new == path.read_bytes()
    assert rounded(file.tensors["x"], np.full(3, 0.1)).tolist() == [float(np.float32(0.1))] * 3
