"""The layer that flags and files describe, beside a torch module of the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.commands.samples import codes, column, finding, random, rows_of, table
from tests.told_modules import layer as keras_layer
from tests.told_modules import tell, told_module


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


# ------------------------------------------------------------------ another framework's layer


def test_the_momentum_of_another_framework_is_converted_in_the_arithmetic(run, save, monkeypatch):
    tell(monkeypatch, told_module("keras3", momentum=0.9, eps=1e-2))
    tensors = keras_layer()
    save("bn.npz", **tensors)
    x = random(8, 3).astype(np.float64)
    result = run("compute", save("x.npy", x), "--state", "bn.npz::bn", "-f", "json")
    facts = result.report["facts"]
    assert (facts["momentum"], facts["momentum_source"]) == (0.1, "file")
    expected = 0.9 * tensors["bn/moving_mean"].astype(np.float64) + 0.1 * x.mean(0)
    np.testing.assert_allclose(column(result, "running_mean"), expected, rtol=1e-12)
    remark = "Keras uses the biased variance (bncli simulate-ema --convention keras3)"
    assert any(remark in each for each in result.report["remarks"])


def test_an_axis_that_does_not_fit_is_refused_in_a_sentence(run, save, monkeypatch):
    tell(monkeypatch, told_module("keras3", channel_axis=3))
    save("bn.npz", **keras_layer())
    result = run("compute", save("x.npy", random(6, 3)), "--state", "bn.npz::bn")
    assert result.code == 2
    assert "--channel-axis 3: x.npy has 2 axes" in result.stderr


def test_identify_knows_eps_and_axis_of_the_file(run, save, monkeypatch):
    tell(monkeypatch, told_module("keras3", eps=1e-2, channel_axis=-1))
    tensors = keras_layer()
    save("bn.npz", **tensors)
    x = random(6, 5, 3).astype(np.float64)
    scale = tensors["bn/gamma"] / np.sqrt(tensors["bn/moving_variance"] + 1e-2)
    save("y.npy", (x - tensors["bn/moving_mean"]) * scale + tensors["bn/beta"])
    result = run("identify", save("x.npy", x), "y.npy", "--state", "bn.npz::bn", "-f", "json")
    assert result.code == 0
    assert result.report["findings"] == []


@pytest.mark.parametrize("command", ["compute", "trace", "diff", "identify", "simulate-ema"])
def test_channels_are_last_where_the_layers_framework_has_them_last(run, save, command):
    """Tensors under Keras' names alone: eps, momentum and the axis are Keras' defaults."""
    save("bn.npz", **keras_layer())
    more = [save("y.npy", random(6, 5, 3))] if command == "identify" else []
    x = save("x.npy", random(6, 5, 3))
    result = run(command, x, *more, "--state", "bn.npz::bn", "--width", "200")
    assert result.code in (0, 1)
    assert ", channel axis -1 (Keras' default)" in "".join(result.stdout.splitlines()[:2])
    result = run(command, save("x.npy", random(6, 3, 5)), "--state", "bn.npz::bn", *more)
    assert result.code == 2
    assert "5 channels on axis 2 (Keras' default); name another" in " ".join(result.stderr.split())
