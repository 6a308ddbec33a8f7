"""Statistics files on disk: bit for bit, plain for NumPy, whole or not there, never trusted."""

from __future__ import annotations

import io
import json
import random
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest

from bncli.errors import (
    BncliError,
    CorruptFileError,
    FileError,
    TensorError,
    UnsupportedFileError,
    UsageError,
)
from bncli.files.reading import reading
from bncli.loaders import open_file, open_layer, open_tensor
from bncli.loaders.statistics import (
    check_statistics_path,
    is_statistics_file,
    open_statistics,
    write_statistics,
)
from bncli.loaders.statistics.file import PACKED
from bncli.model.capture import Capture, WatchedLayer
from tests.loaders.pickles import zipped

from .captures import EVAL, NAMES, TRAINING, model_capture, odd_capture, sums_of, unlike


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stats.npz"


@pytest.fixture
def small(path):
    """A small file that was written."""
    rng = np.random.default_rng(1)
    write_statistics(path, model_capture([rng.standard_normal((2, 3, 1, 2)) for _ in range(2)]))
    return path


def members(path):
    """The members of a file by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(path, **by_name):
    """Write the file again with other members; None leaves one out."""
    kept = {**members(path), **{name.replace("__", "/"): data for name, data in by_name.items()}}
    path.write_bytes(zipped({name: data for name, data in kept.items() if data is not None}))


def with_header(path, change):
    """Write the file again with a header that was changed in place."""
    header = json.loads(members(path)["bncli.json"])
    change(header)
    changed(path, **{"bncli.json": json.dumps(header).encode()})


def test_every_field_comes_back_bit_for_bit(path):
    written = odd_capture()
    write_statistics(path, written)
    assert unlike(written, open_statistics(path)) is None


def test_every_field_is_tried():
    """So that one that is added to a capture cannot be forgotten in its file."""
    plain, tried = Capture(()), odd_capture()
    assert not [f.name for f in fields(plain) if getattr(plain, f.name) == getattr(tried, f.name)]
    plain = WatchedLayer("", 0, 0)
    for field in fields(plain):
        values = [getattr(layer, field.name) for layer in tried.layers]
        assert any(value is not getattr(plain, field.name) for value in values), field.name


def test_a_capture_of_nothing_comes_back(path):
    write_statistics(path, Capture(()))
    assert unlike(Capture(()), open_statistics(path)) is None


def test_the_same_capture_gives_the_same_bytes(path, tmp_path):
    write_statistics(path, odd_capture())
    write_statistics(tmp_path / "again.npz", odd_capture())
    assert path.read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_numpy_reads_it_without_pickle(path):
    written = odd_capture()
    write_statistics(path, written)
    with np.load(path) as file:
        sums = written.layers[2].seen[EVAL]
        of_layer = file["layer"] == 2
        np.testing.assert_array_equal(file["eval/mean"][of_layer], sums.mean)
        np.testing.assert_array_equal(file["eval/var"][of_layer], sums.var)
        assert np.isnan(file["eval/mean"][file["layer"] == 1]).all()  # it has not seen it
        header = json.loads(file["bncli.json"])
    assert header["format_version"] == 1
    assert header["shard"] == [2, 5]
    assert [layer["name"] for layer in header["layers"]] == list(NAMES)


def test_a_layer_takes_kilobytes_whatever_the_data(path):
    """52 layers of MobileNetV2's widths, in three propagations."""
    rng = np.random.default_rng(0)
    sizes = rng.permutation([32, 96, 144, 192, 384, 576, 960, 320, 64, 24, 160, 1280, 16] * 4)
    layers = []
    for order, size in enumerate(sizes.tolist(), 1):
        x = rng.standard_normal((4, size, 8)).astype(np.float32)
        sums = sums_of([x, x + 1], size)
        layers.append(
            WatchedLayer(f"layer{order}", order, size, seen=dict.fromkeys((TRAINING, EVAL), sums))
        )
    write_statistics(path, Capture(tuple(layers)))
    assert path.stat().st_size < 300 * 2 * sizes.sum()  # bytes a channel and propagation


def test_large_arrays_are_stored_as_they_are(path):
    """So that no file that bncli writes looks like a zip bomb."""
    size = PACKED // 8 + 1
    sums = sums_of([np.zeros((2, size))], size)
    write_statistics(path, Capture((WatchedLayer("input", 0, size, seen={TRAINING: sums}),)))
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("training/min.npy").compress_type == zipfile.ZIP_STORED
        assert archive.getinfo("training/samples.npy").compress_type == zipfile.ZIP_DEFLATED
    assert open_statistics(path).layers[0].seen[TRAINING].at_zero.sum() == 2 * size


# ---------------------------------------------------------------------------- writing


@pytest.mark.parametrize("name", ["stats.npy", "stats", "stats.npz.pt"])
def test_another_suffix_is_refused(name, tmp_path):
    with pytest.raises(UsageError, match=r"--save-stats .*: a statistics file is an \.npz"):
        write_statistics(tmp_path / name, odd_capture())


def test_what_was_read_is_not_overwritten(small):
    before = small.read_bytes()
    with reading():
        capture = open_statistics(small)
        with pytest.raises(UsageError, match="would overwrite an input"):
            check_statistics_path(str(small))
        with pytest.raises(UsageError, match="would overwrite an input"):
            write_statistics(small, capture)
    assert small.read_bytes() == before


def test_a_failure_leaves_the_old_file(small):
    before = small.read_bytes()
    wrong = replace(odd_capture(), per_batch={("layer1.bn", EVAL): {"count": np.array([{}])}})
    with pytest.raises((KeyError, ValueError)):
        write_statistics(small, wrong)
    assert small.read_bytes() == before
    assert list(small.parent.iterdir()) == [small]


def test_a_tensor_of_another_length_is_refused(path):
    capture = odd_capture()
    layers = (*capture.layers[:-1], replace(capture.layers[-1], num_features=6, kernel=None))
    with pytest.raises(TensorError, match=r"layer1\.bn: mean has shape \[7\], but the layer has 6"):
        write_statistics(path, replace(capture, layers=layers))
    assert not path.exists()


# ---------------------------------------------------------------------------- what it is


def test_it_is_told_by_its_header(small, tmp_path):
    assert is_statistics_file(small)
    np.savez(tmp_path / "table.npz", mean=np.zeros(3))
    assert not is_statistics_file(tmp_path / "table.npz")
    assert not is_statistics_file(tmp_path)
    assert not is_statistics_file(tmp_path / "missing.npz")
    assert not is_statistics_file("-")
    (tmp_path / "cut.npz").write_bytes(small.read_bytes()[:200])
    assert not is_statistics_file(tmp_path / "cut.npz")
    with pytest.raises(UnsupportedFileError, match="it is not a statistics file"):
        open_statistics(tmp_path / "table.npz")


def test_it_is_no_file_of_tensors(small):
    said = "it holds the statistics of a model's layers or of a tensor, not their values"
    for spec in (str(small), f"{small}::training/mean"):
        with pytest.raises(UnsupportedFileError, match=said):
            open_tensor(spec)
    with pytest.raises(UnsupportedFileError, match=said):
        open_file(small)


def test_a_layer_of_it_has_its_state(small):
    layer = open_layer(f"{small}::head.bn")
    assert unlike(layer, model_capture([np.zeros((2, 3, 1, 1))]).layers[2].state) is None


# ---------------------------------------------------------------------------- hostile and damaged


def array(values):
    out = io.BytesIO()
    np.save(out, values, allow_pickle=True)
    return out.getvalue()


DAMAGE = {
    "no such array": (
        {"training__within.npy": None},
        "its array training/within is missing",
    ),
    "another shape": (
        {"training__within.npy": array(np.zeros(4))},
        r"its array training/within has shape \[4\], not \[9\]",
    ),
    "more axes": (
        {"training__within.npy": array(np.zeros((9, 1)))},
        r"its array training/within has shape \[9, 1\], not \[9\]",
    ),
    "another dtype": (
        {"training__nan.npy": array(np.zeros(9))},
        "its array training/nan is float64, not int64",
    ),
    "objects": (
        {"training__within.npy": array(np.array([{}] * 9))},
        "its array training/within is object, not float64",
    ),
    "a number of layers": (
        {"training__values.npy": array(np.zeros(4, np.int64))},
        r"its array training/values has shape \[4\], not \[3\]",
    ),
    "counts below 0": (
        {"eval__at_zero.npy": array(np.full(9, -1))},
        "its array eval/at_zero has a number below 0",
    ),
    "squares below 0": (
        {"eval__between.npy": array(np.full(9, -1e-9))},
        "its array eval/between has a number below 0",
    ),
    "channels of other layers": (
        {"layer.npy": array(np.zeros(9, np.int32))},
        "its array layer contradicts the sizes of the layers",
    ),
    "a text for a tensor": (
        {"state__weight.npy": array(np.array(["x"] * 9))},
        "its array state/weight is object, not",
    ),
    "a batch of no values": (
        {"per_batch__training__1__count.npy": array(np.array([4, 0]))},
        "per_batch/training/1 has a count or a variance that cannot be",
    ),
    "a batch of half a value": (
        {"per_batch__training__1__count.npy": array(np.array([4, 1.5]))},
        "per_batch/training/1 has a count or a variance that cannot be",
    ),
    "no header": ({"bncli.json": b""}, "its bncli.json is not JSON"),
    "no JSON": ({"bncli.json": b"{'a': 1}"}, "its bncli.json is not JSON"),
    "no strict JSON": ({"bncli.json": b'{"format_version": NaN}'}, "its bncli.json is not JSON"),
    "a list": ({"bncli.json": b"[1]"}, "the value in its bncli.json is not an object"),
    "deep JSON": ({"bncli.json": b"[" * 100_000}, "its bncli.json is not JSON"),
    "too much JSON": (
        {"bncli.json": b"[" + b"[],[]," * 2_000_000 + b"1]"},
        "its bncli.json is not JSON, or far larger than the statistics need",
    ),
    "a member that is no array": (
        {"training__within.npy": b"\0" * 200},
        "it begins as .npy but has no header",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_said_in_a_sentence(name, small):
    by_name, said = DAMAGE[name]
    changed(small, **by_name)
    with pytest.raises(CorruptFileError, match=said) as caught:
        open_statistics(small)
    assert "\n" not in str(caught.value)


def test_a_later_format_is_refused(small):
    with_header(small, lambda header: header.update(format_version=2, bncli="9.1.0"))
    with pytest.raises(UnsupportedFileError, match=r"format 2 that bncli 9\.1\.0 wrote.*upgrade"):
        open_statistics(small)


def test_a_member_that_is_there_twice_is_refused(small):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(small, "a") as archive:
        archive.writestr("training/within.npy", array(np.zeros(9)))
    with pytest.raises(CorruptFileError, match=r"holds training/within\.npy twice"):
        open_statistics(small)


def test_channels_that_are_nowhere_take_no_memory(small):
    with_header(small, lambda header: header["layers"][0].update(num_features=10**12))
    with pytest.raises(CorruptFileError, match=r"its array layer has shape \[9\], not \[10000000"):
        open_statistics(small)


def test_a_zip_bomb_is_refused(small, monkeypatch):
    monkeypatch.setattr("bncli.loaders.statistics.file.BOMB_SIZE", 1 << 22)
    with zipfile.ZipFile(small, "a", zipfile.ZIP_DEFLATED) as archive:
        for i in range(10):
            archive.writestr(f"more{i}.npy", array(np.zeros(1 << 16)))
    with pytest.raises(CorruptFileError, match="as those of a zip bomb do"):
        open_statistics(small)


def test_a_cut_file_is_refused_wherever_it_is_cut(small):
    whole = small.read_bytes()
    for end in range(1, len(whole), 97):
        small.write_bytes(whole[:end])
        with pytest.raises(FileError):
            open_statistics(small)


def test_arrays_in_another_order_of_bytes_and_axes_are_the_same_numbers(path):
    capture = odd_capture()
    write_statistics(path, capture)
    kept = members(path)
    for name, data in kept.items():
        if name.endswith(".npy"):
            values = np.load(io.BytesIO(data))
            kept[name] = array(np.asfortranarray(values.astype(values.dtype.newbyteorder(">"))))
    path.write_bytes(zipped(kept))
    found = open_statistics(path)
    assert unlike(found, capture) is None
    assert found.layers[0].seen[TRAINING].min.dtype.isnative


def test_a_file_too_large_to_be_held_is_read_the_same(small, monkeypatch):
    whole = open_statistics(small)
    monkeypatch.setattr("bncli.loaders.statistics.file.SMALL", 0)
    assert unlike(open_statistics(small), whole) is None


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_flipped_bytes_give_an_error_or_numbers(small, checksum, held, monkeypatch):
    """With checksums the error, or the same numbers; without them never anything else."""
    if not held:
        monkeypatch.setattr("bncli.loaders.statistics.file.SMALL", 0)
    whole, written = small.read_bytes(), open_statistics(small)
    dice = random.Random(5)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 1, 2, 8))):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        small.write_bytes(data)
        with reading(checksum=checksum):
            try:
                found = open_statistics(small)
            except BncliError:
                continue
            assert not checksum or unlike(found, written) is None


@pytest.mark.parametrize("key", ["name", "order", "num_features", "seen", "state", "kernel"])
@pytest.mark.parametrize("value", [None, -1, "x", [], {}, 1.5, True, [1], "missing"])
def test_wrong_values_in_the_header_give_an_error_or_a_capture(small, key, value):
    def change(header):
        if value == "missing":
            del header["layers"][1][key]
        else:
            header["layers"][1][key] = value

    with_header(small, change)
    try:
        assert isinstance(open_statistics(small), Capture)
    except BncliError as error:
        assert "its " in str(error)  # noqa: PT017  # which of the two it is, the kind decides


def test_of_tasks_that_write_one_file_at_once_one_has_it_whole(tmp_path):
    """With `new` the first one keeps it, without it the last one; half of one is never there."""
    captures = [odd_capture(seed) for seed in range(4)]
    for new in (True, False):
        target = tmp_path / f"{new}.npz"

        def write(capture, target=target, new=new):
            try:
                write_statistics(target, capture, new=new)
            except FileError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(4) as pool:
            said = list(pool.map(write, captures))
        assert sum(not each for each in said) == (1 if new else 4)
        assert all("it exists already; add --resume" in each for each in said if each), said
        with reading(allow_missing_parts=True):
            assert any(unlike(open_statistics(target), each) is None for each in captures)
        assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
