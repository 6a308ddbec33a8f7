"""`bncli identify` through the command line: keys, goldens, refusals, and no need of torch."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

KEYS = {"rank", "mode", "ddof", "eps", "variant", "max_abs_diff", "explains"}


@pytest.fixture
def layer(save):
    """x.npy, a module's state in bn.pt, and its output in eval mode with eps 1e-3 in y.npy."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(8, 3, 4)) + 1).astype(np.float32)
    module = torch.nn.BatchNorm1d(3, eps=1e-3)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
        module.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
        module.running_mean.copy_(torch.tensor([0.5, 1.0, 0.0]))
        module.running_var.copy_(torch.tensor([0.01, 1.0, 4.0]))
    save("x.npy", x)
    save("bn.pt", module.state_dict())
    save("y.npy", module.eval()(torch.from_numpy(x)).detach().numpy())
    return module


def test_json_keeps_its_promise(run, layer):
    result = run("identify", "x.npy", "y.npy", "--state", "bn.pt", "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    facts = result.report["facts"]
    assert facts["confident"] is True
    assert facts["best"].startswith("OUTPUT is eval mode with eps = 1e-3 (max ")
    rows = result.report["tables"]["hypotheses"]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert set(row) >= KEYS
    first = rows[0]
    assert (first["mode"], first["ddof"], first["eps"]) == ("eval", None, 1e-3)
    assert (first["variant"], first["explains"]) == ("", True)
    assert [item["code"] for item in result.report["findings"]] == ["BN904"]
    assert run("identify", "x.npy", "y.npy", "--state", "bn.pt", "--fail-on", "warning").code == 1


def test_the_contrast_is_that_of_the_two_outputs(run, layer, folder):
    """ "eps = 1e-5 would be off by ..." against torch's own two outputs."""
    best = run("identify", "x.npy", "y.npy", "--state", "bn.pt", "-f", "json").report["facts"][
        "best"
    ]
    layer.eps = 1e-5
    other = layer(torch.from_numpy(np.load(folder / "x.npy"))).detach().numpy()
    off = np.abs(other - np.load(folder / "y.npy")).max((0, 2))
    assert f"eps = 1e-5 would be off by {off.max():.2g} in channel {off.argmax()}" in best


@pytest.mark.parametrize(
    ("form", "suffix"), [("table", ".txt"), ("json", ".json"), ("csv", ".csv"), ("markdown", ".md")]
)
def test_golden(run, repository, monkeypatch, golden, form, suffix):
    monkeypatch.chdir(repository)
    result = run(
        "identify", "examples/debugging/x.npy", "examples/debugging/keras.npy",
        "--state", "examples/debugging/bn.npz", "-f", form,
    )  # fmt: skip
    assert (result.code, result.stderr) == (0, "")
    golden(f"identify{suffix}", result.stdout)
    assert "0.001" in result.stdout


def test_an_expected_eps_is_not_blamed(run, layer):
    result = run("identify", "x.npy", "y.npy", "--state", "bn.pt", "--eps", "1e-3", "-f", "json")
    assert result.report["findings"] == []
    assert "training mode with eps = 1e-3 would be off by" in result.report["facts"]["best"]


def test_an_expected_mode_is_blamed_where_the_other_was_taken(run, layer, save, folder):
    x = torch.from_numpy(np.load(folder / "x.npy"))
    layer.eps = 1e-5
    save("train.npy", layer.train()(x).detach().numpy())

    def codes(*flags):
        # The buffers have moved, the state in the file has not.
        result = run("identify", "x.npy", "train.npy", "--state", "bn.pt", "-f", "json", *flags)
        assert result.report["tables"]["hypotheses"][0]["mode"] == "training"
        return [item["code"] for item in result.report["findings"]]

    assert codes() == []
    assert codes("--training") == []
    assert codes("--eval") == ["BN904"]


def test_eps_of_a_pickled_module_is_expected(run, layer, save):
    save("module.pt", layer)
    result = run("identify", "x.npy", "y.npy", "--state", "module.pt", "-f", "json")
    assert result.report["findings"] == []


def test_tensors_one_by_one(run, layer, save):
    flags = []
    for name in ("weight", "bias", "running_mean", "running_var"):
        save(f"{name}.npy", getattr(layer, name).detach().numpy())
        flags += [f"--{name.replace('_', '-')}", f"{name}.npy"]
    result = run("identify", "x.npy", "y.npy", *flags, "-f", "json")
    assert result.report["facts"]["confident"] is True
    assert result.report["tables"]["hypotheses"][0]["eps"] == 1e-3


def test_an_update_is_identified(run, layer, save, folder):
    x = torch.from_numpy(np.load(folder / "x.npy"))
    flags = []
    for side in ("before", "after"):
        for name in ("running_mean", "running_var"):
            save(f"{name}_{side}.npy", getattr(layer, name).numpy())
            flags += [f"--{name.replace('_', '-')}-{side}", f"{name}_{side}.npy"]
        layer.train()(x)
    result = run("identify", "x.npy", *flags, "-f", "json")
    assert (result.code, result.report["findings"]) == (0, [])
    first = result.report["tables"]["hypotheses"][0]
    assert set(first) >= KEYS | {"momentum", "frameworks"}
    assert (first["mode"], first["ddof"], first["momentum"]) == ("update", 1, 0.1)
    assert "pytorch" in first["frameworks"]
    assert result.report["facts"]["confident"] is True
    # Keras' divisor, planted by hand.
    old = np.array([0.01, 1.0, 4.0])
    wide = x.double().numpy()
    save("running_var_after.npy", (0.9 * old + 0.1 * wide.var((0, 2))).astype(np.float32))
    result = run("identify", "x.npy", *flags, "-f", "json")
    assert result.report["tables"]["hypotheses"][0]["ddof"] == 0
    assert [item["code"] for item in result.report["findings"]] == ["BN904"]


def test_an_update_that_moved_nothing_is_a_finding(run, save):
    """A layer in training whose buffers stay, as an exporter left it."""
    save("x.npy", np.random.default_rng(0).normal(0.2, 1.1, (32, 6)).astype(np.float32))
    save("mean.npy", np.zeros(6, np.float32))
    save("var.npy", np.ones(6, np.float32))
    flags = []
    for side in ("before", "after"):
        flags += [f"--running-mean-{side}", "mean.npy", f"--running-var-{side}", "var.npy"]
    result = run("identify", "x.npy", *flags, "-f", "json")
    (finding,) = result.report["findings"]
    assert (finding["code"], finding["severity"], result.code) == ("BN906", "warning", 0)
    assert finding["evidence"]["would_move"] > 0.01
    first = result.report["tables"]["hypotheses"][0]
    assert (first["momentum"], first["ddof"], first["frameworks"]) == (0, None, [])
    assert run("identify", "x.npy", *flags, "--fail-on", "warning").code == 1


def test_half_precision_and_channels_last(run, save):
    torch.manual_seed(0)
    x = torch.randn(8, 4, 5, 6)
    for dtype in (torch.float16, torch.bfloat16):
        module = torch.nn.BatchNorm2d(4)
        save("x.pt", x.to(dtype).contiguous(memory_format=torch.channels_last))
        y = module(x.to(dtype).contiguous(memory_format=torch.channels_last))
        save("y.pt", y.detach())
        result = run("identify", "x.pt", "y.pt", "-f", "json")
        assert result.report["findings"] == [], result.report["facts"]["best"]
    save("x.npy", x.numpy())
    moved = torch.nn.BatchNorm2d(4)(x).permute(0, 2, 3, 1).detach().numpy()
    save("last.npy", np.ascontiguousarray(moved))
    result = run("identify", "x.npy", "last.npy", "-f", "json")
    assert result.report["tables"]["hypotheses"][0]["variant"] == "output channels last"


def test_nothing_finite_is_exit_3(run, save):
    save("x.npy", np.full((4, 2), np.nan, np.float32))
    result = run("identify", "x.npy", "x.npy", "-f", "json")
    assert result.code == 3
    assert result.report["tables"]["hypotheses"] == []


def test_a_thousand_channels_and_bounded_rows(run, save):
    x = np.random.default_rng(0).normal(size=(8, 1500)).astype(np.float32)
    save("x.npy", x)
    save("y.npy", torch.nn.BatchNorm1d(1500, eps=1e-3)(torch.from_numpy(x)).detach().numpy())
    result = run("identify", "x.npy", "y.npy", "-f", "json")
    assert result.report["facts"]["confident"] is True
    assert len(result.report["tables"]["hypotheses"]) <= 24


# ---------------------------------------------------------------------------- refusals

REFUSALS = dict(
    re.findall(
        r"^bncli identify ?(.*)\n    (.+)$",
        Path(__file__).with_name("refusals.txt").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusal_is_one_exact_sentence_and_exit_code_2(run, layer, save, arguments):
    save("w4.npy", np.ones(4))
    save("w5.npy", np.ones(5))
    save("v3.npy", np.ones(3))
    save("c3.npy", np.ones(3, np.complex64))
    save("one.npy", np.ones((1, 3), np.float32))
    save("short.npy", np.ones((8, 3, 5), np.float32))
    save("int.npy", np.ones((8, 3, 4), np.int64))
    code, stdout, stderr = run("identify", *arguments.split())
    assert (code, stdout) == (2, "")
    assert stderr == f"bncli: {REFUSALS[arguments]}\n"


@pytest.mark.parametrize("normalized", [(4,), (3, 4), (6, 3, 4)])
@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm"])
def test_a_weight_over_the_last_axes_is_taken(run, save, norm, normalized):
    """As PyTorch's LayerNorm has it; its own eps is expected, and another is told."""
    shape = (5, 6, 3, 4)
    torch.manual_seed(0)
    x = torch.randn(shape) * 2 + 1
    for eps, expected in ((1e-5, True), (3e-3, False)):
        module = getattr(torch.nn, norm)(normalized, eps=eps)
        for name, parameter in module.named_parameters():
            torch.nn.init.normal_(parameter, 1, 0.3)
            save(f"{name}.npy", parameter.detach().numpy())
        flags = ["--weight", "weight.npy"] + ["--bias", "bias.npy"] * (norm == "LayerNorm")
        save("x.npy", x.numpy())
        save("y.npy", module(x).detach().numpy())
        report = run("identify", "x.npy", "y.npy", *flags, "-f", "json").report
        first = report["tables"]["hypotheses"][0]
        assert (first["mode"], first["explains"]) == (norm, True)
        assert first["eps"] == pytest.approx(eps, rel=0.02)
        codes = [item["code"] for item in report["findings"]]
        assert codes == ([] if expected else ["BN904"])
    save("bias.npy", np.ones(6))
    result = run("identify", "x.npy", "y.npy", "--weight", "weight.npy", "--bias", "bias.npy")
    assert (result.code, result.stdout) == (2, "")


def test_evaluation_with_the_statistics_of_a_new_layer(run, save):
    """Weight and bias were loaded, the running statistics were not."""
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, (6, 12))
    state = {
        "weight": rng.random(12) + 0.5, "bias": rng.normal(size=12),
        "running_mean": rng.normal(size=12), "running_var": rng.random(12) * 3 + 0.2,
    }  # fmt: skip
    made = x / np.sqrt(1 + 1e-5) * state["weight"] + state["bias"]
    save("bn.npz", **{f"bn.{name}": values.astype(np.float32) for name, values in state.items()})
    save("x.npy", x.astype(np.float32))
    save("y.npy", made.astype(np.float32))
    result = run("identify", "x.npy", "y.npy", "--state", "bn.npz::bn", "--eval", "-f", "json")
    first = result.report["tables"]["hypotheses"][0]
    assert (first["mode"], first["variant"], first["explains"]) == (
        "eval", "statistics 0 and 1", True,
    )  # fmt: skip
    assert [item["code"] for item in result.report["findings"]] == ["BN904"]
    assert "implied" not in result.report["tables"]
    # Without any statistics, those of a new layer are what evaluation has.
    flags = [f"--{name} {name}.npy" for name in ("weight", "bias")]
    for name in ("weight", "bias"):
        save(f"{name}.npy", state[name].astype(np.float32))
    result = run("identify", "x.npy", "y.npy", *" ".join(flags).split(), "--eval", "-f", "json")
    assert result.report["findings"] == []


def test_what_nothing_explains_has_a_table_of_what_it_implies(run, save):
    x = np.random.default_rng(0).normal(1, 2, (8, 3, 4))
    mean, var = np.array([0.3, -2.0, 5.0]), np.array([0.4, 2.0, 9.0])
    save("x.npy", x)
    save("y.npy", (x - mean[:, None]) / np.sqrt(var[:, None] + 1e-5))
    result = run("identify", "x.npy", "y.npy", "-f", "json")
    assert [item["code"] for item in result.report["findings"]] == ["BN905"]
    rows = result.report["tables"]["implied"]
    assert [row["channel"] for row in rows] == [0, 1, 2]
    for name, values in (("mean", mean), ("var", var), ("scale", 1 / np.sqrt(var + 1e-5))):
        assert [row[name] for row in rows] == pytest.approx(values, rel=1e-9)
    assert {row["affine"] for row in rows} == {True}
    shown = run("identify", "x.npy", "y.npy").stdout
    assert "implies" in shown


def test_several_inputs_are_one_batch(run, save):
    """An output, and an update, with the mean of the means of inputs of other sizes."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(rng.normal(), 1, (n, 3, 4)) for n in (2, 9, 5)]
    names = [save(f"{i}.npy", part) for i, part in enumerate(parts)]
    whole = np.concatenate(parts)
    mean = np.mean([part.mean((0, 2)) for part in parts], axis=0)
    var = np.mean([part.var((0, 2)) for part in parts], axis=0)
    save("y.npy", (whole - mean[:, None]) / np.sqrt(var[:, None] + 1e-5))
    result = run("identify", *names, "y.npy", "-f", "json")
    first = result.report["tables"]["hypotheses"][0]
    assert (first["mode"], first["explains"]) == ("training", True)
    assert first["variant"] == "the means of the inputs' means and variances"
    assert result.report["facts"]["inputs"] == 3
    flags = []
    for side, values in (("before", (np.zeros(3), np.ones(3))),
                         ("after", (0.1 * mean, 0.9 + 0.1 * var))):  # fmt: skip
        for name, value in zip(("mean", "var"), values, strict=True):
            flags += [f"--running-{name}-{side}", save(f"{name}_{side}.npy", value)]
    result = run("identify", *names, *flags, "-f", "json")
    first = result.report["tables"]["hypotheses"][0]
    assert (first["momentum"], first["explains"]) == (0.1, True)
    assert first["variant"] == "the means of the inputs' means and variances"
    assert [item["code"] for item in result.report["findings"]] == ["BN904"]
