import argparse
import collections
import datetime as dt
import io
import pathlib
import types
import zipfile
from typing import NamedTuple

import numpy as np
import pytest
import torch

from bncli.errors import CorruptFileError, FileError, TensorError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import inflated, open_file, open_tensor, torch_places
from bncli.loaders.zip_archive import Packed

from .files import assert_same, bits, newer_values, saved, values
from .pickles import dictionary, tensor, text, torch_zip, zipped


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


def test_views_of_one_storage_share_its_bytes(tmp_path):
    base = torch.arange(20.0)
    file = opened(tmp_path, saved({"base": base, "tail": base[12:], "even": base[::2]}))
    places = {name: ref.storage for name, ref in file.tensors.items()}
    assert all(isinstance(place, FileBytes) for place in places.values())
    assert places["tail"].offset == places["base"].offset + 48
    assert file.tensors["even"].strides == (2,)
    assert file.tensors["even"].read().tolist() == base[::2].tolist()


def test_a_tensor_alone_has_no_name(tmp_path):
    file = opened(tmp_path, saved(torch.arange(3)))
    assert list(file.tensors) == [""]
    assert open_tensor(str(tmp_path / "x")).read().tolist() == [0, 1, 2]


def test_nested_dictionaries_stay_apart_by_path(tmp_path):
    state = {"bn.running_mean": torch.zeros(2), "bn.running_var": torch.ones(2)}
    checkpoint = {
        "epoch": 3,
        "state_dict": state,
        "model": {"ema": state, "net": collections.OrderedDict(a=torch.tensor(1))},
        "list": [torch.tensor(5), (torch.tensor(6), {7: torch.tensor(8)})],
        "": torch.tensor(9),
    }
    file = opened(tmp_path, saved(checkpoint))
    assert list(file.tensors) == [
        "state_dict.bn.running_mean", "state_dict.bn.running_var",
        "model.ema.bn.running_mean", "model.ema.bn.running_var", "model.net.a",
        "list.0", "list.1.0", "list.1.1.7", "",
    ]  # fmt: skip
    assert file.tensors["list.1.1.7"].read() == 8


def test_two_paths_that_spell_the_same_are_both_listed(tmp_path):
    file = opened(tmp_path, saved({"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}}))
    assert len(file.tensors) == 2
    assert sorted(int(ref.read()) for ref in file.tensors.values()) == [1, 2]


class Custom:
    def __init__(self, **state):
        self.__dict__.update(state)


class Slotted:
    __slots__ = ("weight",)


class Pair(NamedTuple):
    a: object
    b: object


def test_whatever_else_is_in_the_file_does_not_spoil_it(tmp_path):
    slotted = Slotted()
    slotted.weight = torch.tensor(4)
    circular = Custom(tensor=torch.tensor(5))
    circular.me = circular
    checkpoint = {
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b")),
        "time": dt.datetime(2020, 1, 2, tzinfo=dt.timezone.utc),
        "best": np.float64(0.3),
        "array": np.arange(3),
        "default": collections.defaultdict(list, a=[torch.tensor(1)]),
        "counter": collections.Counter("aab"),
        "set": {1, 2},
        "frozen": frozenset({3}),
        "bytes": b"abc" * 100,
        "array of bytes": bytearray(b"abc"),
        "big": 1 << 5_000,
        "complex": 1j,
        "function": torch.nn.functional.relu,
        "namespace": types.SimpleNamespace(t=torch.tensor(2)),
        "pair": Pair(torch.tensor(3), 0),
        "slotted": slotted,
        "circular": circular,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "size": torch.Size([1]),
        "generator": torch.get_rng_state(),
        "parameter": torch.nn.Parameter(torch.tensor(6.0)),
        "slice": slice(1, 2),
        "range": range(3),
        "ellipsis": ...,
    }
    for protocol in (2, 4):
        file = opened(tmp_path, saved(checkpoint, pickle_protocol=protocol))
        found = {k: int(r.read()) for k, r in file.tensors.items() if r.ndim == 0}
        assert found == {
            "default.a.0": 1, "namespace.t": 2, "pair.0": 3, "slotted.weight": 4,
            "circular.tensor": 5, "parameter": 6,
        }  # fmt: skip


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


def test_an_expanded_tensor_that_repeats_too_much_is_not_unfolded(tmp_path):
    wide = torch.zeros(1).expand(1 << 40)
    file = opened(tmp_path, saved({"wide": wide, "small": torch.zeros(1).expand(100)}))
    assert file.tensors["wide"].shape == (1 << 40,)
    with pytest.raises(TensorError, match="spreads 1 stored elements over 1099511627776"):
        file.tensors["wide"].read()
    assert file.tensors["small"].read().shape == (100,)


def test_missing_bytes_and_short_bytes(tmp_path):
    with pytest.raises(CorruptFileError, match="the bytes of its storage 0 are missing"):
        opened(tmp_path, torch_zip(tensor(), {}))
    with pytest.raises(CorruptFileError, match="a storage of 16 bytes, of which 12 exist"):
        opened(tmp_path, torch_zip(tensor(), {"0": bytes(12)}))


def test_a_zip_of_another_kind(tmp_path):
    with pytest.raises(Exception, match="of neither PyTorch nor NumPy"):
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
        with pytest.raises(FileError, match="removed or cut while bncli read it; wait until"):
            ref.read()
    path.write_bytes(saved(torch.arange(5_000)))
    ref = open_tensor(str(path))
    path.write_bytes(b"short")
    with pytest.raises(FileError, match="removed or cut while bncli read it"):
        ref.read()


def test_parts_that_are_shared_many_times_and_long_lists_are_honest(tmp_path):
    state = {f"layer{n}.weight": torch.tensor(n) for n in range(300)}
    shared = {f"copy{n}": state for n in range(6)}
    numbers = {n: float(n) for n in range(50_000)} | {"w": torch.tensor(1)}
    file = opened(tmp_path, saved({"shared": shared, "numbers": numbers}))
    assert len(file.tensors) == 6 * 300 + 1
    assert file.tensors["shared.copy5.layer7.weight"].read() == 7


def test_a_compressed_storage_is_inflated_once_for_all_its_tensors(tmp_path, monkeypatch):
    flat = torch.randn(3_000)
    views = {f"k{n}": flat[10 * n : 10 * n + 10] for n in range(5, 200)}
    file = opened(tmp_path, rewritten(saved(views), zipfile.ZIP_DEFLATED))
    inflated = []
    chunks = Packed.chunks

    def counted(packed):
        inflated.append(packed.name)
        return chunks(packed)

    monkeypatch.setattr(Packed, "chunks", counted)
    assert_same(file.tensors, views)
    assert len(inflated) == 1


def test_what_is_kept_of_inflated_storages_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(inflated, "MOST_INFLATED", 1_000)
    tensors = {f"k{n}": torch.randn(100) for n in range(9)}
    file = opened(tmp_path, rewritten(saved(tensors), zipfile.ZIP_DEFLATED))
    assert_same(file.tensors, tensors)
    holders = {id(ref.storage.args[0]): ref.storage.args[0] for ref in file.tensors.values()}
    assert len(holders) == 1
    (holder,) = holders.values()
    kept = [len(data) for runs in holder.kept.values() for _, data in runs]
    assert kept == [400] * 2


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


def test_a_compressed_pickle_may_be_large_if_it_is_no_bomb(tmp_path):
    names = {f"{n * 7919 % 100_003}": 0 for n in range(100_003)}
    data = rewritten(saved({"names": [names] * 2, "w": torch.ones(2), "x": "ab" * 30_000}), 8)
    assert list(opened(tmp_path, data).tensors) == ["w"]
    with pytest.raises(UnsupportedFileError, match="its pickle is compressed and would take"):
        opened(tmp_path, rewritten(saved({"w": torch.ones(2), "x": "a" * 5_000_000}), 8))


@pytest.mark.parametrize("near", [0, 100, 1 << 16])
@pytest.mark.parametrize("piece", [1, 7, 1_000])
def test_of_an_inflated_storage_only_what_is_used_is_kept(near, piece, tmp_path, monkeypatch):
    monkeypatch.setattr(inflated, "NEAR", near)
    flat = torch.randn(2_000)
    views = {"all": flat[5:900], "inside": flat[20:30], "over": flat[890:905].reshape(5, 3),
             "far": flat[1_500:1_501], "last": flat[1_990:], "none": flat[3:3]}  # fmt: skip
    file = opened(tmp_path, rewritten(saved(views), zipfile.ZIP_DEFLATED))
    chunks = Packed.chunks

    def in_pieces(packed):
        whole = b"".join(chunks(packed))
        return (whole[at : at + piece] for at in range(0, len(whole), piece))

    monkeypatch.setattr(Packed, "chunks", in_pieces)
    assert_same(file.tensors, views)
    kept = file.tensors["all"].storage.args[0].kept
    sizes = [len(data) for runs in kept.values() for _, data in runs]
    assert sizes == ([1_995 * 4] if near == 1 << 16 else [900 * 4, 4, 40])
