"""What is measured of each norm: the change without a sample, the noise, the first sample."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.norms import norm_statistics
from tests.commands.compare_norms.samples import NAMES
from tests.commands.conftest import random


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3), (3, 4, 2, 5), (2, 4, 2, 2, 3)])
def test_the_change_is_that_of_torch(rows, save, shape):
    x = random(*shape)
    norms = rows(save("x.npy", x), "--dtype", "float64")
    kind = {2: 1, 3: 1, 4: 2, 5: 3}[x.ndim]
    module = getattr(torch.nn, f"BatchNorm{kind}d")(4, affine=False, dtype=torch.float64)
    wide = torch.from_numpy(x.astype(np.float64))
    expected = float((module(wide)[:-1] - module(wide[:-1])).abs().max())
    assert norms["BatchNorm"]["change_without_one_sample"] == pytest.approx(expected, rel=1e-9)
    for name in NAMES[1:]:
        if name != "InstanceNorm" or x.ndim > 2:
            assert norms[name]["change_without_one_sample"] == 0


def test_the_change_is_measured_and_not_stated(rows, save, monkeypatch):
    """A LayerNorm that looks at the whole batch, which none should, would show."""

    def leaking(norm, x):
        own = norm_statistics(norm, x)
        return replace(own, shift=own.shift + x.sum()) if norm.name == "LayerNorm" else own

    monkeypatch.setattr("bncli.norms.norm_statistics", leaking)
    norms = rows(save("x.npy", random(4, 3, 5)))
    assert norms["LayerNorm"]["change_without_one_sample"] > 1
    assert norms["GroupNorm"]["change_without_one_sample"] == 0


def test_rounding_is_no_change(rows, save):
    """Sums over other numbers of rows may differ in the last bit."""
    for seed in range(5):
        x = save("x.npy", np.random.default_rng(seed).normal(size=(2, 4, 4)))
        norms = rows(x, "--channel-axis", "-1")
        assert [norms[name]["change_without_one_sample"] for name in NAMES[1:]] == [0] * 4


def test_noise_is_the_standard_error(rows, save):
    x = random(50, 2, 3).astype(np.float64)
    path = save("x.npy", x)
    by_norm = rows(path)
    for name, count in zip(NAMES, (150, 6, 3, 6, 6), strict=True):
        assert by_norm[name]["count"] == count
        if name != "RMSNorm":
            assert by_norm[name]["mean_noise"] == pytest.approx(1 / math.sqrt(count))
            assert by_norm[name]["var_noise"] == pytest.approx(math.sqrt(2 / (count - 1)))
    assert by_norm["RMSNorm"]["mean_noise"] is None
    assert by_norm["RMSNorm"]["var_noise"] == pytest.approx(math.sqrt(2 / 6))
    for row in rows(path, table="noise"):
        values = x[:, row["channel"]]
        assert row["mean_noise"] == pytest.approx(1 / math.sqrt(150))
        apart = values - values.mean()
        excess = (apart**4).mean() / values.var() ** 2 - 3
        assert row["var_noise"] == pytest.approx(math.sqrt(2 / 149 + excess / 150))
        means = values.mean(1)
        assert row["mean_noise_measured"] == pytest.approx(
            means.std(ddof=1) / math.sqrt(50) / values.std()
        )
        assert row["var_noise_measured"] == pytest.approx(row["var_noise"], rel=0.5)


def test_noise_needs_three_samples(rows, save):
    for count, known in ((1, False), (2, False), (3, True)):
        (row,) = rows(save("x.npy", random(count, 1, 6)), table="noise")
        assert (row["mean_noise_measured"] is not None) is known
        assert (row["var_noise_measured"] is not None) is known


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(rows, save, dtype):
    x = torch.from_numpy(random(4, 6, 5)).to(getattr(torch, dtype))
    norms = rows(save("x.pt", x), "--against", "torch")
    assert norms["LayerNorm"]["mean"] == pytest.approx(float(x[0].double().mean()), rel=1e-12)
    cast = rows(save("x.npy", random(4, 6, 5)), "--dtype", dtype, "--against", "torch")
    assert cast["LayerNorm"]["mean"] == norms["LayerNorm"]["mean"]


def test_channel_chooses_what_is_shown(rows, save):
    x = random(3, 6, 4).astype(np.float64)
    path = save("x.npy", x)
    norms = rows(path, "--channel", "4", "--groups", "2")
    assert norms["BatchNorm"]["mean"] == pytest.approx(x[:, 4].mean(), rel=1e-13)
    assert norms["InstanceNorm"]["mean"] == pytest.approx(x[0, 4].mean(), rel=1e-13)
    assert norms["GroupNorm"]["mean"] == pytest.approx(x[0, 3:].mean(), rel=1e-13)
    assert [row["channel"] for row in rows(path, "--channel", "1,4", table="noise")] == [1, 4]
    first = rows(path, "--channel", "1,4", "--first-values", "6", table="first_sample")
    assert [row["index"] for row in first] == [[0, c, i] for c in (1, 4) for i in range(3)]
    assert [row["x"] for row in first] == [x[tuple(row["index"])] for row in first]


@pytest.mark.parametrize(
    ("shape", "flags", "count"),
    [
        ((3, 6, 4), (), 6),
        ((3, 2, 9), (), 8),
        ((3, 2, 9), ("--first-values", 1), 1),
        ((3, 2, 9), ("--first-values", 100), 18),
        ((3, 1000), (), 8),
        ((3, 5), ("--first-values", 3), 3),
    ],
)
def test_as_many_values_as_asked_for_are_shown(rows, save, shape, flags, count):
    assert len(rows(save("x.npy", random(*shape)), *flags, table="first_sample")) == count


def test_strided_tensors_are_those_they_show(rows, save):
    x = torch.from_numpy(random(4, 6, 3, 5))
    for name, given in {
        "last.pt": x.contiguous(memory_format=torch.channels_last),
        "step.pt": x[:, :, ::2],
        "turned.pt": x.transpose(0, 1),
    }.items():
        strided = rows(save(name, given), "--against", "torch")
        plain = rows(save("plain.npy", given.contiguous().numpy()))
        for norm in NAMES:
            keys = ("invstd", "change_without_one_sample")
            for key in keys if norm == "RMSNorm" else ("mean", "var", *keys):
                assert strided[norm][key] == pytest.approx(plain[norm][key], rel=1e-12)


@pytest.mark.parametrize("axis", [1, -1])
def test_a_few_samples_at_a_time_give_the_same(rows, save, monkeypatch, axis):
    """As large inputs are read: in runs of samples."""
    x = save("x.npy", random(9, 4, 6).astype(np.float64))
    flags = ("--channel-axis", axis)
    whole = [rows(x, *flags, table=table) for table in ("noise", "first_sample")]
    norms = rows(x, *flags)
    monkeypatch.setattr("bncli.norms.BLOCK_ELEMENTS", 50)
    again = [rows(x, *flags, table=table) for table in ("noise", "first_sample")]
    for one, other in zip(whole, again, strict=True):
        for before, after in zip(one, other, strict=True):
            assert before.pop("index", None) == after.pop("index", None)
            assert after == pytest.approx(before, rel=1e-12)
    for name, row in rows(x, *flags).items():
        assert row["invstd"] == pytest.approx(norms[name]["invstd"], rel=1e-12)
        assert row["change_without_one_sample"] == norms[name]["change_without_one_sample"]


def test_what_pytorch_refuses_is_a_row_that_says_so(rows, save):
    flags = ("--against", "torch")
    norms = rows(save("x.npy", random(4, 3)), *flags)
    assert norms["InstanceNorm"]["note"].startswith("undefined: one value a statistic")
    for key in ("mean", "var", "invstd", "change_without_one_sample"):
        assert norms["InstanceNorm"][key] is None
    found = rows("x.npy", *flags, table="differences")
    assert not [row for row in found if row["quantity"].startswith("InstanceNorm")]
    one = rows(save("one.npy", random(1, 3)), "--groups", 3, *flags)
    assert [name for name in NAMES if "refuses" in one[name]["note"]] == [
        "BatchNorm", "InstanceNorm", "GroupNorm",
    ]  # fmt: skip
    two = rows(save("two.npy", random(2, 3)), "--groups", 3, *flags)
    assert two["GroupNorm"]["note"] == (
        "3 groups of 1 channel: one value a group, so that the output is 0"
    )
    first = rows("two.npy", "--groups", 3, table="first_sample")
    assert [row["GroupNorm"] for row in first] == [0, 0, 0]


def test_the_refusals_are_those_of_torch():
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        torch.nn.InstanceNorm1d(3)(torch.zeros(2, 3, 1))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        torch.nn.BatchNorm1d(3)(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        torch.nn.GroupNorm(3, 3)(torch.zeros(1, 3))
    assert torch.nn.GroupNorm(3, 3)(torch.ones(2, 3)).abs().max() == 0


def test_far_values_can_be_told_apart(run, save):
    x = (1e6 + np.arange(12.0).reshape(4, 3)).astype(np.float32)
    text = run("compare-norms", save("x.npy", x), "--first-values", 3).stdout
    assert all(f"{value:.9g} " in text for value in x[0])
