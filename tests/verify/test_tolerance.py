"""The tolerance raises no false alarm, is tight, and lets no real fault through."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from statistics import median

import numpy as np
import pytest
import torch

from bncli.backends import BackendName, backend
from bncli.backends.arithmetic import Arithmetic
from bncli.backends.interface import QUANTITIES
from bncli.backends.torch.tensors import repeats
from bncli.batchnorm import BlockNormalizer, gradient_sums, normalization
from bncli.dtypes import DTYPES
from bncli.model import BatchNormSettings
from bncli.moments import channel_stats
from bncli.running_stats import update_factor
from bncli.verify.batch_norm_pass import upstream_gradient
from bncli.verify.comparison import compare_pass
from bncli.verify.tolerance import Tolerances
from tests.configurations import Configuration, configuration
from tests.sampling import sampled, some

TORCH = backend(BackendName.TORCH)
CONFIGURATIONS = range(240)


@pytest.mark.parametrize("seed", sampled(CONFIGURATIONS, lambda place: place < 80))
def test_statistics_are_exact(seed):
    """Mean to 1e-12 of max(|mean|, std) and var to 1e-12 of itself, against math.fsum."""
    config = configuration(seed)
    stats = channel_stats(config.x, config.channel_axis)
    table = np.moveaxis(config.x, config.channel_axis, 0).reshape(stats.num_features, -1)
    for channel, values in enumerate(table.astype(np.float64)):
        mean = Fraction(math.fsum(values)) / len(values)
        # Deviations from a float64 near the mean are exact enough, and the rest is corrected.
        near = float(mean)
        deviations = values - near
        correction = math.fsum(deviations) / len(values)
        var = math.fsum(deviations * deviations) / len(values) - correction**2
        scale = max(abs(near), math.sqrt(var))
        assert abs(Fraction(stats.mean[channel]) - mean) <= Fraction(1e-12) * Fraction(scale)
        assert abs(stats.var[channel] - var) <= 1e-12 * var


@pytest.mark.parametrize(
    "seeds", [range(80), pytest.param(CONFIGURATIONS, marks=pytest.mark.exhaustive)], ids=str
)
def test_no_false_alarm_and_tight(seeds):
    """Every healthy run passes; the median run uses at least 1 % of each tolerance."""
    used: dict[str, list[float]] = {}
    alarms = []
    for seed in seeds:
        compared, _ = compare_pass(configuration(seed).done(), configuration(seed).x, TORCH, seed=0)
        for item in compared:
            used.setdefault(item.quantity, []).append(item.used)
            if not item.passed:
                alarms.append((seed, item))
    assert not alarms
    assert set(used) == set(QUANTITIES)
    for quantity, shares in used.items():
        if quantity != "num_batches_tracked":  # which is exact
            assert median(shares) >= 0.01, quantity
    assert median(share for shares in used.values() for share in shares) >= 0.05


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("seeds", some(range(1000, 1080), 20), ids=str)
def test_no_false_alarm_at_any_number_of_threads(threads, seeds):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for seed in seeds:
            config = configuration(seed, largest=20_000)
            compared, _ = compare_pass(config.done(), config.x, TORCH, seed=seed)
            assert [item for item in compared if not item.passed] == [], seed
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("seeds", some(range(2000, 2120), 30), ids=str)
def test_no_false_alarm_where_the_order_of_additions_is_unknown(monkeypatch, seeds):
    monkeypatch.setattr("bncli.backends.torch.tensors.REPEATED_VERSION", "another release")
    for seed in seeds:
        config = configuration(seed, largest=20_000)
        compared, run = compare_pass(config.done(), config.x, TORCH, seed=seed)
        assert not run.arithmetic.order_known
        assert [item for item in compared if not item.passed] == [], seed


@pytest.mark.parametrize("channels", [1, 8, 64, 2048])
def test_the_worst_of_many_channels_strays_no_more_often_than_one_does(channels):
    """Of normal errors: one is beyond four deviations as seldom as any of many, beyond theirs."""
    x = np.random.default_rng(0).normal(size=(64, 1))

    def bound(copies):
        repeated = np.repeat(x, copies, axis=1)
        arithmetic = Arithmetic.plain("float32", "float32", 64)
        stats, settings = channel_stats(repeated), BatchNormSettings()
        norm = normalization(stats, None, None, None, settings)
        sums = gradient_sums(repeated, repeated, norm, 1)
        return Tolerances.of(arithmetic, stats, norm, settings, None).grad_bias(sums).atol[0]

    deviations = 4 * bound(channels) / bound(1)
    often = channels * math.erfc(deviations / math.sqrt(2)) / math.erfc(4 / math.sqrt(2))
    assert 0.5 < often <= 1 + 1e-9


class Faulty:
    """PyTorch, but with one fault planted; keeps the healthy run beside the faulty one."""

    name = "torch"

    def __init__(self, fault):
        self.fault = fault

    def version(self):
        return TORCH.version()

    def run(self, call):
        self.call = call
        self.healthy = TORCH.run(call)
        self.faulty = self.fault(call, self.healthy)
        return self.faulty


def eps_1e_3_for_1e_5(call, _healthy):
    return TORCH.run(replace(call, settings=replace(call.settings, eps=1e-3)))


def weight_of_one_channel_ignored(call, _healthy):
    return TORCH.run(replace(call, weight=np.concatenate(([1.0], call.weight[1:]))))


def biased_variance_into_running_var(call, healthy):
    quantities = dict(healthy.quantities)
    factor = update_factor(call.settings.momentum, call.running.num_batches_tracked + 1)
    running_var = (1 - factor) * call.running.running_var + factor * quantities["var"]
    quantities["running_var"] = running_var.astype(call.parameter_dtype)
    return replace(healthy, quantities=quantities)


def planted(seed: int) -> list[tuple[Configuration, object]]:
    """The faults that this configuration can have."""
    config = configuration(seed)
    faults = [(config.with_eps(1e-5), eps_1e_3_for_1e_5)]
    if config.settings.affine:
        faults.append((config, weight_of_one_channel_ignored))
    if config.settings.training and config.running is not None and config.count <= 1000:
        faults.append((config, biased_variance_into_running_var))
    return faults


def digits_changed(config: Configuration, run: Faulty) -> list[str]:
    """Quantities in which the fault changes a digit that float32 keeps, in some channel.

    A digit is kept if it is ten times above PyTorch's own distance from the exact result in that
    channel, and above its unit roundoff; a channel whose values are lost altogether keeps none.
    bncli's tolerances have no part in this.
    """
    done = config.done()
    grad_output = upstream_gradient(config.x.shape, config.dtype, 0)
    sums = gradient_sums(config.x, grad_output, done.norm, config.channel_axis)
    normalizer = BlockNormalizer(done.norm, config.x.ndim, config.channel_axis)
    whole = tuple(slice(0, size) for size in config.x.shape)
    exact = {
        "invstd": done.norm.invstd,
        "output": normalizer.output(config.x, whole),
        "grad_input": normalizer.grad_input(
            config.x, grad_output, sums, config.count, whole, config.settings
        ),
        "grad_weight": sums.g_x_hat,
    }
    if done.after is not None:
        exact["running_var"] = done.after.running_var
    changed = []
    for quantity in exact.keys() & run.healthy.quantities.keys():
        healthy = run.healthy.quantities[quantity].astype(np.float64)
        faulty = run.faulty.quantities[quantity].astype(np.float64)
        other = tuple(
            axis for axis in range(healthy.ndim) if healthy.ndim > 1 and axis != config.channel_axis
        )
        held = config.dtype if healthy.ndim > 1 else config.parameter_dtype
        lost = np.abs(healthy - exact[quantity]).max(other)
        lost += DTYPES[held].unit_roundoff * np.abs(exact[quantity]).max(other)
        kept = lost < 0.1 * np.abs(exact[quantity]).max(other)
        if (kept & (np.abs(faulty - healthy).max(other) > 10 * lost)).any():
            changed.append(quantity)
    return changed


@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(CONFIGURATIONS, marks=pytest.mark.exhaustive)], ids=str
)
def test_real_faults_are_caught(seeds):
    """In every configuration where the fault changes a digit that float32 keeps."""
    caught: dict[str, int] = {}
    for seed in seeds:
        for config, fault in planted(seed):
            run = Faulty(fault)
            compared, _ = compare_pass(config.done(), config.x, run, seed=0)
            failed = [item.quantity for item in compared if not item.passed]
            changed = digits_changed(config, run)
            if config.parameter_dtype in ("float16", "bfloat16"):
                continue  # nothing is kept in float32
            # Where its additions are not repeated, the tolerance allows for another order of them.
            assert failed or not changed or not repeats(), (seed, fault.__name__, changed)
            caught[fault.__name__] = caught.get(fault.__name__, 0) + bool(failed)
    assert len(caught) == 3
    assert min(caught.values()) > len(seeds) // 6, caught


@pytest.mark.parametrize(
    ("fault", "quantity"),
    [
        (eps_1e_3_for_1e_5, "invstd"),
        (weight_of_one_channel_ignored, "output"),
        (biased_variance_into_running_var, "running_var"),
    ],
)
def test_a_fault_is_exit_code_1(run, save, monkeypatch, fault, quantity):
    """Through the command line: the quantity is named, and the healthy run passes."""
    x = save("x.npy", np.random.default_rng(0).normal(2, 1, (50, 3, 20)).astype(np.float32))
    argv = ["compute", x, "--weight", save("w.npy", np.array([1.01, 1.0, 2.0]))]
    argv += ["--against", "torch", "-f", "json"]
    assert run(*argv).code == 0
    monkeypatch.setattr("bncli.backends.torch.BACKEND", Faulty(fault))
    result = run(*argv)
    assert result.code == 1
    findings = result.report["findings"]
    assert {finding["code"] for finding in findings} == {"BN901"}
    assert quantity in {finding["subject"] for finding in findings}
