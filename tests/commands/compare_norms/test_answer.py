"""What a person sees of `compare-norms` first: one table, the first sample, the verdict."""

from __future__ import annotations

import re

import pytest

from tests.commands.compare_norms.samples import NAMES
from tests.commands.conftest import random

TUTORIAL = "examples/tutorial/x.npy"


@pytest.fixture
def tutorial(repository):
    return repository / TUTORIAL


def test_the_answer_is_one_table_on_a_screen(run, tutorial, monkeypatch):
    monkeypatch.chdir(tutorial.parent)
    lines = run("compare-norms", "x.npy", "--width", 80).stdout.splitlines()
    assert len(lines) == 12
    assert max(map(len, lines)) <= 80
    assert lines[3].split("   ")[0] == "norm"
    assert re.split(" {3,}", lines[4]) == [
        "BatchNorm", "(0, 2, 3)", "(2)", "yes", "yes", "1.94"
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[4:9]] == NAMES
    wide = run("compare-norms", "x.npy", "--width", 160).stdout
    assert "evaluation uses running_mean and running_var instead" in wide


@pytest.mark.parametrize("shape", [(8, 3), (4, 300, 5), (3, 64, 28, 28), (2, 3, 10, 12, 14)])
def test_the_answer_fits_for_every_rank(run, save, shape):
    x = save("x.npy", random(*shape))
    text = run("compare-norms", x, "--width", 80, "--first-values", 30).stdout
    assert max(map(len, text.splitlines())) <= 80
    heads = [line for line in text.splitlines() if line.startswith(("norm ", "index "))]
    assert len(heads) == 2
    assert heads[0].split() == [
        "norm", "axes", "statistics", "batch", "matters", "running", "change"
    ] + ["affine"] * ("affine" in heads[0])  # fmt: skip
    assert heads[1].split()[:6] == ["index", "x", *NAMES[:4]]
    rows = text.split("before weight and bias\n")[1].split("\n\n")[0].splitlines()[1:]
    indices = [line for line in rows if line.startswith("0,")]
    assert len(indices) == (3 if len(shape) == 2 else 20)
    assert ("10 more values (-v lists them)" in rows) == (len(shape) > 2)


def test_a_norm_that_pytorch_refuses_is_named(run, save):
    text = run("compare-norms", save("x.npy", random(8, 3))).stdout
    assert "\nInstanceNorm: undefined: one value a statistic, and PyTorch refuses it\n" in text


def test_the_verdict_says_what_was_measured(run, save):
    x = save("x.npy", random(4, 3, 5))
    report = run("compare-norms", x, "-f", "json").report
    change = report["tables"]["norms"][0]["change_without_one_sample"]
    assert report["verdict"] == (
        f"Without the last sample, the other samples' output changes by up to {change:.3g} in "
        "BatchNorm and by 0 in the other norms"
    )
    pair = run("compare-norms", save("pair.npy", random(2, 3)), "-f", "json").report
    assert "without the last sample BatchNorm would not run: one value per" in pair["verdict"]
    one = run("compare-norms", save("one.npy", random(1, 3, 5)), "-f", "json").report
    assert "there is one sample: whether others matter cannot be measured" in one["verdict"]
    for report in (pair, one):
        assert report["tables"]["norms"][0]["change_without_one_sample"] is None
        assert report["tables"]["norms"][0]["depends_on_batch"] is True


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [([2], "in 3 of 4 channels; the other holds NaN or Inf"),
     ([0, 3], "in 2 of 4 channels; the others hold NaN or Inf")],
)  # fmt: skip
def test_the_change_is_over_the_channels_that_have_numbers(run, save, spoilt, said):
    x = random(6, 4, 5)
    x[1, spoilt, 2] = float("nan")
    text = " ".join(run("compare-norms", save("x.npy", x)).stdout.split())
    assert f"in BatchNorm ({said})" in text
    x[1, spoilt, 2] = 1.0
    assert "hold" not in run("compare-norms", save("y.npy", x)).stdout
