"""The new file: in every container the same tensors, and a comparison that finds what differs."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from bncli.commands.recalibrate.checkpoint import Checkpoint
from bncli.commands.recalibrate.flags import SavedFlags
from bncli.commands.recalibrate.writing import Written
from bncli.errors import FileError
from bncli.files.reading import reading
from tests.commands.recalibrate.test_checkpoint import capture, state
from tests.commands.recalibrate.test_rows import change

MEAN, VAR = (0.1, -2.5), (1.5, 0.7)
OTHER = torch.arange(6.0)

KEPT = ", and so is .data/serialization_id"


def sharded(path: str) -> None:
    tensors = state(other=OTHER)
    parts = {"bn.safetensors": "bn.", "other.safetensors": "other"}
    names = {}
    for file, begin in parts.items():
        save_file({k: v for k, v in tensors.items() if k.startswith(begin)}, file)
        names |= {name: file for name in tensors if name.startswith(begin)}
    Path(path).write_text(json.dumps({"metadata": {}, "weight_map": names}))


def folder_of_arrays(path: str) -> dict:
    read = load_file(f"{path}/bn.safetensors") | load_file(f"{path}/other.safetensors")
    assert Path(path, "net.index.json").read_bytes() == Path("net.index.json").read_bytes()
    return read


def arrays(path: str) -> dict:
    return {name: each.numpy() for name, each in torch.load(path, weights_only=True).items()}


CONTAINERS = {
    "net.pth": (lambda path: torch.save(state(other=OTHER), path), arrays),
    "old.pth": (
        lambda path: torch.save(state(other=OTHER), path, _use_new_zipfile_serialization=False),
        arrays,
    ),
    "net.safetensors": (lambda path: save_file(state(other=OTHER), path), load_file),
    "net.npz": (
        lambda path: np.savez(path, **{k: v.numpy() for k, v in state(other=OTHER).items()}),
        lambda path: dict(np.load(path)),
    ),
    "net.index.json": (sharded, folder_of_arrays),
}


def planned(path: str, saved: SavedFlags) -> Written:
    checkpoint = Checkpoint.of(path, capture("bn"), ["bn"])
    return Written.planned(checkpoint, [change("bn", new_mean=MEAN, new_var=VAR)], saved)


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container(folder, name):
    make, read = CONTAINERS[name]
    make(name)
    saved = SavedFlags(save_checkpoint="new", counter="17")
    written = planned(name, saved)
    assert (written.output, written.verified) == (None, None)
    assert written.nbytes >= 2 * 8 + 8  # two channels in float32, twice, and an int64
    written = written.write(saved)
    assert (written.output, written.verified) == ("new", 1)
    assert written.serialization_id == ("kept" if name == "net.pth" else None)
    wanted = {k: v.numpy() for k, v in state(other=OTHER).items()} | {
        "bn.running_mean": np.float32(MEAN),
        "bn.running_var": np.float32(VAR),
        "bn.num_batches_tracked": np.int64(17),
    }
    found = read("new")
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        np.testing.assert_array_equal(found[key], values)
        assert found[key].dtype == values.dtype
    assert [*written.remarks()][-1] == (
        "new: 1 of 1 layer holds the new statistics; the other 3 tensors are bit for bit the old "
        f"ones{KEPT if name == 'net.pth' else ''}"
    )


def test_without_a_comparison(folder):
    CONTAINERS["net.pth"][0]("net.pth")
    saved = SavedFlags(save_checkpoint="new", no_verify=True)
    written = planned("net.pth", saved).write(saved)
    assert (written.output, written.verified) == ("new", None)
    assert [*written.remarks()] == []


def test_the_comparison_sees_a_tensor_without_its_new_values(folder):
    CONTAINERS["net.safetensors"][0]("net.safetensors")
    saved = SavedFlags(save_checkpoint="new")
    written = planned("net.safetensors", saved)
    other = replace(written, values=written.values | {"bn.running_mean": np.zeros(2) + 9})
    with pytest.raises(FileError, match=r"^new: bn.running_mean does not hold the new values"):
        other.write(saved)


def test_a_file_that_came_meanwhile_is_kept(folder):
    CONTAINERS["net.pth"][0]("net.pth")
    saved = SavedFlags(save_checkpoint="new")
    written = planned("net.pth", saved)
    Path("new").write_text("another's")
    with pytest.raises(FileError, match="it exists already"):
        written.write(saved)
    assert Path("new").read_text() == "another's"
    written.write(replace(saved, force=True))
    assert torch.load("new", weights_only=True).keys() == state(other=OTHER).keys()


def test_other_names_of_the_same_tensors_are_said(folder):
    tensors = state(other=OTHER)
    torch.save(tensors | {"again.running_mean": tensors["bn.running_mean"]}, "net.pth")
    saved = SavedFlags(save_checkpoint="new")
    written = planned("net.pth", saved)
    said = "1 other name of the same tensors {}, too (again.running_mean)"
    assert [*written.remarks()] == [said.format("would change")]
    first, last = written.write(saved).remarks()
    assert first == said.format("changed")
    assert last.endswith(
        "1 of 1 layer holds the new statistics; the other 4 tensors are bit for bit the old "
        f"ones{KEPT}"
    )
    new = torch.load("new", weights_only=True)
    assert (
        new["again.running_mean"].tolist()
        == new["bn.running_mean"].tolist()
        == (torch.tensor(MEAN).tolist())
    )


def test_a_damaged_checkpoint_is_not_copied(folder):
    """A byte of another tensor than those that change."""
    CONTAINERS["net.pth"][0]("net.pth")
    data = bytearray(Path("net.pth").read_bytes())
    with zipfile.ZipFile("net.pth") as archive:
        sizes = {each.filename: each for each in archive.infolist()}
        name = next(each for each in sizes if archive.read(each) == OTHER.numpy().tobytes())
        with archive.open(name) as stream:
            stream.read(1)
            start = sizes[name].header_offset
    at = data.index(OTHER.numpy().tobytes(), start)
    data[at] ^= 1
    Path("net.pth").write_bytes(data)
    saved = SavedFlags(save_checkpoint="new")
    with pytest.raises(FileError, match="does not match its checksum; the file is damaged"):
        planned("net.pth", saved).write(saved)
    assert not Path("new").exists()
    with reading(checksum=False):
        assert planned("net.pth", saved).write(saved).verified == 1
