"""What edits make of files: written into copies, and what other readers find there."""

import struct
import zipfile
from fractions import Fraction
from io import BytesIO
from math import floor

import numpy as np
import torch
from torch import nn

from bncli.dtypes import DTYPES
from bncli.loaders.patches import edits_of
from tests.loaders.files import bits, saved

LEGACY = {"_use_new_zipfile_serialization": False}


def nearest(value, dtype):
    """The nearest value of a dtype, ties to even, in exact fractions."""
    kind, exact = DTYPES[dtype], Fraction(value)
    if not exact:
        return 0.0
    unit = Fraction(kind.tiniest)
    while abs(exact) / unit >= 1 << kind.digits:
        unit *= 2
    steps = exact / unit
    low = floor(steps)
    rest = steps - low
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1)
    return float((low + up) * unit)


def as_held(values, like):
    """New values as a tensor of PyTorch of the dtype of `like`, rounded once."""
    if not like.dtype.is_floating_point or like.dtype in {torch.float32, torch.float64}:
        return torch.as_tensor(values).to(like.dtype).reshape(like.shape)
    name = str(like.dtype).removeprefix("torch.")
    exact = [nearest(float(value), name) for value in np.asarray(values).reshape(-1)]
    return torch.tensor(exact, dtype=torch.float64).to(like.dtype).reshape(like.shape)


def applied(data, edits):
    """A copy of a file's bytes with the edits, which must be inside, in order and apart."""
    new, end = bytearray(data), 0
    for edit in edits:
        assert end <= edit.offset
        assert edit.end <= len(data)
        new[edit.offset : edit.end] = edit.data
        end = edit.end
    return bytes(new)


def edit(file, values):
    """The new bytes of each file that changes; they differ from the old ones in the edits alone."""
    changed = edits_of(file, values)
    return {path: applied(path.read_bytes(), edits) for path, edits in changed.items()}


def differing(one, other):
    """The places at which two files of one length have another byte."""
    assert len(one) == len(other)
    pair = (np.frombuffer(data, np.uint8) for data in (one, other))
    return set(np.flatnonzero(np.not_equal(*pair)).tolist())


def checksums(data):
    """Place -> (member, value) of each checksum in a ZIP archive, found without bncli.

    In the directory, in each local header, and behind each member with the flag for that.
    """
    places = []
    at = struct.unpack_from("<L", data, data.rfind(b"PK\x05\x06") + 16)[0]
    with zipfile.ZipFile(BytesIO(data)) as archive:
        infos = archive.infolist()
    for info in infos:
        assert data[at : at + 4] == b"PK\x01\x02"
        local = info.header_offset
        places += [(at + 16, info.filename), (local + 14, info.filename)]
        at += 46 + sum(struct.unpack_from("<3H", data, at + 28))
        if info.flag_bits & 8:
            behind = local + 30 + sum(struct.unpack_from("<2H", data, local + 26))
            behind += info.compress_size
            behind += 4 * (data[behind : behind + 4] == b"PK\x07\x08")
            places.append((behind, info.filename))
    return {at: (name, struct.unpack_from("<L", data, at)[0]) for at, name in places}


def checksum_places(data):
    """Every byte of a ZIP archive that is part of a checksum."""
    return {place for at in checksums(data) for place in range(at, at + 4)}


class Pipe:
    """A stream that cannot be sought in, so that `zipfile` writes sizes behind each member."""

    def __init__(self):
        self.parts = []

    def write(self, data):
        self.parts.append(bytes(data))
        return len(data)

    def flush(self):
        pass

    def read(self):
        raise OSError  # NumPy asks whether there is such a method

    def getvalue(self):
        return b"".join(self.parts)


def network():
    """A state_dict whose statistics have every dtype and every place that they may have."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    state = dict(net.state_dict())
    big = torch.randn(40)
    state["view.running_mean"] = big[3:7]
    state["view.running_var"] = big[8:12].abs_()
    state["strided.running_mean"] = big[20::2][:5]
    state["strided.running_var"] = big[21::2][:5].abs_()
    state["big.rest"] = big[36:]
    for dtype in ("float16", "bfloat16", "float64"):
        kind = getattr(torch, dtype)
        state[f"{dtype}.running_mean"] = torch.randn(3).to(kind)
        state[f"{dtype}.running_var"] = torch.rand(3).to(kind)
    state["int32.num_batches_tracked"] = torch.tensor(5, dtype=torch.int32)
    state["float.num_batches_tracked"] = torch.tensor([5.0])
    state["last.weight"] = torch.randn(3, 3)
    return state


def new_values(state, seed=1):
    """Values for every statistic, as float64, and a counter for every counter."""
    random = np.random.default_rng(seed)
    return {
        name: np.full(value.shape, 1234)
        if name.endswith("tracked")
        else random.random(value.shape) + 0.01
        for name, value in state.items()
        if name.endswith(("running_mean", "running_var", "tracked"))
    }


def assert_written(before, after, values):
    """The new values are there, rounded once, and every other tensor has its old bits."""
    assert list(before) == list(after)
    for name, old in before.items():
        expected = as_held(values[name], old) if name in values else old
        assert after[name].dtype == old.dtype
        assert bits(after[name]) == bits(expected), name


def load(data):
    return torch.load(BytesIO(data), weights_only=True)


def wrong(data):
    """The first member that does not have its checksum."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        return archive.testzip()


def without_crc(state):
    torch.serialization.set_crc32_options(False)
    try:
        return saved(state)
    finally:
        torch.serialization.set_crc32_options(True)


def npz(arrays, *, stream=False, wide=False):
    """np.savez into a file or a stream; or as zipfile does with sizes of 64 bits."""
    out = Pipe() if stream else BytesIO()
    if not wide:
        np.savez(out, **arrays)
        return out.getvalue()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array)
    return out.getvalue()
