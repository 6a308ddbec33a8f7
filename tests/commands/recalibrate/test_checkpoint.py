"""The checkpoint's buffers: which they are, how they round, and what is refused before a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bncli.commands.recalibrate.checkpoint import (
    Checkpoint,
    check_destination,
    check_format,
    files_of,
)
from bncli.commands.recalibrate.flags import SavedFlags
from bncli.errors import FileError, UsageError
from bncli.files.reading import reading
from bncli.live.batch import Statistics
from bncli.loaders import open_file
from bncli.model import BatchNormState
from bncli.model.capture import Capture, WatchedLayer
from tests.commands.recalibrate.test_rows import change
from tests.loaders.keras_files import archive, keras_3, net_3


def capture(*names: str) -> Capture:
    """Layers of two channels, as far as a checkpoint needs to know them."""
    tensors = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), np.zeros(2))
    states = [BatchNormState(name, **tensors, num_batches_tracked=0) for name in names]
    return Capture(tuple(WatchedLayer(state.name, 0, 2, state) for state in states))


def state(dtype=torch.float32, **others) -> dict:
    layer = torch.nn.BatchNorm2d(2).state_dict()
    return {
        f"bn.{name}": tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in layer.items()
    } | others


def opened(tensors: dict, chosen=("bn",), names=("bn",)) -> Checkpoint:
    torch.save(tensors, "net.pth")
    return Checkpoint.of("net.pth", capture(*names), chosen)


def test_what_becomes_of_the_tensors(folder):
    checkpoint = opened(state())
    layer = change("bn", new_mean=(0.1, 0.2), new_var=(1.5, 2.5))
    values = checkpoint.values([layer], SavedFlags())
    assert {*values} == {"bn.running_mean", "bn.running_var"}
    np.testing.assert_array_equal(values["bn.running_var"], [1.5, 2.5])
    values = checkpoint.values([layer], SavedFlags(counter="batches"))
    assert int(values["bn.num_batches_tracked"]) == 5
    assert sum(len(edits) for edits in checkpoint.edits(values).values()) >= 3


def test_the_statistics_are_held_as_the_buffers_round_them(folder):
    checkpoint = opened(state(torch.float16))
    held = checkpoint.hold("bn", Statistics(np.array([0.1, 0.2]), np.array([0.3, 3.3])))
    np.testing.assert_array_equal(held.mean, np.float16([0.1, 0.2]).astype(np.float64))
    np.testing.assert_array_equal(held.var, np.float16([0.3, 3.3]).astype(np.float64))


def test_a_buffer_that_is_not_there(folder):
    tensors = state()
    del tensors["bn.running_var"]
    with pytest.raises(FileError, match=r"it has no running_var of bn, and bncli adds no tensors"):
        opened(tensors)
    assert opened(tensors, chosen=()).file.path == Path("net.pth")  # which stays as it is
    tensors = state()
    del tensors["bn.num_batches_tracked"]
    checkpoint = opened(tensors)
    with pytest.raises(FileError, match=r"no num_batches_tracked of bn.*leave --counter out"):
        checkpoint.check_present(["bn"], counter=True)


def test_the_files_of_a_checkpoint(folder):
    torch.save(state(), "net.pth")
    assert files_of(open_file("net.pth")) == (Path("net.pth"),)
    refs = {name: SimpleNamespace(path=Path(name[0])) for name in ("a1", "b", "a2")}
    index = SimpleNamespace(path=Path("index.json"), tensors=refs)
    assert files_of(index) == (Path("index.json"), Path("a"), Path("b"))


def test_a_format_that_is_only_read_is_refused_before_anything_runs(folder, run):
    """Also where its names are another framework's, and so none of the model's."""
    np.savez("bn.npz", **{"a.weight": np.ones(2)})
    check_format("bn.npz")
    groups, names, config = net_3()
    Path("bn.keras").write_bytes(archive(keras_3(groups, names), config))
    result = run("recalibrate", "nowhere:net", "--checkpoint", "bn.keras", "--data", "x.npy")
    assert result.code == 2
    assert result.stderr == (
        "bncli: bn.keras: tensors in keras files cannot be replaced; save them with torch.save or "
        "as safetensors, and name that file.\n"
    )


def test_a_destination_is_checked_before_anything_runs(folder):
    torch.save(state(), "net.pth")
    Path("there.pth").write_text("something else")
    with reading():
        check_destination("new.pth", "net.pth", force=False)
        check_destination("there.pth", "net.pth::bn", force=True)
        with pytest.raises(FileError, match="it exists already"):
            check_destination("there.pth", "net.pth", force=False)
        with pytest.raises(FileError, match="does not exist"):
            check_destination("gone/new.pth", "net.pth", force=True)
        with pytest.raises(UsageError, match="would overwrite an input"):
            check_destination("net.pth", "net.pth", force=True)
        with pytest.raises(FileError, match="no such file"):
            check_destination("new.pth", "gone.pth", force=True)
