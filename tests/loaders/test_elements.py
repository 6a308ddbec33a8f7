"""A stored tensor's elements in blocks, and the checksum of them."""

from __future__ import annotations

import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncli.errors import CorruptFileError, TensorError
from bncli.files.file_bytes import FileBytes
from bncli.files.reading import reading
from bncli.live.weights import crc_of
from bncli.loaders import elements, open_model, open_tensor
from bncli.loaders.elements import crc_of_ref
from bncli.model import TensorRef


@pytest.fixture
def unread(monkeypatch):
    """No bytes of any tensor may be read."""

    def read_into(*_):
        raise AssertionError("it was read")

    monkeypatch.setattr(elements, "read_into", read_into)
    monkeypatch.setattr(FileBytes, "elements", read_into)


def test_what_the_directory_says_is_not_read(save, unread):
    x = torch.arange(12.0).reshape(3, 4)
    turned = x.T.clone(memory_format=torch.contiguous_format).T
    path = save("x.pth", {"x": x, "view": torch.arange(20.0)[4:8], "turned": turned})
    refs = open_model(Path(path)).tensors
    assert crc_of_ref(refs["x"]) == zlib.crc32(x.numpy().tobytes())
    for name in ("view", "turned"):  # which are not their members, byte for byte
        with pytest.raises(AssertionError, match="it was read"):
            crc_of_ref(refs[name])


def test_a_file_without_checksums_is_read(save, unread):
    path = save("x.pth", {"x": torch.arange(12.0)})
    with reading(checksum=False), pytest.raises(AssertionError, match="it was read"):
        crc_of_ref(open_tensor(f"{path}::x"))


def test_damage_is_met_where_a_tensor_is_read(save, folder):
    path = save("x.pth", {"x": torch.arange(20.0)[4:8]})
    data = bytearray((folder / path).read_bytes())
    at = data.index(np.float32(5).tobytes())
    data[at] ^= 1
    (folder / path).write_bytes(data)
    with pytest.raises(CorruptFileError, match="does not match its checksum"):
        crc_of_ref(open_tensor(f"{path}::x"))


def test_tensors_of_any_strides_and_byte_order(save, folder, monkeypatch):
    monkeypatch.setattr(elements, "BLOCK", 40)  # so that there are several
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    tensors = {
        "dense": base, "view": base[1:, 1:3], "turned": base.permute(2, 0, 1), "step": base[:, ::2],
        "repeated": base[:1].expand(7, 4, 5), "scalar": base[1, 2, 3], "none": base[:0],
        "half": base.bfloat16().permute(1, 2, 0), "bits": base > 7,
        "complex": torch.complex(base, base + 1).permute(1, 0, 2),
    }  # fmt: skip
    refs = open_model(folder / save("x.pth", tensors)).tensors
    for name, tensor in tensors.items():
        assert crc_of_ref(refs[name]) == crc_of(tensor), name
    for kind in (">f4", ">c8", ">i2"):
        x = np.arange(60).reshape(3, 20).astype(kind)
        little = zlib.crc32(x.astype(kind.replace(">", "<")).tobytes())
        assert crc_of_ref(open_tensor(save("big.npy", x))) == little
        assert crc_of_ref(open_tensor(save("big.npy", np.asfortranarray(x)))) == little


@given(st.data())
def test_a_view_in_blocks(data):
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    order = data.draw(st.permutations(range(len(sizes))))
    x = np.arange(np.prod(sizes), dtype=np.int16).reshape(sizes).transpose(order)
    steps = tuple(step // 2 for step in x.strides)
    ref = TensorRef("x", None, x.shape, "int16", steps, np.arange(x.size, dtype=np.int16).copy)
    patched = pytest.MonkeyPatch()
    with patched.context() as patch:
        patch.setattr(elements, "BLOCK", data.draw(st.integers(1, 300)))
        assert crc_of_ref(ref) == zlib.crc32(x.tobytes())


def test_a_tensor_without_values():
    ref = TensorRef("x", None, (3,), "float32", (1,), None, "it is sparse")
    with pytest.raises(TensorError, match=r"its values cannot be read \(it is sparse\)"):
        crc_of_ref(ref)


def test_memory_stays_small(folder):
    values = np.arange(1 << 22, dtype=np.float32)
    values.tofile("x.bin")
    plain = FileBytes(folder / "x.bin", 0, values.nbytes)
    ref = TensorRef("x", plain.path, values.shape, "float32", (1,), plain)
    turned = TensorRef("y", plain.path, (1 << 11, 1 << 11), "float32", (1, 1 << 11), plain)
    crcs = zlib.crc32(values), zlib.crc32(values.reshape(1 << 11, 1 << 11).T.copy())
    tracemalloc.start()
    assert (crc_of_ref(ref), crc_of_ref(turned)) == crcs
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
