"""The trace itself: each step beside PyTorch's, in both modes and both arithmetics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bncli.commands.trace.tracing
from tests.commands.conftest import random
from tests.commands.samples import codes
from tests.commands.trace.samples import column, rows, steps, values
from tests.pytorch_cpu.test_float32 import random_input, random_module, same_machine, torch_pass


@pytest.mark.parametrize(
    ("shape", "axis"), [((6, 3), 1), ((6, 4, 3), -1), ((3, 6, 4), 0), ((2, 3, 3, 2, 2), 1)]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_rank_axis_and_dtype(run, save, shape, axis, dtype):
    x = torch.from_numpy(random(*shape)).to(dtype)
    result = run(
        "trace", save("x.pt", x), "--channel-axis", axis, "--backward", "--against", "torch",
        "-f", "json",
    )  # fmt: skip
    assert (result.code, result.stderr) == (0, "")
    own = x.double().numpy().take(1, axis).reshape(-1)
    np.testing.assert_array_equal(column(result, "x", channel=1), own)
    np.testing.assert_allclose(
        column(result, "deviation", channel=1), own - own.mean(), rtol=1e-13, atol=1e-13
    )
    for row in rows(result, "elements"):
        assert x[tuple(row["index"])].item() == row["x"]
        assert row["index"][axis] == row["channel"]
    assert all(row["holds"] for row in rows(result, "identities"))


def test_evaluation_differs_from_training_where_the_statistics_do(run, save):
    x = save("x.npy", random(8, 3, 5).astype(np.float64))
    stats = run("compute", x, "-f", "json").report["tables"]["channels"]
    mean = save("m.npy", np.array([stats[0]["mean"], 0.0, stats[2]["mean"]]))
    flags = ("--eval", "--running-mean", mean, "--running-var", save("v.npy", np.full(3, 4.0)))
    result = run("trace", x, *flags, "-f", "json")
    assert result.code == 0
    assert "channel 0 differs from training at var: 4 instead of" in result.report["verdict"]
    assert "so do 2 other channels" in result.report["verdict"]
    other = run("trace", x, *flags, "--channel", 1, "-f", "json").report["verdict"]
    assert "channel 1 differs from training at mean: 0 instead of" in other
    for channel in range(3):
        trained = values(run("trace", x, *flags[1:], "-f", "json"), channel)
        for name, row in steps(result, channel).items():
            assert row["training"] == trained[name]
            if row["value"] is not None:
                assert row["apart"] == pytest.approx(row["value"] - row["training"])
    same = run("trace", x, "--eval", "--no-track-running-stats", "-f", "json")
    assert "evaluation normalises as training does" in same.report["verdict"]


@pytest.mark.parametrize("momentum", [0.1, 0.01, None])
@pytest.mark.parametrize("size", [1.0, 100.0])
def test_what_2000_updates_rounded_away_is_no_difference(run, save, folder, momentum, size):
    """The stored mean is that of the batch but for its last places; the variance is unbiased."""
    x = torch.tensor([0.0, size, 0.0, size]).reshape(1, 2, 1, 2)
    layer = torch.nn.BatchNorm2d(2, affine=False, momentum=momentum)
    for _ in range(2000):
        layer(x)
    mean = layer.running_mean.numpy()
    assert momentum is None or (mean != size / 2).all()
    save("x.npy", x.numpy())
    save("bn.pt", layer.state_dict())
    flags = ("--eval", "--state", "bn.pt", "-f", "json")
    if momentum:
        flags += ("--momentum", momentum)
    verdict = run("trace", "x.npy", *flags).report["verdict"]
    assert "channel 0 differs from training at var" in verdict
    assert "at mean" not in verdict
    # A mean that is off by more than that is told.
    off = layer.state_dict()
    off["running_mean"] = torch.tensor([mean[0], mean[1] * 1.01])
    off["running_var"] = layer.running_var / 2
    save("bn.pt", off)
    verdict = run("trace", "x.npy", *flags).report["verdict"]
    assert "channel 1 differs from training at mean" in verdict
    assert "channel 0 is normalised as in training" in verdict


def test_evaluation_is_not_set_beside_training_that_pytorch_refuses(run, save):
    result = run("trace", save("x.npy", random(8, 3)), "--eval", "--eps", 0, "-f", "json")
    assert result.code == 0
    assert "training" not in steps(result)["mean"]
    assert "training" not in result.report["verdict"]


def test_momentum_none_is_the_cumulative_average(run, save):
    x = save("x.npy", random(4, 3, 5))
    found = steps(run("trace", x, "--momentum", "none", "-f", "json"))
    assert found["factor"]["value"] == 1
    assert found["factor"]["numbers"] == "1 / 1 = 1"
    assert found["running_mean"]["value"] == found["mean"]["value"]
    assert found["running_var"]["value"] == found["unbiased_var"]["value"]


def test_what_a_layer_lacks_is_not_shown(run, save):
    x = save("x.npy", random(4, 3, 5))
    bare = values(run("trace", x, "--no-affine", "--no-track-running-stats", "-f", "json"))
    assert bare.keys() == {"values", "count", "mean", "var", "var_plus_eps", "sqrt", "invstd"}


def flags_of(module, save) -> list[str]:
    """The flags that describe a torch module."""
    flags = ["--training" if module.training else "--eval", "--eps", repr(module.eps)]
    flags += ["--momentum", "none" if module.momentum is None else repr(module.momentum)]
    flags += [] if module.affine else ["--no-affine"]
    flags += [] if module.track_running_stats else ["--no-track-running-stats"]
    state = {f"bn.{name}": tensor.clone() for name, tensor in module.state_dict().items()}
    if module.track_running_stats:
        flags += ["--state", f"{save('state.pt', state)}::bn"]
    elif module.affine:
        for name in ("weight", "bias"):
            file = save(f"{name}.npy", getattr(module, name).detach().numpy())
            flags += [f"--{name}", file]
    return flags


@same_machine
@pytest.mark.parametrize("layout", ["contiguous", "rows", "channels last"])
@pytest.mark.parametrize(
    "seeds", [range(5), pytest.param(range(5, 15), marks=pytest.mark.exhaustive)], ids=str
)
def test_float32_is_pytorchs_bit_for_bit(run, save, layout, seeds):
    """Output, running_mean and running_var of random modules: every option, mode and rank."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the number that a trace without a comparison takes
    try:
        for seed in seeds:
            rng = np.random.default_rng([seed, 77])
            x = random_input(rng, layout)
            module = random_module(rng, x.ndim, x.shape[1], bias=seed % 2 > 0)
            file = save("x.pt", x)
            flags = [*flags_of(module, save), "--arithmetic", "float32", "-f", "json"]
            result = run("trace", file, "--channel", f"0-{min(x.shape[1], 4) - 1}", *flags)
            assert result.stderr == ""
            expected = torch_pass(x, module)
            for row in rows(result, "elements"):
                assert np.float32(row["output"]) == expected["output"][tuple(row["index"])]
            for channel in {row["channel"] for row in rows(result, "steps")}:
                found = values(result, channel)
                for name, theirs in expected.items():
                    if name != "output":
                        assert np.float32(found[name]) == theirs[channel], (name, seed)
    finally:
        torch.set_num_threads(before)


@same_machine
@pytest.mark.parametrize("shape", [(64, 3), (8, 3, 5)])
def test_beside_torch_the_distance_is_0(run, save, shape):
    x = save("x.npy", random(*shape) + np.float32(300))
    flags = ("--arithmetic", "float32", "--against", "torch", "-f", "json")
    result = run("trace", x, *flags, "--at", ",".join("0" * (len(shape) - 1)))
    for name in ("mean", "var", "invstd", "output", "running_mean", "running_var"):
        assert steps(result)[name]["distance"] == 0, name
        assert steps(result)[name]["exact"] != steps(result)[name]["value"]
    facts = result.report["facts"]
    assert facts["summed"] == ("rows" if len(shape) == 2 else "contiguous")
    assert facts.get("torch_threads") == (torch.get_num_threads() if len(shape) == 2 else None)


def test_float32_stands_beside_the_exact_value(run, save):
    x = save("x.npy", random(8, 3, 5))
    exact = run("trace", x, "--at", "1,1", "-f", "json")
    for mode in ("--training", "--eval"):
        exact = run("trace", x, mode, "--at", "1,1", "-f", "json")
        result = run("trace", x, mode, "--at", "1,1", "--arithmetic", "float32", "-f", "json")
        for name, row in steps(result).items():
            if row["exact"] is None:
                continue
            if name not in ("alpha", "beta", "var_sum"):
                assert row["exact"] == values(exact)[name], name
            assert row["difference"] == row["value"] - row["exact"]
            place = float(np.spacing(np.float32(abs(row["exact"]))))
            assert row["ulps"] == pytest.approx(row["difference"] / place)
            assert abs(row["difference"]) <= 1e-5 * max(1, abs(row["exact"]))
        assert steps(result)["alpha"]["exact"] == values(exact)["invstd"]
        (element,) = rows(result, "elements", channel=0)
        assert element["output"] == values(result)["output"]
        assert element["exact"] == values(exact)["output"]


@pytest.mark.parametrize(
    ("lay_out", "said"),
    [
        (np.ascontiguousarray, False),
        (np.asfortranarray, True),
        (lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1), False),
        (lambda x: x[:, :, ::2], True),
    ],
    ids=["contiguous", "fortran", "channels last", "slice"],
)
def test_strided_input_is_said_to_have_other_bits(run, save, lay_out, said):
    x = torch.from_numpy(lay_out(random(4, 3, 6, 5)))
    result = run("trace", f"{save('x.pt', {'x': x})}::x", "--arithmetic", "float32")
    assert ("The input is strided" in result.stdout) is said
    assert "strided" not in run("trace", "x.pt::x").stdout


def test_rows_beyond_patience_are_refused(run, save, monkeypatch):
    monkeypatch.setattr(bncli.commands.trace.tracing, "MOST_ADDITIONS", 63)
    x = save("x.npy", random(64, 3))
    result = run("trace", x, "--arithmetic", "float32")
    assert result.code == 2
    assert result.stderr == (
        "bncli: x.npy: 64 rows; --arithmetic float32 repeats PyTorch's additions one by one, 63 "
        "at most: trace a part of them.\n"
    )
    assert run("trace", x, "--arithmetic", "float32", "--eval").code == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("more", [(), ("--eval",), ("--arithmetic", "float32")])
def test_what_is_not_finite_is_shown_as_it_is(run, save, value, more):
    x = random(8, 3, 5)
    x[2, 1, 3] = value
    result = run("trace", save("x.npy", x), *more, "--at", "2,3", "-f", "json")
    assert (result.code, result.stderr) == (1, "")
    assert codes(result)[0] == "BN001"
    if "--eval" not in more:
        assert values(result, 1)["output"] is None
    assert values(result, 0)["output"] is not None
    backward = run("trace", "x.npy", "--backward", "-f", "json")
    assert {row["holds"] for row in rows(backward, "identities", channel=1)} == {None}
    assert run("trace", "x.npy", *more).stderr == ""


def test_statistics_that_no_variance_has(run, save):
    x = save("x.npy", random(4, 3))
    mean, var = save("m.npy", np.zeros(3)), save("v.npy", np.array([-1.0, 0.0, 1e38]))
    flags = ("--eval", "--running-mean", mean, "--running-var", var, "--eps", 0, "--backward")
    result = run("trace", x, *flags, "--against", "torch", "-f", "json")
    assert result.stderr == ""
    assert "BN006" in codes(result)
    assert run("trace", x, *flags[:-1], "--arithmetic", "float32").stderr == ""


def test_one_value_a_channel_in_evaluation(run, save):
    result = run("trace", save("x.npy", random(1, 3)), "--eval", "--at", "0", "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    assert "training" not in result.report["tables"]["steps"][0]
