"""A file that is cut while it is read ends in one sentence, never in a signal."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import BncliError, FileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import open_file
from bncli.model import TensorRef

from .files import samples, saved, write

SAMPLES = samples()
NEVER = 1 << 40
"""More reads than there are."""


class Cutting(io.FileIO):
    """A file that another process cuts in half before one of the reads."""

    left = 0
    """Reads until then; each call counts down."""

    def __init__(self, path):
        super().__init__(path)
        self.path = path

    def readinto(self, target):
        Cutting.left -= 1
        if Cutting.left == 0:
            size = Path(self.path).stat().st_size
            os.truncate(self.path, size // 2)
        return super().readinto(target)


@pytest.fixture
def cutting(monkeypatch):
    monkeypatch.setattr("bncli.files.reading.FileIO", Cutting)


def reads_of(action):
    """How many reads an action takes when nothing is cut."""
    Cutting.left = NEVER
    action()
    return NEVER - Cutting.left


def places(reads, whole):
    """Before which reads to cut: all, or the first, the last, and some between, evenly."""
    if whole:
        return range(1, reads + 1)
    ends = {*range(1, 7), *range(reads - 5, reads + 1), *np.linspace(1, reads, 14, dtype=int)}
    return sorted(place for place in ends if 1 <= place <= reads)


WHOLE = pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["some", "all"]
)


@WHOLE
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_cut_before_any_read_of_any_container(name, whole, tmp_path, cutting):
    sample = SAMPLES[name]

    def read():
        for ref in open_file(path).tensors.values():
            if not ref.unreadable:
                ref.read()

    path = write(tmp_path, sample)
    cuts, reads = 0, reads_of(read)
    for place in places(reads, whole):
        path = write(tmp_path, sample)
        Cutting.left = int(place)
        try:
            read()
        except BncliError:
            cuts += 1
        assert Cutting.left <= 0  # it was cut
    assert cuts >= min(2, reads) > 0  # a small file in text is read at once


CALLS = [
    ("compute", "x"),
    ("compute", "x", "--save-output=out.npy"),
    ("trace", "x", "--channel=0"),
    ("simulate-ema", "x", "--batch-size=2", "--shuffle"),
    ("diff", "x", "y"),
    ("diff", "x"),
    ("identify", "x", "y"),
    ("compare-norms", "x"),
    ("inspect-checkpoint", "ck"),
]


@WHOLE
@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_cut_before_any_read_of_any_command(run, folder, cutting, call, whole):
    rng = np.random.default_rng(0)
    net = saved(nn.BatchNorm1d(3).state_dict())
    arrays = [rng.normal(size=(6, 3, 4)).astype(np.float32) for _ in range(2)]
    codes = set()

    def save():
        for name, array in zip("xy", arrays, strict=True):
            with Path(name).open("wb") as file:
                np.save(file, array)
        Path("ck").write_bytes(net)

    save()
    reads = reads_of(lambda: run(*call))
    assert 1 < reads < 400
    Path("out.npy").unlink(missing_ok=True)
    for place in places(reads, whole):
        save()
        Cutting.left = int(place)
        result = run(*call)
        assert Cutting.left <= 0  # it was cut
        codes.add(result.code)
        assert result.code in {0, 1, 2}, result.stderr
        if result.code == 2:
            assert result.stdout == ""
            assert result.stderr.count("\n") == 1
            assert not Path("out.npy").exists()
        Path("out.npy").unlink(missing_ok=True)
    assert 2 in codes


def test_a_cut_from_another_process(tmp_path):
    """The file is as long as its header says until the reader has begun."""
    code = """
import os, sys, threading
from bncli import moments
from bncli.cli import main
path = sys.argv[1]
real = moments.channel_stats
def channel_stats(*arguments, **options):
    threading.Thread(target=os.truncate, args=(path, 1 << 20)).start()
    return real(*arguments, **options)
moments.channel_stats = channel_stats
sys.exit(main(["compute", path, "--save-output", path + ".out.npy"]))
"""
    path = tmp_path / "x.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (64, 8, 50_000))[:] = 1
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("bncli: ")
    assert "cut short while bncli was reading it" in done.stderr
    assert [item.name for item in tmp_path.iterdir()] == ["x.npy"]


@pytest.mark.parametrize("name", ["torch-zip", "torch-legacy", "safetensors", "npy", "npz"])
def test_a_cut_between_opening_and_reading(name, tmp_path):
    path = write(tmp_path, SAMPLES[name])
    refs = open_file(path).tensors
    os.truncate(path, 64)
    for ref in refs.values():
        if ref.numel and ref.storage is not None:
            with pytest.raises(
                FileError, match=r"cut short while bncli was reading it|does not decompress"
            ):
                ref.read()
    path.unlink()
    for ref in refs.values():
        if ref.numel and isinstance(ref.storage, FileBytes):
            with pytest.raises(FileError, match="removed or cut"):
                ref.read()


@pytest.mark.parametrize("dtype", [">f4", "<f4", "<i2"])
def test_any_block_of_any_layout_is_what_numpy_gives(dtype, tmp_path, monkeypatch):
    """Read in windows far smaller than the tensor, against the same view of an array."""
    monkeypatch.setattr("bncli.files.file_bytes.WINDOW", 64)
    rng = np.random.default_rng(0)
    flat = rng.integers(-1000, 1000, 4000).astype(dtype)
    path = tmp_path / "x"
    path.write_bytes(b"head" + flat.tobytes())
    where = FileBytes(path, 4, flat.nbytes, "big" if dtype[0] == ">" else "little")
    name = {"f": "float32", "i": "int16"}[dtype[1]]
    for shape, strides in (
        ((4000,), (1,)),
        ((40, 100), (100, 1)),
        ((100, 40), (1, 100)),
        ((4, 5, 6, 7), (900, 150, 20, 2)),
        ((7, 6, 5, 4), (2, 20, 150, 900)),
        ((3, 50, 3), (0, 70, 1)),
        ((1, 5, 1), (999, 800, 123)),
        ((30, 30), (10, 10)),
        ((), ()),
        ((0, 3), (3, 1)),
        ((2, 0), (1, 1)),
    ):
        ref = TensorRef("", path, shape, name, strides, where)
        steps = [step * flat.itemsize for step in strides]
        expected = np.lib.stride_tricks.as_strided(flat, shape, steps)
        np.testing.assert_array_equal(ref.stored(), expected)
        np.testing.assert_array_equal(ref.read(), expected)
        assert ref.stored().shape == shape
        for _ in range(20):
            block = []
            for size in shape[: rng.integers(0, len(shape) + 1)]:
                begin, end = sorted(rng.integers(0, size + 1, 2).tolist())
                block.append(slice(begin, end))
            np.testing.assert_array_equal(ref.stored(tuple(block)), expected[tuple(block)])


def test_little_is_read_for_a_block(tmp_path, monkeypatch):
    """A channel of a large tensor is no reason to read the others."""
    path = tmp_path / "x"
    with path.open("wb") as file:
        np.save(file, np.zeros((8, 64, 100_000), np.float32))
    total = [0]

    class Counting(io.FileIO):
        def readinto(self, target):
            total[0] += len(target)
            return super().readinto(target)

    monkeypatch.setattr("bncli.files.reading.FileIO", Counting)
    ref = open_file(path).tensors[""]
    total[0] = 0
    assert ref.stored((slice(None), slice(5, 6))).shape == (8, 1, 100_000)
    assert total[0] == 8 * 400_000


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("kind", ["npy", "pt", "legacy", "npz", "deflated"])
def test_too_little_memory_is_said_as_it_is(kind, tmp_path):
    x = torch.zeros(3, 10_000_000)
    x[:, ::64] = torch.rand(156_250)
    path = tmp_path / "x"
    with path.open("wb") as file:
        if kind == "npy":
            np.save(file, x.numpy())
        elif kind == "npz":
            np.savez(file, x=x.numpy())
        elif kind == "deflated":
            np.savez_compressed(file, x=x.numpy())
        else:
            torch.save({"x": x}, file, _use_new_zipfile_serialization=kind == "pt")
    code = """
import resource, sys
import numpy
from bncli.cli import main
from pathlib import Path
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (80 << 20),) * 2)
sys.exit(main(sys.argv[1:]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "compute", path, "--save-output", tmp_path / "y.npy",
         "--against", "torch"],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "not enough memory" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "cut" not in done.stderr
