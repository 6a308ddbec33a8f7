"""`--save-stats` and `--per-batch`: what the statistics file of tensors holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.commands.compute import saved
from bncli.loaders.statistics import open_statistics
from bncli.model.capture import Propagation
from bncli.moments import team
from bncli.moments.batches import BatchSums
from tests.commands.samples import random
from tests.loaders.statistics.captures import unlike

TRAINING = Propagation.TRAINING


def sums_of(*arrays):
    sums = BatchSums(arrays[0].shape[1], per_batch=True)
    for x in arrays:
        sums.add(x)
    return sums


def only_layer(path="stats.npz"):
    capture = open_statistics(path)
    (layer,) = capture.layers
    return capture, layer


def test_each_input_is_a_batch(run, save):
    x, y = random(4, 3, 5), random(7, 3, 5)
    save("x.npy", x)
    save("y.npy", y)
    result = run("compute", "x.npy", "y.npy", "--save-stats", "stats.npz", "-f", "json")
    assert result.code == 0
    assert result.report["facts"]["saved_stats"] == "stats.npz"
    assert "statistics saved to stats.npz" in result.report["remarks"]
    capture, layer = only_layer()
    expected = sums_of(x, y)
    assert unlike(layer.seen, {TRAINING: expected.result()}) is None
    assert (layer.name, layer.order, layer.state) == ("input", 0, None)
    assert capture.per_batch == {}
    source = capture.source
    assert (source["command"], source["data"]) == ("compute", ["x.npy", "y.npy"])
    assert (source["dtype"], source["kind"]) == ("float32", "BatchNorm1d")
    run("compute", "x.npy", "y.npy", "--save-stats", "more.npz", "--per-batch", "-q")
    capture, _ = only_layer("more.npz")
    assert unlike(capture.per_batch, {("input", TRAINING): dict(expected.batches())}) is None


@pytest.mark.parametrize("piece", [1, 40, 1 << 22])
@pytest.mark.parametrize(
    ("axis", "shape"), [(1, (9, 3, 2, 4)), (-1, (9, 2, 3)), (0, (3, 8)), (0, (3, 2, 2, 5))]
)
def test_pieces_and_layouts_change_nothing(run, save, monkeypatch, piece, axis, shape):
    monkeypatch.setattr(saved, "PIECE", piece)
    x = random(*shape) * 3 + 50
    x[tuple(size - 1 for size in shape)] = np.nan
    save("x.npy", x)
    flags = ("--channel-axis", axis, "--save-stats", "stats.npz", "-q")
    assert run("compute", "x.npy", *flags).code == 1  # NaN
    _, layer = only_layer()
    moved = np.moveaxis(x, axis, 1) if axis or x.ndim == 2 else np.moveaxis(x, 0, 0)[np.newaxis]
    got, want = layer.seen[TRAINING], sums_of(moved).result()
    for name in ("values", "samples", "batches"):
        assert getattr(got, name) == getattr(want, name)
    for name in ("min", "max", "at_min", "at_max", "at_zero", "nan"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    for name in ("mean", "var", "sample_squares", "batch_var", "batch_mean"):
        left, right = (getattr(each, name) for each in (got, want))
        if name == "batch_mean":
            left, right = left + got.shift, right + want.shift
        np.testing.assert_allclose(left, right, rtol=1e-12)


def test_any_number_of_threads_gives_the_same_bytes(run, save, monkeypatch):
    save("x.npy", random(30, 3, 40) + 100)
    monkeypatch.setattr(saved, "PIECE", 500)
    files = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(team, "default_threads", lambda threads=threads: threads)
        run("compute", "x.npy", "--shard", "0/1", "--save-stats", "stats.npz", "-q")
        files.append(Path("stats.npz").read_bytes())
        Path("stats.npz").unlink()
    assert files[0] == files[1] == files[2]


def test_a_cast_is_made_before(run, save):
    save("x.npy", np.array([[1, 2], [3, 5]]))
    run("compute", "x.npy", "--dtype", "float64", "--save-stats", "stats.npz", "-q")
    capture, layer = only_layer()
    assert layer.seen[TRAINING].mean.tolist() == [2.0, 3.5]
    assert capture.source["dtype"] == "float64"


def test_bfloat16_as_it_is_stored(run, save):
    x = torch.randn(6, 3, 4).to(torch.bfloat16)
    save("x.pt", {"x": x})
    run("compute", "x.pt::x", "--save-stats", "stats.npz", "-q")
    _, layer = only_layer()
    assert layer.name == "x"  # as it is in its file
    assert unlike(layer.seen[TRAINING], sums_of(x.float().numpy()).result()) is None


def test_the_state_is_the_layers_own(run, save):
    bn = torch.nn.BatchNorm1d(3)
    bn(torch.randn(8, 3))
    save("net.pt", {f"net.bn1.{key}": value for key, value in bn.state_dict().items()})
    save("x.npy", random(4, 3))
    flags = ("--state", "net.pt::bn1", "--eps", "1e-3", "--save-stats", "stats.npz", "-q")
    run("compute", "x.npy", *flags)
    _, layer = only_layer()
    assert (layer.name, layer.order) == ("net.bn1", 1)
    state = layer.state
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        np.testing.assert_array_equal(getattr(state, leaf), getattr(bn, leaf).detach().numpy())
        assert getattr(state, leaf).dtype == np.float32
    assert state.num_batches_tracked == 1
    assert (state.module.eps, state.module.has_momentum) == (1e-3, False)


def test_only_what_was_given_is_the_layers(run, save):
    save("x.npy", random(4, 3))
    save("weight.npy", np.array([1.0, 2.0, 3.0]))
    run("compute", "x.npy", "--weight", "weight.npy", "--save-stats", "stats.npz", "-q")
    _, layer = only_layer()
    assert layer.state.weight.tolist() == [1.0, 2.0, 3.0]
    assert layer.state.running_mean is layer.state.num_batches_tracked is None
    assert layer.state.module.eps is None  # it was assumed
    save("mean.npy", np.zeros(3))
    flags = ("--running-mean", "mean.npy", "--running-var", "weight.npy", "--momentum", "none")
    run("compute", "x.npy", *flags, "--save-stats", "stats.npz", "-q")
    _, layer = only_layer()
    assert layer.state.weight is layer.state.bias is None
    assert layer.state.running_var.tolist() == [1.0, 2.0, 3.0]
    assert (layer.state.module.momentum, layer.state.module.has_momentum) == (None, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--save-stats", "stats.npy"),
            "--save-stats stats.npy: a statistics file is an .npz; name it FILE.npz.",
        ),
        (
            ("--save-stats", "x.npz"),
            "--save-stats x.npz: this would overwrite an input; name another file.",
        ),
        (
            ("--save-stats", "missing/stats.npz"),
            "missing/stats.npz: cannot be written: the folder 'missing' does not exist.",
        ),
        (("--per-batch",), "--per-batch is for a statistics file: add --save-stats FILE.npz."),
    ],
)
def test_what_cannot_be_saved_is_refused_first(run, save, flags, said):
    save("x.npz", x=random(4, 3))
    before = Path("x.npz").read_bytes()
    result = run("compute", "x.npz", *flags)
    assert (result.code, result.stdout, result.stderr) == (2, "", f"bncli: {said}\n")
    assert Path("x.npz").read_bytes() == before
    assert not Path("stats.npz").exists()
