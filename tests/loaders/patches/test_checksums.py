"""Checksums of ZIP members after an edit: as right, or as wrong, as they were."""

import numpy as np
import pytest
import torch

from bncli.errors import CorruptFileError, FileError, TensorError
from bncli.files.reading import reading
from bncli.loaders import open_file
from bncli.loaders.patches import edits_of
from tests.loaders.files import packed, saved

from .written import applied, checksum_places, differing, edit, npz, wrong


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
    state = {"bn.running_mean": torch.rand(3), "bn.running_var": torch.rand(3), "w": torch.ones(2)}
    whole = saved(state)
    if container == "npz":
        whole = npz({name: value.numpy() for name, value in state.items()}, stream=True)
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
