"""`bncli compute`: every flag, every key that scripts rely on, every refusal."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands.conftest import refusals

TUTORIAL = "examples/tutorial/x.npy"

FACTS = ("input", "shape", "dtype", "kind", "channel_axis", "training", "eps", "momentum", "count")
CHANNEL_KEYS = {
    "channel", "count", "mean", "var", "unbiased_var", "std", "invstd", "min", "max", "nan", "inf",
    "running_mean", "running_var",
}  # fmt: skip
DIFFERENCE_KEYS = {
    "quantity", "max_abs_diff", "max_rel_diff", "index", "mismatched", "total", "rtol", "atol",
    "passed",
}  # fmt: skip

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2e-6, "float64": 1e-13}
"""One rounding of the output dtype, twice over; PyTorch's own arithmetic for the wider two."""


def random(*shape: int, seed: int = 0, mean: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 2.0, shape).astype(np.float32)


def table(result, key: str = "channels") -> list[dict]:
    return result.report["tables"][key]


def column(result, key: str, name: str = "channels") -> np.ndarray:
    return np.array([row[key] for row in table(result, name)], np.float64)


def rows_of(x: np.ndarray, axis: int = 1) -> np.ndarray:
    """A channel's values in a row, float64."""
    return np.moveaxis(x.astype(np.float64), axis, 0).reshape(x.shape[axis], -1)


def codes(result) -> list[str]:
    return [finding["code"] for finding in result.report["findings"]]


def finding(result, code: str) -> dict:
    (found,) = [item for item in result.report["findings"] if item["code"] == code]
    return found


# ---------------------------------------------------------------------------- what is reported


@pytest.fixture
def tutorial(repository):
    return repository / TUTORIAL


def test_tutorial_has_the_published_numbers(run, tutorial):
    result = run("compute", tutorial, "-f", "json")
    assert result.code == 0
    assert result.stderr == ""
    first, second = table(result)
    assert (first["mean"], second["mean"]) == (6.5, 10.5)
    for row, running_mean in ((first, 0.65), (second, 1.05)):
        assert row["var"] == 17.25
        assert row["unbiased_var"] == pytest.approx(19.714285714285715, rel=1e-15)
        assert row["running_mean"] == pytest.approx(running_mean, rel=1e-15)
        assert row["running_var"] == pytest.approx(2.8714285714285714, rel=1e-15)
        assert row["std"] == pytest.approx(math.sqrt(17.25), rel=1e-15)
        assert row["invstd"] == pytest.approx(1 / math.sqrt(17.25 + 1e-5), rel=1e-15)
        assert (row["count"], row["nan"], row["inf"]) == (8, 0, 0)


def test_tutorial_output_begins_with_the_published_number(run, tutorial, folder):
    assert run("compute", tutorial, "--save-output", "y.npy", "-q").code == 0
    assert round(float(np.load("y.npy").flat[0]), 6) == -1.324244


@pytest.mark.parametrize(
    ("form", "suffix", "unbiased"),
    [
        ("table", ".txt", f"{138 / 7:.6g}"),  # sum of squared deviations over n - 1
        ("json", ".json", repr(138 / 7)),
        ("csv", ".csv", repr(138 / 7)),
        ("markdown", ".md", f"{138 / 7:.6g}"),
    ],
)
def test_golden(run, repository, monkeypatch, golden, form, suffix, unbiased):
    monkeypatch.chdir(repository)
    result = run("compute", TUTORIAL, "-f", form)
    assert (result.code, result.stderr) == (0, "")
    golden(f"compute{suffix}", result.stdout)
    assert result.stdout.count(unbiased) == 2


@pytest.mark.parametrize("form", ["github", "sarif", "junit"])
def test_golden_of_a_finding(run, repository, monkeypatch, golden, form):
    monkeypatch.chdir(repository)
    shards = [f"examples/shards/batch{number}.npy" for number in (0, 1)]
    result = run("compute", *shards, "-f", form)
    assert (result.code, result.stderr) == (0, "")
    golden(f"compute-shards.{form}", result.stdout)
    first, second = (np.load(shard).astype(np.float64)[:, 2] for shard in shards)
    between = len(first) * np.var([first.mean(), second.mean()]) * 2
    within = (first.var() * len(first) + second.var() * len(second)) / (2 * len(first) - 2)
    assert f"up to {between / within:.3g} times" in result.stdout


def test_json_keeps_its_promise(run, tutorial):
    report = run("compute", tutorial, "-f", "json", "--against", "torch").report
    assert {key: report["facts"][key] for key in FACTS} == {
        "input": str(tutorial),
        "shape": [2, 2, 2, 2],
        "dtype": "float32",
        "kind": "BatchNorm2d",
        "channel_axis": 1,
        "training": True,
        "eps": 1e-5,
        "momentum": 0.1,
        "count": 8,
    }
    assert report["format_version"] == 1
    assert report["command"] == "compute"
    assert report["exit_code"] == 0
    assert report["findings"] == []
    assert next(iter(report["tables"])) == "channels"
    for row in report["tables"]["channels"]:
        assert set(row) >= CHANNEL_KEYS
    for row in report["tables"]["differences"]:
        assert set(row) >= DIFFERENCE_KEYS
        assert row["passed"] is True
    assert report["facts"]["backend"] == "torch"
    assert report["facts"]["backend_version"] == torch.__version__


def test_findings_keep_their_keys(run, save):
    save("x.npy", np.ones((2, 3), np.float32))
    for item in run("compute", "x.npy", "-f", "json").report["findings"]:
        assert set(item) == {
            "code", "severity", "path", "subject", "message", "evidence", "hint",
        }  # fmt: skip


def test_against_torch_compares_all_that_exists_in_the_mode(run, save):
    x = save("x.npy", random(4, 3, 5))

    def quantities(*flags):
        result = run("compute", x, "-f", "json", "--against", "torch", *flags)
        assert result.code == 0, result.stdout
        return {row["quantity"] for row in table(result, "differences")}

    batch = {"mean", "var", "invstd"}
    affine = {"grad_weight", "grad_bias"}
    running = {"running_mean", "running_var", "num_batches_tracked"}
    always = {"output", "grad_input"}
    assert quantities() == batch | affine | running | always
    assert quantities("--no-affine") == batch | running | always
    assert quantities("--no-track-running-stats") == batch | affine | always
    assert quantities("--eval") == running | affine | always
    untracked = quantities("--eval", "--no-track-running-stats", "--no-affine")
    assert untracked == batch | always


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((6, 3), "BatchNorm1d"),
        ((6, 3, 4), "BatchNorm1d"),
        ((6, 3, 4, 2), "BatchNorm2d"),
        ((6, 3, 4, 2, 2), "BatchNorm3d"),
    ],
)
def test_rank_chooses_the_kind(run, save, shape, kind):
    x = random(*shape)
    result = run("compute", save("x.npy", x), "-f", "json", "--against", "torch")
    assert result.code == 0
    assert result.report["facts"]["kind"] == kind
    np.testing.assert_allclose(column(result, "mean"), rows_of(x).mean(1), rtol=1e-13)
    np.testing.assert_allclose(column(result, "var"), rows_of(x).var(1), rtol=1e-13)
    np.testing.assert_allclose(
        column(result, "unbiased_var"), rows_of(x).var(1, ddof=1), rtol=1e-13
    )
    np.testing.assert_array_equal(column(result, "min"), rows_of(x).min(1))
    np.testing.assert_array_equal(column(result, "max"), rows_of(x).max(1))


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -3, -4])
def test_channel_axis_counts_from_either_end(run, save, axis):
    x = random(2, 3, 4, 5)
    result = run(
        "compute", save("x.npy", x), "--channel-axis", axis, "-f", "json", "--against", "torch"
    )
    assert result.code == 0
    assert result.report["facts"]["channel_axis"] == axis % 4
    assert result.report["facts"]["num_features"] == x.shape[axis]
    np.testing.assert_allclose(column(result, "mean"), rows_of(x, axis).mean(1), rtol=1e-13)


def test_the_output_table_describes_the_saved_output(run, save):
    x = random(8, 3, 5)
    weight = save("w.npy", np.array([1.5, -2.0, 0.0], np.float32))
    bias = save("b.npy", np.array([0.25, 0.0, -1.0], np.float32))
    result = run(
        "compute", save("x.npy", x), "--weight", weight, "--bias", bias, "--save-output", "y.npy",
        "-f", "json",
    )  # fmt: skip
    y = rows_of(np.load("y.npy"))
    for key, expected in (
        ("mean", y.mean(1)), ("std", y.std(1)), ("min", y.min(1)), ("max", y.max(1))
    ):  # fmt: skip
        np.testing.assert_allclose(column(result, key, "output"), expected, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------------------- the layer's flags


def module_for(x: np.ndarray, **settings) -> torch.nn.Module:
    kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[x.ndim]
    return kind(x.shape[1], dtype=torch.float64, **settings)


def assert_running(result, module) -> None:
    np.testing.assert_allclose(column(result, "running_mean"), module.running_mean, rtol=1e-12)
    np.testing.assert_allclose(column(result, "running_var"), module.running_var, rtol=1e-12)
    assert result.report["facts"]["num_batches_tracked"] == int(module.num_batches_tracked)


@pytest.mark.parametrize("momentum", ["0.1", "0.5", "0", "1", "none", "None"])
def test_momentum(run, save, momentum):
    x = random(4, 3, 5).astype(np.float64)
    result = run("compute", save("x.npy", x), "--momentum", momentum, "-f", "json")
    given = None if momentum.lower() == "none" else float(momentum)
    module = module_for(x, momentum=given)
    module(torch.from_numpy(x))
    assert_running(result, module)
    assert result.report["facts"]["momentum"] == ("none" if given is None else given)
    assert result.report["facts"]["momentum_source"] == "flag"


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.5])
def test_eps(run, save, eps):
    x = random(4, 3, 5).astype(np.float64)
    result = run("compute", save("x.npy", x), "--eps", eps, "--save-output", "y.npy", "-f", "json")
    assert result.report["facts"]["eps"] == eps
    expected = module_for(x, eps=eps)(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(np.load("y.npy"), expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(
        column(result, "invstd"), 1 / np.sqrt(rows_of(x).var(1) + eps), rtol=1e-13
    )


def test_evaluation_uses_the_given_statistics_and_changes_nothing(run, save):
    x = random(4, 3, 5).astype(np.float64)
    state = {
        "weight": np.array([1.0, 2.0, -3.0]),
        "bias": np.array([0.5, 0.0, 9.0]),
        "running_mean": np.array([0.1, 0.2, 0.3]),
        "running_var": np.array([1.0, 2.0, 0.25]),
    }
    archive = save("state.npz", **state)
    flags = [
        argument
        for name in state
        for argument in (f"--{name.replace('_', '-')}", f"{archive}::{name}")
    ]
    result = run(
        "compute", save("x.npy", x), "--eval", *flags, "--save-output", "y.npy", "-f", "json",
        "--against", "torch",
    )  # fmt: skip
    assert (result.code, codes(result)) == (0, [])
    module = module_for(x).eval()
    module.load_state_dict({name: torch.from_numpy(v) for name, v in state.items()}, strict=False)
    expected = module(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(np.load("y.npy"), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(column(result, "running_mean"), state["running_mean"])
    np.testing.assert_array_equal(column(result, "running_var"), state["running_var"])
    np.testing.assert_allclose(
        column(result, "invstd"), 1 / np.sqrt(state["running_var"] + 1e-5), rtol=1e-13
    )
    # The batch's own statistics are still what the first columns show.
    np.testing.assert_allclose(column(result, "mean"), rows_of(x).mean(1), rtol=1e-13)


def test_evaluation_accepts_eps_0_with_stored_statistics(run, save):
    x = save("x.npy", random(4, 3))
    flags = (
        "--running-mean",
        save("m.npy", np.zeros(3)),
        "--running-var",
        save("v.npy", np.ones(3)),
    )
    result = run("compute", x, "--eval", "--eps", 0, *flags, "-f", "json", "--against", "torch")
    assert result.code == 0
    np.testing.assert_array_equal(column(result, "invstd"), np.ones(3))


def test_evaluation_of_a_fresh_module_warns(run, save):
    x = random(4, 3, 5).astype(np.float64)
    result = run("compute", save("x.npy", x), "--eval", "-f", "json", "--save-output", "y.npy")
    assert result.code == 0
    assert codes(result) == ["BN005"]
    assert finding(result, "BN005")["severity"] == "warning"
    np.testing.assert_allclose(np.load("y.npy"), x / np.sqrt(1 + 1e-5), rtol=1e-12)
    with_warnings = run("compute", "x.npy", "--eval", "--fail-on", "warning", "-f", "json")
    assert with_warnings.code == 1


@pytest.mark.parametrize("mode", ["--training", "--eval"])
def test_without_running_statistics_the_batch_normalises_in_either_mode(run, save, mode):
    x = random(4, 3, 5).astype(np.float64)
    result = run(
        "compute", save("x.npy", x), mode, "--no-track-running-stats", "-f", "json",
        "--save-output", "y.npy", "--against", "torch",
    )  # fmt: skip
    assert (result.code, codes(result)) == (0, [])
    expected = module_for(x)(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(np.load("y.npy"), expected, rtol=1e-11, atol=1e-13)
    for row in table(result):
        assert row["running_mean"] is None
        assert row["running_var"] is None
    assert result.report["facts"]["num_batches_tracked"] is None


def test_weight_and_bias_alone(run, save):
    x = random(4, 3, 5).astype(np.float64)
    save("x.npy", x)
    plain = rows_of(x) - rows_of(x).mean(1)[:, None]
    plain /= np.sqrt(rows_of(x).var(1)[:, None] + 1e-5)
    w = save("w.npy", np.array([1.0, -2.0, 4.0]))
    b = save("b.pt", torch.tensor([0.5, 1.0, -1.0], dtype=torch.float64))
    scale, shift = np.array([[1.0], [-2.0], [4.0]]), np.array([[0.5], [1.0], [-1.0]])
    for flags, expected in (
        (("--weight", w), plain * scale),
        (("--bias", b), plain + shift),
        (("--weight", w, "--bias", b), plain * scale + shift),
        (("--affine",), plain),
        (("--no-affine",), plain),
    ):
        result = run("compute", "x.npy", *flags, "--save-output", "y.npy", "-f", "json")
        assert result.report["facts"]["affine"] == (flags != ("--no-affine",))
        np.testing.assert_allclose(rows_of(np.load("y.npy")), expected, rtol=1e-11, atol=1e-12)


def test_parameters_are_held_in_the_dtype_that_the_module_would_have(run, save):
    x = save("x.npy", random(4, 1))
    third = save("third.npy", np.array([1 / 3]))
    run("compute", x, "--weight", third, "--save-output", "y.npy", "-q")
    run("compute", x, "--save-output", "plain.npy", "--dtype", "float64", "-q")
    y = np.load("plain.npy") * float(np.float32(1 / 3))
    np.testing.assert_array_equal(np.load("y.npy"), y.astype(np.float32))


@pytest.fixture
def checkpoint(save):
    """A training checkpoint with two BatchNorm layers and a layer of another kind."""
    torch.manual_seed(0)
    first = torch.nn.BatchNorm1d(3)
    second = torch.nn.BatchNorm1d(3, affine=False)
    for module in (first, second):
        for _ in range(4):
            module(torch.randn(8, 3) * 3 + 1)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
        first.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    state = {f"backbone.layer1.bn1.{k}": v for k, v in first.state_dict().items()}
    state |= {f"backbone.layer2.bn2.{k}": v for k, v in second.state_dict().items()}
    state |= {"norm.weight": torch.ones(3), "norm.bias": torch.zeros(3)}
    state |= {"half.weight": torch.ones(3), "half.running_mean": torch.zeros(3)}
    return save("ck.pt", {"epoch": 3, "state_dict": state}), first, second


@pytest.mark.parametrize("name", ["state_dict.backbone.layer1.bn1", "layer1.bn1", "bn1"])
@pytest.mark.parametrize("mode", ["--training", "--eval"])
def test_state_by_full_name_and_by_any_unique_ending(run, save, checkpoint, name, mode):
    path, module, _ = checkpoint
    x = random(5, 3)
    result = run(
        "compute", save("x.npy", x), mode, "--state", f"{path}::{name}", "-f", "json",
        "--save-output", "y.npy", "--against", "torch",
    )  # fmt: skip
    assert (result.code, result.stderr) == (0, "")
    assert codes(result) == ["BN008"]  # five values a channel, and nothing about the state
    module = module.double().train(mode == "--training")
    expected = module(torch.from_numpy(x.astype(np.float64))).detach()
    np.testing.assert_allclose(np.load("y.npy"), expected, rtol=1e-6, atol=1e-6)
    assert_running(result, module)


def test_momentum_none_goes_on_from_the_counter_of_the_state(run, save, checkpoint):
    path, module, _ = checkpoint
    x = random(5, 3)
    result = run(
        "compute", save("x.npy", x), "--state", f"{path}::bn1", "--momentum", "none", "-f", "json",
        "--against", "torch",
    )  # fmt: skip
    assert result.code == 0
    module = module.double()
    module.momentum = None
    before = module.running_mean.clone().numpy()
    module(torch.from_numpy(x.astype(np.float64)))
    assert_running(result, module)
    assert result.report["facts"]["num_batches_tracked"] == 5
    np.testing.assert_allclose(
        column(result, "running_mean"), before * 4 / 5 + rows_of(x).mean(1) / 5, rtol=1e-12
    )


def test_a_state_without_weight_and_bias_is_not_affine(run, save, checkpoint):
    path, _, module = checkpoint
    x = random(5, 3)
    result = run(
        "compute", save("x.npy", x), "--eval", "--state", f"{path}::bn2", "-f", "json",
        "--save-output", "y.npy",
    )  # fmt: skip
    assert result.report["facts"]["affine"] is False
    expected = module.double().eval()(torch.from_numpy(x.astype(np.float64)))
    np.testing.assert_allclose(np.load("y.npy"), expected, rtol=1e-6, atol=1e-6)


def test_a_flag_overrides_the_state(run, save, checkpoint):
    path, module, _ = checkpoint
    x = random(5, 3)
    result = run(
        "compute", save("x.npy", x), "--eval", "--state", f"{path}::bn1", "-f", "json",
        "--bias", save("b.npy", np.array([5.0, 6.0, 7.0])), "--save-output", "y.npy",
    )  # fmt: skip
    assert result.code == 0
    with torch.no_grad():
        module.bias.copy_(torch.tensor([5.0, 6.0, 7.0]))
    expected = module.eval()(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(np.load("y.npy"), expected, rtol=1e-5, atol=1e-5)


def test_a_layer_without_statistics_may_serve_where_none_are_tracked(run, save, checkpoint):
    path, _, _ = checkpoint
    x = save("x.npy", random(5, 3))
    refused = run("compute", x, "--state", f"{path}::norm")
    assert refused.code == 2
    result = run("compute", x, "--state", f"{path}::norm", "--no-track-running-stats", "-f", "json")
    assert result.code == 0


def test_eps_and_momentum_come_from_a_pickled_module(run, save):
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(3, eps=0.25, momentum=None))
    x = save("x.npy", random(5, 3))
    result = run("compute", x, "--state", save("module.pt", module), "-f", "json")
    facts = result.report["facts"]
    assert (facts["eps"], facts["eps_source"]) == (0.25, "file")
    assert (facts["momentum"], facts["momentum_source"]) == ("none", "file")
    result = run("compute", x, "--state", "module.pt", "--eps", 1e-3, "-f", "json")
    facts = result.report["facts"]
    assert (facts["eps"], facts["eps_source"]) == (1e-3, "flag")


# ---------------------------------------------------------------------------- inputs


def test_a_tensor_inside_a_file(run, save):
    a, b = random(4, 3, seed=1), random(4, 3, seed=2)
    save("two.npz", a=a, b=b)
    save("nested.pt", {"batch": {"x": torch.from_numpy(a), "y": torch.from_numpy(b)}})
    save("list.pt", [torch.from_numpy(a), torch.from_numpy(b)])
    for spec in ("two.npz::b", "nested.pt::batch.y", "nested.pt::y", "list.pt::1"):
        result = run("compute", spec, "-f", "json")
        assert result.code == 0, result.stderr
        assert result.report["facts"]["input"].startswith(spec.split("::")[0] + "::")
        np.testing.assert_allclose(column(result, "mean"), rows_of(b).mean(1), rtol=1e-13)


def test_the_only_tensor_of_a_file_needs_no_name(run, save):
    x = random(4, 3)
    for spec in (
        save("x.npz", x=x),
        save("x.pt", torch.from_numpy(x)),
        save("d.pth", {"x": torch.from_numpy(x)}),
    ):
        result = run("compute", spec, "-f", "json")
        assert result.code == 0, result.stderr
        np.testing.assert_allclose(column(result, "mean"), rows_of(x).mean(1), rtol=1e-13)


def test_standard_input(run_process):
    x = random(4, 3)
    stream = io.BytesIO()
    np.save(stream, x)
    result = run_process("compute", "-", "-f", "json", stdin=stream.getvalue())
    assert result.code == 0, result.stderr
    np.testing.assert_allclose(column(result, "mean"), rows_of(x).mean(1), rtol=1e-13)


def test_strided_and_transposed_tensors(run, save):
    x = torch.from_numpy(random(4, 3, 6, 5))
    for name, given in {
        "last.pt": x.contiguous(memory_format=torch.channels_last),
        "step.pt": x[:, :, ::2],
        "turned.pt": x.transpose(0, 1),
        "wide.pt": x[:, :1].expand(4, 3, 6, 5),
    }.items():
        result = run("compute", save(name, given), "-f", "json", "--against", "torch")
        assert result.code == 0, result.stdout
        np.testing.assert_allclose(
            column(result, "mean"), rows_of(given.numpy()).mean(1), rtol=1e-12
        )


def test_fortran_order_and_foreign_byte_order(run, save):
    x = random(4, 3, 5)
    for name, given in (("f.npy", np.asfortranarray(x)), ("big.npy", x.astype(">f4"))):
        result = run("compute", save(name, given), "-f", "json", "--save-output", "y.npy")
        np.testing.assert_allclose(column(result, "mean"), rows_of(x).mean(1), rtol=1e-13)
        expected = torch.nn.BatchNorm1d(3)(torch.from_numpy(x)).detach()
        np.testing.assert_allclose(np.load("y.npy"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(2, 3), (1, 1), (5, 1, 7)])
def test_several_inputs_are_one_population(run, save, sizes):
    parts = [random(n, 3, 4, seed=n, mean=5.0) for n in sizes]
    names = [save(f"{i}.npy", part) for i, part in enumerate(parts)]
    whole = save("whole.npy", np.concatenate(parts))
    pooled = run("compute", *names, "-f", "json", "--against", "torch")
    single = run("compute", whole, "-f", "json")
    assert pooled.code == 0
    for key in sorted(CHANNEL_KEYS - {"channel"}):
        np.testing.assert_allclose(
            column(pooled, key), column(single, key), rtol=1e-12, err_msg=key
        )
    assert pooled.report["facts"]["count"] == 4 * sum(sizes)
    assert pooled.report["facts"]["input"] == " ".join(names)


def test_shards_may_differ_in_every_axis_but_the_channels(run, save):
    a, b = random(2, 3, 4), random(5, 3, 7, seed=1)
    result = run("compute", save("a.npy", a), save("b.npy", b), "-f", "json")
    assert result.code == 0
    values = np.concatenate([rows_of(a), rows_of(b)], axis=1)
    np.testing.assert_allclose(column(result, "mean"), values.mean(1), rtol=1e-13)
    np.testing.assert_allclose(column(result, "var"), values.var(1), rtol=1e-13)


def test_one_value_a_channel_in_each_shard_is_enough(run, save):
    result = run(
        "compute", save("a.npy", random(1, 3)), save("b.npy", random(1, 3, seed=1)), "-f", "json"
    )
    assert result.code == 0
    assert result.report["facts"]["count"] == 2


def test_per_input_adds_a_row_for_each(run, save):
    parts = [random(4, 3, seed=seed) for seed in range(2)]
    names = [save(f"{i}.npy", part) for i, part in enumerate(parts)]
    rows = table(run("compute", *names, "--per-input", "-f", "json"), "inputs")
    assert [(row["input"], row["channel"]) for row in rows] == [
        (name, c) for name in names for c in range(3)
    ]
    for row in rows:
        values = rows_of(parts[names.index(row["input"])])[row["channel"]]
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-13)
        assert row["var"] == pytest.approx(values.var(), rel=1e-12)
        assert row["unbiased_var"] == pytest.approx(values.var(ddof=1), rel=1e-12)
        assert (row["min"], row["max"]) == (values.min(), values.max())
    assert "inputs" not in run("compute", *names, "-f", "json").report["tables"]


def test_within_and_between_add_up_to_the_variance(run, save):
    parts = [random(n, 3, 4, seed=n, mean=n) for n in (2, 3, 7)]
    result = run("compute", *(save(f"{i}.npy", p) for i, p in enumerate(parts)), "-f", "json")
    flat = [rows_of(part) for part in parts]
    whole = np.concatenate(flat, axis=1)
    total = whole.shape[1]
    within = sum(rows.shape[1] * rows.var(1) for rows in flat) / total
    between = sum(rows.shape[1] * (rows.mean(1) - whole.mean(1)) ** 2 for rows in flat) / total
    np.testing.assert_allclose(column(result, "within_var", "spread"), within, rtol=1e-12)
    np.testing.assert_allclose(column(result, "between_var", "spread"), between, rtol=1e-11)
    np.testing.assert_allclose(
        column(result, "within_var", "spread") + column(result, "between_var", "spread"),
        column(result, "var"),
        rtol=1e-12,
    )
    f_ratio = (between / (len(flat) - 1)) / (within / (total - len(flat)))
    np.testing.assert_allclose(column(result, "f_ratio", "spread"), f_ratio, rtol=1e-11)


def smooth_images(rng, number):
    """Images whose pixels go together: by values, shuffled ones lie thousands of times apart."""
    x = np.cumsum(rng.normal(size=(number, 3, 12, 12)), 3)
    return (x + 9 * rng.normal(size=(number, 3, 1, 1))).astype(np.float32)


@pytest.mark.parametrize("inputs", [2, 3, 10])
def test_inputs_are_judged_by_their_samples(run, save, inputs):
    rng = np.random.default_rng(0)
    x = smooth_images(rng, 16 * inputs)

    def judged(x, *flags):
        paths = [save(f"{i}.npy", part) for i, part in enumerate(np.split(x, inputs))]
        return run("compute", *paths, "-f", "json", "--fail-on", "warning", *flags)

    shuffled = judged(x)
    assert shuffled.code == 0
    assert max(column(shuffled, "f_ratio", "spread")) > 30
    assert max(column(shuffled, "f_ratio_by_sample", "spread")) < 10
    assert [f["severity"] for f in shuffled.report["findings"]] == ["info"]
    assert shuffled.report["findings"][0]["evidence"]["by"] == "values"
    x[: len(x) // inputs, 2] += 100  # one input of another domain
    in_order = judged(x)
    (found,) = in_order.report["findings"]
    assert (in_order.code, found["code"], found["severity"]) == (1, "BN010", "warning")
    assert (found["evidence"]["channels"], found["evidence"]["by"]) == ([2], "samples")
    means = x.astype(np.float64).mean((2, 3))[:, 2].reshape(inputs, 16)
    between = 16 * means.mean(1).var(ddof=1)
    ratio = between / means.var(1, ddof=1).mean()
    assert found["evidence"]["f_ratio"] == pytest.approx([ratio])
    assert found["evidence"]["freedom"] == [inputs - 1, 15 * inputs]
    again = judged(x[rng.permutation(len(x))])
    assert again.code == 0


def test_inputs_of_one_sample_have_nothing_to_compare(run, save):
    rng = np.random.default_rng(0)
    paths = [save(f"{i}.npy", part) for i, part in enumerate(smooth_images(rng, 4)[:, np.newaxis])]
    result = run("compute", *paths, "-f", "json")
    assert {f["severity"] for f in result.report["findings"]} == {"info"}
    assert [row["f_ratio_by_sample"] for row in result.report["tables"]["spread"]] == [None] * 3


def test_channels_first_of_all_leave_a_note(run, save):
    """(C, H, W) has no axis of samples to go by."""
    rng = np.random.default_rng(0)
    paths = [save(f"{i}.npy", x) for i, x in enumerate(smooth_images(rng, 3))]
    result = run("compute", *paths, "--channel-axis", 0, "-f", "json")
    assert [(f["code"], f["severity"]) for f in result.report["findings"]] == [("BN010", "info")]


def test_sorted_shards_are_told_from_shuffled_ones(run, save):
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.normal(label, 1.0, (64, 4)) for label in (-3, 0, 3)])

    def shards(order):
        return [save(f"{i}.npy", part) for i, part in enumerate(np.split(samples[order], 3))]

    by_class = run("compute", *shards(np.arange(192)), "-f", "json")
    assert codes(by_class) == ["BN010"]
    assert np.all(column(by_class, "f_ratio", "spread") > 100)
    shuffled = run("compute", *shards(rng.permutation(192)), "-f", "json")
    assert codes(shuffled) == []
    assert np.all(column(shuffled, "f_ratio", "spread") < 10)
    np.testing.assert_allclose(column(by_class, "var"), column(shuffled, "var"), rtol=1e-12)


# ---------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("stored", ["int8", "uint8", "int64", "uint64", "bool"])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_integers_and_booleans_are_cast_on_request(run, save, stored, dtype):
    x = (np.arange(24).reshape(8, 3) % 7).astype(stored)
    result = run("compute", save("x.npy", x), "--dtype", dtype, "-f", "json", "--against", "torch")
    assert result.code == 0, result.stdout
    assert result.report["facts"]["dtype"] == dtype
    np.testing.assert_allclose(column(result, "mean"), rows_of(x).mean(1), rtol=1e-13)


def test_a_cast_rounds_the_input_first(run, save):
    x = random(16, 3, mean=300.0).astype(np.float64)
    for dtype, cast in DTYPES.items():
        rounded = torch.from_numpy(x).to(cast).double().numpy()
        result = run("compute", save("x.npy", x), "--dtype", dtype, "-f", "json")
        np.testing.assert_allclose(column(result, "mean"), rows_of(rounded).mean(1), rtol=1e-13)
        np.testing.assert_allclose(column(result, "var"), rows_of(rounded).var(1), rtol=1e-11)


def test_inputs_of_different_dtypes_need_a_common_one(run, save):
    a, b = random(4, 3), random(4, 3, seed=1).astype(np.float64)
    names = save("a.npy", a), save("b.npy", b)
    assert run("compute", *names).code == 2
    result = run("compute", *names, "--dtype", "float64", "-f", "json")
    whole = np.concatenate([rows_of(a), rows_of(b)], axis=1)
    np.testing.assert_allclose(column(result, "mean"), whole.mean(1), rtol=1e-13)


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("mode", ["--training", "--eval"])
def test_every_dtype_agrees_with_torch(run, save, dtype, mode):
    x = torch.from_numpy(random(8, 3, 5)).to(DTYPES[dtype])
    result = run("compute", save("x.pt", x), mode, "-f", "json", "--against", "torch")
    assert result.code == 0, result.stdout
    assert result.report["facts"]["dtype"] == dtype
    values = rows_of(x.double().numpy())
    np.testing.assert_allclose(column(result, "mean"), values.mean(1), rtol=1e-13)


# ---------------------------------------------------------------------------- --save-output


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [(d, s) for d in DTYPES for s in (".npy", ".pt") if (d, s) != ("bfloat16", ".npy")],
)
@pytest.mark.parametrize("axis", [1, -1])
def test_saved_output_is_what_torch_computes(run, save, dtype, suffix, axis):
    x = torch.from_numpy(random(6, 3, 4, 5)).to(DTYPES[dtype])
    weight = np.linspace(0.5, 2.0, x.shape[axis]).astype(np.float32)
    assert run(
        "compute", save("x.pt", x), "--channel-axis", axis, "--save-output", f"y{suffix}", "-q",
        "--weight", save("w.npy", weight),
    ).code == 0  # fmt: skip
    saved = (
        torch.from_numpy(np.load("y.npy"))
        if suffix == ".npy"
        else torch.load("y.pt", weights_only=True)
    )
    assert saved.dtype == x.dtype
    assert saved.shape == x.shape
    assert saved.is_contiguous()
    parameters = torch.float64 if dtype == "float64" else torch.float32
    module = torch.nn.BatchNorm2d(x.shape[axis], dtype=parameters)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight))
    expected = module(x.movedim(axis, 1)).movedim(1, axis).detach()
    rounding = ROUNDING[dtype]
    torch.testing.assert_close(saved, expected, rtol=rounding, atol=rounding)


def test_saved_output_is_made_in_blocks_of_the_whole(run, save, monkeypatch):
    x = random(7, 3, 11)
    save("x.npy", x)
    run("compute", "x.npy", "--save-output", "whole.npy", "-q")
    monkeypatch.setattr("bncli.batchnorm.blocks.__defaults__", (5,))
    run("compute", "x.npy", "--save-output", "blocks.npy", "-q")
    np.testing.assert_array_equal(np.load("whole.npy"), np.load("blocks.npy"))


def test_saving_says_where(run, save):
    result = run("compute", save("x.npy", random(4, 3)), "--save-output", "y.pt", "-f", "json")
    assert result.report["facts"]["saved_output"] == "y.pt"


@pytest.mark.parametrize("how", ["same", "dot", "symlink", "hardlink", "weight"])
def test_an_input_is_never_overwritten(run, save, how):
    x = save("x.npy", random(4, 3))
    weight = save("w.npy", np.ones(3))
    target = {"same": x, "dot": f"./{x}", "weight": weight}.get(how, "link.npy")
    if how == "symlink":
        Path(target).symlink_to(x)
    if how == "hardlink":
        Path(target).hardlink_to(x)
    before = Path(x).read_bytes(), Path(weight).read_bytes()
    result = run("compute", x, "--weight", weight, "--save-output", target)
    assert result.code == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"bncli: --save-output {target}: this would overwrite an input; name another file.\n"
    )
    assert (Path(x).read_bytes(), Path(weight).read_bytes()) == before


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_a_crash_leaves_the_old_output_whole(run, save, folder, monkeypatch, suffix):
    x = save("x.npy", random(4, 3))
    old = folder / f"y{suffix}"
    assert run("compute", x, "--save-output", old.name, "-q").code == 0
    before = old.read_bytes()

    def crash(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bncli.batchnorm.BlockNormalizer.output", crash)
    result = run("compute", x, "--save-output", old.name, "--eps", 1)
    assert result.code == 2
    assert result.stdout == ""
    assert result.stderr == f"bncli: {old.name}: cannot be written (No space left on device).\n"
    assert old.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == sorted([x, old.name])


def test_a_name_that_is_no_unicode(run, save, folder):
    os.rename(save("x.npy", random(4, 3)), b"\xff.npy")  # noqa: PTH104
    name = os.fsdecode(b"\xff.npy")
    outputs = [
        argument for suffix in (".md", ".txt", ".csv", ".json") for argument in ("-o", f"r{suffix}")
    ]
    result = run("compute", name, "--save-output", os.fsdecode(b"y\xff.pt"), *outputs, "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    assert torch.load(os.fsdecode(b"y\xff.pt"), weights_only=True).shape == (4, 3)
    for path in folder.glob("r.*"):
        assert path.read_text(encoding="utf-8")


# ---------------------------------------------------------------------------- --channel


@pytest.mark.parametrize(
    ("chosen", "channels"),
    [
        ("0", [0]),
        ("3,1", [1, 3]),
        ("2-4", [2, 3, 4]),
        ("0,2-3,3,0", [0, 2, 3]),
        (" 1 , 4 ", [1, 4]),
    ],
)
def test_channel_chooses_rows_and_nothing_else(run, save, chosen, channels):
    x = save("x.npy", random(8, 5, 3))
    whole = run("compute", x, x, "--per-input", "-f", "json")
    some = run("compute", x, x, "--per-input", "--channel", chosen, "-f", "json")
    for key in ("channels", "output", "spread"):
        assert [row["channel"] for row in table(some, key)] == channels
        assert table(some, key) == [table(whole, key)[c] for c in channels]
    assert [row["channel"] for row in table(some, "inputs")] == channels * 2
    assert some.report["facts"]["num_features"] == 5


# ---------------------------------------------------------------------------- -o


def test_output_files_take_the_format_of_their_suffix(run, save, folder):
    save("x.npy", random(4, 3))
    outputs = [f"r{suffix}" for suffix in (".json", ".csv", ".md", ".txt")]
    flags = [argument for name in outputs for argument in ("-o", name)]
    result = run("compute", "x.npy", *flags)
    assert result.code == 0
    for name, form in zip(outputs, ("json", "csv", "markdown", "table"), strict=True):
        assert (folder / name).read_text("utf-8") == run("compute", "x.npy", "-f", form).stdout
    assert result.stdout == (folder / "r.txt").read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO((folder / "r.csv").read_text("utf-8"))))
    assert [float(row["mean"]) for row in rows] == [
        row["mean"]
        for row in json.loads((folder / "r.json").read_text("utf-8"))["tables"]["channels"]
    ]


def test_output_files_are_written_when_quiet_and_at_exit_1(run, save, folder):
    save("x.npy", np.full((4, 2), np.nan, np.float32))
    result = run("compute", "x.npy", "-q", "-o", "r.json")
    assert tuple(result) == (1, "", "")
    assert json.loads((folder / "r.json").read_text("utf-8"))["exit_code"] == 1


def test_an_output_file_gets_the_usual_permissions_and_no_input_is_overwritten(run, save, folder):
    x = save("x.npy", random(4, 3))
    os.rename(x, "x.json")  # noqa: PTH104  # a loader goes by content
    assert run("compute", "x.json", "-o", "x.json").code == 2
    assert run("compute", "x.json", "-q", "-o", "r.md").code == 0
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((folder / "r.md").stat().st_mode) == 0o666 & ~umask


# ---------------------------------------------------------------------------- findings


def test_nan_and_inf_are_an_error_and_the_report_is_whole(run, save):
    x = random(6, 4, 3)
    x[2, 1, 2] = np.nan
    x[4, 1, 0] = np.inf
    x[3, 2, 1] = -np.inf
    x[:, 3] = np.nan
    result = run("compute", save("x.npy", x), "-f", "json", "--against", "torch")
    assert result.code == 1
    assert codes(result)[0] == "BN001"
    found = finding(result, "BN001")
    assert found["severity"] == "error"
    assert found["subject"] == "channels 1, 2 and 3"
    assert found["evidence"] == {
        "channels": [1, 2, 3],
        "nan": [1, 0, 18],
        "inf": [1, 1, 0],
        "first_nonfinite": [[2, 1, 2], [3, 2, 1], [0, 3, 0]],
    }
    assert (
        "19 NaN and 2 Inf in all, of 18 values a channel; the first at [2, 1, 2]"
        in found["message"]
    )
    rows = table(result)
    assert [row["nan"] for row in rows] == [0, 1, 0, 18]
    assert [row["inf"] for row in rows] == [0, 1, 1, 0]
    assert [row["mean"] is None for row in rows] == [False, True, True, True]
    assert [row["var"] is None for row in rows] == [False, True, True, True]
    for channel in (1, 2):
        finite = rows_of(x)[channel][np.isfinite(rows_of(x)[channel])]
        assert (rows[channel]["min"], rows[channel]["max"]) == (finite.min(), finite.max())
    assert rows[3]["min"] is None
    assert rows[3]["max"] is None
    assert all(row["passed"] for row in table(result, "differences"))


def test_statistics_of_what_is_not_finite_are_those_of_torch(run, save):
    x = random(6, 4, 3)
    x[2, 1, 2] = np.nan
    x[4, 2, 0] = np.inf
    x[3, 3, 1], x[3, 3, 2] = np.inf, -np.inf
    rows = list(csv.DictReader(io.StringIO(run("compute", save("x.npy", x), "-f", "csv").stdout)))
    zeros, ones = torch.zeros(4), torch.ones(4)
    mean, var = torch.batch_norm_update_stats(torch.from_numpy(x), zeros, ones, 0.1)
    np.testing.assert_allclose([float(row["mean"]) for row in rows], mean, rtol=1e-6)
    np.testing.assert_allclose([float(row["var"]) for row in rows], var, rtol=1e-6)
    np.testing.assert_allclose([float(row["running_mean"]) for row in rows], zeros, rtol=1e-6)
    np.testing.assert_allclose([float(row["running_var"]) for row in rows], ones, rtol=1e-6)


def test_warnings_come_with_their_number(run, save):
    x = random(64, 3, 4, mean=0.0).astype(np.float64)
    x[:, 0] = x[:, 0] * 1e-4 + 1.0  # ill-conditioned, and its variance is below eps
    x = x.astype(np.float32)
    result = run("compute", save("x.npy", x), "-f", "json")
    assert result.code == 0
    assert codes(result) == ["BN002", "BN003"]
    values = rows_of(x)[0]
    condition = abs(values.mean()) / values.std()
    assert finding(result, "BN002")["severity"] == "warning"
    assert finding(result, "BN002")["evidence"]["channels"] == [0]
    assert finding(result, "BN002")["evidence"]["condition"] == pytest.approx([condition])
    assert f"{condition:.6g}" in finding(result, "BN002")["message"]
    assert finding(result, "BN003")["severity"] == "warning"
    assert finding(result, "BN003")["evidence"]["var"] == pytest.approx([values.var()])
    assert f"{values.var():.6g}" in finding(result, "BN003")["message"]
    # In float64 there are digits enough, but eps still sets the scale.
    assert codes(run("compute", "x.npy", "--dtype", "float64", "-f", "json")) == ["BN003"]


@pytest.mark.parametrize(("count", "remarked"), [(2, True), (7, True), (8, False), (9, False)])
def test_few_values_are_an_info(run, save, count, remarked):
    result = run("compute", save("x.npy", random(count, 2)), "-f", "json")
    assert result.code == 0
    assert codes(result) == (["BN008"] if remarked else [])
    if remarked:
        assert finding(result, "BN008")["severity"] == "info"
        assert finding(result, "BN008")["evidence"] == {"count": count}
        assert f"{count} values each" in finding(result, "BN008")["message"]


def test_several_equal_values_are_an_info(run, save):
    x = random(16, 3)
    x[:, 1] = 2.5
    result = run("compute", save("x.npy", x), "-f", "json")
    assert codes(result) == ["BN009"]
    assert finding(result, "BN009")["severity"] == "info"
    assert finding(result, "BN009")["evidence"] == {"channels": [1], "value": [2.5]}
    assert table(result)[1]["var"] == 0
    single = run("compute", save("one.npy", random(1, 3)), "--eval", "-f", "json")
    assert "BN009" not in codes(single)  # one value is no several


def test_a_fault_planted_in_torch_is_found(run, save, monkeypatch):
    original = torch.nn.BatchNorm1d.forward

    def forward(self, x):
        self.eps = 1e-3
        return original(self, x)

    x = save("x.npy", random(8, 3, 5))
    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", forward)
    result = run("compute", x, "-f", "json", "--against", "torch")
    assert result.code == 1
    subjects = {item["subject"] for item in result.report["findings"] if item["code"] == "BN901"}
    failed = {row["quantity"] for row in table(result, "differences") if not row["passed"]}
    assert subjects == failed
    assert {"output", "grad_input", "grad_weight"} <= failed
    assert failed.isdisjoint({"mean", "var", "running_mean", "running_var", "grad_bias"})
    assert "differ in" in result.report["verdict"]


def test_the_worst_findings_come_first(run, save):
    x = save("x.npy", random(4, 3))
    flags = ("--against", "torch", "--rtol", 0, "--atol", 0, "--momentum", 2, "-f", "json")
    found = codes(run("compute", x, *flags))
    assert found[0] == "BN901"
    assert found[-2:] == ["BN007", "BN008"]


def test_rtol_and_atol_replace_the_derived_tolerance(run, save):
    x = save("x.npy", random(8, 3, 5))
    strict = run("compute", x, "--against", "torch", "--rtol", 0, "--atol", 0, "-f", "json")
    assert strict.code == 1
    least = max(row["passing_atol"] for row in table(strict, "differences"))
    assert least > 0
    flags = ("--against", "torch", "--rtol", 0, "-f", "json", "--atol")
    assert run("compute", x, *flags, least).code == 0
    assert run("compute", x, *flags, math.nextafter(least, 0)).code == 1
    loose = run("compute", x, "--against", "torch", "--rtol", 0.5, "--atol", 0.25, "-f", "json")
    for row in table(loose, "differences"):
        if row["quantity"] != "num_batches_tracked":  # an integer
            assert (row["rtol"], row["atol"]) == (0.5, 0.25)


def test_seed_chooses_the_upstream_gradient(run, save):
    x = save("x.npy", random(8, 3, 5))

    def gradients(seed):
        result = run("compute", x, "--against", "torch", "--seed", seed, "-f", "json")
        assert result.code == 0
        assert result.report["facts"]["seed"] == seed
        return table(result, "differences")

    assert gradients(1) == gradients(1)
    assert gradients(1) != gradients(2)


def test_threads_change_nothing_that_is_shown(run, save):
    x = save("x.npy", random(64, 3, 33))
    one, two = (run("compute", x, "--threads", n, "-f", "json") for n in (1, 2))
    np.testing.assert_allclose(column(one, "mean"), column(two, "mean"), rtol=1e-14)
    np.testing.assert_allclose(column(one, "var"), column(two, "var"), rtol=1e-14)


# ---------------------------------------------------------------------------- refusals

REFUSALS = refusals("compute")


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusal_is_one_exact_sentence_and_exit_code_2(run, bad_inputs, arguments):
    before = sorted(path.name for path in bad_inputs.iterdir())
    code, stdout, stderr = run("compute", *arguments.split())
    assert stderr == f"bncli: {REFUSALS[arguments]}\n"
    assert stdout == ""
    assert code == 2
    assert sorted(path.name for path in bad_inputs.iterdir()) == before


def test_the_good_input_among_the_bad_ones_is_good(run, bad_inputs):
    assert run("compute", "x.npy").code == 0


def test_a_damaged_or_unknown_file_is_named(run, save, folder):
    whole = (folder / save("x.npy", random(4, 3))).read_bytes()
    (folder / "cut.npy").write_bytes(whole[:-4])
    (folder / "junk.bin").write_bytes(b"junk" * 10)
    (folder / "empty.bin").write_bytes(b"")
    for name in ("cut.npy", "junk.bin", "empty.bin", "."):
        code, stdout, stderr = run("compute", name)
        assert (code, stdout) == (2, "")
        assert stderr.startswith(f"bncli: {name}: ")
        assert stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_to(run, save, monkeypatch):
    def locked(**where):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", locked)
    result = run("compute", save("x.npy", random(4, 3)), "-o", "r.json")
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr == "bncli: r.json: cannot be written (Permission denied).\n"


def test_a_failing_report_file_leaves_the_old_one_whole(run, save, folder, monkeypatch):
    x = save("x.npy", random(4, 3))
    run("compute", x, "-q", "-o", "r.json")
    before = (folder / "r.json").read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = run("compute", x, "--eps", 1, "-q", "-o", "r.json")
    assert result.stderr == "bncli: r.json: cannot be written (No space left on device).\n"
    assert result.code == 2
    assert (folder / "r.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["r.json", "x.npy"]
