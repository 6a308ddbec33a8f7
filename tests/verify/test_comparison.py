"""Values below the normal range: PyTorch with and without flush-to-zero, and nobody is blamed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.backends import BackendName, backend
from bncli.dtypes import decode, encode
from bncli.model import BatchNormSettings, RunningStats
from bncli.moments import channel_stats
from bncli.norms import describe
from bncli.verify.batch_norm_pass import Path
from bncli.verify.comparison import compare_channels
from bncli.verify.norms import compare_norms
from tests.configurations import Configuration, configuration
from tests.sampling import sampled

TORCH = backend(BackendName.TORCH)

TINY = {"float16": 1e-5, "bfloat16": 1e-38, "float32": 1e-38, "float64": 1e-308}
"""About where the normal range of a dtype ends."""


class Flushing:
    """PyTorch in a process that flushes subnormals; bncli's own float64 does not."""

    name = "torch"

    def _flushed(self, run, call):
        assert torch.set_flush_denormal(True)
        try:
            return run(call)
        finally:
            torch.set_flush_denormal(False)

    def run(self, call):
        return self._flushed(TORCH.run, call)

    def run_norm(self, call):
        return self._flushed(TORCH.run_norm, call)


def tiny_configuration(seed: int):
    """A configuration of which each tensor is of usual size, subnormal, or the root of that."""
    rng = np.random.default_rng(seed)
    config = configuration(seed, largest=2000)
    held = "float64" if config.dtype == "float64" else "float32"

    def size() -> float:
        kind = rng.integers(3)
        low = TINY[config.dtype] * float(np.exp(rng.uniform(-12, 12)))
        return float([1.0, low, np.sqrt(low)][kind])

    def rounded(values, dtype):
        return None if values is None else decode(encode(values, dtype), dtype)

    def parameter(values):
        return None if values is None else rounded(values * size(), held).astype(np.float64)

    x = config.x.astype(np.float64) / max(1.0, float(np.abs(config.x).max())) * size()
    if rng.random() < 0.5:  # here and there another size
        x = np.where(rng.random(x.shape) < 0.3, rng.standard_normal(x.shape) * size(), x)
    running = config.running
    if running is not None:
        running = RunningStats(parameter(running.running_mean), parameter(running.running_var), 3)
    config = replace(
        config,
        x=rounded(x, config.dtype),
        weight=parameter(config.weight),
        bias=parameter(config.bias),
        running=running,
    ).with_eps(float(rng.choice([1e-5, 1e-12, 1e-30])))
    g = rounded(rng.standard_normal(x.shape) * size(), config.dtype)
    return config, g


@pytest.mark.parametrize("library", [TORCH, Flushing()], ids=["plain", "flushing"])
@pytest.mark.parametrize("seed", sampled(range(60), lambda place: place < 20))
def test_no_quantity_is_blamed(seed, library):
    config, g = tiny_configuration(seed)
    usual = config.settings.eps > 1e-13
    compared = compare_channels(
        config.done(), config.x, library, seed=seed, grad_output=g, tolerance=None, path=Path()
    )
    assert [item.whole for item in compared.quantities if not item.whole.passed] == []
    if config.channel_axis and usual:
        norms = describe(
            config.x.shape, config.channel_axis, groups=1, normalized=config.x.ndim - 1,
            eps=1e-5, rms_eps=1e-5,
        )  # fmt: skip
        stats = channel_stats(config.x, config.channel_axis)
        others = compare_norms(norms, config.x, config.dtype, stats, library).compared
        assert [item for item in others if not item.passed] == []


@pytest.mark.parametrize("mode", ["--training", "--eval"])
def test_a_gradient_of_subnormal_values_agrees(run, save, mode):
    """sum(g * x_hat) over products that lose their digits, by either command."""
    x = (np.random.default_rng(0).normal(size=(64, 3, 5)) * 1e-40).astype(np.float32)
    save("x.npy", x)
    for command in (("diff", "x.npy"), ("compute", "x.npy", "--against", "torch")):
        report = run(*command, mode, "-f", "json").report
        assert "BN901" not in [finding["code"] for finding in report["findings"]]
        assert {row["passed"] for row in report["tables"]["differences"]} == {True}


@pytest.mark.parametrize("training", [True, False])
def test_a_real_difference_beside_subnormal_values_is_told(training):
    """A bias that is off by 1e-30, in an output of 1e-38 and less."""
    x = (np.random.default_rng(0).normal(size=(64, 3, 5)) * 1e-40).astype(np.float32)
    config = Configuration(
        x, "float32", 1, BatchNormSettings(affine=False, training=training), None, None,
        RunningStats(np.zeros(3), np.ones(3), 0),
    )  # fmt: skip
    done = config.done()
    wrong = replace(done, norm=replace(done.norm, bias=done.norm.bias + 1e-30))
    compared = compare_channels(wrong, x, TORCH, seed=1, tolerance=None, path=Path())
    told = {item.whole.quantity for item in compared.quantities if not item.whole.passed}
    assert told == {"output"}


@pytest.mark.parametrize("where", ["input", "gradient"])
def test_a_real_difference_beside_an_infinity_is_told(where):
    """In evaluation each value stands for itself: one infinity excuses no other of its channel."""
    x, g = np.random.default_rng(0).normal(size=(2, 8, 3, 5)).astype(np.float32)
    (x if where == "input" else g)[0, 1, 2] = np.inf
    config = Configuration(
        x, "float32", 1, BatchNormSettings(affine=False, training=False), None, None,
        RunningStats(np.zeros(3), np.ones(3), 0),
    )  # fmt: skip
    done = config.done()

    def told(norm):
        compared = compare_channels(
            replace(done, norm=norm), x, TORCH, seed=1, grad_output=g, tolerance=None,
            path=Path(),
        )  # fmt: skip
        return {
            item.whole.quantity: [n for n, part in enumerate(item.channels) if not part.passed]
            for item in compared.quantities
            if not item.whole.passed
        }

    assert told(done.norm) == {}
    wrong = told(replace(done.norm, invstd=done.norm.invstd * np.array([1, 1.1, 1])))
    for quantity in ("output", "grad_input"):
        assert wrong[quantity] == [1]
