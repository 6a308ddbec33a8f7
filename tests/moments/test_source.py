"""Tensors in files: read in pieces, in every dtype and stride, and in bounded memory."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from bncli.dtypes import DTYPES, decode, encode
from bncli.errors import CorruptFileError, FileError, TensorError
from bncli.files.file_bytes import FileBytes
from bncli.files.reading import read_into
from bncli.model import TensorRef
from bncli.moments import channel_stats, fast, source
from bncli.moments.layout import Sizes
from bncli.moments.source import Source

from .exact import check, same_bits
from .summed import both, both_by_dtype
from .test_engine import CUTS
from .test_worker import check_dirty


def stored_tensor(path, bits, dtype, shape, strides, byteorder="little", offset=64):
    """A TensorRef to `bits`, written to `path` after `offset` bytes of something else."""
    order = "<" if byteorder == "little" else ">"
    data = np.asarray(bits).ravel().astype(np.dtype(DTYPES[dtype].stored).newbyteorder(order))
    path.write_bytes(b"\xff" * offset + data.tobytes() + b"\xff" * 9)
    where = FileBytes(path, offset, data.nbytes, byteorder)
    return TensorRef("t", path, shape, dtype, strides, where)


def c_strides(shape):
    return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


@both_by_dtype("float16", "bfloat16", "float32")
@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("cuts", CUTS[:3], ids=str)
def test_every_dtype_and_layout(dtype, cuts, byteorder, tmp_path, cut):
    cut(*cuts)
    shape = (6, 4, 5, 7)
    bits = encode(np.random.default_rng(20).standard_normal(shape) * 3 + 1, dtype)
    x = decode(bits, dtype)
    plain = stored_tensor(tmp_path / "c", bits, dtype, shape, c_strides(shape), byteorder)
    check(channel_stats(plain, threads=2), x)
    order = (3, 2, 1, 0)
    fortran = stored_tensor(
        tmp_path / "f", bits.transpose(order), dtype, shape, c_strides(shape[::-1])[::-1], byteorder
    )
    check(channel_stats(fortran, threads=2), x)
    last = stored_tensor(
        tmp_path / "l", bits.transpose(0, 2, 3, 1), dtype, shape, (140, 1, 28, 4), byteorder
    )
    check(channel_stats(last, threads=2), x)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_gaps_and_repeats(cuts, tmp_path, cut):
    """Views that a checkpoint may hold: every third element, a corner, an expanded axis."""
    cut(*cuts)
    whole = np.random.default_rng(21).standard_normal((30, 12, 9))
    views = [
        (whole[::3, ::2, 1::4], 1),
        (whole[3:9, 2:5, :], -1),
        (whole[:, 0:1, :], 1),
        (np.broadcast_to(whole[:, :, None, :], (30, 12, 4, 9)), 1),
        (np.broadcast_to(whole[:1], (5, 12, 9)), 2),
        (np.swapaxes(whole, 0, 2), 0),
    ]
    for i, (view, axis) in enumerate(views):
        path = tmp_path / str(i)
        path.write_bytes(whole.tobytes())
        begin = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        where = FileBytes(path, begin, whole.nbytes - begin)
        strides = tuple(s // 8 for s in view.strides)
        ref = TensorRef("", path, view.shape, "float64", strides, where)
        check(channel_stats(ref, axis, threads=2), view, axis)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.startswith("float8")])
def test_float8(dtype, tmp_path):
    bits = np.tile(np.arange(256, dtype=np.uint8), 3).reshape(-1, 3)
    ref = stored_tensor(tmp_path / "x", bits, dtype, bits.shape, (3, 1))
    check_dirty(channel_stats(ref), decode(bits, dtype))
    small = bits % 16
    ref = stored_tensor(tmp_path / "y", small, dtype, bits.shape, (3, 1))
    check_dirty(
        channel_stats(ref, dtype="float16"),
        decode(encode(decode(small, dtype), "float16"), "float16"),
    )


@both
def test_bfloat16_nonfinite(tmp_path, cut):
    cut(60, 20)
    x = np.random.default_rng(22).standard_normal((40, 3)).astype(np.float32)
    x[[3, 17, 39], [0, 0, 2]] = np.nan, np.inf, -np.inf
    bits = encode(x, "bfloat16")
    ref = stored_tensor(tmp_path / "x", bits, "bfloat16", x.shape, (3, 1))
    check_dirty(channel_stats(ref, threads=2), decode(bits, "bfloat16"))


def test_integers_in_a_file(tmp_path):
    bits = np.random.default_rng(23).integers(0, 256, (50, 3, 4))
    ref = stored_tensor(tmp_path / "x", bits, "uint8", bits.shape, (12, 4, 1))
    check(channel_stats(ref, dtype="float32"), bits)


@both
def test_values_from_a_function():
    flat = np.arange(60, dtype=">f4")
    ref = TensorRef("t", Path("a.zip"), (5, 3, 4), "float32", (12, 4, 1), lambda: flat)
    check(channel_stats(ref), flat.reshape(5, 3, 4))
    bits = encode(flat, "bfloat16")
    ref = TensorRef("t", Path("a.zip"), (3, 5, 4), "bfloat16", (4, 12, 1), lambda: bits)
    check(channel_stats(ref, 0), decode(bits, "bfloat16").reshape(5, 3, 4).swapaxes(0, 1), 0)


@both
@pytest.mark.parametrize("threads", [1, 3])
def test_a_file_cut_short(threads, tmp_path, cut):
    cut(100, 50)
    x = np.zeros((40, 20), np.float32)
    path = tmp_path / "x"
    path.write_bytes(x.tobytes()[:-1])
    whole = TensorRef("", path, x.shape, "float32", (20, 1), FileBytes(path, 0, x.nbytes))
    with pytest.raises(CorruptFileError, match="cut short while"):
        channel_stats(whole, threads=threads)
    ref = TensorRef("", path, x.shape, "float32", (20, 1), FileBytes(path, 0, x.nbytes - 8))
    with pytest.raises(CorruptFileError, match="does not fit"):
        channel_stats(ref, threads=threads)
    path.unlink()
    with pytest.raises(FileError, match="removed"):
        channel_stats(whole, threads=threads)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_file_cut_short_while_windows_are_read(threads, tmp_path, monkeypatch):
    """After some of them: an error like any other, and no thread is left that waits."""
    pytest.importorskip("numkong")
    path = tmp_path / "x"
    shape = (16, 4, 1 << 16)
    with path.open("wb") as file:
        file.truncate(int(np.prod(shape)) * 4)
    monkeypatch.setattr(fast, "IN_FILE", Sizes(1 << 18, 1 << 17))
    where = FileBytes(path, 0, path.stat().st_size)
    ref = TensorRef("", path, shape, "float32", c_strides(shape), where)
    assert Source(ref, 1, "float32", shape, windows=True).kernels
    reads = []

    def read_then_change(file, path, offset, into):
        read_into(file, path, offset, into)
        reads.append(offset)
        if len(reads) == 5:
            os.truncate(path, 64)

    monkeypatch.setattr(source, "read_into", read_then_change)
    before = threading.active_count()
    with pytest.raises(CorruptFileError, match="removed or cut short while"):
        channel_stats(ref, threads=threads)
    assert threading.active_count() == before
    assert 5 <= len(reads) < 32


def test_what_is_refused(tmp_path):
    def refused(words, x, *args, **kwargs):
        with pytest.raises(TensorError, match=words) as caught:
            channel_stats(x, *args, **kwargs)
        assert "\n" not in str(caught.value)

    refused("no values", np.zeros((0, 3)))
    refused("no values", np.zeros((4, 3, 0)))
    refused("no channels", np.zeros((4, 0)))
    refused("no axis 1", np.zeros(4))
    refused("no axis -3", np.zeros((4, 2)), -3)
    refused("no axis 0", np.array(1.0), 0)
    refused("complex64", np.zeros((4, 2), np.complex64))
    refused("object", np.zeros((4, 2), object))
    refused("int64", np.zeros((4, 2), int))
    refused("bool", np.zeros((4, 2), bool))
    refused("float8_e5m2", np.zeros((4, 2)), dtype="float8_e5m2")
    refused("uint16", np.zeros((4, 2), np.uint16))
    ref = TensorRef("w", tmp_path / "m.pt", (2, 2), "complex32", (2, 1), lambda: np.zeros(4, "u4"))
    refused("m.pt::w: .*complex32", ref)
    ref = TensorRef("w", tmp_path / "m.pt", (2, 2), "float32", (2, 1), None, "quantized")
    refused("quantized", ref)


def run(script, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is there, and holes are free")
@pytest.mark.parametrize("layout", ["channels first", "channels last"])
def test_memory_does_not_grow(layout, tmp_path):
    """A sparse file of 1 GB: what is read of it is real, what it takes on disk is not."""
    path = tmp_path / "sparse"
    shape = (64, 64, 256, 256) if layout == "channels first" else (64, 256 * 256, 64)
    axis = 1 if layout == "channels first" else 2
    with path.open("wb") as file:
        file.truncate(int(np.prod(shape)) * 4)
    script = f"""
        from pathlib import Path
        from bncli.files.file_bytes import FileBytes
        from bncli.model import TensorRef
        from bncli.moments import channel_stats
        path = Path({str(path)!r})
        where = FileBytes(path, 0, {int(np.prod(shape)) * 4})
        ref = TensorRef("", path, {shape}, "float32", {c_strides(shape)}, where)
        stats = channel_stats(ref, {axis}, threads=4)
        assert stats.count == {int(np.prod(shape)) // 64} and not stats.var.any()
        # Not ru_maxrss, which begins with that of the process that started this one.
        status = Path("/proc/self/status").read_text("utf-8")
        print(status.partition("VmHWM:")[2].split()[0])
    """
    process = run(script)
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err
    assert int(out) * 1024 < 100e6


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupt_ends_it_at_once(tmp_path):
    path = tmp_path / "sparse"
    numel = 1 << 36
    with path.open("wb") as file:
        file.truncate(numel * 4)
    process = run(f"""
        import os, signal, time
        from pathlib import Path
        from bncli.files.file_bytes import FileBytes
        from bncli.model import TensorRef
        from bncli.moments import channel_stats
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
        signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        path = Path({str(path)!r})
        ref = TensorRef("", path, ({numel // 64}, 64), "float32", (64, 1),
                        FileBytes(path, 0, {numel * 4}))
        signal.setitimer(signal.ITIMER_PROF, 0.7)  # seconds of the processor: in the midst of it
        before = time.process_time()
        try:
            channel_stats(ref, threads=3)
        except KeyboardInterrupt:
            print(time.process_time() - before)
    """)
    out, err = process.communicate(timeout=1800)
    assert (process.returncode, err) == (0, "")
    assert 0.5 < float(out) < 4  # the whole takes minutes


@both
def test_a_file_and_an_array_agree(tmp_path, cut):
    cut(20_000, 3_000)
    x = np.random.default_rng(33).standard_normal((50, 4, 300)).astype(np.float32)
    path = tmp_path / "x"
    path.write_bytes(x.tobytes())
    ref = TensorRef("", path, x.shape, "float32", (1200, 300, 1), FileBytes(path, 0, x.nbytes))
    assert same_bits(channel_stats(ref, threads=3), channel_stats(x, threads=2))
