"""`inspect-checkpoint` on many files: one table, one verdict, one bad file spoils no other."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bncli.loaders.statistics import write_statistics
from tests.loaders.statistics.captures import model_capture


@cache
def trained(layers: int, width: int) -> dict[str, torch.Tensor]:
    """A network's state, its statistics estimated from real batches."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.BatchNorm1d(width) for _ in range(layers)))
    for _ in range(60):
        model(torch.randn(32, width))
    return model.state_dict()


def net(layers: int = 2, width: int = 4) -> dict[str, torch.Tensor]:
    """A copy of it, to be spoilt."""
    return {name: value.clone() for name, value in trained(layers, width).items()}


@pytest.fixture
def files(folder):
    """Two good files, one with NaN, one cut short, one without BatchNorm, in two folders."""
    (folder / "old").mkdir()
    torch.save(net(), "a.pt")
    torch.save(net(), "old/b.pt")
    bad = net()
    bad["1.running_var"][2] = float("nan")
    torch.save(bad, "old/nan.pt")
    (folder / "cut.pt").write_bytes((folder / "a.pt").read_bytes()[:-300])
    torch.save(nn.LayerNorm(3).state_dict(), "norm.pt")
    return folder


def test_a_statistics_file_is_named_for_what_it_is(run, folder):
    write_statistics("stats.npz", model_capture([np.ones((2, 3, 1, 1))]))
    said = "it holds the statistics of a model's layers or of a tensor, not their values; read it"
    alone = run("inspect-checkpoint", "stats.npz")
    assert (alone.code, alone.stdout) == (2, "")
    assert alone.stderr.startswith(f"bncli: stats.npz: {said}")
    torch.save(net(), "net.pt")
    both = run("inspect-checkpoint", "*.*", "-f", "json")
    assert both.code == 2
    assert [item["path"] for item in both.report["unread"]] == ["stats.npz"]
    assert both.report["facts"]["layers"] == 2
    assert run("inspect-checkpoint", ".").code == 0  # the folder holds one model


def test_too_little_memory_for_one_file_spoils_no_other(run, files, monkeypatch):
    from bncli.commands.inspect_checkpoint import judged_file

    real = judged_file._read

    def read(refs, settings, runs):
        if str(refs.running_mean.path) == "old/b.pt":
            raise MemoryError
        return real(refs, settings, runs)

    monkeypatch.setattr(judged_file, "_read", read)
    result = run("inspect-checkpoint", "a.pt", "old/b.pt", "-f", "json")
    assert result.code == 2
    (unread,) = result.report["unread"]
    assert (unread["path"], "not enough memory" in unread["problem"]) == ("old/b.pt", True)
    assert len(result.report["tables"]["layers"]) == 3
    result = run("inspect-checkpoint", "old/b.pt")
    assert tuple(result)[:2] == (2, "")
    assert "old/b.pt: there is not enough memory" in result.stderr


def test_one_table_and_one_verdict(run, files):
    result = run("inspect-checkpoint", "a.pt", "old/b.pt", "old/nan.pt", "-f", "json")
    assert result.code == 1
    rows = result.report["tables"]["layers"]
    paths = [path for path in ("a.pt", "old/b.pt", "old/nan.pt") for _ in range(2)]
    assert [(row["path"], row["name"]) for row in rows] == list(
        zip(paths, ["0", "1"] * 3, strict=True)
    )
    (finding,) = result.report["findings"]
    assert (finding["path"], finding["subject"]) == ("old/nan.pt", "1")
    assert result.report["facts"]["path"] == ["a.pt", "old/b.pt", "old/nan.pt"]
    assert "6 BatchNorm layers of 3 files" in result.report["verdict"]
    assert "--> old/nan.pt::1\n" in run("inspect-checkpoint", "a.pt", "old/nan.pt").stdout


def test_one_file_has_a_path_in_its_findings_and_none_in_its_table(run, files):
    result = run("inspect-checkpoint", "old/nan.pt", "-f", "json")
    assert "path" not in result.report["tables"]["layers"][0]
    assert result.report["findings"][0]["path"] == "old/nan.pt"
    assert "--> old/nan.pt::1\n" in run("inspect-checkpoint", "old/nan.pt").stdout


@pytest.mark.parametrize("bad", ["cut.pt", "missing.pt", "old", "a.pt::nothing"])
def test_an_unreadable_file_has_a_row_and_exit_code_2(run, files, bad):
    result = run("inspect-checkpoint", bad, "a.pt", "old/nan.pt", "-f", "json", "--fail-on=never")
    assert result.code == 2
    path = bad.partition("::")[0]
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(f"bncli: {path}: ")
    (unread,) = result.report["unread"]
    assert sentence == f"bncli: {unread['path']}: {unread['problem']}"
    row, *others = result.report["tables"]["layers"]
    assert (row["path"], row["note"], row["name"]) == (path, unread["problem"], None)
    assert [other["path"] for other in others] == ["a.pt"] * 2 + ["old/nan.pt"] * 2
    assert [item["code"] for item in result.report["findings"]] == ["BN201"]
    assert "1 file could not be read" in result.report["verdict"]
    alone = run("inspect-checkpoint", bad)
    assert (alone.code, alone.stdout) == (2, "")
    assert alone.stderr == result.stderr


def test_every_file_is_unreadable(run, files):
    result = run("inspect-checkpoint", "cut.pt", "missing.pt", "-f", "json")
    assert result.code == 2
    assert len(result.report["unread"]) == len(result.stderr.splitlines()) == 2
    assert len(result.report["tables"]["layers"]) == 2


def test_every_format_tells_of_an_unreadable_file(run, files):
    for form in ("table", "csv", "markdown", "github", "sarif", "junit"):
        result = run("inspect-checkpoint", "a.pt", "missing.pt", "-f", form)
        assert result.code == 2
        assert "there is no such file." in result.stdout
        assert "missing.pt" in result.stdout
    rows = list(
        csv.DictReader(io.StringIO(run("inspect-checkpoint", "a.pt", "x.pt", "-f", "csv").stdout))
    )
    assert [row["path"] for row in rows] == ["x.pt", "a.pt", "a.pt"]


def test_a_file_without_batchnorm_is_named(run, files):
    result = run("inspect-checkpoint", "a.pt", "norm.pt", "-f", "json")
    assert result.code == 0
    assert "there is no BatchNorm layer in norm.pt" in result.report["remarks"]
    assert run("inspect-checkpoint", "norm.pt", "norm.pt").code == 3
    suites = ET.fromstring(run("inspect-checkpoint", "a.pt", "norm.pt", "-f", "junit").stdout)
    assert [(suite.get("name"), suite.get("skipped")) for suite in suites] == [
        ("a.pt", "0"), ("norm.pt", "1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        (["*.pt"], ["a.pt", "norm.pt"]),
        (["[ab].pt"], ["a.pt"]),
        (["**/*.pt"], ["a.pt", "norm.pt", "old/b.pt", "old/nan.pt"]),
        (["old/*", "a.pt"], ["old/b.pt", "old/nan.pt", "a.pt"]),
        (["old/?.pt::1"], ["old/b.pt"]),
        (["*"], ["a.pt", "norm.pt"]),
        (["a.pt", "./a.pt", "*.pt", "**/*.pt"], ["a.pt", "norm.pt", "old/b.pt", "old/nan.pt"]),
        (["norm.pt", "*.pt"], ["norm.pt", "a.pt"]),
        (["a.pt::0", "a.pt::1"], ["a.pt", "a.pt"]),
    ],
)
def test_patterns(run, files, patterns, paths):
    (files / "cut.pt").unlink()
    report = run("inspect-checkpoint", *patterns, "-f", "json").report
    found = report["facts"]["path"]
    assert ([found] if isinstance(found, str) else found) == paths
    if patterns[0].endswith("?.pt::1"):
        assert [row["name"] for row in report["tables"]["layers"]] == ["1"]


def test_a_pattern_for_nothing_is_refused(run, files):
    result = run("inspect-checkpoint", "a.pt", "new/*.pt")
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr == "bncli: new/*.pt: no file fits this pattern.\n"


def test_a_file_that_is_called_like_a_pattern_is_meant(run, files):
    torch.save(net(3), "[ab].pt")
    assert run("inspect-checkpoint", "[ab].pt", "-f", "json").report["facts"]["layers"] == 3


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("run[1].pt", ["run[1].pt"]),  # a file of that name is meant alone
        ("run[1]*.pt", ["run1-a.pt", "run1.pt", "run[1]-a.pt", "run[1].pt"]),
        ("exp[a]/run[12].pt", ["exp[a]/run1.pt", "exp[a]/run2.pt"]),
        ("exp[a]/*::0", ["exp[a]/run1.pt", "exp[a]/run2.pt"]),
        ("run[!2]-a.pt", ["run1-a.pt"]),
        ("run[]1]-a.pt", ["run1-a.pt"]),
        ("**/run[1]?a.pt", ["run1-a.pt", "run[1]-a.pt"]),
        ("[r][u][n][[]1*", ["run[1]-a.pt", "run[1].pt"]),
        ("[r][u][n][1][.]pt", ["run1.pt"]),
    ],
)
def test_brackets_mean_themselves_too(run, folder, pattern, paths):
    (folder / "exp[a]").mkdir()
    for name in (
        "run[1].pt",
        "run1.pt",
        "run[1]-a.pt",
        "run1-a.pt",
        "exp[a]/run1.pt",
        "exp[a]/run2.pt",
    ):
        torch.save(net(1), name)
    found = run("inspect-checkpoint", pattern, "-f", "json").report["facts"]["path"]
    assert ([found] if isinstance(found, str) else found) == paths


@pytest.mark.parametrize(
    ("arguments", "faulty"),
    [
        ("a.pt --expect-layers 2", []),
        ("a.pt --expect-layers 3", ["a.pt"]),
        ("a.pt::1 --expect-layers 2", []),  # the file's, whichever are shown
        ("a.pt --layer 1 --expect-layers 2", []),
        ("a.pt::1 --expect-layers 1", ["a.pt"]),
        ("a.pt norm.pt --expect-layers 2", ["norm.pt"]),
        ("a.pt old/b.pt --expect-layers 1", ["a.pt", "old/b.pt"]),
    ],
)
def test_expect_layers(run, files, arguments, faulty):
    result = run("inspect-checkpoint", *arguments.split(), "-f", "json")
    found = [item for item in result.report["findings"] if item["code"] == "BN607"]
    assert [item["path"] for item in found] == faulty
    assert result.code == (1 if faulty else 0)
    for item in found:
        assert item["severity"] == "error"
        assert f"{item['evidence']['expected']} w" in item["message"]


def test_expect_layers_in_a_file_without_any_is_still_3(run, files):
    result = run("inspect-checkpoint", "norm.pt", "--expect-layers", "2", "-f", "json")
    assert result.code == 3
    assert [item["code"] for item in result.report["findings"]] == ["BN607"]
    assert run("inspect-checkpoint", "a.pt", "--expect-layers", "0").code == 2


def test_junit_has_a_case_for_every_layer(run, files):
    text = run("inspect-checkpoint", "a.pt", "old/nan.pt", "-f", "junit").stdout
    assert re.findall(r'<testcase .*? name="([^"]*)" file="([^"]*)"', text) == [
        ("BN201 1", "old/nan.pt"), ("0", "old/nan.pt"), ("0", "a.pt"), ("1", "a.pt"),
    ]  # fmt: skip
    assert text.count("<failure ") == 1


def test_the_bar_counts_the_bytes_of_all_files(run, files, monkeypatch):
    seen = []

    @contextmanager
    def recorded(description, total):
        seen.append((description, total))
        yield seen.append

    monkeypatch.setattr("bncli.commands.inspect_checkpoint.files.progress", recorded)
    assert run("inspect-checkpoint", "a.pt", "missing.pt", "old/b.pt", "-q").code == 2
    sizes = [(files / "a.pt").stat().st_size, 0, (files / "old/b.pt").stat().st_size]
    assert seen == [("checkpoints", sum(sizes)), *sizes]


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB there")
def test_many_files_take_no_more_memory_than_one(run_process, folder):
    """500 checkpoints of 2 MB: their gigabyte is never there at once."""
    state = net(4, 1024) | {"conv.weight": torch.randn(700, 700)}
    torch.save(state, "0.pt")
    for number in range(1, 500):
        os.link("0.pt", f"{number}.pt")
    probe = (
        "import resource, sys; from bncli.cli import main; code = main(); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )

    def peak(*paths: str) -> int:
        result = run_process("inspect-checkpoint", *paths, "-q", python=["-c", probe])
        assert result.code == 0
        return int(result.stderr)

    alone = peak("0.pt")
    assert peak("*.pt") < alone + 16 * 1024  # the 2000 rows of the table


def shards(folder, names: str = "model-{:05d}-of-00002.safetensors") -> list[str]:
    """Two layers, the second with its parameters in one file and its statistics in another."""
    state = net()
    apart = [key for key in state if key.startswith("1.running") or "tracked" in key]
    (folder / "m").mkdir()
    for number, part in enumerate(
        ({k: state[k] for k in state if k not in apart}, {k: state[k] for k in apart}), 1
    ):
        save_file(part, folder / "m" / names.format(number))
    return [f"m/{names.format(number)}" for number in (1, 2)]


@pytest.mark.parametrize("indexed", [True, False])
def test_shards_are_one_model(run, folder, indexed):
    paths = shards(folder)
    main = paths[0]
    if indexed:
        main = "m/model.safetensors.index.json"
        places = {key: path[2:] for path in paths for key in load_file(path)}
        (folder / main).write_text(json.dumps({"weight_map": places}))
    calls = (
        ["m"],
        ["m/"],
        ["m/*.safetensors"],
        paths,
        paths[1:],
        [main],
        ["m", *paths, "m/*-of-*"],
    )
    for argv in calls:
        report = run("inspect-checkpoint", *argv, "-f", "json").report
        facts = report["facts"]
        assert (facts["path"], facts["layers"], facts["shards"]) == (main, 2, 2)
        assert [row["name"] for row in report["tables"]["layers"]] == ["0", "1"]
        assert not report["findings"]
    torch.save(net(), "other.pt")
    report = run("inspect-checkpoint", "m", "other.pt", "-f", "json").report
    assert report["facts"]["path"] == [main, "other.pt"]
    report = run("inspect-checkpoint", f"{paths[1]}::1", "-f", "json").report
    assert (report["facts"]["path"], report["facts"]["layers"]) == (main, 1)


def test_shards_that_are_missing_are_named(run, folder):
    paths = shards(folder)
    (folder / paths[1]).unlink()
    torch.save(net(), "other.pt")
    for argv in (["m"], ["m/*"], [paths[0]]):
        result = run("inspect-checkpoint", *argv)
        assert (result.code, result.stdout) == (2, "")
        assert paths[1][2:] in result.stderr
        result = run("inspect-checkpoint", *argv, "other.pt", "-f", "json")
        assert (result.code, len(result.report["unread"])) == (2, 1)


def test_an_output_is_written_over_no_shard(run, folder):
    for path in shards(folder, "model-{:05d}-of-00002.bin"):
        (folder / path).rename(folder / path.replace("safetensors", "bin"))
    before = (folder / "m/model-00002-of-00002.bin").read_bytes()
    (folder / "out.json").symlink_to("m/model-00002-of-00002.bin")
    result = run("inspect-checkpoint", "m", "-o", "out.json")
    assert result.code == 2
    assert (folder / "m/model-00002-of-00002.bin").read_bytes() == before
