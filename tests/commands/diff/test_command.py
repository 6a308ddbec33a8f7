"""`bncli diff`: against PyTorch in every path, and between stored tensors as assert_close does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.commands.conftest import refusals
from tests.commands.diff.samples import DIFFERENCE_KEYS
from tests.commands.samples import random, table

CHANNEL_KEYS = {"channel", "max_abs_diff", "max_rel_diff", "mismatched"}


def test_json_keeps_its_promise(run, save):
    expected = random(8, 3, 4)
    actual = expected.copy()
    actual[:, 1] *= np.float32(1.001)
    result = run("diff", save("a.npy", actual), save("b.npy", expected), "-f", "json")
    assert result.code == 1
    facts = result.report["facts"]
    assert (facts["actual"], facts["expected"], facts["shape"]) == ("a.npy", "b.npy", [8, 3, 4])
    (row,) = table(result, "differences")
    assert set(row) >= DIFFERENCE_KEYS
    assert next(iter(result.report["tables"])) == "differences"
    rows = table(result, "channels")
    assert [channel["channel"] for channel in rows] == [1, 0, 2]
    for channel in rows:
        assert set(channel) >= CHANNEL_KEYS
    wide = expected.astype(np.float64)
    diff = np.abs(actual.astype(np.float64) - wide)
    assert row["max_abs_diff"] == diff.max()
    assert row["mismatched"] == sum(channel["mismatched"] for channel in rows)
    worst = rows[0]
    assert worst["mean"] == pytest.approx(wide[:, 1].mean(), rel=1e-12)
    assert worst["std"] == pytest.approx(wide[:, 1].std(), rel=1e-12)
    assert worst["condition"] == pytest.approx(abs(wide[:, 1].mean()) / wide[:, 1].std(), rel=1e-12)
    assert worst["diff_over_std"] == pytest.approx(diff.max() / wide[:, 1].std(), rel=1e-12)
    assert worst["ulp"] == diff.max() / np.spacing(np.abs(expected[:, 1]).max())
    (finding,) = result.report["findings"]
    assert finding["code"] == "BN901"
    assert finding["message"].startswith("32 of 96 values differ from b.npy, by up to 0.00")
    assert "Of 3 channels, channel 1 mismatches. The worst is channel 1" in finding["detail"]


@pytest.mark.parametrize(
    ("form", "suffix"), [("table", ".txt"), ("json", ".json"), ("csv", ".csv"), ("markdown", ".md")]
)
def test_golden(run, repository, monkeypatch, golden, form, suffix):
    monkeypatch.chdir(repository)
    folder = "examples/debugging"
    result = run("diff", f"{folder}/port.npy", f"{folder}/keras.npy", "-f", form)
    assert (result.code, result.stderr) == (1, "")
    golden(f"diff{suffix}", result.stdout)
    actual, expected = (np.load(f"{folder}/{name}.npy") for name in ("port", "keras"))
    close = torch.isclose(
        torch.from_numpy(actual), torch.from_numpy(expected), rtol=1.3e-6, atol=1e-5
    )
    assert str(int((~close).sum())) in result.stdout


def test_the_helps_tell_the_two_apart(run):
    words = " ".join(run("diff", "--help").stdout.split())
    assert "compute --against torch" in words
    words = " ".join(run("compute", "--help").stdout.split())
    assert "`bncli diff` explains" in words


REFUSALS = refusals("diff")


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusal_is_one_exact_sentence_and_exit_code_2(run, save, arguments):
    save("x.npy", random(4, 3, 5))
    save("w.npy", random(4, 1, 5))
    save("int.npy", np.ones((4, 3), np.int64))
    save("c.npy", np.ones((4, 3, 5), np.complex64))
    save("two.npz", a=random(4, 3), b=random(4, 3))
    save("half.npy", random(4, 3).astype(np.float16))
    code, stdout, stderr = run("diff", *arguments.split())
    assert (code, stdout) == (2, "")
    assert stderr == f"bncli: {REFUSALS[arguments]}\n"
