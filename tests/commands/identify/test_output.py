"""Which normalisation made an output, and what the output itself implies."""

from __future__ import annotations

import numpy as np
import pytest
import torch


def test_the_contrast_is_that_of_the_two_outputs(run, layer, folder):
    """ "with eps 1e-5, the output would be off by ..." against torch's own two outputs."""
    best = run("identify", "x.npy", "y.npy", "--state", "bn.pt", "-f", "json").report["facts"][
        "best"
    ]
    layer.eps = 1e-5
    other = layer(torch.from_numpy(np.load(folder / "x.npy"))).detach().numpy()
    off = np.abs(other - np.load(folder / "y.npy")).max((0, 2))
    assert (
        f"with eps 1e-5, the output would be off by {off.max():.2g} in channel {off.argmax()}"
        in best
    )


def test_an_expected_eps_is_not_blamed(run, layer):
    result = run("identify", "x.npy", "y.npy", "--state", "bn.pt", "--eps", "1e-3", "-f", "json")
    assert result.report["findings"] == []
    assert (
        "in training mode with eps 1e-3, the output would be off by"
        in result.report["facts"]["best"]
    )


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
    title = "What the output itself implies"
    assert title in run("identify", "x.npy", "y.npy", "-v").stdout
    assert title not in run("identify", "x.npy", "y.npy").stdout


def test_nan_in_the_output_alone_is_an_error(run, layer, save, folder):
    y = np.load(folder / "y.npy")
    y[3, 1, 2] = np.nan
    save("y.npy", y)
    arguments = ("identify", "x.npy", "y.npy", "--state", "bn.pt", "--eps", "1e-3")
    result = run(*arguments, "-f", "json")
    assert result.code == 1
    (finding,) = result.report["findings"]
    assert (finding["code"], finding["severity"]) == ("BN901", "error")
    assert finding["message"] == "1 of 96 values is NaN where the input is finite"
    assert finding["evidence"] == {"nan": 1, "inf": 0, "total": 96, "channels": [1]}
    assert "The first is at [3, 1, 2]. Channel 1 is left out" in run(*arguments).stdout
    assert "in 2 of 3 channels" in result.report["facts"]["best"]
    assert result.report["facts"]["channels"] == 2
