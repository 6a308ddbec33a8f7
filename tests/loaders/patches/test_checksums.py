"""Checksums of ZIP members after an edit: as right, or as wrong, as they were."""

import struct
import zipfile
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch

from bncli.errors import CorruptFileError, FileError, TensorError
from bncli.files.reading import reading
from bncli.loaders import open_file
from bncli.loaders.patches import edits_of
from tests.loaders.files import packed, saved

from .written import (
    Pipe,
    applied,
    checksum_places,
    checksums,
    differing,
    edit,
    npz,
    without_crc,
    wrong,
)

STATE = {"bn.running_mean": torch.rand(3), "bn.running_var": torch.rand(3), "w": torch.ones(2)}
ARRAYS = {name: value.numpy() for name, value in STATE.items()}


@pytest.mark.parametrize(
    ("data", "name", "written"),
    [
        (saved(STATE), "bn.running_mean", 2),  # the directory, behind the member
        (without_crc(STATE), "bn.running_mean", 0),
        (packed({"a.pth": saved(STATE)}), "a.bn.running_mean", 2),  # the directory and the header
        (packed({"a.pth": without_crc(STATE)}), "a.bn.running_mean", 2),
        (npz(ARRAYS), "bn.running_mean", 2),
        (npz(ARRAYS, wide=True), "bn.running_mean", 2),
        (npz(ARRAYS, stream=True), "bn.running_mean", 2),
    ],
)
def test_each_checksum_is_where_the_old_one_was(tmp_path, data, name, written):
    path = tmp_path / "net"
    path.write_bytes(data)
    new = edit(open_file(path), {name: np.arange(3.0)})[path]
    old, changed = checksums(data), 0
    with zipfile.ZipFile(BytesIO(new)) as archive:
        contents = {info.filename: new[slice(*span(new, info))] for info in archive.infolist()}
    for at, (member, value) in checksums(new).items():
        before = old[at][1]
        changed += value != before
        assert value == (zlib.crc32(contents[member]) if before else 0)
    assert changed == written


def span(data, info):
    """Where the bytes of a member begin and end."""
    start = info.header_offset + 30
    start += sum(struct.unpack_from("<2H", data, info.header_offset + 26))
    return start, start + info.file_size


def without_signature(data):
    """The archive of one member without the mark that may stand before sizes behind it."""
    at, directory = data.index(b"PK\x07\x08"), data.index(b"PK\x01\x02")
    assert data.count(b"PK\x07\x08") == 1
    end = bytearray(data[directory:])
    place = end.rindex(b"PK\x05\x06") + 16
    end[place : place + 4] = struct.pack("<L", directory - 4)
    return data[:at] + data[at + 4 : directory] + bytes(end)


@pytest.mark.parametrize("wide", [False, True])
def test_what_is_behind_a_member_may_have_no_signature_and_long_sizes(tmp_path, wide):
    out, array = Pipe(), BytesIO()
    np.save(array, np.ones(3))
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("mean.npy")
        with archive.open(info, "w", force_zip64=wide) as member:
            member.write(array.getvalue())
    path = tmp_path / "x.npz"
    path.write_bytes(without_signature(out.getvalue()))
    assert wrong(path.read_bytes()) is None
    new = edit(open_file(path), {"mean": np.arange(3.0)})[path]
    assert wrong(new) is None
    assert np.load(BytesIO(new))["mean"].tolist() == [0, 1, 2]
    found = {value for _, value in checksums(new).values()}
    assert len(found - {0}) == 1


def test_a_member_that_reaches_over_the_next_header(tmp_path):
    path = tmp_path / "net.pth"
    flat = torch.rand(1000)
    data = bytearray(saved({"bn.running_mean": flat[:3], "w": torch.ones(3)}))
    start = open_file(written_to(path, data)).tensors["bn.running_mean"].storage.offset
    header = data.rindex(b"PK\x03\x04", 0, start)
    size = struct.unpack_from("<H", data, header + 28)[0]
    struct.pack_into("<H", data, header + 28, size + 200)  # of the field before the contents
    with (
        reading(checksum=False),
        pytest.raises(CorruptFileError, match="its member archive/data/0 overlaps another"),
    ):
        edits_of(open_file(written_to(path, data)), {"bn.running_mean": np.zeros(3)})


def written_to(path, data):
    path.write_bytes(data)
    return path


def test_damage_elsewhere_in_a_member_is_still_found(tmp_path):
    flat = torch.rand(1 << 19)  # larger than what is checked at each read
    path = tmp_path / "net.pth"
    whole = saved({"bn.running_mean": flat[:4], "rest": flat[4:]})
    values = {"bn.running_mean": np.arange(4.0)}
    path.write_bytes(whole)
    right = edit(open_file(path), values)[path]
    assert wrong(right) is None
    at = open_file(path).tensors["rest"].storage.offset + 1000
    damaged = bytearray(whole)
    damaged[at] ^= 0xFF
    path.write_bytes(damaged)
    for checksum in (True, False):
        with reading(checksum=checksum):
            new = edit(open_file(path), values)[path]
        assert wrong(new) == "archive/data/0"
        assert differing(new, right) == {at}


def broken(data, random):
    """A copy with some random bytes in or near its checksums: headers, directory, descriptors."""
    data, places = bytearray(data), sorted(checksum_places(data))
    for _ in range(random.integers(1, 4)):
        near = int(random.choice(places)) + int(random.integers(-24, 40))
        data[max(0, min(near, len(data) - 1))] = random.integers(256)
    return bytes(data)


@pytest.mark.parametrize("container", ["torch", "nested", "npz"])
def test_random_damage_gives_edits_inside_the_file_or_a_sentence(tmp_path, container):
    whole = saved(STATE)
    if container == "npz":
        whole = npz(ARRAYS, stream=True)
    elif container == "nested":
        whole = packed({"a.pth": whole})
    names = [f"{'a.' * (container == 'nested')}bn.running_{leaf}" for leaf in ("mean", "var")]
    path = tmp_path / "net"
    random = np.random.default_rng(0)
    made, sentences = 0, set()
    for _ in range(400):
        data = broken(whole, random)
        path.write_bytes(data)
        try:
            with reading(checksum=bool(random.integers(2))):
                file = open_file(path)
                values = {name: np.ones(3) for name in names if name in file.tensors}
                edits = edits_of(file, values).get(path, [])
        except (FileError, TensorError) as error:
            sentences.add(str(error))
        else:
            applied(data, edits)
            made += bool(edits)
    assert made > 50
    assert len(sentences) > 5
    assert not any("\n" in sentence for sentence in sentences)


def test_a_descriptor_that_contradicts_the_directory(tmp_path):
    path = tmp_path / "net.pth"
    whole = saved({"bn.running_mean": torch.ones(3)})
    path.write_bytes(whole)
    where = open_file(path).tensors["bn.running_mean"].storage
    behind = where.offset + where.nbytes
    assert whole[behind : behind + 4] == b"PK\x07\x08"
    for at in range(4, 16):  # the checksum, and the two sizes
        data = bytearray(whole)
        data[behind + at] ^= 1
        path.write_bytes(data)
        with pytest.raises(CorruptFileError, match="the checksum and the sizes behind its member"):
            edits_of(open_file(path), {"bn.running_mean": np.zeros(3)})
        if at < 8:  # as it is wrong already, it stays wrong
            with reading(checksum=False):
                new = edit(open_file(path), {"bn.running_mean": np.zeros(3)})[path]
            assert wrong(new) is None
            assert open_file(path).tensors
