"""The tensors of `bncli identify`, opened and handed on."""

from __future__ import annotations

import numpy as np


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
