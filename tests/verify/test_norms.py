"""Norms against PyTorch: no false alarm, tight, and no real fault goes through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.backends.interface import NormRun
from bncli.moments import channel_stats
from bncli.norms import BATCH, GROUP, INSTANCE, LAYER, RMS, describe, norm_statistics
from bncli.verify.norms import compare_norms
from tests.verify.norm_cases import TORCH, case, compared

NAMES = (BATCH, LAYER, INSTANCE, GROUP, RMS)


# ---------------------------------------------------------------------------- planted faults


class Faulty:
    """PyTorch with a fault in one norm."""

    name = "torch"

    def __init__(self, name, fault):
        self.chosen, self.fault = name, fault

    def run_norm(self, call) -> NormRun:
        run = TORCH.run_norm(call)
        return self.fault(call, run) if call.norm.name == self.chosen else run


def another_eps(call, _run):
    return TORCH.run_norm(replace(call, norm=replace(call.norm, eps=1e-3, eps_given=True)))


def no_mean_subtracted(call, run):
    own = norm_statistics(call.norm, call.x)
    invstd = np.broadcast_to(own.invstd, own.norm.kept)
    whole = tuple(slice(0, size) for size in call.x.shape)
    return replaced(run, output=run.quantities["output"] + own.at(own.mean * invstd, whole))


def mean_subtracted(call, run):
    """LayerNorm in RMSNorm's place."""
    axes = call.norm.axes
    x = call.x.astype(np.float64)
    apart = x - x.mean(axes, keepdims=True)
    return replaced(run, output=apart / np.sqrt((apart**2).mean(axes, keepdims=True) + 1e-7))


def unbiased_variance(call, run):
    count = call.norm.count
    scale = np.sqrt((count - 1) / count)
    quantities = {name: run.quantities[name] * scale for name in ("invstd", "output")}
    return replaced(run, **quantities)


def another_axis(call, run):
    """Another axis taken for the channels, where both have the same size."""
    turned = np.ascontiguousarray(np.swapaxes(call.x, 1, 2))
    again = TORCH.run_norm(replace(call, x=turned))
    return replaced(run, output=np.swapaxes(again.quantities["output"], 1, 2))


def other_groups(call, run):
    swapped = np.ascontiguousarray(call.x[:, ::-1])
    again = TORCH.run_norm(replace(call, x=np.concatenate((swapped[:, 1:], swapped[:, :1]), 1)))
    return replaced(run, mean=again.quantities["mean"], invstd=again.quantities["invstd"])


def replaced(run, **quantities):
    """The run with other values, kept as the healthy ones were."""
    kept = {name: values.astype(run.quantities[name].dtype) for name, values in quantities.items()}
    return replace(run, quantities={**run.quantities, **kept})


FAULTS = [
    *((name, another_eps, {"invstd", "output"}) for name in NAMES),
    *((name, no_mean_subtracted, {"output"}) for name in (BATCH, LAYER, INSTANCE, GROUP)),
    (RMS, mean_subtracted, {"output"}),
    *((name, unbiased_variance, {"invstd", "output"}) for name in NAMES),
    *((name, another_axis, {"output"}) for name in (BATCH, INSTANCE, GROUP)),
    (GROUP, other_groups, {"mean", "invstd"}),
]


@pytest.mark.parametrize("mean", [0.3, 20.0])
@pytest.mark.parametrize(
    ("name", "fault", "quantities"), FAULTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_fault_is_found_where_it_is(name, fault, quantities, mean):
    x = np.random.default_rng(1).normal(mean, 1.0, (4, 8, 8, 8)).astype(np.float32)
    norms = describe(x.shape, 1, groups=2, normalized=3, eps=None, rms_eps=2.0**-23)
    stats = channel_stats(x)
    healthy = compare_norms(norms, x, "float32", stats, TORCH).compared
    assert all(item.passed for item in healthy)
    found = compare_norms(norms, x, "float32", stats, Faulty(name, fault)).compared
    wrong = {item.quantity for item in found if not item.passed}
    if name == RMS and fault is another_eps and mean > 1:
        assert wrong in (set(), {"RMSNorm invstd", "RMSNorm output"})  # 1e-3 beside 400
    else:
        assert wrong == {f"{name} {quantity}" for quantity in quantities}


@pytest.mark.parametrize(
    "seeds", [range(75), pytest.param(range(300), marks=pytest.mark.exhaustive)], ids=str
)
def test_faults_are_found_at_random(seeds):
    """Another eps and a forgotten mean, wherever they change a digit that float32 keeps."""
    caught = 0
    for seed in seeds:
        norms, x, dtype, stats = case(seed, largest=5000)
        if dtype not in ("float32", "float64"):
            continue
        for norm in norms:
            if norm.refused or norm.eps == 1e-3:
                continue
            for fault in (another_eps, no_mean_subtracted):
                if fault is no_mean_subtracted and norm.name == RMS:
                    continue
                broken = Faulty(norm.name, fault)
                healthy = compare_norms([norm], x, dtype, stats, TORCH).compared[-1]
                found = compare_norms([norm], x, dtype, stats, broken).compared[-1]
                # What the fault changes, beside the distance of the healthy run and what is kept.
                extent = abs(found.expected) + abs(found.actual)
                kept = 1e-6 if dtype == "float32" else 1e-14
                if found.max_abs_diff > 100 * (healthy.max_abs_diff + kept * extent):
                    assert not found.passed, (seed, norm.name, fault.__name__)
                    caught += 1
    assert caught > len(seeds)


# ---------------------------------------------------------------------------- what else is promised


def test_a_tolerance_replaces_the_derived_one():
    norms, x, dtype, stats = case(3)
    found = compare_norms(norms, x, dtype, stats, TORCH, (0.25, 0.5)).compared
    assert {(item.rtol, item.atol) for item in found} == {(0.25, 0.5)}
    strict = compare_norms(norms, x, dtype, stats, TORCH, (0.0, 0.0)).compared
    assert not all(item.passed for item in strict)


def test_a_norm_that_the_library_lacks_is_left_out(monkeypatch):
    monkeypatch.delattr(torch.nn, "RMSNorm")
    norms, x, dtype, stats = case(0)
    done = compare_norms(norms, x, dtype, stats, TORCH)
    assert done.missing == ("RMSNorm",)
    assert not any(item.quantity.startswith("RMSNorm") for item in done.compared)


def test_a_release_without_the_statistic_is_compared_by_its_output(monkeypatch):
    def other_arguments(*_):
        raise TypeError

    monkeypatch.setattr(torch.ops.aten, "_fused_rms_norm", other_arguments)
    found = {item.quantity for item in compared(0)}
    assert "RMSNorm output" in found
    assert "RMSNorm invstd" not in found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_difference(value):
    x = np.random.default_rng(0).normal(size=(3, 4, 20)).astype(np.float32)
    x[1, 2, 7] = value
    norms = describe(x.shape, 1, groups=2, normalized=2, eps=None, rms_eps=2.0**-23)
    found = compare_norms(norms, x, "float32", channel_stats(x), TORCH).compared
    assert [item.quantity for item in found if not item.passed] == []


def test_the_index_is_in_the_users_axes():
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)

    def fault(call, run):
        output = run.quantities["output"].copy()
        output[1, 3, 2] += 1
        return replaced(run, output=output)

    norms = describe(x.shape, 2, groups=2, normalized=1, eps=None, rms_eps=2.0**-23)
    for norm in norms:
        broken = Faulty(norm.name, fault)
        found = compare_norms([norm], x, "float32", channel_stats(x, 2), broken).compared[-1]
        assert (found.index, found.mismatched) == ((1, 3, 2), 1)
