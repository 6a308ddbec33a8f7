"""`bncli compute`: every flag, every key that scripts rely on, every refusal."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands.conftest import refusals
from tests.commands.samples import CHANNEL_KEYS, DTYPES, column, random, table

TUTORIAL = "examples/tutorial/x.npy"


FACTS = ("input", "shape", "dtype", "kind", "channel_axis", "training", "eps", "momentum", "count")


DIFFERENCE_KEYS = {
    "quantity", "max_abs_diff", "max_rel_diff", "index", "mismatched", "total", "rtol", "atol",
    "passed",
}  # fmt: skip


ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2e-6, "float64": 1e-13}
"""One rounding of the output dtype, twice over; PyTorch's own arithmetic for the wider two."""


@pytest.fixture
def tutorial(repository):
    return repository / TUTORIAL


def test_tutorial_has_the_published_numbers(run, tutorial):
    result = run("compute", tutorial, "-f", "json")
    assert result.code == 0
    assert result.stderr == ""
    first, second = table(result)
    assert (first["mean"], second["mean"]) == (6.5, 10.5)
    for row, running_mean in ((first, 0.65), (second, 1.05)):
        assert row["var"] == 17.25
        assert row["unbiased_var"] == pytest.approx(19.714285714285715, rel=1e-15)
        assert row["running_mean"] == pytest.approx(running_mean, rel=1e-15)
        assert row["running_var"] == pytest.approx(2.8714285714285714, rel=1e-15)
        assert row["std"] == pytest.approx(math.sqrt(17.25), rel=1e-15)
        assert row["invstd"] == pytest.approx(1 / math.sqrt(17.25 + 1e-5), rel=1e-15)
        assert (row["count"], row["nan"], row["inf"]) == (8, 0, 0)


def test_tutorial_output_begins_with_the_published_number(run, tutorial, folder):
    assert run("compute", tutorial, "--save-output", "y.npy", "-q").code == 0
    assert round(float(np.load("y.npy").flat[0]), 6) == -1.324244


@pytest.mark.parametrize(
    ("form", "suffix", "number"),
    [
        ("table", ".txt", f"{0.9 + 13.8 / 7:.6g}"),  # running_var
        ("table -v", "-v.txt", f"{138 / 7:.6g}"),
        ("json", ".json", repr(138 / 7)),  # sum of squared deviations over n - 1
        ("csv", ".csv", repr(138 / 7)),
        ("markdown", ".md", f"{138 / 7:.6g}"),
    ],
)
def test_golden(run, repository, monkeypatch, golden, form, suffix, number):
    monkeypatch.chdir(repository)
    result = run("compute", TUTORIAL, "-f", *form.split())
    assert (result.code, result.stderr) == (0, "")
    golden(f"compute{suffix}", result.stdout)
    assert result.stdout.count(number) == 2


@pytest.mark.parametrize("form", ["github", "sarif", "junit"])
def test_golden_of_a_finding(run, repository, monkeypatch, golden, form):
    monkeypatch.chdir(repository)
    shards = [f"examples/shards/batch{number}.npy" for number in (0, 1)]
    result = run("compute", *shards, "-f", form)
    assert (result.code, result.stderr) == (0, "")
    golden(f"compute-shards.{form}", result.stdout)
    first, second = (np.load(shard).astype(np.float64)[:, 2] for shard in shards)
    between = len(first) * np.var([first.mean(), second.mean()]) * 2
    within = (first.var() * len(first) + second.var() * len(second)) / (2 * len(first) - 2)
    assert f"is {between / within:.3g} times" in result.stdout


def test_json_keeps_its_promise(run, tutorial):
    report = run("compute", tutorial, "-f", "json", "--against", "torch").report
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
    assert report["format_version"] == 1
    assert report["command"] == "compute"
    assert report["exit_code"] == 0
    assert report["findings"] == []
    assert next(iter(report["tables"])) == "channels"
    for row in report["tables"]["channels"]:
        assert set(row) >= CHANNEL_KEYS
    for row in report["tables"]["differences"]:
        assert set(row) >= DIFFERENCE_KEYS
        assert row["passed"] is True
    assert report["facts"]["backend"] == "torch"
    assert report["facts"]["backend_version"] == torch.__version__


def test_findings_keep_their_keys(run, save):
    save("x.npy", np.ones((2, 3), np.float32))
    for item in run("compute", "x.npy", "-f", "json").report["findings"]:
        assert set(item) == {
            "code", "severity", "path", "subject", "message", "detail", "certainty", "evidence",
            "hint",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [(d, s) for d in DTYPES for s in (".npy", ".pt") if (d, s) != ("bfloat16", ".npy")],
)
@pytest.mark.parametrize("axis", [1, -1])
def test_saved_output_is_what_torch_computes(run, save, dtype, suffix, axis):
    x = torch.from_numpy(random(6, 3, 4, 5)).to(DTYPES[dtype])
    weight = np.linspace(0.5, 2.0, x.shape[axis]).astype(np.float32)
    assert run(
        "compute", save("x.pt", x), "--channel-axis", axis, "--save-output", f"y{suffix}", "-q",
        "--weight", save("w.npy", weight),
    ).code == 0  # fmt: skip
    saved = (
        torch.from_numpy(np.load("y.npy"))
        if suffix == ".npy"
        else torch.load("y.pt", weights_only=True)
    )
    assert saved.dtype == x.dtype
    assert saved.shape == x.shape
    assert saved.is_contiguous()
    parameters = torch.float64 if dtype == "float64" else torch.float32
    module = torch.nn.BatchNorm2d(x.shape[axis], dtype=parameters)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight))
    expected = module(x.movedim(axis, 1)).movedim(1, axis).detach()
    rounding = ROUNDING[dtype]
    torch.testing.assert_close(saved, expected, rtol=rounding, atol=rounding)


def test_saved_output_is_made_in_blocks_of_the_whole(run, save, monkeypatch):
    x = random(7, 3, 11)
    save("x.npy", x)
    run("compute", "x.npy", "--save-output", "whole.npy", "-q")
    monkeypatch.setattr("bncli.batchnorm.blocks.__defaults__", (5,))
    run("compute", "x.npy", "--save-output", "blocks.npy", "-q")
    np.testing.assert_array_equal(np.load("whole.npy"), np.load("blocks.npy"))


def test_saving_says_where(run, save):
    result = run("compute", save("x.npy", random(4, 3)), "--save-output", "y.pt", "-f", "json")
    assert result.report["facts"]["saved_output"] == "y.pt"


@pytest.mark.parametrize("how", ["same", "dot", "symlink", "hardlink", "weight"])
def test_an_input_is_never_overwritten(run, save, how):
    x = save("x.npy", random(4, 3))
    weight = save("w.npy", np.ones(3))
    target = {"same": x, "dot": f"./{x}", "weight": weight}.get(how, "link.npy")
    if how == "symlink":
        Path(target).symlink_to(x)
    if how == "hardlink":
        Path(target).hardlink_to(x)
    before = Path(x).read_bytes(), Path(weight).read_bytes()
    result = run("compute", x, "--weight", weight, "--save-output", target)
    assert result.code == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"bncli: --save-output {target}: this would overwrite an input; name another file.\n"
    )
    assert (Path(x).read_bytes(), Path(weight).read_bytes()) == before


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_a_crash_leaves_the_old_output_whole(run, save, folder, monkeypatch, suffix):
    x = save("x.npy", random(4, 3))
    old = folder / f"y{suffix}"
    assert run("compute", x, "--save-output", old.name, "-q").code == 0
    before = old.read_bytes()

    def crash(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bncli.batchnorm.BlockNormalizer.output", crash)
    result = run("compute", x, "--save-output", old.name, "--eps", 1)
    assert result.code == 2
    assert result.stdout == ""
    assert result.stderr == f"bncli: {old.name}: cannot be written (No space left on device).\n"
    assert old.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == sorted([x, old.name])


def test_a_name_that_is_no_unicode(run, save, folder):
    os.rename(save("x.npy", random(4, 3)), b"\xff.npy")  # noqa: PTH104
    name = os.fsdecode(b"\xff.npy")
    outputs = [
        argument for suffix in (".md", ".txt", ".csv", ".json") for argument in ("-o", f"r{suffix}")
    ]
    result = run("compute", name, "--save-output", os.fsdecode(b"y\xff.pt"), *outputs, "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    assert torch.load(os.fsdecode(b"y\xff.pt"), weights_only=True).shape == (4, 3)
    for path in folder.glob("r.*"):
        assert path.read_text(encoding="utf-8")


def test_statistics_of_what_is_not_finite_are_those_of_torch(run, save):
    x = random(6, 4, 3)
    x[2, 1, 2] = np.nan
    x[4, 2, 0] = np.inf
    x[3, 3, 1], x[3, 3, 2] = np.inf, -np.inf
    rows = list(csv.DictReader(io.StringIO(run("compute", save("x.npy", x), "-f", "csv").stdout)))
    zeros, ones = torch.zeros(4), torch.ones(4)
    mean, var = torch.batch_norm_update_stats(torch.from_numpy(x), zeros, ones, 0.1)
    np.testing.assert_allclose([float(row["mean"]) for row in rows], mean, rtol=1e-6)
    np.testing.assert_allclose([float(row["var"]) for row in rows], var, rtol=1e-6)
    np.testing.assert_allclose([float(row["running_mean"]) for row in rows], zeros, rtol=1e-6)
    np.testing.assert_allclose([float(row["running_var"]) for row in rows], ones, rtol=1e-6)


def test_seed_chooses_the_upstream_gradient(run, save):
    x = save("x.npy", random(8, 3, 5))

    def gradients(seed):
        result = run("compute", x, "--against", "torch", "--seed", seed, "-f", "json")
        assert result.code == 0
        assert result.report["facts"]["seed"] == seed
        return table(result, "differences")

    assert gradients(1) == gradients(1)
    assert gradients(1) != gradients(2)


def test_threads_change_nothing_that_is_shown(run, save):
    x = save("x.npy", random(64, 3, 33))
    one, two = (run("compute", x, "--threads", n, "-f", "json") for n in (1, 2))
    np.testing.assert_allclose(column(one, "mean"), column(two, "mean"), rtol=1e-14)
    np.testing.assert_allclose(column(one, "var"), column(two, "var"), rtol=1e-14)


@pytest.mark.parametrize("flags", [(), ("--against", "torch")], ids=str)
def test_the_answer_fits_a_screen(run, tutorial, monkeypatch, flags):
    monkeypatch.chdir(tutorial.parent)
    lines = run("compute", "x.npy", *flags, "--width", 80).stdout.splitlines()
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 80
    assert lines[3] == "channel   mean     var   running_mean   running_var   output"
    assert lines[4] == "      0    6.5   17.25           0.65       2.87143   -1.324 .. 1.324"


def test_the_last_line_sums_up_the_batch_or_judges_it(run, save, tutorial):
    def last(path, *flags):
        return run("compute", path, *flags).stdout.splitlines()[-1]

    assert last(tutorial) == "2 channels of 8 values, all finite"
    against = last(tutorial, "--against", "torch")
    version = torch.__version__.partition("+")[0]
    assert against.startswith(f"PASS  torch {version} agrees in 10 of 10 quantities; ")
    assert re.search(r"; running_mean comes closest to its tolerance, using \d+% of it$", against)
    x = random(6, 4, 3)
    x[2, 1, 2] = np.nan
    bad = save("bad.npy", x)
    said = "FAIL  1 error in 4 channels of 18 values (bncli rules BN001 explains it)"
    assert last(bad) == said
    against = last(bad, "--against", "torch")
    assert against.startswith(f"{said}; torch {version} agrees in 10 of 10 quantities; ")
    assert against.endswith("; NaN on both sides counts as agreement")


def test_what_differs_comes_before_the_channels(run, save):
    x = save("x.npy", random(8, 3, 5))
    text = run("compute", x, "--against", "torch", "--rtol", 0, "--atol", 0, "--width", 80).stdout
    assert 0 < text.index("quantity") < text.index("channel ")
    assert "tolerance used" in text
    assert "tolerance used" not in run("compute", x, "--against", "torch").stdout


def test_each_input_has_its_rows(run, save):
    a, b = save("a.npy", random(6, 3)), save("b.npy", random(4, 3, seed=1))
    text = run("compute", a, b, "--per-input", "--width", 80).stdout
    rows = [line.split()[:2] for line in text.split("Each input\n")[1].splitlines()[1:7]]
    assert rows == [[name, str(channel)] for name in (a, b) for channel in range(3)]
    assert "Each input" not in run("compute", a, b).stdout


def test_saving_is_told(run, save):
    text = run("compute", save("x.npy", random(9, 3)), "--save-output", "y.npy").stdout
    assert "output saved to y.npy" in text.splitlines()


REFUSALS = refusals("compute")


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusal_is_one_exact_sentence_and_exit_code_2(run, bad_inputs, arguments):
    before = sorted(path.name for path in bad_inputs.iterdir())
    code, stdout, stderr = run("compute", *arguments.split())
    assert stderr == f"bncli: {REFUSALS[arguments]}\n"
    assert stdout == ""
    assert code == 2
    assert sorted(path.name for path in bad_inputs.iterdir()) == before


def test_the_good_input_among_the_bad_ones_is_good(run, bad_inputs):
    assert run("compute", "x.npy").code == 0


def test_a_damaged_or_unknown_file_is_named(run, save, folder):
    whole = (folder / save("x.npy", random(4, 3))).read_bytes()
    (folder / "cut.npy").write_bytes(whole[:-4])
    (folder / "junk.bin").write_bytes(b"junk" * 10)
    (folder / "empty.bin").write_bytes(b"")
    for name in ("cut.npy", "junk.bin", "empty.bin", "."):
        code, stdout, stderr = run("compute", name)
        assert (code, stdout) == (2, "")
        assert stderr.startswith(f"bncli: {name}: ")
        assert stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_to(run, save, monkeypatch):
    def locked(**where):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", locked)
    result = run("compute", save("x.npy", random(4, 3)), "-o", "r.json")
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr == "bncli: r.json: cannot be written (Permission denied).\n"


def test_a_difference_that_is_ignored_is_said_not_to_count(run, save):
    save("x.npy", random(16, 8, 6))
    narrow = ("--against", "torch", "--rtol", 0, "--atol", 0, "--ignore", "BN901")
    result = run("compute", "x.npy", *narrow, "-f", "json")
    assert result.code == 0
    number = len([row for row in table(result, "differences") if not row["passed"]])
    assert number > 1
    said = result.report["verdict"]
    assert said.startswith(f"PASS  not counted: {number} ignored")
    assert f"torch {torch.__version__.partition('+')[0]} differs in {number} of 10" in said
