"""How two stored tensors compare: by checksums, by bytes, by values."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from bncli.changes import contents
from bncli.changes.contents import compared
from bncli.errors import CorruptFileError, FileError
from bncli.files.file_bytes import Checksum, FileBytes
from bncli.files.reading import reading
from bncli.loaders import open_model, open_tensor
from bncli.model import TensorRef
from bncli.model.changes import Same

FLOATS = {"float64": "f8", "float32": "f4", "float16": "f2"}
KINDS = {**FLOATS, "int64": "i8", "int16": "i2", "uint8": "u1", "bool": "?", "complex64": "c8"}


def tensors(path):
    return open_model(Path(path)).tensors


def tensor(path):
    (ref,) = tensors(path).values()
    return ref


@pytest.fixture
def saved(save):
    """A function that compares two tensors, stored in torch files."""

    def compare(a, b):
        return compared(tensor(save("a.pth", {"x": a})), tensor(save("b.pth", {"x": b})))

    return compare


@pytest.fixture
def reads(monkeypatch):
    """The number of bytes that each read of a tensor asks for."""
    seen = []
    elements, into = FileBytes.elements, contents.read_into

    def counting(self, file, dtype, shape, strides, start=0):
        seen.append(int(np.prod(shape)) * dtype.itemsize)
        return elements(self, file, dtype, shape, strides, start)

    def counting_into(file, path, offset, target):
        seen.append(len(target))
        into(file, path, offset, target)

    monkeypatch.setattr(FileBytes, "elements", counting)
    monkeypatch.setattr(contents, "read_into", counting_into)
    return seen


def with_crc(path, name, crc):
    """Put a checksum of a member into the directory and the descriptor or the header."""
    data = bytearray(Path(path).read_bytes())
    key = name.encode()
    at = data.rindex(key) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    old = data[at + 16 : at + 20]
    data[at + 16 : at + 20] = struct.pack("<L", crc)
    local = data.index(key) - 30
    assert data[local : local + 4] == b"PK\x03\x04"
    if data[local + 14 : local + 18] == old:
        data[local + 14 : local + 18] = struct.pack("<L", crc)
    Path(path).write_bytes(data)


# ------------------------------------------------------------------ values


def test_one_element_that_differs(saved):
    x = torch.randn(30, 20, 3, 3)
    other = x.clone()
    assert saved(x, other) is Same.SAME
    other[29, 19, 2, 2] = torch.nextafter(other[29, 19, 2, 2], torch.tensor(9.0))
    assert saved(x, other) is Same.MOVED


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_rounding(saved, dtype):
    x = torch.randn(30, 20, 3, 3)
    assert saved(x, x.to(dtype)) is Same.ROUNDED
    assert saved(x.to(dtype), x) is Same.ROUNDED
    assert saved(x.double(), x.to(dtype)) is Same.ROUNDED
    assert saved(x.to(dtype).float(), x) is Same.ROUNDED
    other = x.clone()
    other[29, 19, 2, 2] += 0.1
    assert saved(other, x.to(dtype)) is Same.MOVED
    assert saved(other, x.to(dtype).float()) is Same.MOVED


def test_a_rounding_shows_only_where_several_values_went_through(saved):
    ones = torch.ones(10_000)
    assert saved(ones, ones * 1.00001) is Same.MOVED
    ones[9_999] = 2
    assert saved(ones, ones * 1.00001) is Same.ROUNDED


def test_zeros_of_two_signs_are_equal_values(saved):
    assert saved(torch.zeros(9), -torch.zeros(9)) is Same.ROUNDED


def test_integers_are_compared_exactly(saved):
    big = torch.tensor([2**53, 2**60])
    assert saved(big, big + 1) is Same.MOVED
    assert saved(big, big.clone()) is Same.SAME
    assert saved(torch.tensor(2**53 + 1), torch.tensor(2**53 + 1).to(torch.uint64)) is Same.ROUNDED
    assert saved(torch.tensor(2**53 + 1), torch.tensor(2**53).to(torch.uint64)) is Same.MOVED
    assert saved(torch.arange(300), torch.arange(300).int()) is Same.ROUNDED
    assert saved(torch.arange(300), torch.arange(300).half()) is Same.ROUNDED
    assert saved(torch.arange(300), torch.arange(1, 301).half()) is Same.MOVED


def test_complex_numbers_have_two_parts(saved):
    x = torch.complex(torch.randn(50), torch.randn(50))
    other = x.clone()
    other.imag[49] += 1
    assert saved(x, x.clone()) is Same.SAME
    assert saved(x, other) is Same.MOVED
    assert saved(x.to(torch.complex128), x) is Same.ROUNDED
    assert saved(other.to(torch.complex128), x) is Same.MOVED
    assert saved(x, x.real.clone()) is Same.MOVED


def test_float64_that_went_through_float32(saved):
    x = torch.randn(50, dtype=torch.float64)
    assert saved(x, x.float().double()) is Same.ROUNDED


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_without_values_or_with_other_shapes_there_is_no_answer(saved):
    x = torch.eye(3)
    assert saved(x, x.to_sparse()) is None
    assert saved(x.to("meta"), x) is None
    assert saved(torch.zeros(3), torch.zeros(4)) is None
    assert saved(torch.zeros(2, 3), torch.zeros(6)) is None
    half = torch.zeros(3, dtype=torch.complex32)
    assert saved(half, half.clone()) is Same.SAME
    assert saved(half, torch.zeros(3)) is None


def test_nothing_equals_nothing(saved):
    assert saved(torch.zeros(0, 3), torch.zeros(0, 3)) is Same.SAME
    assert saved(torch.zeros(0, 3), torch.zeros(0, 3).half()) is Same.ROUNDED


# ------------------------------------------------------------------ where they lie


@pytest.mark.parametrize("other", ["a.pth", "a.safetensors", "a.npz", "packed.npz", "legacy.pth"])
def test_in_every_container(save, other):
    x = torch.randn(64, 32, 3, 3)
    torch.save({"x": x}, "legacy.pth", _use_new_zipfile_serialization=False)
    for name, each in (("a", x), ("b", x + 1)):
        save(f"{name}.pth", {"x": each})
        save_file({"x": each}, f"{name}.safetensors")
        np.savez(f"{name}.npz", x=each.numpy())
    np.savez_compressed("packed.npz", x=x.numpy())
    for path in ("a.pth", "a.safetensors", "a.npz"):
        assert compared(tensor(path), tensor(other)) is Same.SAME
        assert compared(tensor(path.replace("a", "b", 1)), tensor(other)) is Same.MOVED


def test_layouts_and_views(saved):
    x = torch.randn(40, 30, 5, 5)
    last = x.contiguous(memory_format=torch.channels_last)
    assert saved(x, last) is Same.SAME
    assert saved(last, last.clone()) is Same.SAME
    assert saved(last, x.half()) is Same.ROUNDED
    assert saved(x, last + 1) is Same.MOVED
    assert saved(torch.randn(9)[:1].expand(7), torch.zeros(7)) is Same.MOVED
    one = torch.ones(1)
    assert saved(one.expand(7), torch.ones(7)) is Same.SAME
    big = torch.randn(80, 50)
    assert saved(big[::2, 1::3], big[::2, 1::3].contiguous()) is Same.SAME


@pytest.mark.parametrize(
    ("shape", "order"),
    [((20, 30), (1, 0)), ((8, 6, 5), (2, 1, 0)), ((8, 6, 5, 3), (2, 3, 1, 0)),
     ((8, 6, 5, 3, 2), (2, 3, 4, 1, 0)), ((8, 1, 5, 3), (2, 3, 0, 1)), ((9, 9), (1, 0)),
     ((5, 5, 5, 5), (2, 3, 1, 0))],
)  # fmt: skip
def test_kernels_of_other_frameworks(saved, shape, order):
    x = torch.randn(shape)
    port = x.permute(order).contiguous()
    assert saved(x, port) is Same.SAME
    assert saved(port, x) is Same.SAME
    assert saved(port.half(), x) is Same.ROUNDED
    port[(-1,) * port.ndim] += 1
    assert saved(x, port) is Same.MOVED


def test_large_kernels_are_not_turned(saved, monkeypatch):
    monkeypatch.setattr(contents, "MOST_TURNED", 100)
    x = torch.randn(5, 5)
    assert saved(x, x.T.contiguous()) is Same.SAME
    assert saved(torch.randn(6, 5), torch.randn(5, 6)) is None


@st.composite
def stored(draw):
    """An array, and a function that puts its elements into a file in an order of its axes."""
    shape = draw(st.lists(st.integers(0, 7), max_size=4))
    kind = draw(st.sampled_from(sorted(KINDS)))
    seed = draw(st.integers(0, 99))
    values = np.random.default_rng(seed).normal(size=shape) * 40
    return np.asarray(np.abs(values)).astype(KINDS[kind]), kind


def placed(data, folder, name, x, kind):
    """A reference to an array that lies somehow in a file, or in memory."""
    order = data.draw(st.permutations(range(x.ndim)))
    byteorder = data.draw(st.sampled_from(["little", "big"]))
    lying = np.ascontiguousarray(x.transpose(order)).reshape(tuple(x.shape[i] for i in order))
    strides = [0] * x.ndim
    for axis, step in zip(order, lying.strides, strict=True):
        strides[axis] = step // x.itemsize
    raw = lying.astype(x.dtype.newbyteorder("<" if byteorder == "little" else ">"))
    start = data.draw(st.integers(0, 3))
    path = folder / name
    path.write_bytes(b"?" * start + raw.tobytes())
    flat = raw.reshape(-1)
    place = data.draw(st.sampled_from([FileBytes(path, start, raw.nbytes, byteorder), flat.copy]))
    return TensorRef(name, path, x.shape, kind, tuple(strides), place)


@given(stored(), st.data())
def test_layouts_byte_orders_and_blocks(folder_of_test, drawn, data):
    x, kind = drawn
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(contents, "BLOCK", data.draw(st.integers(1, 300)))
        patch.setattr(contents, "TILE", data.draw(st.integers(1, 100)))
        patch.setattr(contents, "SAMPLE", data.draw(st.integers(1, 100)))
        a = placed(data, folder_of_test, "a", x, kind)
        b = placed(data, folder_of_test, "b", x, kind)
        assert compared(a, b) is Same.SAME
        if x.size:
            moved = x.copy()
            at = data.draw(st.integers(0, x.size - 1))
            one = moved.reshape(-1)[at : at + 1]
            one[:] = one * 3 + 1 if x.dtype.kind in "fc" else one ^ 1
            found = compared(a, placed(data, folder_of_test, "c", moved, kind))
            assert found is Same.MOVED
        if kind in FLOATS:
            for other, short in FLOATS.items():
                found = compared(a, placed(data, folder_of_test, "d", x.astype(short), other))
                assert found is (Same.SAME if other == kind else Same.ROUNDED)


@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 60))
def test_tiles_cover_each_element_once(shape, most):
    seen = np.zeros(shape, int)
    for tile in contents._tiles(tuple(shape), most):
        assert 0 < seen[tile].size <= most
        seen[tile] += 1
    assert (seen == 1).all()


@pytest.fixture(scope="module")
def folder_of_test(tmp_path_factory):
    return tmp_path_factory.mktemp("contents")


# ------------------------------------------------------------------ what is read


def test_equal_checksums_are_enough(save, reads):
    x = torch.randn(500, 300)
    save("a.pth", {"x": x})
    save("b.pth", {"some.more": torch.zeros(3), "x": x.clone()})
    assert compared(tensors("a.pth")["x"], tensors("b.pth")["x"]) is Same.SAME
    np.savez("a.npz", x=x.numpy())
    np.savez("b.npz", y=np.zeros(3), x=x.numpy())
    assert compared(tensors("a.npz")["x"], tensors("b.npz")["x"]) is Same.SAME
    shared = torch.randn(90)
    save("a.pth", {"x": shared[10:20], "all": shared})
    save("b.pth", {"x": shared[10:20], "all": shared})
    assert compared(tensors("a.pth")["x"], tensors("b.pth")["x"]) is Same.SAME
    assert reads == []


def test_equal_checksums_of_bytes_that_are_read_otherwise_tell_nothing(folder):
    x = np.arange(12, dtype="<f4").reshape(3, 4)
    refs = []
    for name in "ab":
        path = folder / name
        path.write_bytes(x.tobytes())
        sums = Checksum(name, 0, x.nbytes, zlib.crc32(x))
        place = FileBytes(path, 0, x.nbytes, checksum=sums)
        refs.append(TensorRef("x", path, (3, 4), "float32", (4, 1), place))
    a, b = refs
    assert compared(a, b) is Same.SAME
    assert compared(a, replace(b, strides=(1, 3))) is Same.MOVED
    big = replace(b, storage=replace(b.storage, byteorder="big"))
    assert compared(a, big) is Same.MOVED
    assert compared(big, replace(big, name="y", path=folder / "a")) is Same.SAME
    assert compared(a, replace(b, dtype="int32")) is Same.MOVED


def test_the_same_bytes_are_not_read(folder, reads):
    save_file({"x": torch.randn(9)}, "a.safetensors")
    ref = tensor("a.safetensors")
    assert compared(ref, replace(ref, name="y")) is Same.SAME
    assert reads == []


def test_unequal_checksums_cost_no_more_than_a_sample(saved, reads):
    x = torch.randn(4000, 3000)
    assert saved(x, torch.randn(4000, 3000)) is Same.MOVED
    assert 0 < sum(reads) <= 2 * 4 * contents.SAMPLE
    reads.clear()
    assert saved(torch.arange(9), torch.arange(1, 10)) is Same.MOVED
    assert reads == []


def test_two_files_that_differ_cost_little(folder, reads):
    save_file({"x": torch.randn(4000, 300)}, "a.safetensors")
    save_file({"x": torch.randn(4000, 300)}, "b.safetensors")
    assert compared(tensor("a.safetensors"), tensor("b.safetensors")) is Same.MOVED
    assert sum(reads) <= 2 * (contents.BLOCK + 4 * contents.SAMPLE)


def test_square_weights_that_differ_cost_little(saved, reads):
    assert saved(torch.randn(3000, 3000), torch.randn(3000, 3000)) is Same.MOVED
    assert sum(reads) <= 6 * 4 * contents.SAMPLE


def test_files_without_checksums_are_read(save, reads):
    x = torch.randn(40, 50)
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        for name, each in (("a", x), ("b", x), ("c", x + 1)):
            save(f"{name}.pth", {"x": each})
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    with reading():
        a, b, c = (tensor(f"{name}.pth") for name in "abc")
        assert compared(a, c) is Same.MOVED
        assert compared(a, b) is Same.SAME
    assert sum(reads) > 2 * x.numel() * 4


def test_a_checksum_of_zero_is_none(save, reads):
    for name, each in (("a", torch.zeros(40)), ("b", torch.ones(40))):
        path = save(f"{name}.pth", {"x": each, "other": torch.ones(2)})
        with_crc(path, f"{name}/data/0", 0)
    a, b = (tensors(f"{name}.pth")["x"] for name in "ab")
    for ref in (a, b):
        assert ref.storage.checksum.crc == 0
        ref.storage.checksum.fits = True  # as that of some bytes may really be 0
    assert compared(a, b) is Same.MOVED
    assert sum(reads) >= 2 * 40 * 4


def test_the_stored_checksum_is_what_the_writer_saw(save):
    x = torch.randn(40, 50)
    save("a.pth", {"x": x})
    with_crc(save("b.pth", {"x": x}), "b/data/0", zlib.crc32(x.numpy()) ^ 1)
    a, b = tensor("a.pth"), tensor("b.pth")
    with pytest.raises(CorruptFileError, match="does not match its checksum"):
        compared(a, b)
    with reading(checksum=False):
        assert compared(tensor("a.pth"), tensor("b.pth")) is Same.SAME
    with_crc(save("b.pth", {"x": x + 1}), "b/data/0", zlib.crc32((x + 1).numpy()) ^ 1)
    assert compared(a, tensor("b.pth")) is Same.MOVED


def test_damage_is_met_where_it_is_read(save, folder):
    x = torch.randn(40, 50)
    save("a.pth", {"x": x})
    save_file({"x": x}, "b.safetensors")
    data = bytearray((folder / "a.pth").read_bytes())
    data[data.index(x.numpy()[30].tobytes())] ^= 1
    (folder / "a.pth").write_bytes(data)
    with pytest.raises(CorruptFileError, match="does not match its checksum"):
        compared(tensor("a.pth"), tensor("b.safetensors"))


def test_files_that_change_meanwhile(folder):
    for name in "ab":
        save_file({"x": torch.ones(50_000)}, f"{name}.safetensors")
    a, b = tensor("a.safetensors"), tensor("b.safetensors")
    assert compared(a, b) is Same.SAME
    with Path("b.safetensors").open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(CorruptFileError, match="cut short while bncli was reading"):
        compared(a, b)
    Path("b.safetensors").unlink()
    with pytest.raises(FileError, match="it was removed"):
        compared(a, b)


def test_memory_stays_small(folder):
    x = torch.randn(2048, 4096)
    save_file({"x": x}, "a.safetensors")
    save_file({"x": x}, "b.safetensors")
    save_file({"x": x.half()}, "half.safetensors")
    save_file({"x": x.T.contiguous()}, "turned.safetensors")
    np.save("fortran.npy", np.asfortranarray(x.numpy()))
    names = ("b.safetensors", "half.safetensors", "turned.safetensors")
    refs = [*map(tensor, names), open_tensor("fortran.npy")]
    a = tensor("a.safetensors")
    compared(a, refs[1])
    tracemalloc.start()
    found = [compared(a, ref) for ref in refs]
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    assert found == [Same.SAME, Same.ROUNDED, Same.SAME, Same.SAME]
