"""Batches from files, cut out of one, and generated: their order and what is in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.commands.samples import random
from tests.commands.simulate_ema.samples import GENERATED, assert_buffers, repeated, steps


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (3, 3, 4, 2), (2, 3, 2, 2, 2)])
def test_files(run, save, shape):
    batches = [random(*shape, seed=seed) for seed in range(5)]
    names = [save(f"{i}.npy", x) for i, x in enumerate(batches)]
    result = run("simulate-ema", *names, "-f", "json")
    assert_buffers(result, batches)
    assert result.report["facts"]["batches"] == 5
    np.testing.assert_allclose(
        steps(result, "batch_mean"),
        [np.moveaxis(x, 1, 0).reshape(3, -1).mean(1) for x in batches], rtol=1e-5,
    )  # fmt: skip
    np.testing.assert_allclose(
        steps(result, "batch_var"),
        [np.moveaxis(x, 1, 0).reshape(3, -1).astype(float).var(1) for x in batches], rtol=1e-5,
    )  # fmt: skip


def test_files_of_different_sizes(run, save):
    batches = [random(n, 3, length, seed=n) for n, length in ((4, 5), (9, 2), (2, 11))]
    names = [save(f"{i}.npy", x) for i, x in enumerate(batches)]
    result = run("simulate-ema", *names, "-f", "json")
    assert_buffers(result, batches)
    assert result.report["facts"]["count"] == [18, 22]


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_an_axis_of_batches(run, save, axis, suffix):
    batches = [random(5, 3, 4, seed=seed) for seed in range(6)]
    x = np.stack(batches, axis)
    name = save("x.npz", x=x) if suffix == ".npz" else save(f"x{suffix}", x)
    if suffix == ".pt":
        name = save("x.pt", torch.from_numpy(x))
    result = run("simulate-ema", name, "--batch-axis", axis, "-f", "json")
    assert_buffers(result, batches)
    assert result.report["facts"]["shape"] == [5, 3, 4]


def test_an_axis_of_batches_may_make_six_axes(run, save):
    batches = [random(2, 3, 2, 2, 2, seed=seed) for seed in range(3)]
    name = save("x.npy", np.stack(batches))
    assert_buffers(run("simulate-ema", name, "--batch-axis", 0, "-f", "json"), batches)


@pytest.mark.parametrize(("size", "drop"), [(8, False), (8, True), (5, False), (40, False)])
def test_samples_are_cut_as_by_a_dataloader(run, save, size, drop):
    x = random(37, 3, 2)
    loader = torch.utils.data.DataLoader(torch.from_numpy(x), batch_size=size, drop_last=drop)
    flags = ("--drop-last",) if drop else ()
    result = run("simulate-ema", save("x.npy", x), "--batch-size", size, *flags, "-f", "json")
    assert_buffers(result, [batch.numpy() for batch in loader])
    assert result.report["facts"]["batches"] == len(loader)


def test_shuffled_samples_are_each_seen_once_an_epoch(run, save):
    x = random(24, 2)
    flags = ("--batch-size", 6, "--epochs", 3, "--momentum", "none", "--buffer-dtype", "float64")
    result = run("simulate-ema", save("x.npy", x), *flags, "--shuffle", "-f", "json")
    means = steps(result, "batch_mean")
    assert means.shape == (12, 2)
    for epoch in range(3):
        np.testing.assert_allclose(means[4 * epoch : 4 * epoch + 4].mean(0), x.mean(0), rtol=1e-6)
    assert len(np.unique(means[:, 0])) == 12  # no epoch is like another
    again = run("simulate-ema", "x.npy", *flags, "--shuffle", "-f", "json")
    other = run("simulate-ema", "x.npy", *flags, "--shuffle", "--seed", 1, "-f", "json")
    np.testing.assert_array_equal(steps(again, "batch_mean"), means)
    assert (steps(other, "batch_mean") != means).any()


def test_epochs_repeat_and_shuffle_reorders_the_batches(run, save):
    batches = [random(6, 2, seed=seed) for seed in range(4)]
    names = [save(f"{i}.npy", x) for i, x in enumerate(batches)]
    plain = run("simulate-ema", *names, "--epochs", 3, "-f", "json")
    assert_buffers(plain, batches * 3)
    assert plain.report["facts"]["steps"] == 12
    shuffled = run("simulate-ema", *names, "--epochs", 3, "--shuffle", "-f", "json")
    means = [x.astype(float).mean(0)[0] for x in batches]
    order = [
        int(np.argmin(np.abs(np.array(means) - value)))
        for value in steps(shuffled, "batch_mean")[:, 0]
    ]
    assert [sorted(order[i : i + 4]) for i in (0, 4, 8)] == [[0, 1, 2, 3]] * 3
    assert order != [0, 1, 2, 3] * 3
    assert_buffers(shuffled, [batches[i] for i in order])


def test_generated_batches_are_what_their_seed_says(run):
    result = run(*GENERATED, "--buffer-dtype", "float64", "-f", "json")
    for i, mean in enumerate(steps(result, "batch_mean")):
        x = np.random.default_rng([0, i]).standard_normal((8, 2, 3), dtype=np.float32)
        np.testing.assert_allclose(mean, x.mean((0, 2), dtype=float), rtol=1e-12)
    assert result.report["facts"]["seed"] == 0
    other = run(*GENERATED, "--seed", 1, "-f", "json")
    assert (steps(other, "batch_mean") != steps(result, "batch_mean")).all()


def test_generated_batches_may_differ_and_drift(run):
    flags = ("simulate-ema", "--generate", "400,2", "--batches", 200, "-f", "json")
    between = steps(run(*flags, "--between-std", 0.5), "batch_mean")
    assert between.std(0) == pytest.approx([0.5, 0.5], rel=0.2)
    drift = steps(run(*flags, "--drift", 0.1), "batch_mean")
    assert np.polyfit(np.arange(200), drift, 1)[0] == pytest.approx([0.1, 0.1], rel=0.02)


def test_channels_last(run, save):
    batches = [random(4, 5, 6, 3, seed=seed) for seed in range(3)]
    names = [save(f"{i}.npy", x) for i, x in enumerate(batches)]
    result = run("simulate-ema", *names, "--channel-axis", -1, "-f", "json", "--against", "torch")
    assert result.code == 0
    assert_buffers(result, batches, -1)


@repeated
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.float64])
def test_the_memory_format_is_kept_because_pytorch_sums_by_it(run, save, dtype, stored):
    x = torch.from_numpy(random(64, 4, 6, 6, mean=50.0)).to(stored)
    flags = ("--batch-size", 16, "--buffer-dtype", dtype, "-f", "json")
    found = {}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for layout in (torch.channels_last, torch.contiguous_format):
        given = x.contiguous(memory_format=layout)
        result = run("simulate-ema", save("x.pt", given), *flags)
        module = torch.nn.BatchNorm2d(4, dtype=getattr(torch, dtype))
        for batch in given.split(16):
            module(batch.to(module.running_mean.dtype))
        found[layout] = steps(result, "running_mean")[-1]
        np.testing.assert_array_equal(found[layout], module.running_mean.double())
        np.testing.assert_array_equal(steps(result, "running_var")[-1], module.running_var.double())
    torch.set_num_threads(before)
    if dtype == "float32":  # coarser buffers may round to the same
        assert (found[torch.channels_last] != found[torch.contiguous_format]).any()


def test_integers_are_cast_on_request(run, save):
    x = np.random.default_rng(0).integers(0, 9, (12, 3))
    assert run("simulate-ema", save("x.npy", x)).code == 2
    result = run("simulate-ema", "x.npy", "--dtype", "float32", "-f", "json")
    assert_buffers(result, [x])
