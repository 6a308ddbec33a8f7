"""Tensors read back by NumPy and PyTorch; files replaced whole or not at all."""

from __future__ import annotations

import os
import pickle
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.dtypes import decode, encode
from bncli.errors import BncliError, FileError, UsageError
from bncli.files.reading import read_bytes, reading
from bncli.files.save import (
    UNFINISHED,
    _integer,
    new_folder,
    refuse_overwriting,
    remove_unfinished,
    replacing,
    save_tensor,
    tensor_suffix,
)

DTYPES = ("float16", "bfloat16", "float32", "float64")
SHAPES = [(), (0,), (5,), (2, 3), (1, 1, 1), (2, 0, 3), (3, 4, 5, 2)]


def values(shape, dtype):
    """Values that `dtype` holds exactly, the special ones first."""
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.5, -2.25])
    flat = np.resize(np.concatenate([special, np.arange(64) - 31.5]), int(np.prod(shape)))
    return decode(encode(flat.reshape(shape).astype(np.float64), dtype), dtype)


def pieces(array, dtype, size):
    """The stored bits of the array in C order, `size` at a time."""
    flat = encode(array, dtype).reshape(-1)
    return (flat[at : at + size] for at in range(0, len(flat), size))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_pt_is_opened_by_torch(folder, shape, dtype, size):
    expected = values(shape, dtype)
    path = folder / "y.pt"
    save_tensor(path, shape, dtype, pieces(expected, dtype, size))
    tensor = torch.load(path, weights_only=True)
    assert tensor.dtype == getattr(torch, dtype)
    assert tuple(tensor.shape) == shape
    assert tensor.is_contiguous()
    assert not tensor.requires_grad
    np.testing.assert_array_equal(tensor.double().numpy(), expected.astype(np.float64))
    np.testing.assert_array_equal(np.signbit(tensor.double().numpy()), np.signbit(expected))


@pytest.mark.parametrize("mmap", [True, False])
def test_pt_can_be_mapped_and_saved_again_by_torch(folder, mmap):
    path = folder / "y.pt"
    save_tensor(path, (4, 3), "float32", [np.arange(12, dtype=np.float32)])
    tensor = torch.load(path, weights_only=True, mmap=mmap)
    assert tensor.sum() == 66
    torch.save(tensor, folder / "again.pt")
    assert torch.load(folder / "again.pt", weights_only=True).equal(tensor)


@pytest.mark.parametrize("name", ["ünï.pt", "a b.pt", "x.y.PT", "data.pkl.pt", "-.pt"])
def test_pt_may_have_any_name(folder, name):
    save_tensor(folder / name, (2,), "float64", [np.array([1.0, 2.0])])
    assert torch.load(folder / name, weights_only=True).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_npy_is_opened_by_numpy(folder, shape, dtype):
    expected = values(shape, dtype)
    path = folder / "y.npy"
    save_tensor(path, shape, dtype, pieces(expected, dtype, 7))
    array = np.load(path)
    assert array.dtype == np.dtype(dtype)
    assert array.shape == shape
    np.testing.assert_array_equal(array, expected)


def test_pieces_of_the_other_byte_order_are_turned(folder):
    for name in ("y.npy", "y.pt"):
        save_tensor(folder / name, (2,), "float32", [np.array([1.0, 2.0], ">f4")])
    assert np.load(folder / "y.npy").tolist() == [1.0, 2.0]
    assert torch.load(folder / "y.pt", weights_only=True).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ["y.npy", "y.pt"])
@pytest.mark.parametrize("old", [None, b"the old file"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_crash_midway_leaves_what_was_there(folder, name, old, error):
    path = folder / name
    if old is not None:
        path.write_bytes(old)

    def crashing():
        yield np.zeros(4, np.float32)
        raise error("midway")

    with pytest.raises(error, match="midway"):
        save_tensor(path, (8,), "float32", crashing())
    assert (path.read_bytes() if path.exists() else None) == old
    assert [p.name for p in folder.iterdir()] == ([name] if old else [])


def test_the_new_file_is_not_seen_before_it_is_whole(folder):
    path = folder / "r.json"
    path.write_bytes(b"old")
    with replacing(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_what_cannot_be_written_is_a_file_error(folder):
    (folder / "file").write_text("")
    for path in (folder / "nowhere" / "y", folder / "file" / "y", folder / ("n" * 300)):
        with (
            pytest.raises(FileError, match="cannot be written") as caught,
            replacing(path) as stream,
        ):
            stream.write(b"x")
        assert isinstance(caught.value, BncliError)
        assert "\n" not in str(caught.value)
    (folder / "there").mkdir()
    with pytest.raises(FileError, match="cannot be written"), replacing(folder / "there"):
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["file", "there"]


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_never_takes_the_place_of_one_that_came_meanwhile(folder, monkeypatch, links):
    """With and without hard links, as the file system has them."""

    def refused(*args):
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refused)
    with replacing(folder / "new", new=True) as stream:
        stream.write(b"ours")
    assert (folder / "new").read_bytes() == b"ours"
    assert (folder / "new").stat().st_nlink == 1
    for late in ("late", "dangling"):
        with (  # noqa: PT012  # it is refused when the block ends
            pytest.raises(FileError, match="it exists already; name another file, or let --force"),
            replacing(folder / late, new=True) as stream,
        ):
            stream.write(b"ours")
            if late == "late":
                (folder / late).write_bytes(b"theirs")
            else:
                (folder / late).symlink_to("nowhere")
    assert (folder / "late").read_bytes() == b"theirs"
    assert sorted(path.name for path in folder.iterdir()) == ["dangling", "late", "new"]


@pytest.mark.parametrize("letter", ["n", "\u20ac"])
def test_a_name_may_be_as_long_as_the_system_takes_it(folder, letter):
    name = letter * (255 // len(letter.encode()))
    with replacing(folder / name) as stream:
        stream.write(b"new")
    assert [each.name for each in folder.iterdir()] == [name]
    with new_folder(folder / name[:-1]) as made:
        assert made.is_dir()
    assert sorted(each.name for each in folder.iterdir()) == [name[:-1], name]


def test_a_file_that_is_there_is_refused_before_any_work(folder):
    (folder / "old").write_bytes(b"old")
    with pytest.raises(FileError, match="it exists already"), replacing(folder / "old", new=True):
        pytest.fail("the block began")
    assert (folder / "old").read_bytes() == b"old"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_new_folder_is_there_whole_or_not_at_all(folder, error):
    with (  # noqa: PT012  # what happens midway
        pytest.raises(error, match="midway"),
        new_folder(folder / "new") as made,
    ):
        (made / "deep").mkdir()
        (made / "deep" / "file").write_bytes(b"x")
        assert [path.name for path in folder.iterdir()] == [made.name]
        raise error("midway")
    assert not [*folder.iterdir()]
    umask = os.umask(0o027)
    try:
        with new_folder(folder / "new") as made:
            (made / "file").write_bytes(b"x")
    finally:
        os.umask(umask)
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*")] == [
        "new",
        "new/file",
    ]
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o750


@pytest.mark.parametrize("there", [False, True])
def test_a_new_folder_never_takes_the_place_of_one_that_came_meanwhile(folder, there):
    if there:
        (folder / "new").mkdir()
    with (  # noqa: PT012  # it is refused when the block ends
        pytest.raises(FileError, match="cannot be written"),
        new_folder(folder / "new") as made,
    ):
        (made / "file").write_bytes(b"ours")
        (folder / "new").mkdir(exist_ok=True)
        (folder / "new" / "file").write_bytes(b"theirs")
    assert (folder / "new" / "file").read_bytes() == b"theirs"
    assert [path.name for path in folder.iterdir()] == ["new"]


class Changed:
    """Files elsewhere, one of which has changed."""

    def check(self):
        raise FileError("memory://x", "it changed")

    def close(self):
        pass


def test_nothing_takes_its_place_where_what_was_read_has_changed(folder):
    (folder / "old").write_bytes(b"old")
    with reading() as call:
        call.store = Changed()
        for making in (replacing(folder / "old"), replacing(folder / "new", new=True)):
            with pytest.raises(FileError, match="it changed"), making as stream:
                stream.write(b"of two versions")
        with pytest.raises(FileError, match="it changed"), new_folder(folder / "made") as made:
            (made / "file").write_bytes(b"of two versions")
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert (folder / "old").read_bytes() == b"old"


def test_a_link_to_an_empty_folder_stays_a_link(folder):
    (folder / "deep").mkdir()
    (folder / "link").symlink_to("deep")
    with new_folder(folder / "link") as made:
        (made / "file").write_bytes(b"x")
    assert (folder / "link").is_symlink()
    assert (folder / "deep" / "file").read_bytes() == b"x"


def test_permissions_are_those_of_the_old_file_or_of_any_new_one(folder):
    old = folder / "old"
    old.write_bytes(b"")
    old.chmod(0o640)
    umask = os.umask(0o027)
    try:
        for path in (old, folder / "new"):
            with replacing(path) as stream:
                stream.write(b"x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o666 & ~0o027


def test_a_link_stays_a_link(folder):
    (folder / "deep").mkdir()
    target = folder / "deep" / "y.npy"
    target.write_bytes(b"old")
    (folder / "link.npy").symlink_to(target)
    save_tensor(folder / "link.npy", (1,), "float64", [np.array([7.0])])
    assert (folder / "link.npy").is_symlink()
    assert np.load(target).tolist() == [7.0]


def test_what_cannot_be_renamed_or_removed_is_one_sentence(folder, monkeypatch):
    """As on Windows: onto a file that another program has open, or that may only be read."""

    def refused(*args, **flags):
        raise PermissionError(13, "Permission denied")

    path = folder / "y.npy"
    path.write_bytes(b"old")
    monkeypatch.setattr(type(path), "replace", refused)
    monkeypatch.setattr(type(path), "unlink", refused)
    with pytest.raises(FileError, match="Permission denied"):
        save_tensor(path, (1,), "float32", [np.ones(1, np.float32)])
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (1, 1, 1), (3, 4, 5, 2)])
def test_strides_are_those_of_a_fresh_tensor(folder, shape):
    save_tensor(folder / "y.pt", shape, "float32", [np.zeros(shape, np.float32)])
    tensor = torch.load(folder / "y.pt", weights_only=True)
    assert tensor.stride() == torch.empty(shape).stride()
    assert tensor.untyped_storage().nbytes() == 4 * tensor.numel()


@pytest.mark.parametrize("number", [0, 1, 2**31 - 1, 2**31, 2**40])
def test_numbers_of_any_size_are_pickled(number):
    assert pickle.loads(_integer(number) + b".") == number
    assert len(_integer(number)) == (5 if number < 2**31 else 10)


def test_overwriting_is_refused_by_identity_and_not_by_name(folder):
    (folder / "a").write_bytes(b"")
    (folder / "b").write_bytes(b"")
    (folder / "soft").symlink_to("a")
    (folder / "hard").hardlink_to(folder / "a")
    with reading():
        read_bytes("a")
        for path in ("a", "./a", "soft", "hard", str(folder / "a")):
            with pytest.raises(UsageError, match=r"^--to .*: this would overwrite an input; name"):
                refuse_overwriting(path, "--to")
            with pytest.raises(FileError, match="read"), replacing(path):
                pass
        for path in ("c", "b", "nowhere/a"):
            refuse_overwriting(path, "--to")
    with reading():  # each call has a record of its own
        refuse_overwriting("a", "--to")
    refuse_overwriting("a", "--to")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "hard", "soft"]


def test_what_is_read_to_be_renewed_is_overwritten_by_nothing_else(folder):
    (folder / "a").write_bytes(b"old")
    with reading() as call:
        call.renewed.add(os.path.realpath("a"))
        with pytest.raises(UsageError):
            refuse_overwriting("./a", "--to")
        refuse_overwriting("a", "--to", renewing=True)
        with replacing("a") as stream:
            stream.write(b"new")
        read_bytes("a")
        with pytest.raises(UsageError):
            refuse_overwriting("a", "--to", renewing=True)
    assert (folder / "a").read_bytes() == b"new"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_suffix_picks_the_format(dtype):
    assert tensor_suffix("a.pt", dtype, "--to") == ".pt"
    assert tensor_suffix("dir.npy/a.PT", dtype, "--to") == ".pt"
    for path in ("a", "a.npz", "a.pth.zip", "npy", ".npy", "a.npy/b"):
        with pytest.raises(UsageError, match="the suffix picks the format"):
            tensor_suffix(path, dtype, "--to")
    if dtype == "bfloat16":
        with pytest.raises(UsageError, match=r"\.npy has no bfloat16; use \.pt\."):
            tensor_suffix("a.npy", dtype, "--to")
    else:
        assert tensor_suffix("a.npy", dtype, "--to") == ".npy"


def test_who_ends_on_the_spot_can_remove_what_is_temporary(folder):
    """As from another thread, while the block still runs."""

    def ended():
        with replacing(folder / "x.npy", sync=False), new_folder(folder / "made") as made:
            (made / "file").touch()
            assert len([*folder.iterdir()]) == len(UNFINISHED) == 2
            if os.name == "posix":
                remove_unfinished()
                assert [*folder.iterdir()] == []
            raise FileError(made / "file", "cannot be written.")

    with pytest.raises(FileError, match="cannot be written"):
        ended()
    assert not UNFINISHED
    assert [*folder.iterdir()] == []
