"""A simulation beside PyTorch, step by step."""

from __future__ import annotations

import pytest
import torch

from bncli.backends.torch.tensors import repeats
from tests.commands.samples import finding, random
from tests.commands.simulate_ema.samples import codes, repeated, steps, table


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
    version = torch.__version__.partition("+")[0]
    said = f"torch {version} agrees bit for bit over 12 steps"
    assert said in result.report["verdict"].partition("  ")[2].split("; ")


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


def test_a_factor_is_on_what_follows_from_the_roundings(run, save):
    save("x.npy", random(16, 3, 4))
    call = ("simulate-ema", "x.npy", "--batch-size", 4, "--against", "torch", "-f", "json")
    one, ten = (run(*call, "--tolerance-factor", factor) for factor in (1, 10))
    assert (ten.code, ten.report["facts"]["tolerance_factor"]) == (0, 10.0)
    narrow = [row["atol"] for row in table(one, "differences")]
    assert min(narrow[:2]) > 0  # of the running statistics, and not bit for bit
    assert [row["atol"] for row in table(ten, "differences")] == pytest.approx(
        [10 * atol for atol in narrow]
    )
