"""An object in the place of a file: what it opens as, its size, and the pieces that tell it."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.errors import BncliError, MissingTensorError
from bncli.given import name_of, objects_given
from bncli.loaders import open_file, open_layer, open_model, open_tensor, split_spec
from bncli.loaders.file_marks import crc_of, file_size, fingerprint
from tests.objects import run, said


def test_the_name_of_an_object_opens_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("<ndarray>").write_text("a file of that name is not meant", encoding="utf-8")
    x, net = np.ones((2, 3)), torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    with objects_given():
        name = name_of(x)
        assert split_spec(f"{name}::a::b") == (Path(name), "a::b")
        assert open_tensor(name).read().tolist() == x.tolist()
        assert open_file(name).container == open_model(Path(name)).container == "memory"
        layer = open_layer(f"{name_of(net)}::0")
        assert layer.module.eps == 1e-5
        assert layer.running_var.tolist() == [1, 1, 1]
        with pytest.raises(MissingTensorError, match=r"^<Sequential>: .*0\.weight"):
            open_tensor(f"{name_of(net)}::0.wight")
    with pytest.raises(BncliError):
        open_tensor(name)


def test_an_empty_list_and_ragged_ones_are_sentences():
    with pytest.raises(BncliError, match=r"^<list>: shape \[0\] has 1 axis"):
        run("compute", [])
    with pytest.raises(BncliError, match=r"^<list>: it does not become an array of NumPy"):
        run("compute", [[1.0], [1.0, 2.0]])
    found = said("compute", [[1.0, 2.0], [3.0, 4.0]])
    assert [row["mean"] for row in found["tables"]["channels"]] == [2, 3]


@pytest.mark.parametrize("kind", ["path", "bytes", "named"])
def test_an_open_file_is_not_an_object_without_layers(kind, tmp_path):
    torch.save(torch.nn.BatchNorm1d(3).state_dict(), path := tmp_path / "x.pt")
    with (
        path.open("rb") as opened,
        io.BytesIO(path.read_bytes()) as held,
        tempfile.NamedTemporaryFile() as named,
    ):
        value = {"path": opened, "bytes": held, "named": named}[kind]
        for command in ("inspect_checkpoint", "compute"):
            with pytest.raises(BncliError) as refused:
                run(command, value)
            assert str(refused.value) == (
                f"<{type(value).__name__}>: it is an open file, of which nothing is read; give its "
                "path, or what torch.load makes of it."
            )
    assert len(said("inspect_checkpoint", {"log": held, "bn": torch.nn.BatchNorm1d(3)})) > 1


@pytest.mark.parametrize(
    "x",
    [
        np.arange(24.0).reshape(4, 6),
        np.arange(24.0).reshape(4, 6)[::-1, ::2],
        torch.arange(60.0).reshape(3, 4, 5).bfloat16(),
        [[1, 2], [3, 4]],
    ],
    ids=["array", "turned", "tensor", "list"],
)
def test_the_fingerprint_of_an_object_is_that_of_its_values(x):
    def marks(value):
        with objects_given():
            path = Path(name_of(value))
            size = file_size(path)
            assert crc_of([path]) == crc_of([path])
            return size, fingerprint(path, size)

    changed = torch.tensor(x) if isinstance(x, list) else x.clone() if hasattr(x, "clone") else +x
    same = marks(changed)
    assert same[0] == changed.nbytes
    if not isinstance(x, list):
        assert marks(x) == same
    changed[-1, -1] = 77
    assert marks(changed)[1] != same[1]


def test_sums_of_an_object_are_saved_and_made_again_only_where_it_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(8, 3, 4))
    np.save("x.npy", x)
    run("compute", x, save_stats="a.npz")
    run("compute", "x.npy", save_stats="b.npz")
    ours, theirs = said("compute", "a.npz"), said("compute", "b.npz")
    assert ours["tables"] == theirs["tables"]
    before = Path("a.npz").stat().st_mtime_ns
    run("compute", x, save_stats="a.npz", resume=True)
    assert Path("a.npz").stat().st_mtime_ns == before
    x[0] += 1
    with pytest.raises(BncliError, match="has changed since it was read"):
        run("compute", x, save_stats="a.npz", resume=True)
