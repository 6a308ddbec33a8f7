"""`bncli trace`: every flag, every key that scripts rely on, every refusal."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import bncli.commands.trace.tracing
from tests.commands.conftest import random, refusals
from tests.pytorch_cpu.test_float32 import (
    random_input,
    random_module,
    same_machine,
    torch_pass,
)
from tests.rulebook.test_interface import COMMAND_OF, PLANTED

TUTORIAL = "examples/tutorial/x.npy"

STEP_KEYS = {"channel", "pass", "step", "quantity", "formula", "numbers", "value"}
ELEMENT_KEYS = {"channel", "index", "x", "deviation", "squared", "x_hat", "output"}


def rows(result, table: str, **chosen) -> list[dict]:
    return [
        row
        for row in result.report["tables"][table]
        if all(row[key] == value for key, value in chosen.items())
    ]


def steps(result, channel: int = 0, direction: str = "forward") -> dict[str, dict]:
    found = rows(result, "steps", channel=channel, **{"pass": direction})
    assert [row["step"] for row in found] == [*range(1, len(found) + 1)]
    return {row["quantity"]: row for row in found}


def values(result, channel: int = 0, direction: str = "forward") -> dict:
    return {name: row["value"] for name, row in steps(result, channel, direction).items()}


def column(result, key: str, **chosen) -> np.ndarray:
    return np.array([row[key] for row in rows(result, "elements", **chosen)], np.float64)


def codes(result) -> list[str]:
    return [finding["code"] for finding in result.report["findings"]]


# ---------------------------------------------------------------------------- what is reported


@pytest.fixture
def tutorial(repository):
    return repository / TUTORIAL


def test_tutorial_has_the_published_numbers(run, tutorial):
    result = run("trace", tutorial, "-f", "json")
    assert (result.code, result.stderr, codes(result)) == (0, "", [])
    found = steps(result, 0)
    assert found["mean"]["numbers"] == "(1 + 2 + 3 + ... + 12) / 8 = 6.5"
    assert found["running_mean"]["numbers"] == "(1 - 0.1) * 0 + 0.1 * 6.5 = 0.65"
    assert found["running_var"]["numbers"] == "(1 - 0.1) * 1 + 0.1 * 19.71429 = 2.871429"
    exact = {
        "count": 8, "mean": 6.5, "var": 17.25, "unbiased_var": 138 / 7, "var_plus_eps": 17.25001,
        "sqrt": math.sqrt(17.25001), "invstd": 1 / math.sqrt(17.25001), "weight": 1, "bias": 0,
        "factor": 0.1, "running_mean": 0.65, "running_var": 0.9 + 13.8 / 7,
        "num_batches_tracked": 1,
    }  # fmt: skip
    assert values(result).keys() == {"values", *exact}
    for name, value in exact.items():
        assert found[name]["value"] == pytest.approx(value, rel=1e-15), name
    x_hat = [-1.324244, -1.083472, -0.842701, -0.601929]
    np.testing.assert_allclose(
        column(result, "x_hat", channel=0), x_hat + [-x for x in x_hat[::-1]], atol=5e-7
    )
    assert values(result, 1)["mean"] == 10.5


def test_the_terminal_shows_them_too(run, tutorial):
    for width in (80, 140):
        text = run("trace", tutorial, "--at", "0,0,0", "--width", width).stdout
        for shown in ("= 6.5", "= 17.25", "19.714285714285715", "4.15331", "-1.324244", "0.65",
                      "2.871429", "normalises the batch", "enters running_var"):  # fmt: skip
            assert shown in text
        assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(
    ("form", "suffix", "mean", "unbiased"),
    [
        ("table", ".txt", " / 8 = 6.5 ", "19.714285714285715"),
        ("json", ".json", " / 8 = 6.5", repr(138 / 7)),
        ("csv", ".csv", " / 8 = 6.5,", repr(138 / 7)),
        ("markdown", ".md", " / 8 = 6.5 |", "19.714285714285715"),
    ],
)
def test_golden(run, repository, monkeypatch, golden, form, suffix, mean, unbiased):
    monkeypatch.chdir(repository)
    result = run("trace", TUTORIAL, "-f", form)
    assert (result.code, result.stderr) == (0, "")
    golden(f"trace{suffix}", result.stdout)
    assert mean in result.stdout
    assert unbiased in result.stdout


def test_json_keeps_its_promise(run, tutorial):
    report = run("trace", tutorial, "-f", "json").report
    compute = run("compute", tutorial, "-f", "json").report
    assert report["command"] == "trace"
    for key, value in compute["facts"].items():
        if key != "inputs":  # of which a trace has one
            assert report["facts"][key] == value
    assert [*report["tables"]] == ["steps", "elements"]
    for row in report["tables"]["steps"]:
        assert set(row) == STEP_KEYS
    for row in report["tables"]["elements"]:
        assert set(row) == ELEMENT_KEYS
    assert len(report["tables"]["elements"]) == 16


def test_the_findings_are_those_of_compute(run, save):
    """For every planted fault of a batch or a state; several inputs are not traced."""
    for code, plant in PLANTED.items():
        path, _, *more = plant(save)
        if code == "BN010" or code in COMMAND_OF:
            continue
        ours, theirs = (run(name, path, *more, "-f", "json") for name in ("trace", "compute"))
        assert ours.report["findings"] == theirs.report["findings"]
        assert ours.code == theirs.code
        assert code in codes(ours)


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


def test_channels(run, save):
    x = save("x.npy", random(4, 9, 5))
    assert {row["channel"] for row in rows(run("trace", x, "-f", "json"), "steps")} == {0, 1, 2}
    assert "The first 3 of 9 channels" in run("trace", x, "--width", 80).stdout
    result = run("trace", x, "--channel", "8,3", "-f", "json")
    assert {row["channel"] for row in rows(result, "elements")} == {3, 8}
    assert "channels; --channel" not in run("trace", x, "--channel", "0").stdout
    for flags in (("--at", "1,4"), ("--at", "1,4", "--channel", "0-8")):
        assert "elements" not in run("trace", x, *flags).stdout


# ---------------------------------------------------------------------------- one element


def test_an_element_is_followed(run, save):
    x = save("x.npy", random(4, 3, 5))
    everything = run("trace", x, "-f", "json")
    result = run("trace", x, "--at", "2,4", "-f", "json")
    assert result.report["facts"]["at"] == [2, 4]
    for channel in range(3):
        (row,) = rows(result, "elements", channel=channel)
        assert row["index"] == [2, channel, 4]
        assert row in rows(everything, "elements")
        found = values(result, channel)
        for key in ("x", "deviation", "squared", "x_hat", "output"):
            assert found[key] == row[key]
        shared = values(everything, channel)
        assert {key: found[key] for key in shared} == shared
    named = run("trace", x, "--at", "2,1,4", "-f", "json")
    assert {row["channel"] for row in rows(named, "steps")} == {1}
    assert values(named, 1) == values(result, 1)
    assert run("trace", x, "--at", "2,1,4", "--channel", "1").code == 0


# ---------------------------------------------------------------------------- evaluation


def test_evaluation_parts_from_training_where_the_statistics_do(run, save):
    x = save("x.npy", random(8, 3, 5).astype(np.float64))
    stats = run("compute", x, "-f", "json").report["tables"]["channels"]
    mean = save("m.npy", np.array([stats[0]["mean"], 0.0, stats[2]["mean"]]))
    flags = ("--eval", "--running-mean", mean, "--running-var", save("v.npy", np.full(3, 4.0)))
    result = run("trace", x, *flags, "-f", "json")
    assert result.code == 0
    assert "Channel 0 parts from training at var: 4 in place of" in result.report["verdict"]
    assert "Channel 1 parts from training at mean: 0 in place of" in result.report["verdict"]
    for channel in range(3):
        trained = values(run("trace", x, *flags[1:], "-f", "json"), channel)
        for name, row in steps(result, channel).items():
            assert row["training"] == trained[name]
            if row["value"] is not None:
                assert row["apart"] == pytest.approx(row["value"] - row["training"])
    same = run("trace", x, "--eval", "--no-track-running-stats", "-f", "json")
    assert "Evaluation normalises here as training does" in same.report["verdict"]


@pytest.mark.parametrize("momentum", [0.1, 0.01, None])
@pytest.mark.parametrize("size", [1.0, 100.0])
def test_what_200_updates_rounded_away_is_no_parting(run, save, folder, momentum, size):
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
    assert "parts from training at var" in verdict
    assert "at mean" not in verdict
    # A mean that is off by more than that is told.
    off = layer.state_dict()
    off["running_mean"] = torch.tensor([mean[0], mean[1] * 1.01])
    off["running_var"] = layer.running_var / 2
    save("bn.pt", off)
    verdict = run("trace", "x.npy", *flags).report["verdict"]
    assert "Channel 1 parts from training at mean" in verdict
    assert "Channel 0 is normalised as in training" in verdict


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


def test_what_a_layer_has_not_is_not_shown(run, save):
    x = save("x.npy", random(4, 3, 5))
    bare = values(run("trace", x, "--no-affine", "--no-track-running-stats", "-f", "json"))
    assert bare.keys() == {"values", "count", "mean", "var", "var_plus_eps", "sqrt", "invstd"}


# ---------------------------------------------------------------------------- backward


@pytest.mark.parametrize("mode", ["--training", "--eval"])
def test_gradients_of_a_given_upstream_gradient(run, save, mode):
    x, g = random(4, 3, 5).astype(np.float64), random(4, 3, 5, seed=1).astype(np.float64)
    w = np.array([0.5, -2.0, 3.0])
    result = run(
        "trace", save("x.npy", x), mode, "--backward", "--grad-output", save("g.npy", g),
        "--weight", save("w.npy", w), "--at", "3,2", "-f", "json",
    )  # fmt: skip
    assert result.code == 0
    assert result.report["facts"]["grad_output"] == "g.npy"
    assert "seed" not in result.report["facts"]
    module = torch.nn.BatchNorm1d(3, dtype=torch.float64).train(mode == "--training")
    module.weight.data.copy_(torch.from_numpy(w))
    given = torch.from_numpy(x).requires_grad_()
    module(given).backward(torch.from_numpy(g))
    for channel in range(3):
        found = values(result, channel, "backward")
        assert found["grad_bias"] == pytest.approx(module.bias.grad[channel].item(), rel=1e-12)
        assert found["grad_weight"] == pytest.approx(module.weight.grad[channel].item(), rel=1e-12)
        expected = given.grad[3, channel, 2].item()
        assert found["grad_input"] == pytest.approx(expected, rel=1e-11)
        assert found["g"] == g[3, channel, 2]
        assert ("grad_var" in found) == (mode == "--training")
    assert all(row["holds"] for row in rows(result, "identities"))
    assert "identities hold." in result.report["verdict"]


def test_an_upstream_gradient_that_is_not_finite_is_an_error(run, save):
    x, g = random(4, 3, 5), random(4, 3, 5, seed=1)
    g[1, 2, 0] = np.nan
    flags = ("--backward", "--grad-output", save("g.npy", g), "-f", "json")
    result = run("trace", save("x.npy", x), *flags)
    assert (result.code, codes(result)) == (1, ["BN012"])
    assert result.report["findings"][0]["message"] == "1 NaN or Inf, in channel 2."
    assert {row["holds"] for row in rows(result, "identities", channel=1)} == {True}
    judged = [row["holds"] for row in rows(result, "identities")]
    sentence = f"{judged.count(True)} identities hold; {judged.count(None)} cannot be judged"
    assert judged.count(None) > 0
    assert sentence in result.report["verdict"]
    save("g.npy", random(4, 3, 5, seed=1))
    assert run("trace", "x.npy", *flags).code == 0


def test_the_seeded_gradient_is_that_of_compute(run, save):
    x = save("x.npy", random(8, 3, 5))
    ours, theirs = (
        run(name, x, *more, "--against", "torch", "--seed", 7, "-f", "json").report["tables"]
        for name, more in (("trace", ["--backward"]), ("compute", []))
    )
    assert ours["differences"] == theirs["differences"]


# ---------------------------------------------------------------------------- beside torch


def test_torch_stands_beside_every_step(run, save):
    x = random(8, 3, 5)
    flags = ("--against", "torch", "--backward", "--at", "2,3", "-f", "json")
    for mode in ("--training", "--eval"):
        result = run("trace", save("x.npy", x), mode, *flags)
        assert result.code == 0
        assert result.report["facts"]["backend_version"] == torch.__version__
        for channel in range(3):
            for direction in ("forward", "backward"):
                for name, row in steps(result, channel, direction).items():
                    if name in ("values", "count", "factor", "upstream"):
                        assert row["torch"] is None
                        continue
                    assert row["distance"] == abs(row["value"] - row["torch"]), name
                    assert row["torch"] == pytest.approx(row["value"], rel=3e-5, abs=3e-5), name
    module = torch.nn.BatchNorm1d(3)
    y = module(torch.from_numpy(x)).detach()
    found = steps(run("trace", "x.npy", *flags))
    assert found["output"]["torch"] == y[2, 0, 3].item()
    assert found["running_mean"]["torch"] == module.running_mean[0].item()
    assert found["running_var"]["torch"] == module.running_var[0].item()
    table = run("trace", "x.npy", "--against", "torch", "--channel", 1, "-f", "json")
    np.testing.assert_array_equal(column(table, "torch_output"), y[:, 1].reshape(-1))
    last = run("trace", "x.npy", *flags, "--channel", "1-2")
    for channel in (1, 2):  # not at their own places among those shown
        for name, row in steps(last, channel).items():
            if row["torch"] is not None:
                assert row["torch"] == pytest.approx(row["value"], rel=3e-5, abs=3e-5), name


def test_a_fault_planted_in_torch_is_found_and_shown(run, save, monkeypatch):
    original = torch.nn.BatchNorm1d.forward

    def forward(self, x):
        self.eps = 1e-1
        return original(self, x)

    x = save("x.npy", random(8, 3, 5))
    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", forward)
    result = run("trace", x, "--at", "0,0", "-f", "json", "--against", "torch")
    assert result.code == 1
    assert set(codes(result)) == {"BN901"}
    found = steps(result)
    assert found["output"]["distance"] > 1e-4
    assert found["mean"]["distance"] < 1e-6
    assert "differ in" in result.report["verdict"]


def test_rtol_and_atol_judge_the_ends(run, save):
    x = save("x.npy", random(8, 3, 5))
    assert run("trace", x, "--against", "torch", "--rtol", 0, "--atol", 0).code == 1
    assert run("trace", x, "--against", "torch", "--rtol", 0, "--atol", 1).code == 0


# ---------------------------------------------------------------------------- PyTorch's float32


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


# ---------------------------------------------------------------------------- bounds


def test_many_elements_are_the_first_and_the_last(run, save, monkeypatch):
    monkeypatch.setattr(bncli.commands.trace.tracing, "MOST_ELEMENTS", 24)
    x = random(10, 3, 5)
    result = run("trace", save("x.npy", x), "--backward", "-f", "json")
    for channel in range(3):
        flat = x[:, channel].reshape(-1)
        shown = column(result, "x", channel=channel)
        np.testing.assert_array_equal(shown, [*flat[:4], *flat[-4:]])
    text = run("trace", "x.npy").stdout
    assert "The first 4 and the last 4 of 50 elements a channel; --at follows any." in text
    assert "The first 4" not in run("trace", "x.npy", "--at", "0,0").stdout


def test_elements_far_from_0_can_be_told_apart(run, save):
    x = 1e6 + np.arange(16.0).reshape(8, 2).astype(np.float32) / 16
    text = run("trace", save("x.npy", x.astype(np.float32)), "--channel", 0).stdout
    assert all(f"{value:.10g}" in text.split("Elements")[1] for value in x[:, 0])


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


# ---------------------------------------------------------------------------- refusals

REFUSALS = refusals("trace")


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusal_is_one_exact_sentence_and_exit_code_2(run, bad_inputs, arguments):
    code, stdout, stderr = run("trace", *arguments.split())
    assert stderr == f"bncli: {REFUSALS[arguments]}\n"
    assert stdout == ""
    assert code == 2
