"""The norms that the flags describe: groups, shapes and eps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bncli.arguments.input import open_input
from bncli.commands.compare_norms.flags import NormFlags, SampledFlags
from bncli.errors import UsageError
from tests.commands.compare_norms.samples import NAMES
from tests.commands.conftest import random


def test_sequences(rows, run, save):
    """(N, T, D) with the channels last: LayerNorm over D, BatchNorm as transposed."""
    x = random(3, 5, 4)
    path = save("x.npy", x)
    norms = rows(path, "--channel-axis", "-1", "--against", "torch")
    assert norms["LayerNorm"]["axes"] == [2]
    assert norms["LayerNorm"]["statistics_shape"] == [3, 5]
    assert norms["BatchNorm"]["axes"] == [0, 1]
    assert norms["BatchNorm"]["mean"] == pytest.approx(x[:, :, 0].astype(float).mean(), rel=1e-13)
    assert norms["LayerNorm"]["mean"] == pytest.approx(x[0, 0].astype(float).mean(), rel=1e-13)
    assert norms["InstanceNorm"]["mean"] == pytest.approx(x[0, :, 0].astype(float).mean())
    whole = rows(path, "--channel-axis", "-1", "--normalized-shape", "5,4")["LayerNorm"]
    assert (whole["axes"], whole["statistics_shape"]) == ([1, 2], [3])
    assert whole["mean"] == pytest.approx(x[0].astype(float).mean(), rel=1e-13)
    transposed = save("t.npy", np.ascontiguousarray(x.transpose(0, 2, 1)))
    again = rows(transposed)
    for name in ("BatchNorm", "InstanceNorm", "GroupNorm"):
        for key in ("mean", "var", "count", "change_without_one_sample"):
            assert norms[name][key] == pytest.approx(again[name][key], rel=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_groups(rows, run, save, groups):
    x = random(3, 6, 4).astype(np.float64)
    row = rows(save("x.npy", x), "--groups", groups, "--against", "torch")["GroupNorm"]
    assert row["statistics_shape"] == [3, groups]
    assert row["mean"] == pytest.approx(x[0, : 6 // groups].mean(), rel=1e-13)
    assert row["var"] == pytest.approx(x[0, : 6 // groups].var(), rel=1e-12)
    assert row["note"].startswith(f"{groups} group")
    facts = run("compare-norms", "x.npy", "--groups", groups, "-f", "json").report["facts"]
    assert facts["groups"] == groups


def test_eps(rows, run, save):
    x = save("x.npy", random(3, 6, 4).astype(np.float64))
    default = rows(x)
    assert [default[name]["eps"] for name in NAMES] == [1e-5] * 4 + [2.0**-52]
    assert rows(x, "--dtype", "float32")["RMSNorm"]["eps"] == 2.0**-23
    assert rows(x, "--dtype", "bfloat16")["RMSNorm"]["eps"] == 2.0**-23
    chosen = rows(x, "--eps", "0.5", "--against", "torch")
    assert [chosen[name]["eps"] for name in NAMES] == [0.5] * 5
    for name in NAMES[:4]:
        assert chosen[name]["invstd"] == pytest.approx((chosen[name]["var"] + 0.5) ** -0.5)


@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 4), 1), ((6, 3, 4), 1), ((5, 2, 3, 4), -1), ((1, 3, 2), 1)], ids=str
)
@pytest.mark.parametrize("value", [None, np.nan, np.inf])
def test_a_norm_of_all_axes_spans_the_samples(run, save, shape, axis, value):
    """As PyTorch allows: one statistic in all, so that the batch matters, and none is kept."""
    x = np.random.default_rng(0).normal(100, 3, shape).astype(np.float32)
    if value is not None:
        x[(0,) * x.ndim] = value
    result = run(
        "compare-norms", save("x.npy", x), "--normalized-shape", ",".join(map(str, shape)),
        "--channel-axis", axis, "--against", "torch", "-f", "json",
    )  # fmt: skip
    assert result.code == (0 if value is None else 1)
    assert "BN901" not in [finding["code"] for finding in result.report["findings"]]
    rows = {row["norm"]: row for row in result.report["tables"]["norms"]}
    for name in ("LayerNorm", "RMSNorm"):
        row = rows[name]
        assert (row["statistics_shape"], row["affine_shape"]) == ([], list(shape))
        assert (row["depends_on_batch"], row["running_stats"]) == (True, False)
        assert row["count"] == x.size
    if value is None:
        wide = x.astype(np.float64)
        assert rows["LayerNorm"]["mean"] == pytest.approx(wide.mean(), rel=1e-12)
        assert rows["LayerNorm"]["var"] == pytest.approx(wide.var(), rel=1e-10)
        change = rows["LayerNorm"]["change_without_one_sample"]
        rest = wide[:-1]
        if len(rest):
            here, there = (
                (rest - part.mean()) / np.sqrt(part.var() + 1e-5) for part in (wide, rest)
            )
            assert change == pytest.approx(np.abs(here - there).max(), rel=1e-6)
        else:
            assert change is None


@pytest.mark.parametrize(
    ("flags", "channels", "sentence"),
    [
        (
            NormFlags(groups=4),
            6,
            (
                "--groups 4: the number of groups must divide the number of channels, 6: "
                "choose 1, 2, 3 or 6."
            ),
        ),
        (
            NormFlags(groups=0),
            2,
            (
                "--groups 0: the number of groups must divide the number of channels, 2: "
                "choose 1 or 2."
            ),
        ),
        (
            NormFlags(groups=4),
            2,
            (
                "--groups 4: the number of groups must divide the number of channels, 2: "
                "choose 1 or 2."
            ),
        ),
        (
            NormFlags(groups=7),
            360,
            (
                "--groups 7: the number of groups must divide the number of channels, 360: "
                "choose 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 18 or another divisor."
            ),
        ),
        (
            NormFlags(normalized_shape="2"),
            6,
            (
                "--normalized-shape 2: it must be the sizes of the last axes of shape [4, 6, 3]: "
                "choose 3 or 6,3 or 4,6,3."
            ),
        ),
        (
            NormFlags(normalized_shape="1,4,6,3"),
            6,
            (
                "--normalized-shape 1,4,6,3: it must be the sizes of the last axes of shape "
                "[4, 6, 3]: choose 3 or 6,3 or 4,6,3."
            ),
        ),
    ],
)
def test_what_does_not_fit_is_refused(save, flags, channels, sentence):
    given = open_input([save("x.npy", np.ones((4, channels, 3), np.float32))], 1, None)
    with pytest.raises(UsageError) as refused:
        flags.norms(given)
    assert str(refused.value) == sentence


@pytest.mark.parametrize("eps", [0.0, -1.0, math.inf, math.nan])
def test_an_eps_that_is_none_is_refused(eps):
    with pytest.raises(UsageError, match="eps must be a finite number above 0"):
        NormFlags(eps=eps).check()


def test_samples_lie_on_axis_0(save):
    name = save("x.npy", np.ones((4, 3, 5), np.float32))
    for axis in (0, -3):
        with pytest.raises(UsageError, match=f"--channel-axis {axis}: axis 0 holds the samples"):
            SampledFlags(channel_axis=axis).open_samples(name)
    assert SampledFlags().open_samples(name).channel_axis == 1
    assert SampledFlags(channel_axis=-1).open_samples(name).channel_axis == 2
    assert SampledFlags(values="[[1, 2], [3, 4]]").open_samples(None).num_features == 2


def test_what_values_once_meant_is_told_its_new_name():
    with pytest.raises(UsageError) as refused:
        SampledFlags(values="8").open_samples("x.npy")
    assert str(refused.value) == (
        "--values 8: the number of values to show is now --first-values 8; --values takes the "
        "input itself."
    )
