"""Which convention an update of running statistics followed."""

from __future__ import annotations

import numpy as np
import torch

from tests.commands.identify.samples import KEYS


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


def test_the_update_has_its_own_words_and_fix(run, save):
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    save("x.npy", x)
    flags = []
    after = 0.1 * x.mean(0), 0.9 + 0.1 * x.var(0)
    for side, values in (("before", (np.zeros(3), np.ones(3))), ("after", after)):
        for name, value in zip(("mean", "var"), values, strict=True):
            path = save(f"{name}_{side}.npy", value.astype(np.float32))
            flags += [f"--running-{name}-{side}", path]
    lines = run("identify", "x.npy", *flags, "--width", "80").stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    words = " ".join(" ".join(lines).split())
    assert words.startswith("the update by x.npy float32 (8, 3), 8 values per channel expected:")
    assert "running_var takes the biased variance, but PyTorch's takes the unbiased one" in words
    assert "help: Multiply the batch variance by n / (n - 1)" in words
    assert "WARN the update has momentum 0.1 (0.9 in Keras) and the biased variance" in words
    assert "tried; onnx, onnx-9, mxnet" in words
