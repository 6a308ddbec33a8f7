"""`bncli diff INPUT`: both modes, healthy ones without an alarm, and faults that are planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.backends import torch as torch_backend
from bncli.model import BatchNormSettings
from bncli.verify.batch_norm_pass import Path as TorchPath
from bncli.verify.comparison import compare_channels
from tests.commands.diff.samples import DIFFERENCE_KEYS
from tests.commands.samples import codes, random, table
from tests.configurations import configuration

FACTS = ("input", "shape", "dtype", "kind", "channel_axis", "training", "eps", "momentum", "count")


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
    assert "torch's output was computed in training mode with eps 1e-5" in output["detail"]
    assert "All 3 channels mismatch." in output["detail"]


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
    assert "torch's output was computed in eval mode with eps 1e-3" in output["detail"]
    assert BatchNormSettings().eps == 1e-5


NARROW = ("--rtol", 1e-7, "--atol", 1e-9)


def test_compute_and_diff_say_the_same_of_a_tolerance_narrower_than_rounding(run, save):
    save("x.npy", random(16, 8, 6))
    hints = set()
    for command in (("compute", "--against", "torch"), ("diff", "--training")):
        result = run(command[0], "x.npy", *command[1:], *NARROW, "-f", "json")
        assert result.code == 1
        assert (result.report["facts"]["rtol"], result.report["facts"]["atol"]) == (1e-7, 1e-9)
        assert "rounding" in result.report["verdict"]
        hints |= {one["hint"] for one in result.report["findings"]}
        kept = run(command[0], "x.npy", *command[1:], "-f", "json")
        assert kept.code == 0
        assert "rtol" not in kept.report["facts"]
    (hint,) = hints
    assert hint.startswith("Allow more with --rtol and --atol, or leave both out")
    assert "1e-07" in run("compute", "x.npy", "--against", "torch", *NARROW).stdout


def test_a_fault_is_not_called_rounding_at_a_narrow_tolerance(run, save, monkeypatch):
    """A wrong eps exceeds the derived tolerance too, but not in what eps has no part in."""
    save("x.npy", random(16, 8, 6))
    free = {"mean", "var", "running_mean", "running_var", "grad_bias"}
    run_as_it_is = torch_backend.TorchBackend.run

    def wrong(self, call):
        return run_as_it_is(self, replace(call, settings=replace(call.settings, eps=1e-3)))

    monkeypatch.setattr(torch_backend.TorchBackend, "run", wrong)
    for command in (("compute", "--against", "torch"), ("diff", "--training")):
        result = run(command[0], "x.npy", *command[1:], *NARROW, "-f", "json")
        hint = {one["subject"]: one["hint"] for one in result.report["findings"]}
        assert hint.keys() & free
        assert {"output", "invstd"} <= hint.keys()
        for quantity, said in hint.items():
            assert said.startswith("Allow more") == (quantity in free), said
        assert "rounding explains it" not in result.report["verdict"]


def test_each_difference_that_is_shown_is_of_the_values_beside_it(run, save):
    """At a tolerance of one's own the largest difference may be elsewhere."""
    save("x.npy", random(16, 32, 8, 8))
    result = run("diff", "x.npy", "--rtol", 1e-6, "--atol", 1e-7, "--width", 200)
    head, *lines = result.stdout[result.stdout.index("quantity ") :].splitlines()
    assert head.split()[-2:] == ["bncli", "torch"]
    seen = 0
    for line in lines[: lines.index("") - 1]:
        cells = line.split()
        if len(cells) < 8 or cells[1] not in ("training", "eval"):
            continue
        difference, actual, expected = float(cells[3]), float(cells[-2]), float(cells[-1])
        assert difference == pytest.approx(abs(actual - expected), rel=0.15, abs=2e-9)
        seen += 1
    assert seen >= 2


def test_a_batch_with_nan_fails_for_its_error_first(run, save):
    x = random(8, 3, 4)
    x[1, 2, 3] = np.nan
    save("x.npy", x)
    result = run("diff", "x.npy", "-f", "json")
    assert result.code == 1
    assert result.report["verdict"].startswith("FAIL  1 error in 3 channels of 32 values (")
