"""`bncli compare-norms`: every flag, every key that scripts rely on, every refusal."""

from __future__ import annotations

import io
import math
import re
import sys

import numpy as np
import pytest
import torch

from tests.commands.compare_norms.samples import NAMES
from tests.commands.conftest import random, refusals

TUTORIAL = "examples/tutorial/x.npy"


COMPARED = [name for name in NAMES if name != "RMSNorm" or hasattr(torch.nn, "RMSNorm")]
"""What this PyTorch has; RMSNorm came with 2.4."""


FUSED = hasattr(torch.ops.aten, "_fused_rms_norm")
"""Whether RMSNorm is one kernel: before, it gave no invstd."""


FACTS = ("input", "shape", "dtype", "kind", "channel_axis", "training", "eps", "momentum", "count")


NORM_KEYS = {
    "norm", "axes", "statistics_shape", "affine_shape", "depends_on_batch", "running_stats",
    "mean", "var", "eps", "count", "change_without_one_sample",
}  # fmt: skip


TORCH = f"torch {torch.__version__.partition('+')[0]}"


DIFFERENCE_KEYS = {
    "quantity", "max_abs_diff", "max_rel_diff", "index", "mismatched", "total", "rtol", "atol",
    "passed",
}  # fmt: skip


def text_of(finding: dict) -> str:
    return f"{finding['message']} {finding['detail']}"


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
    ("form", "suffix"),
    [("table", ".txt"), ("table -v", "-v.txt"), ("json", ".json"), ("csv", ".csv"),
     ("markdown", ".md")],
)  # fmt: skip
def test_golden(run, repository, monkeypatch, golden, form, suffix):
    monkeypatch.chdir(repository)
    result = run("compare-norms", TUTORIAL, "-f", *form.split())
    assert (result.code, result.stderr) == (0, "")
    golden(f"compare_norms{suffix}", result.stdout)
    # The variance of 1 to 8, by (n**2 - 1) / 12, for LayerNorm and GroupNorm.
    published = re.escape(f"{(8**2 - 1) / 12:.6g}")
    shown = 0 if form in ("table", "markdown") else 2
    assert len(re.findall(rf"(?<![\d.]){published}(?![\d])", result.stdout)) == shown


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
    said = f"{TORCH} agrees in {number} of {number} quantities"
    assert said in report["verdict"]


@pytest.mark.parametrize("width", [40, 80, 140, None])
def test_a_table_shows_the_columns_that_matter_first(run, tutorial, width):
    flags = () if width is None else ("--width", width)
    text = run("compare-norms", tutorial, *flags).stdout
    head = next(line for line in text.splitlines() if line.startswith("norm "))
    assert head.split()[1] == "axes"
    assert width is None or max(map(len, text.splitlines())) <= width


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


def test_integers_are_cast_on_request(rows, save):
    x = np.arange(60).reshape(3, 4, 5)
    norms = rows(save("x.npy", x), "--dtype", "float32", "--against", "torch")
    assert norms["LayerNorm"]["mean"] == 9.5


def test_a_tensor_inside_a_file_and_standard_input(rows, run_process, save):
    x = random(4, 3, 2)
    save("two.npz", a=x, b=x * 2)
    assert rows("two.npz::b")["LayerNorm"]["mean"] == pytest.approx(float((x * 2)[0].mean()), 1e-6)
    stream = io.BytesIO()
    np.save(stream, x)
    result = run_process("compare-norms", "-", "-f", "json", stdin=stream.getvalue())
    assert result.code == 0, result.stderr


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
    assert text.count("\n") < 24
    assert run("compare-norms", x, "-f", "json").report["tables"]["noise"][-1]["channel"] == 1499


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
    assert f"{TORCH} differs in" in result.report["verdict"]


@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 5)])
def test_the_worst_statistic_is_named_by_what_it_belongs_to(run, save, shape):
    flags = ("--against", "torch", "--rtol", 0, "--atol", 0, "-f", "json")
    found = run("compare-norms", save("x.npy", random(*shape)), *flags).report["findings"]
    said = {item["subject"]: text_of(item) for item in found if item["code"] == "BN901"}
    assert "at channel " in said["BatchNorm invstd"]
    assert "at sample " in said["LayerNorm invstd"]
    assert not FUSED or "at sample " in said["RMSNorm invstd"]
    assert "at [" in said["GroupNorm invstd"]


def test_where_no_output_is_a_number_none_is_said_to_be_missing(run, save):
    result = run("compare-norms", save("x.npy", np.full((4, 3, 5), np.nan)), "-f", "json")
    assert result.code == 1
    assert "no output is a number" in result.report["verdict"]
    assert "would not run" not in result.report["verdict"]
    left = run("compare-norms", save("x.npy", random(2, 3)), "-f", "json")
    assert "would not run: one value per channel is left" in left.report["verdict"]


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
    assert f"\n{TORCH} has no RMSNorm: not compared\n" in text
    assert "agrees in 12 of 12 quantities" in text


def test_torch_is_needed_for_a_comparison_alone(run, save, monkeypatch):
    x = save("x.npy", random(8, 3, 5))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run("compare-norms", x).code == 0
    code, stdout, stderr = run("compare-norms", x, "--against", "torch")
    assert (code, stdout) == (2, "")
    assert "python -m pip install torch" in stderr


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


def test_a_factor_widens_the_tolerances_of_every_norm(run, save):
    save("x.npy", random(8, 4, 6))
    plain = run("compare-norms", "x.npy", "--against", "torch", "-f", "json")
    wide = run(
        "compare-norms", "x.npy", "--against", "torch", "--tolerance-factor", 5, "-f", "json"
    )
    assert wide.report["facts"]["tolerance_factor"] == 5.0
    rows = zip(plain.report["tables"]["differences"], wide.report["tables"]["differences"],
               strict=True)  # fmt: skip
    for one, other in rows:
        assert other["atol"] == pytest.approx(5 * one["atol"]), one["quantity"]
