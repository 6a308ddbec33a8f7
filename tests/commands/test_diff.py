"""`bncli diff`: against PyTorch in every path, and between stored tensors as assert_close does."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.backends import torch as torch_backend
from bncli.backends.torch.tensors import repeats
from bncli.model import BatchNormSettings
from bncli.verify.batch_norm_pass import Path as TorchPath
from bncli.verify.comparison import compare_channels
from tests.configurations import configuration

DIFFERENCE_KEYS = {
    "quantity", "max_abs_diff", "max_rel_diff", "index", "mismatched", "total", "rtol", "atol",
    "passed",
}  # fmt: skip
CHANNEL_KEYS = {"channel", "max_abs_diff", "max_rel_diff", "mismatched"}
FACTS = ("input", "shape", "dtype", "kind", "channel_axis", "training", "eps", "momentum", "count")


def random(*shape, seed=0, mean=1.0):
    return np.random.default_rng(seed).normal(mean, 2.0, shape).astype(np.float32)


def table(result, key):
    return result.report["tables"][key]


def codes(result):
    return [item["code"] for item in result.report["findings"]]


# ------------------------------------------------------------------- two stored tensors


def test_json_keeps_its_promise(run, save):
    expected = random(8, 3, 4)
    actual = expected.copy()
    actual[:, 1] *= np.float32(1.001)
    result = run("diff", save("a.npy", actual), save("b.npy", expected), "-f", "json")
    assert result.code == 1
    facts = result.report["facts"]
    assert (facts["actual"], facts["expected"], facts["shape"]) == ("a.npy", "b.npy", [8, 3, 4])
    (row,) = table(result, "differences")
    assert set(row) >= DIFFERENCE_KEYS
    assert next(iter(result.report["tables"])) == "differences"
    rows = table(result, "channels")
    assert [channel["channel"] for channel in rows] == [1, 0, 2]
    for channel in rows:
        assert set(channel) >= CHANNEL_KEYS
    wide = expected.astype(np.float64)
    diff = np.abs(actual.astype(np.float64) - wide)
    assert row["max_abs_diff"] == diff.max()
    assert row["mismatched"] == sum(channel["mismatched"] for channel in rows)
    worst = rows[0]
    assert worst["mean"] == pytest.approx(wide[:, 1].mean(), rel=1e-12)
    assert worst["std"] == pytest.approx(wide[:, 1].std(), rel=1e-12)
    assert worst["condition"] == pytest.approx(abs(wide[:, 1].mean()) / wide[:, 1].std(), rel=1e-12)
    assert worst["diff_over_std"] == pytest.approx(diff.max() / wide[:, 1].std(), rel=1e-12)
    assert worst["ulp"] == diff.max() / np.spacing(np.abs(expected[:, 1]).max())
    (finding,) = result.report["findings"]
    assert finding["code"] == "BN901"
    assert "Of 3 channels, channel 1 mismatches." in finding["message"]


@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("float16", "float32"),
                                    ("bfloat16", "float64"), ("float64", "float64"),
                                    ("int64", "int64")])  # fmt: skip
@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_the_verdict_is_that_of_assert_close(run, save, dtypes, factor):
    """On either side of the default tolerance of the looser dtype."""
    actual, expected = (torch.full((2, 3), 4, dtype=getattr(torch, name)) for name in dtypes)
    rtol, atol = torch.testing._comparison.default_tolerances(actual, expected)
    wide = expected.double() + factor * (atol + rtol * 4)
    if dtypes == ("int64", "int64"):
        wide = expected + (factor > 1)
    elif dtypes[0] in ("float16", "bfloat16"):
        expected, wide = wide.to(expected.dtype), actual
    wide = wide if dtypes[0] in ("float16", "bfloat16") else wide.to(actual.dtype)
    try:
        torch.testing.assert_close(wide, expected, check_dtype=False)
    except AssertionError:
        code = 1
    else:
        code = 0
    result = run("diff", save("a.pt", wide), save("b.pt", expected), "-f", "json")
    assert result.code == code
    (row,) = table(result, "differences")
    assert (row["rtol"], row["atol"]) == (rtol, atol)


def test_the_least_atol_that_passes_passes(run, save):
    a, b = save("a.npy", random(5, 3)), save("b.npy", random(5, 3, seed=1))
    for rtol in (0, 1e-3):
        (row,) = table(run("diff", a, b, "--rtol", rtol, "--atol", 0, "-f", "json"), "differences")
        least = row["passing_atol"]
        assert run("diff", a, b, "--rtol", rtol, "--atol", least * (1 + 1e-12), "-q").code == 0
        assert run("diff", a, b, "--rtol", rtol, "--atol", least * (1 - 1e-9), "-q").code == 1


def test_nan_is_a_mismatch_unless_it_is_asked_for(run, save):
    x = random(4, 3)
    x[2, 1] = np.nan
    save("x.npy", x)
    assert run("diff", "x.npy", "x.npy", "-q").code == 1
    assert run("diff", "x.npy", "x.npy", "--equal-nan", "-q").code == 0
    result = run("diff", "x.npy", "x.npy", "-f", "json")
    first = table(result, "channels")[0]
    assert (first["channel"], first["mismatched"]) == (1, 1)
    x[2, 1] = np.inf
    save("x.npy", x)
    assert run("diff", "x.npy", "x.npy", "-q").code == 0


def test_nothing_compared_is_exit_3(run, save):
    empty = save("e.npy", np.zeros((0, 3), np.float32))
    result = run("diff", empty, empty, "-f", "json")
    assert (result.code, result.report["tables"]) == (3, {"differences": [], "channels": []})
    save("a.npz", x=random(2, 3), y=random(2, 3))
    save("b.npz", z=random(2, 3), w=random(2, 3))
    result = run("diff", "a.npz", "b.npz", "-f", "json")
    assert (result.code, result.report["tables"]) == (3, {"differences": [], "channels": []})


def test_two_files_are_compared_by_name(run, save):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    save("a.pt", module.state_dict())
    with torch.no_grad():
        module[1].running_var[2] += 0.5
        module[1].num_batches_tracked += 1
    save("b.pt", {"state_dict": module.state_dict()})
    result = run("diff", "a.pt", "b.pt::state_dict", "-f", "json")
    assert result.code == 1
    rows = {row["quantity"]: row for row in table(result, "differences")}
    assert set(rows) == set(module.state_dict())
    differing = {name for name, row in rows.items() if not row["passed"]}
    assert differing == {"1.running_var", "1.num_batches_tracked"}
    worst = next(r for r in table(result, "channels") if r["quantity"] == "1.running_var")
    assert (worst["channel"], worst["mismatched"]) == (2, 1)
    assert codes(result) == ["BN901", "BN901"]


def test_a_file_of_one_tensor_is_a_set_of_one(run, save):
    save("a.npz", x=random(4, 3))
    save("b.npz", x=random(4, 3), y=random(4, 3))
    result = run("diff", "a.npz", "b.npz", "-f", "json")
    assert [row["quantity"] for row in table(result, "differences")] == ["x"]
    assert codes(result) == ["BN903"]
    assert run("diff", "a.npz", "b.npz::y", "-q").code == 0


def test_what_has_no_partner_is_said(run, save):
    save("a.npz", same=random(4, 3), wide=random(4, 3), mine=random(2, 2))
    save("b.npz", same=random(4, 3), wide=random(1, 3), theirs=random(2, 2))
    result = run("diff", "a.npz", "b.npz", "-f", "json")
    assert result.code == 1
    assert [row["quantity"] for row in table(result, "differences")] == ["same"]
    said = {item["subject"]: item["message"] for item in result.report["findings"]}
    assert said == {
        "mine": "1 tensor is in a.npz alone: mine.",
        "theirs": "1 tensor is in b.npz alone: theirs.",
        "wide": "1 tensor is of different shapes, [4, 3] against [1, 3]: wide.",
    }


def test_many_differing_tensors_share_findings(run, save):
    save("a.npz", **{f"t{i}": random(2, 3) for i in range(40)})
    save("b.npz", **{f"t{i}": random(2, 3) + 1 for i in range(40)})
    result = run("diff", "a.npz", "b.npz", "-f", "json")
    assert len(result.report["findings"]) == 21
    assert result.report["findings"][-1]["message"] == "20 more tensors differ from b.npz."


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4), (2, 3, 4, 5, 6, 2)])
def test_any_rank(run, save, shape):
    x = np.asarray(random(*shape) if shape else np.float32(3.0))
    result = run("diff", save("a.npy", x), save("b.npy", x + np.float32(1)), "-f", "json")
    assert result.code == 1
    assert len(table(result, "channels")) == (shape[1] if len(shape) > 1 else x.size)


def test_the_channel_axis(run, save):
    x = random(2, 3, 4)
    y = x.copy()
    y[..., 2] += 1
    save("x.npy", x)
    save("y.npy", y)
    rows = table(run("diff", "x.npy", "y.npy", "--channel-axis", -1, "-f", "json"), "channels")
    assert [row["mismatched"] for row in rows] == [6, 0, 0, 0]
    assert rows[0]["channel"] == 2


def test_float8_bool_and_foreign_layouts(run, save):
    x = torch.randn(4, 6).to(torch.float8_e4m3fn)
    assert run("diff", save("a.pt", x), save("b.pt", x), "-q").code == 0
    y = torch.randn(4, 6, 5, 3)
    assert run("diff", save("a.pt", y > 0), save("b.pt", y <= 0), "-q").code == 1
    save("a.pt", y.contiguous(memory_format=torch.channels_last))
    assert run("diff", "a.pt", save("b.npy", np.asfortranarray(y.numpy())), "-q").code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_file(folder):
    """Two files of 128 MB each are compared in less than that."""
    for name in ("a.npy", "b.npy"):
        values = np.lib.format.open_memmap(name, "w+", np.float32, (32, 16, 65536))
        del values
    # Not ru_maxrss, which begins with that of the process that started this one.
    probe = (
        "from pathlib import Path\nfrom bncli.cli import main\n"
        "code = main(['diff', 'a.npy', 'b.npy', '-q'])\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(code, int(status.partition('VmHWM:')[2].split()[0]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    code, megabytes = map(int, done.stdout.split())
    assert code == 0
    assert megabytes < 100


def test_a_flat_tensor_is_compared_as_a_whole(run, save):
    """A million values of one axis are no million channels."""
    x = random(1_000_000)
    y = x.copy()
    y[999_999] += 1
    result = run("diff", save("x.npy", x), save("y.npy", y), "-f", "json")
    assert result.code == 1
    (row,) = table(result, "differences")
    assert (row["index"], row["mismatched"], row["total"]) == ([999_999], 1, 1_000_000)
    assert table(result, "channels") == []
    shown = run("diff", "x.npy", "y.npy", "--width", "120").stdout
    assert "Not channel by channel, above 16384 of them: values." in shown


def test_of_many_differing_tensors_the_worst_keep_their_channels(run, save, monkeypatch):
    monkeypatch.setattr("bncli.verify.stored_pair.MOST_CHANNELS", 8)
    actual = {f"w{n}": random(2, 4) for n in range(5)}
    expected = {name: values + int(name[1:]) for name, values in actual.items()}
    result = run("diff", save("a.npz", **actual), save("b.npz", **expected), "-f", "json")
    assert {row["quantity"] for row in table(result, "channels")} == {"w4", "w3"}
    assert [row["passed"] for row in table(result, "differences")].count(False) == 4


def test_close_nan_does_not_hide_the_least_atol(run, save):
    x = random(4, 2)
    x[0, 0] = np.nan
    y = x.copy()
    y[2, 0] += 1
    result = run("diff", save("x.npy", x), save("y.npy", y), "--equal-nan", "-f", "json")
    (row,) = table(result, "differences")
    assert row["passing_atol"] == pytest.approx(1, abs=1e-5)


def test_a_difference_is_explained_where_the_input_is_known(run, save):
    x = random(32, 3)
    save("x.npy", x)
    module = torch.nn.BatchNorm1d(3)
    for eps in (1e-5, 0.1):
        module.eps = eps
        save(f"{eps}.npy", module(torch.from_numpy(x)).detach().numpy())
    result = run("diff", "1e-05.npy", "0.1.npy", "--input", "x.npy", "-f", "json")
    (finding,) = result.report["findings"]
    assert "ACTUAL is training mode with eps = 1e-5" in finding["message"]
    assert "EXPECTED is training mode with eps = 0.1" in finding["message"]
    same = run("diff", "1e-05.npy", "1e-05.npy", "--input", "x.npy", "-f", "json")
    assert (same.code, same.report["findings"]) == (0, [])


# ------------------------------------------------------------------- against PyTorch


def test_both_modes_and_every_quantity(run, save):
    save("x.npy", random(6, 3, 5))
    result = run("diff", "x.npy", "-f", "json")
    assert (result.code, codes(result), result.stderr) == (0, [], "")
    facts = result.report["facts"]
    assert set(facts) >= {*FACTS, "backend", "backend_version"}
    rows = table(result, "differences")
    modes = {
        mode: [r["quantity"] for r in rows if r["mode"] == mode] for mode in ("training", "eval")
    }
    running = ["running_mean", "running_var", "num_batches_tracked"]
    gradients = ["grad_input", "grad_weight", "grad_bias"]
    batch = ["mean", "var", "invstd"]
    assert modes == {
        "training": [*batch, "output", *running, *gradients],
        "eval": ["output", *running, *gradients],
    }
    for row in rows:
        assert set(row) >= DIFFERENCE_KEYS
    channels = table(result, "channels")
    assert len(channels) == 6
    used = [row["tolerance_used"] for row in channels]
    assert used == sorted(used, reverse=True)
    for mode in ("training", "eval"):
        only = run("diff", "x.npy", f"--{mode}", "-f", "json")
        assert {row["mode"] for row in table(only, "differences")} == {mode}


def test_every_quantity_and_channel_on_request(run, save):
    save("x.npy", random(6, 3, 5))
    result = run("diff", "x.npy", "--per-quantity", "--training", "-f", "json")
    rows = table(result, "quantities")
    with_channels = {row["quantity"] for row in table(result, "differences")} - {
        "num_batches_tracked"
    }
    assert {(row["quantity"], row["channel"]) for row in rows} == {
        (quantity, channel) for quantity in with_channels for channel in range(3)
    }
    assert "quantities" not in run("diff", "x.npy", "-f", "json").report["tables"]


def test_the_budget_names_pytorchs_lost_digits(run, save):
    """Many rows with a mean far from 0: exact here, lost there, and repeated bit for bit."""
    rng = np.random.default_rng(0)
    save("x.npy", (rng.normal(size=(4000, 2)) + np.array([0.0, 3000.0])).astype(np.float32))
    result = run("diff", "x.npy", "--training", "--torch-threads", 1, "-f", "json")
    lines = {row["quantity"]: row for row in table(result, "budget")}
    assert lines["output"]["torch_ulp"] > 50
    assert lines["output"]["bncli_ulp"] < 0.001
    if repeats():
        assert lines["output"]["repeated_ulp"] == 0
        assert "bit for bit" in result.report["verdict"]
    conditions = {row["channel"]: row["condition"] for row in table(result, "channels")}
    assert conditions[1] > 1000
    assert conditions[0] < 1
    save("y.npy", rng.normal(size=(40, 2)))
    assert "budget" not in run("diff", "y.npy", "-f", "json").report["tables"]


def test_threads_and_memory_format_are_pytorchs(run, save):
    save("x.npy", random(40, 3, 8, 8, mean=100.0))

    def output(*flags):
        result = run("diff", "x.npy", "--training", "-f", "json", *flags)
        assert result.code == 0, result.stdout
        rows = {row["quantity"]: row for row in table(result, "differences")}
        return rows["output"]["max_abs_diff"]

    before = torch.get_num_threads()
    found = {
        output(),
        output("--memory-format", "channels_last", "--torch-threads", 1),
        output("--memory-format", "channels_last", "--torch-threads", 2),
    }
    assert len(found) == 3  # three paths, three roundings
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_one_sentence(run, save):
    save("x.npy", random(6, 3))
    code, stdout, stderr = run("diff", "x.npy", "--device", "cuda")
    assert (code, stdout) == (2, "")
    assert stderr == (
        "bncli: --device cuda: PyTorch sees no CUDA device here; leave --device out, or run where "
        "there is one.\n"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_cuda_agrees(run, save, dtype):
    save("x.npy", random(64, 8, 16, 16, mean=10.0))
    assert run("diff", "x.npy", "--device", "cuda", "--dtype", dtype, "-q").code == 0


def test_one_value_a_channel_is_compared_in_eval_mode_alone(run, save):
    save("x.npy", random(1, 3))
    result = run("diff", "x.npy", "-f", "json")
    assert result.report["facts"]["modes"] == ["eval"]
    assert "more than 1 value" in result.report["facts"]["skipped"]
    assert run("diff", "x.npy", "--training").code == 2


def test_a_failed_comparison_says_what_pytorch_computed(run, save):
    save("x.npy", random(64, 3))
    result = run("diff", "x.npy", "--rtol", 0, "--atol", 1e-12, "--training", "-f", "json")
    assert result.code == 1
    output = next(i for i in result.report["findings"] if i["subject"] == "output")
    assert "torch's output is training mode with eps = 1e-5" in output["message"]
    assert "All 3 channels mismatch." in output["message"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    "command",
    [
        ("diff",), ("diff", "--equal-nan"), ("diff", "--eval"), ("compute", "--against", "torch"),
        ("compute", "--eval", "--against", "torch"), ("trace", "--against", "torch"),
        ("compare-norms", "--against", "torch"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_nan_in_the_input_is_one_finding(run, save, command, value, dtype):
    """Both sides make NaN of it, which is agreement; BN001 says where it comes from."""
    x = random(8, 3, 4)
    x[1, 2, 0] = value
    save("x.npy", x)
    result = run(command[0], "x.npy", *command[1:], "--dtype", dtype, "-f", "json")
    found = codes(result)
    assert found.count("BN001") == 1
    assert "BN901" not in found
    assert result.code == 1
    assert {row["passed"] for row in table(result, "differences")} == {True}


def test_nan_that_one_side_alone_has_is_a_difference():
    config = configuration(3, largest=500)
    broken = config.x.copy()
    broken[(0,) * broken.ndim] = np.nan
    done = replace(config, x=broken).done()
    compared = compare_channels(
        done, config.x, torch_backend.BACKEND, seed=0, tolerance=None, path=TorchPath()
    ).quantities
    assert any(item.whole.mismatched for item in compared)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_dtype(run, save, dtype):
    save("x.npy", random(16, 3, 4, 4))
    result = run("diff", "x.npy", "--dtype", dtype, "-f", "json")
    assert (result.code, codes(result)) == (0, [])


def test_a_thousand_channels(run, save):
    save("x.npy", random(8, 1200))
    result = run("diff", "x.npy", "-f", "json")
    assert len(table(result, "channels")) == 2400
    assert result.code == 0


# ------------------------------------------------------------------- alarms, false and true


@pytest.mark.parametrize("seed", range(50))
def test_a_healthy_configuration_raises_no_alarm(seed):
    config = configuration(seed, largest=3_000)
    compared = compare_channels(
        config.done(), config.x, torch_backend.BACKEND, seed=seed, tolerance=None,
        path=TorchPath(threads=1 + seed % 2),
    )  # fmt: skip
    for item in compared.quantities:
        assert item.whole.passed
        assert all(channel.passed for channel in item.channels)


class Planting:
    """PyTorch, with one value of one quantity moved by ten times its tolerance."""

    name = "torch"

    def __init__(self, quantity, index, shift):
        self.quantity, self.index, self.shift = quantity, index, shift

    def run(self, call):
        run = torch_backend.BACKEND.run(call)
        moved = run.quantities[self.quantity].astype(np.float64)
        moved[self.index] += self.shift
        return replace(run, quantities={**run.quantities, self.quantity: moved})


@pytest.mark.parametrize("seed", range(20))
def test_ten_times_the_tolerance_is_found_where_it_was_planted(seed):
    config = configuration(seed, largest=500)
    done = config.done()

    def compare(backend):
        return compare_channels(done, config.x, backend, seed=0, tolerance=None, path=TorchPath())

    for item in compare(torch_backend.BACKEND).quantities:
        if not item.channels:
            continue
        channel = seed % len(item.channels)
        closeness = item.channels[channel]
        allowed = closeness.atol + closeness.rtol * abs(closeness.expected)
        if not np.spacing(abs(closeness.expected)) < allowed < np.inf:
            continue  # there is nothing that a float64 could be moved by
        shift = -10 * allowed * np.sign(closeness.actual - closeness.expected or 1)
        found = compare(Planting(item.whole.quantity, closeness.index, shift))
        planted = next(i for i in found.quantities if i.whole.quantity == item.whole.quantity)
        bad = [c for c, one in enumerate(planted.channels) if not one.passed]
        assert bad == [channel], item.whole.quantity
        assert planted.whole.mismatched == 1
        assert planted.whole.index == closeness.index
        assert planted.whole.used == pytest.approx(10, rel=0.15)


def test_a_wrong_eps_in_one_mode_is_found_in_that_mode(run, save, monkeypatch):
    """A fault in the backend's evaluation alone."""
    save("x.npy", random(32, 3))
    run_as_it_is = torch_backend.TorchBackend.run

    def wrong(self, call):
        if not call.settings.training:
            call = replace(call, settings=replace(call.settings, eps=1e-3))
        return run_as_it_is(self, call)

    monkeypatch.setattr(torch_backend.TorchBackend, "run", wrong)
    result = run("diff", "x.npy", "-f", "json")
    assert result.code == 1
    for row in table(result, "differences"):
        if row["mode"] == "training":
            assert row["passed"]
    output = next(i for i in result.report["findings"] if i["subject"] == "output in eval mode")
    assert "torch's output is eval mode with eps = 1e-3" in output["message"]
    assert BatchNormSettings().eps == 1e-5


# ------------------------------------------------------------------- goldens and refusals


@pytest.mark.parametrize(
    ("form", "suffix"), [("table", ".txt"), ("json", ".json"), ("csv", ".csv"), ("markdown", ".md")]
)
def test_golden(run, repository, monkeypatch, golden, form, suffix):
    monkeypatch.chdir(repository)
    folder = "examples/debugging"
    result = run("diff", f"{folder}/port.npy", f"{folder}/keras.npy", "-f", form)
    assert (result.code, result.stderr) == (1, "")
    golden(f"diff{suffix}", result.stdout)
    actual, expected = (np.load(f"{folder}/{name}.npy") for name in ("port", "keras"))
    close = torch.isclose(
        torch.from_numpy(actual), torch.from_numpy(expected), rtol=1.3e-6, atol=1e-5
    )
    assert str(int((~close).sum())) in result.stdout


def test_the_helps_tell_the_two_apart(run):
    words = " ".join(run("diff", "--help").stdout.replace("│", " ").split())
    assert "compute --against torch" in words
    assert "diff explains" in words
    words = " ".join(run("compute", "--help").stdout.replace("│", " ").split())
    assert "diff" in words


REFUSALS = dict(
    re.findall(
        r"^bncli diff ?(.*)\n    (.+)$",
        Path(__file__).with_name("refusals.txt").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusal_is_one_exact_sentence_and_exit_code_2(run, save, arguments):
    save("x.npy", random(4, 3, 5))
    save("w.npy", random(4, 1, 5))
    save("int.npy", np.ones((4, 3), np.int64))
    save("c.npy", np.ones((4, 3, 5), np.complex64))
    save("two.npz", a=random(4, 3), b=random(4, 3))
    save("half.npy", random(4, 3).astype(np.float16))
    code, stdout, stderr = run("diff", *arguments.split())
    assert (code, stdout) == (2, "")
    assert stderr == f"bncli: {REFUSALS[arguments]}\n"


def test_a_quantised_tensor_is_refused_in_a_sentence(run, save):
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8)
    save("q.pt", {"a": quantised, "b": torch.ones(4, 3)})
    save("p.pt", {"a": torch.ones(4, 3), "b": torch.ones(4, 3)})
    for pair in (("q.pt::a", "p.pt::a"), ("p.pt::a", "q.pt::a"), ("q.pt::a", "q.pt::a")):
        code, stdout, stderr = run("diff", *pair)
        assert (code, stdout) == (2, "")
        assert "cannot be read" in stderr
        assert stderr.count("\n") == 1
    assert run("diff", "q.pt", "p.pt").code == 1
