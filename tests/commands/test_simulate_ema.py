"""`bncli simulate-ema`: every source of batches, every flag, every key, every refusal."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.backends.torch.tensors import repeats

FACTS = ("convention", "momentum", "batches", "half_life", "steps_to_1_percent", "initial_weight")
STEP_KEYS = {
    "convention", "step", "channel", "batch_mean", "batch_var", "running_mean", "running_var",
    "initial_weight",
}  # fmt: skip

repeated = pytest.mark.skipif(
    not repeats(), reason="bncli repeats the additions of another release or processor"
)


def random(*shape: int, seed: int = 0, mean: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 2.0, shape).astype(np.float32)


def table(result, key: str = "steps") -> list[dict]:
    return result.report["tables"][key]


def steps(result, key: str, convention: str = "pytorch") -> np.ndarray:
    """(steps, channels) of a column."""
    rows = [row for row in table(result) if row["convention"] == convention]
    channels = len({row["channel"] for row in rows})
    return np.array([row[key] for row in rows], np.float64).reshape(-1, channels)


def codes(result) -> set[str]:
    return {finding["code"] for finding in result.report["findings"]}


def finding(result, code: str) -> dict:
    (found,) = [item for item in result.report["findings"] if item["code"] == code]
    return found


def trained(batches, channel_axis=1, *, dtype=torch.float32, **settings):
    """The module's buffers after each batch: (steps, channels) twice."""
    batches = [torch.from_numpy(np.asarray(x)).to(dtype).movedim(channel_axis, 1) for x in batches]
    kind = getattr(torch.nn, f"BatchNorm{max(batches[0].ndim - 2, 1)}d")
    module = kind(batches[0].shape[1], dtype=dtype, **settings)
    found = []
    with torch.no_grad():
        for x in batches:
            module(x)
            found.append((module.running_mean.double().numpy().copy(),
                          module.running_var.double().numpy().copy()))  # fmt: skip
    return np.stack([mean for mean, _ in found]), np.stack([var for _, var in found])


def assert_buffers(result, batches, channel_axis=1, **settings):
    assert (result.stderr, result.code in (0, 1)) == ("", True)
    mean, var = trained(batches, channel_axis, **settings)
    np.testing.assert_allclose(steps(result, "running_mean"), mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(steps(result, "running_var"), var, rtol=1e-6)


# ---------------------------------------------------------------------------- what is reported


GENERATED = ("simulate-ema", "--generate", "8,2,3", "--batches", 6, "--momentum", 0.25)


@pytest.mark.parametrize(
    ("form", "suffix"),
    [("table", ".txt"), ("json", ".json"), ("csv", ".csv"), ("markdown", ".md")],
)
def test_golden(run, repository, monkeypatch, golden, form, suffix):
    """Two batches of one sample each, 1 2 3 4 and 9 10 11 12 in channel 0."""
    monkeypatch.chdir(repository)
    result = run(
        "simulate-ema", "examples/tutorial/x.npy", "--batch-size", 1, "--momentum", 0.5,
        "--convention", "pytorch", "--convention", "keras3", "--buffer-dtype", "float64",
        "--channel", 0, "-f", form,
    )  # fmt: skip
    assert (result.code, result.stderr) == (0, "")
    golden(f"simulate_ema{suffix}", result.stdout)
    after = 0.25 + 0.25 * 1.25 + 0.5 * 1.25  # the biased variance of either batch is 1.25
    assert str(after) in result.stdout
    after = 0.25 + 0.75 * 5 / 3
    assert (repr(after) if form in ("json", "csv") else f"{after:.6g}") in result.stdout


def test_json_keeps_its_promise(run):
    report = run(*GENERATED, "-f", "json", "--against", "torch").report
    assert set(FACTS) <= set(report["facts"])
    assert report["facts"]["convention"] == "pytorch"
    assert report["facts"]["momentum"] == 0.25
    assert report["facts"]["batches"] == 6
    assert report["facts"]["half_life"] == pytest.approx(np.log(0.5) / np.log(0.75))
    assert report["facts"]["steps_to_1_percent"] == 17
    assert report["facts"]["initial_weight"] == pytest.approx(0.75**6)
    assert report["facts"]["backend"] == "torch"
    assert report["facts"]["backend_version"] == torch.__version__
    assert next(iter(report["tables"])) == "steps"
    for row in report["tables"]["steps"]:
        assert set(row) >= STEP_KEYS
    assert [row["step"] for row in report["tables"]["steps"]] == [
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        5,
        5,
        6,
        6,
    ]
    assert {row["quantity"] for row in report["tables"]["differences"]} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    assert set(report["charts"]) == {"running_mean", "running_var", "initial_weight"}


def test_the_charts_hold_what_the_table_does(run):
    result = run(*GENERATED, "--channel", 1, "-f", "json")
    chart = result.report["charts"]["running_var"]
    assert chart["x"] == [1, 2, 3, 4, 5, 6]
    assert chart["series"]["running"] == steps(result, "running_var")[:, 0].tolist()
    assert chart["series"]["batch"] == steps(result, "batch_var")[:, 0].tolist()
    (row,) = table(result, "channels")
    assert chart["series"]["population"] == [row["population_var"]] * 6


# ---------------------------------------------------------------------------- sources of batches


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


@pytest.mark.parametrize("layout", ["csv", "long.npz", "wide.npz"])
def test_tables_of_statistics(run, save, folder, layout):
    rng = np.random.default_rng(0)
    mean, var = rng.normal(size=(6, 3)), rng.uniform(0.5, 2, (6, 3))
    count = np.array([8, 8, 8, 8, 8, 5])
    rows = [
        {"batch": b * 10, "channel": c, "mean": mean[b, c], "var": var[b, c], "count": count[b]}
        for b in range(6)
        for c in range(3)
    ]
    rng.shuffle(rows)
    name = f"table.{layout}"
    if layout == "csv":
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["count", "mean", "var", "channel", "batch"])
            writer.writeheader()
            writer.writerows(rows)
    elif layout == "long.npz":
        save(name, **{key: np.array([row[key] for row in rows]) for key in rows[0]})
    else:
        save(name, mean=mean, var=var, count=count)
    result = run("simulate-ema", name, "--buffer-dtype", "float64", "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    running_mean, running_var = np.zeros(3), np.ones(3)
    for b in range(6):
        running_mean = 0.9 * running_mean + 0.1 * mean[b]
        running_var = 0.9 * running_var + 0.1 * var[b] * count[b] / (count[b] - 1)
        np.testing.assert_allclose(steps(result, "running_mean")[b], running_mean, rtol=1e-13)
        np.testing.assert_allclose(steps(result, "running_var")[b], running_var, rtol=1e-13)
    for row in table(result, "channels"):
        c = row["channel"]
        share = count / count.sum()
        pop = (share * mean[:, c]).sum()
        assert row["population_mean"] == pytest.approx(pop, rel=1e-12)
        total = (share * (var[:, c] + (mean[:, c] - pop) ** 2)).sum()
        assert row["population_var"] == pytest.approx(total, rel=1e-12)
    assert run("simulate-ema", name, "-f", "json").code == 0  # float32 buffers take them too


def test_the_table_that_bncli_writes_is_one_it_reads(run, folder):
    """The steps of one run, with a count, are the batches of another."""
    first = run(*GENERATED, "--buffer-dtype", "float64", "-f", "csv")
    rows = list(csv.DictReader(io.StringIO(first.stdout)))
    lines = ["batch,channel,mean,var,count"]
    lines += [
        f"{row['step']},{row['channel']},{row['batch_mean']},{row['batch_var']},24" for row in rows
    ]
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    flags = ("--momentum", 0.25, "--buffer-dtype", "float64", "-f", "json")
    again = run("simulate-ema", "t.csv", *flags)
    np.testing.assert_allclose(
        steps(again, "running_var").ravel(), [float(row["running_var"]) for row in rows], rtol=1e-13
    )


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


# ---------------------------------------------------------------------------- the update


@pytest.mark.parametrize("momentum", ["0.1", "0.5", "0", "1", "none"])
def test_momentum(run, save, momentum):
    batches = [random(6, 3, seed=seed) for seed in range(4)]
    names = [save(f"{i}.npy", x) for i, x in enumerate(batches)]
    result = run("simulate-ema", *names, "--momentum", momentum, "-f", "json")
    given = None if momentum == "none" else float(momentum)
    assert_buffers(result, batches, momentum=given)
    assert result.report["facts"]["momentum"] == ("none" if given is None else given)


def test_frozen_after_some_steps(run):
    flags = (*GENERATED, "--freeze-after", 2, "-f", "json", "--against", "torch")
    result = run(*flags)
    assert result.code == 0
    running = steps(result, "running_mean")
    assert (running[2:] == running[1]).all()
    assert (running[1] != running[0]).all()
    assert result.report["facts"]["updates"] == 2
    assert result.report["facts"]["num_batches_tracked"] == 2


def test_a_start_from_files(run, save):
    mean, var = np.array([5.0, -5.0]), np.array([2.0, 3.0])
    flags = (
        "--running-mean", save("m.npy", mean), "--running-var", save("v.npy", var),
        "--buffer-dtype", "float64", "-f", "json",
    )  # fmt: skip
    result = run(*GENERATED, *flags)
    first = steps(result, "running_mean")[0], steps(result, "running_var")[0]
    x = np.random.default_rng([0, 0]).standard_normal((8, 2, 3), dtype=np.float32).astype(float)
    np.testing.assert_allclose(first[0], 0.75 * mean + 0.25 * x.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(first[1], 0.75 * var + 0.25 * x.var((0, 2), ddof=1), rtol=1e-12)


def test_a_start_from_a_checkpoint_with_its_counter_and_momentum(run, save):
    torch.manual_seed(0)
    module = torch.nn.BatchNorm1d(3, momentum=0.3)
    for _ in range(4):
        module(torch.randn(8, 3) * 2 + 1)
    path = save("net.pt", torch.nn.Sequential(module))
    x = random(8, 3, 2)
    result = run("simulate-ema", save("x.npy", x), "--state", path, "-f", "json")
    module(torch.from_numpy(x))
    np.testing.assert_array_equal(steps(result, "running_mean")[0], module.running_mean.double())
    np.testing.assert_array_equal(steps(result, "running_var")[0], module.running_var.double())
    facts = result.report["facts"]
    assert (facts["momentum"], facts["momentum_source"]) == (0.3, "file")
    assert facts["num_batches_tracked"] == 5
    flax = run("simulate-ema", "x.npy", "--state", path, "--convention", "flax", "-f", "json")
    assert flax.report["facts"]["momentum"] == 0.7


def test_conventions_side_by_side(run):
    names = ("keras3", "pytorch", "caffe", "haiku")
    flags = [argument for name in names for argument in ("--convention", name)]
    result = run(
        "simulate-ema", "--generate", "8,2", "--batches", 5, *flags, "--momentum", "0.9",
        "--buffer-dtype", "float64", "-f", "json",
    )  # fmt: skip
    facts = result.report["facts"]
    assert (facts["convention"], facts["momentum"], facts["momentum_weighs"]) == (
        "keras3", 0.9, "old",
    )  # fmt: skip
    assert facts["conventions"] == list(names)
    keras, pytorch = steps(result, "running_var", "keras3"), steps(result, "running_var")
    q = 0.9 ** np.arange(1, 6)[:, np.newaxis]
    np.testing.assert_allclose((keras - q) * 8 / 7, pytorch - q, rtol=1e-12)
    haiku = steps(result, "running_mean", "haiku")
    np.testing.assert_allclose(haiku * (1 - q), steps(result, "running_mean"), rtol=1e-11)
    np.testing.assert_allclose(
        steps(result, "running_var", "caffe"), steps(result, "running_var", "haiku") * 8 / 7
    )
    ports = {(row["convention"], row["channel"]): row for row in table(result, "conventions")}
    assert ports["keras3", 0]["var_ratio"] == 1
    assert ports["pytorch", 1]["momentum"] == pytest.approx(0.1)
    expected = pytorch[-1, 1] / keras[-1, 1]
    assert ports["pytorch", 1]["var_ratio"] == pytest.approx(expected, rel=1e-12)
    assert ports["pytorch", 1]["output_ratio"] == pytest.approx(expected**-0.5, rel=1e-12)


def test_how_far_a_port_is_off(run):
    """Two momenta, so that the means differ by more than roundings; the first is the measure."""
    result = run(*GENERATED, "--convention", "pytorch", "--convention", "equinox", "-f", "json")
    first, other = table(result, "conventions")[:2]
    assert (first["channel"], other["channel"], other["convention"]) == (0, 0, "equinox")
    off = (other["running_mean"] - first["running_mean"]) / first["running_var"] ** 0.5
    assert off != 0
    assert other["mean_difference"] == pytest.approx(off, rel=1e-12)
    assert other["var_ratio"] == pytest.approx(other["running_var"] / first["running_var"])
    assert other["output_ratio"] == pytest.approx(other["var_ratio"] ** -0.5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_table_of_statistics_is_rounded_as_the_buffers_hold_it(run, folder, dtype):
    """float16 modules keep a batch's statistics in float32, bfloat16 ones in bfloat16."""
    import torch

    kept = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    (folder / "t.csv").write_text("batch,channel,mean,var,count\n0,0,0.3,0.7,8\n1,0,0.1,0.9,8\n")
    rows = table(run("simulate-ema", "t.csv", "--buffer-dtype", dtype, "-f", "json"))
    for row, mean, var in zip(rows, (0.3, 0.1), (0.7, 0.9), strict=True):
        assert row["batch_mean"] == torch.tensor(mean, dtype=kept).item()
        assert row["batch_var"] * 8 == torch.tensor(var * 8, dtype=kept).item()


def test_the_statistics_are_computed_once(run, monkeypatch):
    from bncli.running_stats import collect

    seen = []
    original = collect.channel_stats

    def counted(*args, **kwargs):
        seen.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(collect, "channel_stats", counted)
    flags = ("--convention", "pytorch", "--convention", "keras3", "--epochs", 4)
    assert run(*GENERATED, *flags, "-q").code == 0
    assert len(seen) == 6


@pytest.mark.parametrize("chosen", ["0", "1,3", "2-4"])
def test_channel_chooses_rows_and_nothing_else(run, chosen):
    flags = ("simulate-ema", "--generate", "8,5,2", "--batches", 4, "-f", "json")
    whole, some = run(*flags), run(*flags, "--channel", chosen)
    wanted = {row["channel"] for row in table(some)}
    for key in ("steps", "channels"):
        assert table(some, key) == [row for row in table(whole, key) if row["channel"] in wanted]
    assert some.report["verdict"] == whole.report["verdict"]


# ---------------------------------------------------------------------------- many steps


def test_every_step_is_a_row_up_to_a_bound_and_then_some(run):
    flags = ("simulate-ema", "--generate", "4,2", "--batches", 10, "-f", "json")
    few = table(run(*flags, "--epochs", 20))
    assert [row["step"] for row in few] == [n for n in range(1, 201) for _ in range(2)]
    many = [row["step"] for row in table(run(*flags, "--epochs", 20_000))]
    assert len(many) <= 100_000
    assert (many[0], many[-1]) == (1, 200_000)
    gaps = np.diff(sorted(set(many)))
    assert gaps[0] == 1
    assert gaps[-1] > 1


def test_every_so_many_steps_and_the_last(run):
    flags = ("simulate-ema", "--generate", "4,2", "--batches", 10, "--channel", 0, "-f", "json")
    rows = table(run(*flags, "--every", 4))
    assert [row["step"] for row in rows] == [4, 8, 10]
    whole = {row["step"]: row for row in table(run(*flags))}
    assert rows == [whole[row["step"]] for row in rows]


def test_a_long_table_is_digested_on_a_terminal():
    from bncli.errors import ExitCode
    from bncli.renderers.interface import RenderContext
    from bncli.renderers.table import render
    from bncli.report import Column, Report, Table

    rows = [{"step": step} for step in range(1000)]
    given = Table("steps", "Steps", (Column("step", "step"),), rows, digest=[0, 500, 999])
    report = Report("simulate-ema", {}, (given,))
    text = render(report, RenderContext(ExitCode.OK, 80, terminal=True))
    assert re.findall(r"^ *(\d+)$", text, re.MULTILINE) == ["0", "500", "999"]
    assert "997 more rows" in text


# ---------------------------------------------------------------------------- the plan


def test_the_plan_of_a_momentum(run):
    result = run(*GENERATED, "--reach-steps", 50, "--reach-noise", 0.01, "-f", "json")
    plan = {row["quantity"]: row["value"] for row in table(result, "plan")}
    assert plan["effective batches"] == pytest.approx(7)
    assert plan["mean age of a batch, in steps"] == pytest.approx(3)
    assert plan["S, sum of squared weights"] == pytest.approx(
        sum((0.25 * 0.75**i) ** 2 for i in range(6))
    )
    assert (1 - plan["momentum for 1 % after 50"]) ** 50 == pytest.approx(0.01)
    assert 0 < plan["momentum for se 0.01, e"] < 0.01
    for row in table(result, "plan"):
        assert set(row) == {"quantity", "value", "formula"}


WEIGHTS = (0.5, 0.1, 0.05, 0.01, 0.001, 1e-6)

PUBLISHED = {
    # momentum: half-life, mean age, effective batches, steps until the initial value has each of
    # WEIGHTS, and the buffers' standard deviation in units of a batch's
    "0.3": (1.94, 2.33, 5.67, (2, 7, 9, 13, 20, 39), 0.420),
    "0.1": (6.58, 9, 19, (7, 22, 29, 44, 66, 132), 0.229),
    "0.01": (68.97, 99, 199, (69, 230, 299, 459, 688, 1375), 0.0709),
    "0.001": (692.8, 999, 1999, (693, 2302, 2995, 4603, 6905, 13809), 0.0224),
}


@pytest.mark.parametrize("momentum", PUBLISHED)
def test_the_table_of_momenta_comes_out_of_the_command(run, momentum):
    half_life, age, effective, faded, deviation = PUBLISHED[momentum]
    result = run(
        "simulate-ema", "--generate", "2,1", "--batches", 10, "--epochs", 1400, "--momentum",
        momentum, "--buffer-dtype", "float64", "-f", "json",
    )  # fmt: skip
    facts = result.report["facts"]
    plan = {row["quantity"]: row["value"] for row in table(result, "plan")}
    assert facts["half_life"] == pytest.approx(half_life, rel=2e-3)
    assert plan["mean age of a batch, in steps"] == pytest.approx(age, rel=2e-3)
    assert plan["effective batches"] == pytest.approx(effective, rel=1e-3)
    assert facts["steps_to_1_percent"] == faded[3]
    weights = steps(result, "initial_weight")[:, 0]
    assert tuple(int(np.argmax(weights <= weight)) + 1 for weight in WEIGHTS) == faded
    assert plan["S, sum of squared weights"] ** 0.5 == pytest.approx(deviation, rel=3e-3)


def test_a_reached_momentum_is_in_the_sense_of_the_convention(run):
    result = run(*GENERATED[:-2], "--convention", "keras3", "--reach-steps", 50, "-f", "json")
    plan = {row["quantity"]: row["value"] for row in table(result, "plan")}
    assert plan["momentum for 1 % after 50"] ** 50 == pytest.approx(0.01)


def test_what_the_initial_value_adds(run):
    (row, _) = table(run(*GENERATED, "--buffer-dtype", "float64", "-f", "json"), "channels")
    weight = 0.75**6
    assert row["debiased_var"] == pytest.approx((row["running_var"] - weight) / (1 - weight))
    assert row["initial_in_var"] == pytest.approx(row["running_var"] - row["debiased_var"])
    assert row["debiased_mean"] == pytest.approx(row["running_mean"] / (1 - weight))


def test_the_gap_of_unshuffled_batches(run, save):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(label, 1, (64, 2)) for label in (-2, 0, 2)])
    flags = ("--batch-size", 16, "--epochs", 10, "--momentum", "none", "-f", "json")
    flags += ("--buffer-dtype", "float64")
    unshuffled = run("simulate-ema", save("x.npy", x), *flags)
    shuffled = run("simulate-ema", "x.npy", *flags, "--shuffle")
    assert codes(unshuffled) == {"BN703"}
    assert codes(shuffled) == set()
    for row, values in zip(table(unshuffled, "channels"), x.T, strict=True):
        assert row["population_var"] == pytest.approx(values.var(), rel=1e-12)
        assert row["within_var"] + row["between_var"] == pytest.approx(values.var(), rel=1e-12)
        assert row["gap_var"] == pytest.approx(row["running_var"] - values.var(), rel=1e-9)
        assert -row["gap_var"] == pytest.approx(row["between_var"], rel=0.1)
        assert row["shuffled_between_var"] < 0.1 * row["between_var"]
    for row in table(shuffled, "channels"):
        assert abs(row["gap_var"]) < 0.2


# ---------------------------------------------------------------------------- against torch


@repeated
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("momentum", ["0.1", "none", "0.9"])
def test_bit_for_bit_against_torch(run, save, dtype, momentum):
    x = random(22, 3, 4)
    result = run(
        "simulate-ema", save("x.npy", x), "--batch-size", 4, "--shuffle", "--epochs", 2,
        "--buffer-dtype", dtype, "--momentum", momentum, "--against", "torch", "-f", "json",
    )  # fmt: skip
    assert result.code == 0, result.stdout
    for row in table(result, "differences"):
        assert (row["passed"], row["max_abs_diff"], row["atol"]) == (True, 0, 0)
    total = {row["quantity"]: row["total"] for row in table(result, "differences")}
    assert total["running_mean"] == 12 * 3
    assert ("update_bn running_var" in total) == (momentum == "none")
    assert "agree bit for bit over 12 steps" in result.report["verdict"]


def test_float64_against_torch_within_a_tolerance_that_sees_a_fault(run, save, monkeypatch):
    flags = (
        "simulate-ema", save("x.npy", random(40, 3)), "--batch-size", 8, "--buffer-dtype",
        "float64", "--against", "torch", "-f", "json",
    )  # fmt: skip
    result = run(*flags)
    assert result.code == 0
    allowed = max(row["atol"] for row in table(result, "differences"))
    assert 0 < allowed < 1e-12
    original = torch.nn.BatchNorm1d.forward

    def forward(self, x):
        self.momentum = 0.1 + 1e-10
        return original(self, x)

    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", forward)
    assert codes(run(*flags)) >= {"BN901"}


def test_a_fault_planted_in_torch_is_found_at_its_step(run, save, monkeypatch):
    original = torch.nn.BatchNorm1d.forward
    fault = 2.0**-23 if repeats() else 1e-3  # bit for bit, or beyond another order of additions

    def forward(self, x):
        y = original(self, x)
        if int(self.num_batches_tracked) == 3:
            self.running_var[1] *= 1 + fault
        return y

    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", forward)
    result = run(
        "simulate-ema", save("x.npy", random(40, 3)), "--batch-size", 8, "--against", "torch",
        "-f", "json",
    )  # fmt: skip
    assert result.code == 1
    assert finding(result, "BN901")["subject"] == "running_var"
    (row,) = [row for row in table(result, "differences") if row["quantity"] == "running_var"]
    assert row["index"] == [3, 1]


def test_a_tolerance_of_the_users(run, save, monkeypatch):
    flags = ("simulate-ema", save("x.npy", random(40, 3)), "--batch-size", 8, "--against", "torch")
    result = run(*flags, "--rtol", 0.5, "--atol", 0.25, "-f", "json")
    buffers = [row for row in table(result, "differences") if "running" in row["quantity"]]
    assert {(row["rtol"], row["atol"]) for row in buffers} == {(0.5, 0.25)}


def test_threads_of_torch_are_repeated_and_given_back(run, save):
    before = torch.get_num_threads()
    x = save("x.npy", random(4000, 20, mean=50.0))
    found = {}
    for threads in (1, 2):
        result = run(
            "simulate-ema", x, "--torch-threads", threads, "--against", "torch", "-f", "json"
        )
        assert result.code == 0, result.stdout
        found[threads] = steps(result, "running_mean")
        assert torch.get_num_threads() == before
    assert (found[1] != found[2]).any()  # rows are added up in other shares


def test_a_refused_batch_is_counted_and_leaves_the_buffers(run, save):
    x = random(9, 3)
    result = run(
        "simulate-ema", save("x.npy", x), "--batch-size", 4, "--momentum", "none", "--epochs", 2,
        "--against", "torch", "-f", "json",
    )  # fmt: skip
    assert result.code == 1
    assert codes(result) == {"BN704"}
    assert "9 samples in batches of 4" in finding(result, "BN704")["message"]
    assert all(row["passed"] for row in table(result, "differences"))
    assert result.report["facts"]["num_batches_tracked"] == 6
    assert run("simulate-ema", "x.npy", "--batch-size", 4, "--drop-last", "-q").code == 0


# ---------------------------------------------------------------------------- refusals

REFUSALS = dict(
    re.findall(
        r"^bncli simulate-ema ?(.*)\n    (.+)$",
        Path(__file__).with_name("refusals.txt").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)
"""The arguments, and the sentence that they are refused with."""


@pytest.fixture
def bad_inputs(save, folder):
    """Files for the refusals, and one good x.npy of shape (4, 3, 5)."""
    save("x.npy", random(4, 3, 5))
    save("four.npy", random(4, 4, 5))
    save("vec.npy", random(4))
    save("empty.npy", np.ones((0, 4, 3), np.float32))
    save("w3.npy", np.ones(3))
    save("w4.npy", np.ones(4))
    save("ck.pt", {"norm.weight": torch.ones(3), "norm.bias": torch.zeros(3)})
    head = "batch,channel,mean,var,count\n"
    for name, text in {
        "t.csv": head + "0,0,1,2,8\n",
        "nocount.csv": "batch,channel,mean,var\n0,0,1,2\n",
        "word.csv": head + "0,0,1,2,8\n1,0,red,2,8\n",
        "twice.csv": head + "0,0,1,2,8\n0,0,1,2,8\n",
        "gap.csv": head + "0,0,1,2,8\n0,1,1,2,8\n1,0,1,2,8\n",
        "half.csv": head + "0,0,1,2,8.5\n",
        "zero.csv": head + "0,0,1,2,0\n",
        "below.csv": head + "0,0,1,-2,8\n",
        "uneven.csv": head + "0,0,1,2,8\n0,1,1,2,9\n",
        "none.csv": head,
    }.items():
        (folder / name).write_text(text)
    (folder / "binary.csv").write_bytes(b"\xff\xfe\x00")
    save("flat.npz", mean=np.ones(3), var=np.ones(3), count=np.ones(3))
    save("shapes.npz", mean=np.ones((2, 3)), var=np.ones((2, 4)), count=8)
    save("counts.npz", mean=np.ones((2, 3)), var=np.ones((2, 3)), count=np.ones(3))
    (folder / "folder.png").mkdir()
    return folder


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusal_is_one_exact_sentence_and_exit_code_2(run, bad_inputs, monkeypatch, arguments):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    before = sorted(path.name for path in bad_inputs.iterdir())
    code, stdout, stderr = run("simulate-ema", *arguments.split())
    assert stderr == f"bncli: {REFUSALS[arguments]}\n"
    assert (stdout, code) == ("", 2)
    assert sorted(path.name for path in bad_inputs.iterdir()) == before


def test_one_step_is_not_drawn(run, bad_inputs, monkeypatch):
    monkeypatch.setattr("bncli.renderers.drawing.plot.check_plot", lambda path: None)
    code, _, stderr = run("simulate-ema", "x.npy", "--plot", "chart.png")
    assert stderr == "bncli: --plot: one step makes no curve; give more batches or --epochs.\n"
    assert (code, (bad_inputs / "chart.png").exists()) == (2, False)


def test_the_squared_weights_of_a_debiased_average(run):
    """Of 6 batches at 0.75: (1/4) * (3/4)**i, over what they are together."""
    result = run(*GENERATED, "--convention", "haiku", "-f", "json")
    assert result.report["facts"]["momentum"] == 0.25, result.report["facts"]
    weights = [0.75 * 0.25**i for i in range(6)]
    plan = {row["quantity"]: row for row in table(result, "plan")}
    found = plan["S, sum of squared weights"]
    assert found["value"] == pytest.approx(sum(w**2 for w in weights) / sum(weights) ** 2)
    assert found["formula"].endswith("/(1 - (1 - a)**N)**2")
    assert plan["se of running_mean, in std"]["value"] == pytest.approx(
        (found["value"] / result.report["facts"]["count"]) ** 0.5
    )


def test_the_good_inputs_among_the_bad_ones_are_good(run, bad_inputs):
    assert run("simulate-ema", "x.npy", "-q").code == 0
    assert run("simulate-ema", "t.csv", "-q").code == 0


@pytest.mark.parametrize("how", ["nan", "one channel", "many channels", "half", "constant"])
def test_odd_inputs_give_something_sensible(run, save, how):
    x = random(12, 3, 4)
    if how == "nan":
        x[3, 1, 2] = np.nan
    elif how == "one channel":
        x = x[:, :1]
    elif how == "many channels":
        x = random(8, 1500)
    elif how == "half":
        x = x.astype(np.float16)
    else:
        x = np.ones_like(x)
    name = save("x.npy", x)
    result = run("simulate-ema", name, "--batch-size", 4, "--against", "torch", "-f", "json")
    assert result.stderr == ""
    assert result.code == (1 if how == "nan" else 0)
    assert len(table(result)) == x.shape[1] * len(range(0, len(x), 4))
    assert ("BN706" in codes(result)) == (how == "nan")
    json.dumps(result.report, allow_nan=False)
