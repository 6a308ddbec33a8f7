"""`bncli compare-norms`: every flag, every key that scripts rely on, every refusal."""

from __future__ import annotations

import io
import math
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.norms import norm_statistics
from tests.commands.conftest import random, refusals

TUTORIAL = "examples/tutorial/x.npy"
NAMES = ["BatchNorm", "LayerNorm", "InstanceNorm", "GroupNorm", "RMSNorm"]
COMPARED = [name for name in NAMES if name != "RMSNorm" or hasattr(torch.nn, "RMSNorm")]
"""What this PyTorch has; RMSNorm came with 2.4."""
FUSED = hasattr(torch.ops.aten, "_fused_rms_norm")
"""Whether RMSNorm is one kernel: before, it gave no invstd."""

FACTS = ("input", "shape", "dtype", "kind", "channel_axis", "training", "eps", "momentum", "count")
NORM_KEYS = {
    "norm", "axes", "statistics_shape", "affine_shape", "depends_on_batch", "running_stats",
    "mean", "var", "eps", "count", "change_without_one_sample",
}  # fmt: skip
DIFFERENCE_KEYS = {
    "quantity", "max_abs_diff", "max_rel_diff", "index", "mismatched", "total", "rtol", "atol",
    "passed",
}  # fmt: skip


@pytest.fixture
def rows(run):
    """Run with JSON, expect exit code 0, and give a table's rows; norms by name."""

    def rows(*argv, table="norms", code=0):
        result = run("compare-norms", *argv, "-f", "json")
        assert (result.code, result.stderr) == (code, "")
        found = result.report["tables"][table]
        return {row["norm"]: row for row in found} if table == "norms" else found

    return rows


# ---------------------------------------------------------------------------- what is reported


@pytest.fixture
def tutorial(repository):
    return repository / TUTORIAL


def test_tutorial_by_hand(rows, tutorial):
    """Channel 0 is 1 2 3 4 and 9 10 11 12, channel 1 is 5 6 7 8 and 13 14 15 16."""
    norms = rows(tutorial)
    assert list(norms) == NAMES
    assert [norms[name]["mean"] for name in NAMES] == [6.5, 4.5, 2.5, 4.5, None]
    assert [norms[name]["var"] for name in NAMES] == [17.25, 5.25, 1.25, 5.25, None]
    squares = sum(value**2 for value in range(1, 9)) / 8
    assert norms["RMSNorm"]["invstd"] == pytest.approx((squares + 2.0**-23) ** -0.5, rel=1e-15)
    assert [norms[name]["count"] for name in NAMES] == [8, 8, 4, 8, 8]
    assert [norms[name]["statistics_shape"] for name in NAMES] == [[2], [2], [2, 2], [2, 1], [2]]
    assert [norms[name]["affine_shape"] for name in NAMES] == [[2], [2, 2, 2], [2], [2], [2, 2, 2]]
    assert [norms[name]["depends_on_batch"] for name in NAMES] == [True, *[False] * 4]
    assert [norms[name]["running_stats"] for name in NAMES] == [True, *[False] * 4]
    first = rows(tutorial, table="first_sample")
    assert [row["x"] for row in first] == list(range(1, 9))
    for value, row in enumerate(first, start=1):
        within = value - 2.5 if value < 5 else value - 6.5
        overall = value - 6.5 if value < 5 else value - 10.5
        for name, expected in (
            ("BatchNorm", overall / math.sqrt(17.25 + 1e-5)),
            ("LayerNorm", (value - 4.5) / math.sqrt(5.25 + 1e-5)),
            ("InstanceNorm", within / math.sqrt(1.25 + 1e-5)),
            ("GroupNorm", (value - 4.5) / math.sqrt(5.25 + 1e-5)),
            ("RMSNorm", value / math.sqrt(25.5 + 2.0**-23)),
        ):
            assert row[name] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("form", "suffix", "published"),
    [
        ("table", ".txt", f"{5.25:.6g}"),
        ("json", ".json", "5.25"),
        ("csv", ".csv", "5.25"),
        ("markdown", ".md", f"{5.25:.6g}"),
    ],
)
def test_golden(run, repository, monkeypatch, golden, form, suffix, published):
    monkeypatch.chdir(repository)
    result = run("compare-norms", TUTORIAL, "-f", form)
    assert (result.code, result.stderr) == (0, "")
    golden(f"compare_norms{suffix}", result.stdout)
    # The variance of 1 to 8, by (n**2 - 1) / 12, for LayerNorm and GroupNorm.
    assert published == str((8**2 - 1) / 12)
    assert len(re.findall(rf"(?<![\d.]){re.escape(published)}(?![\d])", result.stdout)) == 2


def test_json_keeps_its_promise(run, tutorial):
    report = run("compare-norms", tutorial, "-f", "json", "--against", "torch").report
    assert {key: report["facts"][key] for key in FACTS} == {
        "input": str(tutorial),
        "shape": [2, 2, 2, 2],
        "dtype": "float32",
        "kind": "BatchNorm2d",
        "channel_axis": 1,
        "training": True,
        "eps": 1e-5,
        "momentum": 0.1,
        "count": 8,
    }
    assert (report["command"], report["exit_code"]) == ("compare-norms", 0)
    assert report["findings"] == []
    assert next(iter(report["tables"])) == "norms"
    for row in report["tables"]["norms"]:
        assert set(row) >= NORM_KEYS
    assert [row["quantity"] for row in report["tables"]["differences"]] == [
        f"{name} {quantity}"
        for name in COMPARED
        for quantity in ("mean", "invstd", "output")
        if name != "RMSNorm" or quantity == "output" or (FUSED and quantity == "invstd")
    ]
    for row in report["tables"]["differences"]:
        assert set(row) >= DIFFERENCE_KEYS
        assert row["passed"] is True
    assert report["facts"]["backend"] == "torch"
    assert report["facts"]["backend_version"] == torch.__version__
    number = len(report["tables"]["differences"])
    said = f"bncli and torch {torch.__version__} agree in all {number} quantities"
    assert said in report["verdict"]


@pytest.mark.parametrize("width", [40, 80, 140, None])
def test_a_table_shows_the_columns_that_matter_first(run, tutorial, width):
    flags = () if width is None else ("--width", width)
    text = run("compare-norms", tutorial, *flags).stdout
    head = next(line for line in text.splitlines() if line.startswith("norm "))
    assert head.split()[1] == "axes"
    assert width is None or max(map(len, text.splitlines())) <= width


# ---------------------------------------------------------------------------- the batch matters


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


def test_the_verdict_says_what_was_measured(run, save):
    x = save("x.npy", random(4, 3, 5))
    report = run("compare-norms", x, "-f", "json").report
    change = report["tables"]["norms"][0]["change_without_one_sample"]
    assert report["verdict"] == (
        f"Without the last sample, BatchNorm's output of the others changes by up to {change:.3g}, "
        "and that of the other norms by 0. No findings."
    )
    pair = run("compare-norms", save("pair.npy", random(2, 3)), "-f", "json").report
    assert pair["verdict"].startswith("Without the last sample, BatchNorm would not run: one value")
    one = run("compare-norms", save("one.npy", random(1, 3, 5)), "-f", "json").report
    assert one["verdict"].startswith("There is one sample, and so none to leave out.")
    for report in (pair, one):
        assert report["tables"]["norms"][0]["change_without_one_sample"] is None
        assert report["tables"]["norms"][0]["depends_on_batch"] is True


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


# ---------------------------------------------------------------------------- flags


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


@pytest.mark.parametrize(
    ("shape", "flags", "warned"),
    [
        ((4, 6, 6), (), True),
        ((4, 6, 6), ("--channel-axis", 1), False),
        ((4, 6, 6), ("--channel-axis", -1), False),
        ((4, 6, 5), (), False),
        ((4, 6, 6, 6), (), False),
        ((6, 6), (), False),
    ],
)
def test_equal_length_and_channels_are_a_warning(run, save, shape, flags, warned):
    result = run("compare-norms", save("x.npy", random(*shape)), *flags, "-f", "json")
    found = [item for item in result.report["findings"] if item["code"] == "BN020"]
    assert bool(found) == warned
    assert result.code == 0
    if warned:
        assert found[0]["severity"] == "warning"
        assert "both have size 6" in found[0]["message"]
        assert run("compare-norms", "x.npy", *flags, "--fail-on", "warning").code == 1


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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(rows, save, dtype):
    x = torch.from_numpy(random(4, 6, 5)).to(getattr(torch, dtype))
    norms = rows(save("x.pt", x), "--against", "torch")
    assert norms["LayerNorm"]["mean"] == pytest.approx(float(x[0].double().mean()), rel=1e-12)
    cast = rows(save("x.npy", random(4, 6, 5)), "--dtype", dtype, "--against", "torch")
    assert cast["LayerNorm"]["mean"] == norms["LayerNorm"]["mean"]


def test_integers_are_cast_on_request(rows, save):
    x = np.arange(60).reshape(3, 4, 5)
    norms = rows(save("x.npy", x), "--dtype", "float32", "--against", "torch")
    assert norms["LayerNorm"]["mean"] == 9.5


def test_channel_chooses_what_is_shown(rows, save):
    x = random(3, 6, 4).astype(np.float64)
    path = save("x.npy", x)
    norms = rows(path, "--channel", "4", "--groups", "2")
    assert norms["BatchNorm"]["mean"] == pytest.approx(x[:, 4].mean(), rel=1e-13)
    assert norms["InstanceNorm"]["mean"] == pytest.approx(x[0, 4].mean(), rel=1e-13)
    assert norms["GroupNorm"]["mean"] == pytest.approx(x[0, 3:].mean(), rel=1e-13)
    assert [row["channel"] for row in rows(path, "--channel", "1,4", table="noise")] == [1, 4]
    first = rows(path, "--channel", "1,4", "--values", "6", table="first_sample")
    assert [row["index"] for row in first] == [[0, c, i] for c in (1, 4) for i in range(3)]
    assert [row["x"] for row in first] == [x[tuple(row["index"])] for row in first]


@pytest.mark.parametrize(
    ("shape", "flags", "count"),
    [
        ((3, 6, 4), (), 6),
        ((3, 2, 9), (), 8),
        ((3, 2, 9), ("--values", 1), 1),
        ((3, 2, 9), ("--values", 100), 18),
        ((3, 1000), (), 8),
        ((3, 5), ("--values", 3), 3),
    ],
)
def test_as_many_values_as_asked_for_are_shown(rows, save, shape, flags, count):
    assert len(rows(save("x.npy", random(*shape)), *flags, table="first_sample")) == count


def test_a_tensor_inside_a_file_and_standard_input(rows, run_process, save):
    x = random(4, 3, 2)
    save("two.npz", a=x, b=x * 2)
    assert rows("two.npz::b")["LayerNorm"]["mean"] == pytest.approx(float((x * 2)[0].mean()), 1e-6)
    stream = io.BytesIO()
    np.save(stream, x)
    result = run_process("compare-norms", "-", "-f", "json", stdin=stream.getvalue())
    assert result.code == 0, result.stderr


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


# ---------------------------------------------------------------------------- special values


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


def test_nan_and_inf_are_an_error_and_the_report_is_whole(run, save):
    x = random(4, 3, 5)
    x[1, 2, 3] = np.nan
    x[2, 0, 0] = np.inf
    result = run("compare-norms", save("x.npy", x), "-f", "json", "--against", "torch")
    assert result.code == 1
    assert [item["code"] for item in result.report["findings"]] == ["BN001"]
    assert all(row["passed"] for row in result.report["tables"]["differences"])
    assert result.report["tables"]["norms"][1]["mean"] == pytest.approx(float(x[0].mean()), 1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0, 3.333e9, 1e-30])
def test_constants(run, save, value):
    x = save("x.npy", np.full((4, 3, 5), value, np.float32))
    result = run("compare-norms", x, "-f", "json", "--against", "torch")
    assert result.code == 0
    assert "BN009" in {item["code"] for item in result.report["findings"]}
    for row in result.report["tables"]["first_sample"]:
        assert [row[name] for name in NAMES[:4]] == [0] * 4
    lost = [item["subject"] for item in result.report["findings"] if item["code"] == "BN902"]
    assert ("BatchNorm output" in lost) == (value > 1e9)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_the_ends_of_float64(run, save, scale):
    x = save("x.npy", random(4, 3, 5).astype(np.float64) * scale)
    result = run("compare-norms", x, "-f", "json", "--against", "torch")
    # Where the squares overflow, PyTorch's rows give 0 or NaN by release and length.
    differing = [item for item in result.report["findings"] if item["code"] == "BN901"]
    assert result.code == bool(differing)
    assert scale > 1 or not differing
    assert all("BN004 says why" in item["hint"] for item in differing)
    assert "bug" not in result.stderr


def test_many_channels_are_shortened_on_a_terminal_alone(run, save):
    x = save("x.npy", random(3, 1500, 2))
    text = run("compare-norms", x).stdout
    assert text.count("\n") < 1600
    assert run("compare-norms", x, "-f", "json").report["tables"]["noise"][-1]["channel"] == 1499


# ---------------------------------------------------------------------------- the comparison


def test_a_fault_planted_in_torch_is_exit_code_1(run, save, monkeypatch):
    original = torch.nn.LayerNorm.forward

    def forward(self, x):
        self.eps = 1e-3
        return original(self, x)

    x = save("x.npy", random(8, 3, 5))
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", forward)
    result = run("compare-norms", x, "-f", "json", "--against", "torch")
    assert result.code == 1
    found = result.report["findings"]
    assert {item["code"] for item in found} == {"BN901"}
    assert "LayerNorm output" in {item["subject"] for item in found}
    assert all(item["subject"].startswith("LayerNorm") for item in found)
    assert "differ in" in result.report["verdict"]


@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 5)])
def test_the_worst_statistic_is_named_by_what_it_belongs_to(run, save, shape):
    flags = ("--against", "torch", "--rtol", 0, "--atol", 0, "-f", "json")
    found = run("compare-norms", save("x.npy", random(*shape)), *flags).report["findings"]
    said = {item["subject"]: item["message"] for item in found if item["code"] == "BN901"}
    assert "at channel " in said["BatchNorm invstd"]
    assert "at sample " in said["LayerNorm invstd"]
    assert not FUSED or "at sample " in said["RMSNorm invstd"]
    assert "at [" in said["GroupNorm invstd"]


def test_far_values_can_be_told_apart(run, save):
    x = (1e6 + np.arange(12.0).reshape(4, 3)).astype(np.float32)
    text = run("compare-norms", save("x.npy", x)).stdout
    assert all(f"{value:.9g} " in text for value in x[0])


def test_where_no_output_is_a_number_none_is_said_to_be_missing(run, save):
    result = run("compare-norms", save("x.npy", np.full((4, 3, 5), np.nan)), "-f", "json")
    assert result.code == 1
    assert "none is a number" in result.report["verdict"]
    assert "would not run" not in result.report["verdict"]
    left = run("compare-norms", save("x.npy", random(2, 3)), "-f", "json")
    assert "would not run: one value a channel is left" in left.report["verdict"]


def test_rtol_and_atol_replace_the_derived_tolerance(run, save):
    x = save("x.npy", random(8, 3, 5))
    flags = ("--against", "torch", "--rtol", 0, "-f", "json", "--atol")
    strict = run("compare-norms", x, *flags, 0)
    assert strict.code == 1
    least = max(row["passing_atol"] for row in strict.report["tables"]["differences"])
    assert run("compare-norms", x, *flags, least).code == 0
    assert run("compare-norms", x, *flags, math.nextafter(least, 0)).code == 1


def test_a_torch_without_rms_norm_is_noted(run, save, monkeypatch):
    monkeypatch.delattr(torch.nn, "RMSNorm", raising=False)
    text = run("compare-norms", save("x.npy", random(8, 3, 5)), "--against", "torch").stdout
    assert f"torch {torch.__version__} has no RMSNorm: not compared." in text
    assert "agree in all 12 quantities" in text


def test_torch_is_needed_for_a_comparison_alone(run, save, monkeypatch):
    x = save("x.npy", random(8, 3, 5))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run("compare-norms", x).code == 0
    code, stdout, stderr = run("compare-norms", x, "--against", "torch")
    assert (code, stdout) == (2, "")
    assert "python -m pip install torch" in stderr


# ---------------------------------------------------------------------------- refusals

REFUSALS = refusals("compare-norms")


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusal_is_one_exact_sentence_and_exit_code_2(run, save, arguments):
    save("x.npy", random(4, 6, 5))
    save("wide.npy", random(2, 5040))
    save("vec.npy", np.ones(4, np.float32))
    save("empty.npy", np.ones((0, 3), np.float32))
    save("int.npy", np.ones((4, 3), np.int64))
    code, stdout, stderr = run("compare-norms", *arguments.split())
    assert stderr == f"bncli: {REFUSALS[arguments]}\n"
    assert stdout == ""
    assert code == 2


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


@pytest.mark.parametrize("gone", [5, 4])
def test_a_backend_with_none_of_the_norms_is_3(run, save, monkeypatch, gone):
    import torch

    names = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm", "InstanceNorm1d",
             "InstanceNorm2d", "InstanceNorm3d", "GroupNorm", "RMSNorm")  # fmt: skip
    for name in names if gone == 5 else names[3:]:
        monkeypatch.delattr(torch.nn, name, raising=False)
    save("x.npy", np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32))
    result = run("compare-norms", "x.npy", "--against", "torch", "-f", "json")
    assert result.code == (3 if gone == 5 else 0)
    assert bool(result.report["tables"]["differences"]) == (gone == 4)
    assert "norms" in result.report["tables"]
