"""The findings of a pass and of its comparison, and the closing line."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bncli.model import Closeness
from bncli.rulebook.batch_rules import NOT_FINITE
from bncli.sections.findings import agreement, closing, full_name
from tests.commands.samples import DTYPES, codes, column, finding, random, rows_of, table


def test_against_torch_compares_all_that_exists_in_the_mode(run, save):
    x = save("x.npy", random(4, 3, 5))

    def quantities(*flags):
        result = run("compute", x, "-f", "json", "--against", "torch", *flags)
        assert result.code == 0, result.stdout
        return {row["quantity"] for row in table(result, "differences")}

    batch = {"mean", "var", "invstd"}
    affine = {"grad_weight", "grad_bias"}
    running = {"running_mean", "running_var", "num_batches_tracked"}
    always = {"output", "grad_input"}
    assert quantities() == batch | affine | running | always
    assert quantities("--no-affine") == batch | running | always
    assert quantities("--no-track-running-stats") == batch | affine | always
    assert quantities("--eval") == running | affine | always
    untracked = quantities("--eval", "--no-track-running-stats", "--no-affine")
    assert untracked == batch | always


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("mode", ["--training", "--eval"])
def test_every_dtype_agrees_with_torch(run, save, dtype, mode):
    x = torch.from_numpy(random(8, 3, 5)).to(DTYPES[dtype])
    result = run("compute", save("x.pt", x), mode, "-f", "json", "--against", "torch")
    assert result.code == 0, result.stdout
    assert result.report["facts"]["dtype"] == dtype
    values = rows_of(x.double().numpy())
    np.testing.assert_allclose(column(result, "mean"), values.mean(1), rtol=1e-13)


def test_nan_and_inf_are_an_error_and_the_report_is_whole(run, save):
    x = random(6, 4, 3)
    x[2, 1, 2] = np.nan
    x[4, 1, 0] = np.inf
    x[3, 2, 1] = -np.inf
    x[:, 3] = np.nan
    result = run("compute", save("x.npy", x), "-f", "json", "--against", "torch")
    assert result.code == 1
    assert codes(result)[0] == "BN001"
    found = finding(result, "BN001")
    assert found["severity"] == "error"
    assert found["subject"] == "channels 1, 2 and 3"
    assert found["evidence"] == {
        "channels": [1, 2, 3],
        "nan": [1, 0, 18],
        "inf": [1, 1, 0],
        "first_nonfinite": [[2, 1, 2], [3, 2, 1], [0, 3, 0]],
    }
    assert "19 NaN and 2 Inf" in found["message"]
    assert "the first at [2, 1, 2]" in found["message"]
    rows = table(result)
    assert [row["nan"] for row in rows] == [0, 1, 0, 18]
    assert [row["inf"] for row in rows] == [0, 1, 1, 0]
    assert [row["mean"] is None for row in rows] == [False, True, True, True]
    assert [row["var"] is None for row in rows] == [False, True, True, True]
    for channel in (1, 2):
        finite = rows_of(x)[channel][np.isfinite(rows_of(x)[channel])]
        assert (rows[channel]["min"], rows[channel]["max"]) == (finite.min(), finite.max())
    assert rows[3]["min"] is None
    assert rows[3]["max"] is None
    assert all(row["passed"] for row in table(result, "differences"))


def test_warnings_come_with_their_number(run, save):
    x = random(64, 3, 4, mean=0.0).astype(np.float64)
    x[:, 0] = x[:, 0] * 1e-4 + 1.0  # ill-conditioned, and its variance is below eps
    x = x.astype(np.float32)
    result = run("compute", save("x.npy", x), "-f", "json")
    assert result.code == 0
    assert codes(result) == ["BN002", "BN003"]
    values = rows_of(x)[0]
    condition = abs(values.mean()) / values.std()
    assert finding(result, "BN002")["severity"] == "warning"
    assert finding(result, "BN002")["evidence"]["channels"] == [0]
    assert finding(result, "BN002")["evidence"]["condition"] == pytest.approx([condition])
    assert f"{condition:.6g}" in finding(result, "BN002")["message"]
    assert finding(result, "BN003")["severity"] == "warning"
    assert finding(result, "BN003")["evidence"]["var"] == pytest.approx([values.var()])
    assert f"{values.var():.6g}" in finding(result, "BN003")["message"]
    # In float64 there are digits enough, but eps still sets the scale.
    assert codes(run("compute", "x.npy", "--dtype", "float64", "-f", "json")) == ["BN003"]


@pytest.mark.parametrize(("count", "remarked"), [(2, True), (7, True), (8, False), (9, False)])
def test_few_values_are_an_info(run, save, count, remarked):
    result = run("compute", save("x.npy", random(count, 2)), "-f", "json")
    assert result.code == 0
    assert codes(result) == (["BN008"] if remarked else [])
    if remarked:
        assert finding(result, "BN008")["severity"] == "info"
        assert finding(result, "BN008")["evidence"] == {"count": count}
        assert f"{count} values per channel" in finding(result, "BN008")["message"]


def test_several_equal_values_are_an_info(run, save):
    x = random(16, 3)
    x[:, 1] = 2.5
    result = run("compute", save("x.npy", x), "-f", "json")
    assert codes(result) == ["BN009"]
    assert finding(result, "BN009")["severity"] == "info"
    assert finding(result, "BN009")["evidence"] == {"channels": [1], "value": [2.5]}
    assert table(result)[1]["var"] == 0
    single = run("compute", save("one.npy", random(1, 3)), "--eval", "-f", "json")
    assert "BN009" not in codes(single)  # one value is not several


def test_a_fault_planted_in_torch_is_found(run, save, monkeypatch):
    original = torch.nn.BatchNorm1d.forward

    def forward(self, x):
        self.eps = 1e-3
        return original(self, x)

    x = save("x.npy", random(8, 3, 5))
    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", forward)
    result = run("compute", x, "-f", "json", "--against", "torch")
    assert result.code == 1
    subjects = {item["subject"] for item in result.report["findings"] if item["code"] == "BN901"}
    failed = {row["quantity"] for row in table(result, "differences") if not row["passed"]}
    assert subjects == failed
    assert {"output", "grad_input", "grad_weight"} <= failed
    assert failed.isdisjoint({"mean", "var", "running_mean", "running_var", "grad_bias"})
    assert "differs in 4 of 10 quantities" in result.report["verdict"]


def test_the_worst_findings_come_first(run, save):
    x = save("x.npy", random(4, 3))
    flags = ("--against", "torch", "--rtol", 0, "--atol", 0, "--momentum", 2, "-f", "json")
    found = codes(run("compute", x, *flags))
    assert found[0] == "BN901"
    assert found[-2:] == ["BN007", "BN008"]


def test_rtol_and_atol_replace_the_derived_tolerance(run, save):
    x = save("x.npy", random(8, 3, 5))
    strict = run("compute", x, "--against", "torch", "--rtol", 0, "--atol", 0, "-f", "json")
    assert strict.code == 1
    least = max(row["passing_atol"] for row in table(strict, "differences"))
    assert least > 0
    flags = ("--against", "torch", "--rtol", 0, "-f", "json", "--atol")
    assert run("compute", x, *flags, least).code == 0
    assert run("compute", x, *flags, math.nextafter(least, 0)).code == 1
    loose = run("compute", x, "--against", "torch", "--rtol", 0.5, "--atol", 0.25, "-f", "json")
    for row in table(loose, "differences"):
        if row["quantity"] != "num_batches_tracked":  # an integer
            assert (row["rtol"], row["atol"]) == (0.5, 0.25)


def closeness(quantity: str, used: float) -> Closeness:
    off = int(used > 1)
    return Closeness(quantity, used, 0.0, (0,), 1.0, 1.0, off, 4, 0.0, 1.0, used, 0.0, 0.0)


def test_the_verdict_on_a_comparison():
    name = "torch 2.13.0"
    fine = [closeness("mean", 0.1), closeness("var", 0.374)]
    agreed = "torch 2.13.0 agrees in 2 of 2 quantities"
    nearest = "var comes closest to its tolerance, using 37% of it"
    assert agreement(fine, name, []) == f"{agreed}; {nearest}"
    nan = [NOT_FINITE.finding("channel 0", "", {})]
    same = "NaN on both sides counts as agreement"
    assert agreement(fine, name, nan) == f"{agreed}; {nearest}; {same}"
    equal = [closeness("mean", 0.0), closeness("var", 0.0)]
    assert agreement(equal, name, []) == f"{agreed}; all are equal"
    off = [closeness(name, 2.0) for name in ("mean", "var", "invstd", "output", "grad_bias")]
    assert agreement([*off, *fine], name, nan) == (
        "torch 2.13.0 differs in 5 of 7 quantities: mean, var, invstd, output and 1 more"
    )
    assert (
        agreement([], name, []) == "nothing was compared: torch 2.13.0 has none of the quantities"
    )


def test_a_verdict_of_clauses():
    assert closing("one", "", "two") == "one; two"
    assert closing("", "") == ""


def test_people_read_the_version_without_its_build():
    backend = SimpleNamespace(name="torch", version=lambda: "2.13.0+cpu")
    assert full_name(backend) == "torch 2.13.0"
