import gc
import io
import zipfile

import numpy as np
import pytest
import torch

from bncli.errors import CorruptFileError, FileError, TensorError, UnsupportedFileError
from bncli.loaders import open_file, open_tensor

from .files import assert_same, bits, newer_values, saved, values
from .pickles import dictionary, pid, tensor, text, torch_zip, zipped


def opened(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    return open_file(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol(protocol, tmp_path):
    data = saved(values(), pickle_protocol=protocol)
    expected = torch.load(io.BytesIO(data), weights_only=False)
    assert_same(opened(tmp_path, data).tensors, expected)


@pytest.mark.parametrize("alignment", [64, 4096])
def test_both_alignments(alignment, tmp_path):
    from torch.utils.serialization import config

    before = config.save.storage_alignment
    config.save.storage_alignment = alignment
    try:
        data = saved(values())
    finally:
        config.save.storage_alignment = before
    file = opened(tmp_path, data)
    assert_same(file.tensors, values())
    assert file.tensors["conv.weight"].storage.offset % alignment == 0


def rewritten(data, compression, change=lambda name, data: data):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()


def test_an_archive_without_alignment_and_one_that_is_compressed(tmp_path):
    data = saved(values() | newer_values())
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = opened(tmp_path, rewritten(data, compression))
        assert_same(file.tensors, torch.load(io.BytesIO(data)))


def test_the_byteorder_record(tmp_path):
    """As a big-endian machine would write it; torch.load swaps it back."""
    plain = {k: v for k, v in values().items() if v.dtype == torch.float32}

    def swap(name, data):
        if name.endswith("byteorder"):
            return b"big"
        return np.frombuffer(data, "<u4").astype(">u4").tobytes() if "/data/" in name else data

    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = rewritten(saved(plain), compression, swap)
        if compression == zipfile.ZIP_STORED:
            assert torch.equal(torch.load(io.BytesIO(data))["scalar"], plain["scalar"])
        file = opened(tmp_path, data)
        assert_same(file.tensors, plain)
        assert file.tensors["scalar"].read().dtype.isnative


def test_a_tensor_alone_has_no_name(tmp_path):
    file = opened(tmp_path, saved(torch.arange(3)))
    assert list(file.tensors) == [""]
    assert open_tensor(str(tmp_path / "x")).read().tolist() == [0, 1, 2]


def test_optimizers_are_read_too(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    data = saved({"optimizer": optimizer.state_dict(), "whole": optimizer})
    file = opened(tmp_path, data)
    step = optimizer.state_dict()["state"][0]["exp_avg"]
    assert bits(file.tensors["optimizer.state.0.exp_avg"].stored()) == bits(step)


@pytest.mark.filterwarnings("ignore")
def test_tensors_without_plain_values_are_listed_and_named(tmp_path):
    tensors = {
        "quantised": torch.quantize_per_tensor(torch.randn(2, 3), 0.1, 0, torch.qint8),
        "per channel": torch.quantize_per_channel(
            torch.randn(2, 3), torch.ones(2), torch.zeros(2), 0, torch.quint8
        ),
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(4, dtype=torch.float64).to_sparse_csr(),
        "meta": torch.empty(5, 6, device="meta"),
        "conjugate": torch.randn(2, dtype=torch.complex64).conj(),
        "negative": torch.randn(2, dtype=torch.complex64).conj().imag,
        "nested": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
        "plain": torch.arange(3),
    }
    file = opened(tmp_path, saved(tensors))
    expected = {
        "quantised": ("it is quantised", (2, 3), "qint8"),
        "per channel": ("it is quantised", (2, 3), "quint8"),
        "sparse": ("it is sparse", (3, 3), "float32"),
        "csr": ("it is sparse", (4, 4), "float64"),
        "meta": ("it was on the meta device and has no values", (5, 6), "float32"),
        "conjugate": ("it is stored with the flag conj", (2,), "complex64"),
        "negative": ("it is stored with the flag neg", (2,), "float32"),
        "nested": ("it is a nested tensor, whose parts differ in shape", (), "float32"),
    }
    assert file.tensors["plain"].read().tolist() == [0, 1, 2]
    for name, (reason, shape, dtype) in expected.items():
        ref = file.tensors[name]
        assert (ref.unreadable, ref.shape, ref.dtype) == (reason, shape, dtype)
        with pytest.raises(TensorError, match=f"cannot be read .{reason}"):
            ref.read()


def test_storages_of_a_gpu_open_without_one(tmp_path):
    from .pickles import pid

    value = dictionary(a=tensor((4,), reference=pid("0", 4, "FloatStorage", "cuda:3")))
    file = opened(tmp_path, torch_zip(value, {"0": np.arange(4, dtype="<f4").tobytes()}))
    assert file.tensors["a"].read().tolist() == [0, 1, 2, 3]


def test_subclasses_and_parameters_with_state(tmp_path):
    class Tagged(torch.Tensor):
        pass

    Tagged.__module__, Tagged.__qualname__ = __name__, "Tagged"
    globals()["Tagged"] = Tagged
    tagged = torch.arange(3.0).as_subclass(Tagged)
    tagged.note = "x"
    parameter = torch.nn.Parameter(torch.arange(2.0))
    parameter.note = "y"
    file = opened(tmp_path, saved({"tagged": tagged, "parameter": parameter}))
    assert file.tensors["tagged"].read().tolist() == [0, 1, 2]
    assert file.tensors["parameter"].read().tolist() == [0, 1]


def test_missing_bytes_and_short_bytes(tmp_path):
    with pytest.raises(CorruptFileError, match="the bytes of its storage 0 are missing"):
        opened(tmp_path, torch_zip(tensor(), {}))
    with pytest.raises(CorruptFileError, match="a storage of 16 bytes, of which 12 exist"):
        opened(tmp_path, torch_zip(tensor(), {"0": bytes(12)}))


def test_a_zip_of_another_kind(tmp_path):
    with pytest.raises(Exception, match="ZIP archive without a file that bncli reads"):
        opened(tmp_path, zipped({"data.pkl": b""}))


def test_of_a_key_that_comes_twice_the_last_counts_as_in_python(tmp_path):
    value = (
        b"}("
        + text("a")
        + tensor((1,))
        + text("b")
        + tensor((2,))
        + text("a")
        + tensor((3,))
        + b"u"
    )
    data = torch_zip(value)
    file = opened(tmp_path, data)
    assert {name: ref.shape for name, ref in file.tensors.items()} == {"b": (2,), "a": (3,)}
    assert torch.load(io.BytesIO(data))["a"].shape == (3,)


def test_a_file_that_goes_away_is_said(tmp_path):
    path = tmp_path / "x"
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path.write_bytes(rewritten(saved(torch.arange(5)), compression))
        ref = open_tensor(str(path))
        path.unlink()
        with pytest.raises(
            FileError, match="removed or cut short while bncli was reading it; wait until"
        ):
            ref.read()
    path.write_bytes(saved(torch.arange(5_000)))
    ref = open_tensor(str(path))
    path.write_bytes(b"short")
    with pytest.raises(FileError, match="removed or cut short while bncli was reading it"):
        ref.read()


def test_a_compressed_pickle_may_be_large_if_it_is_no_bomb(tmp_path):
    names = {f"{n * 7919 % 100_003}": 0 for n in range(100_003)}
    data = rewritten(saved({"names": [names] * 2, "w": torch.ones(2), "x": "ab" * 30_000}), 8)
    assert list(opened(tmp_path, data).tensors) == ["w"]
    with pytest.raises(UnsupportedFileError, match="its pickle is compressed and would take"):
        opened(tmp_path, rewritten(saved({"w": torch.ones(2), "x": "a" * 5_000_000}), 8))


def test_members_that_pytorch_would_not_find(tmp_path):
    data = rewritten(saved({"w": torch.ones(3)}), zipfile.ZIP_STORED)
    entry = data.index(b"archive/data/0", data.index(b"PK\x01\x02")) - 46
    marked = bytearray(data)
    marked[entry + 38] |= 0x10
    with pytest.raises(CorruptFileError, match="archive/data/0 is marked as a folder"):
        opened(tmp_path, bytes(marked))
    two = torch_zip(tensor(reference=pid("a")), {"a": bytes(16), "A": bytes(16)})
    with pytest.raises(CorruptFileError, match=r"cannot tell its members a/data/a and a/data/A"):
        opened(tmp_path, two)


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_the_collector_is_left_as_it_was(whole, collecting, tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"w": torch.ones(3)}, path)
    if not whole:
        path.write_bytes(path.read_bytes().replace(b"\x80\x02}", b"\x80\x09}"))
    (gc.enable if collecting else gc.disable)()
    try:
        if whole:
            open_file(path)
        else:
            with pytest.raises(CorruptFileError):
                open_file(path)
        assert gc.isenabled() is collecting
    finally:
        gc.enable()
