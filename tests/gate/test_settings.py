"""[tool.bncli]: found upward, checked, and weaker than a flag."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from bncli.errors import FileError, UsageError
from bncli.gate.settings import load_settings
from bncli.report import FailOn


@pytest.fixture
def project(folder):
    """Write a pyproject.toml: `project("fail-on = 'info'")`, here or in a folder below."""

    def project(body: str, below: str = "", header: str = "[tool.bncli]") -> None:
        place = folder / below
        place.mkdir(parents=True, exist_ok=True)
        (place / "pyproject.toml").write_text(f"[project]\nname = 'x'\n{header}\n{body}\n")

    return project


@pytest.fixture
def shards(save):
    """Two inputs that BN010 (info) remarks, and four values a channel: BN008 (info)."""
    rng = np.random.default_rng(0)
    for number in (0, 1):
        save(f"{number}.npy", rng.normal(50 * number, 1, (3, 2)).astype(np.float32))
    return "0.npy", "1.npy"


def test_every_key(project, folder):
    project(
        'fail-on = "warning"\nselect = ["BN0", "BN9"]\nignore = "BN008,BN9:output"\n'
        'baseline = "ci/known.json"\nexpect-layers = 53'
    )
    assert load_settings() == {
        "fail_on": FailOn.WARNING,
        "select": ["BN0", "BN9"],
        "ignore": ["BN008,BN9:output"],
        "baseline": "ci/known.json",
        "expect_layers": 53,
    }
    project('fail_on = "never"')  # TOML's users write both
    assert load_settings() == {"fail_on": FailOn.NEVER}
    project('fail-on = "note"')  # as reports call it
    assert load_settings() == {"fail_on": FailOn.INFO}


def test_the_nearest_one_upward_that_has_a_word_for_bncli(project, folder, monkeypatch):
    project("fail-on = 'info'\nbaseline = 'b.json'")
    project("fail-on = 'warning'", "a/b")
    project("", "a/b/c", header="[tool.bnclient]\n# nothing for bncli")
    (folder / "a/b/c/d").mkdir()
    for place, expected in (("a", "info"), ("a/b", "warning"), ("a/b/c/d", "warning")):
        monkeypatch.chdir(folder / place)
        assert load_settings()["fail_on"] is FailOn(expected)
    monkeypatch.chdir(folder / "a")
    assert load_settings()["baseline"] == str(folder / "b.json")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('ignor = ["BN0"]', "has no key ignor; did you mean ignore?"),
        ('fail = "info"', "has no key fail; did you mean fail-on?"),
        ("expected-layers = 3", "did you mean expect-layers?"),
        ("update-baseline = true", "did you mean baseline?"),
        ("color = true", "its keys are fail-on, select, ignore, baseline, expect-layers."),
        ('fail-on = "errors"', "fail-on: 'errors' is not one of error, warning, info, never."),
        ("fail-on = true", "fail-on: True is not one of"),
        ("select = 3", 'select: it takes a list of codes, such as ["BN001", "BN9"].'),
        ("ignore = [3]", "ignore: it takes a list of codes"),
        ('select = ["BN0", "X1"]', "select X1: no rule's code begins like this"),
        ("baseline = 3", "baseline: it takes a path"),
        ("expect-layers = 0", "expect-layers: 0 is not a number of layers."),
        ("expect-layers = true", "expect-layers: True is not a number of layers."),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(run, save, project, folder, body, words):
    project(body)
    with pytest.raises(UsageError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"{folder / 'pyproject.toml'}: [tool.bncli] ")
    assert words in str(caught.value)
    result = run("compute", "x.npy")
    assert result.code == 2
    assert result.stderr == f"bncli: {caught.value}\n"


def test_a_file_that_is_no_toml_is_refused_if_it_speaks_of_bncli(folder):
    (folder / "pyproject.toml").write_text("[tool.bncli\nfail-on = 3")
    with pytest.raises(FileError, match=r"pyproject.toml: it is not valid TOML: .*line 1"):
        load_settings()
    (folder / "pyproject.toml").write_text("[tool.other\nfail-on = 3")
    assert load_settings() == {}
    (folder / "pyproject.toml").write_bytes(b"[tool.other]\nname = '\xff'")
    assert load_settings() == {}


TEXT = '[tool.bncli]\nfail-on = "info"  # Prüfung\n'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (TEXT.encode("utf-16"), "not UTF-8"),
        (TEXT.encode("utf-16-le"), "not UTF-8"),
        (TEXT.replace("ü", "ue").encode("utf-16-le"), "UTF-16"),
        (TEXT.replace("ü", "ue").encode("utf-16-be"), "UTF-16"),
        (TEXT.encode("utf-32"), "not UTF-8"),
        (TEXT.encode("latin-1"), "not UTF-8"),
        (TEXT.encode("utf-8-sig"), "byte order mark"),
        (b"\xff bncli", "not UTF-8"),
    ],
)  # fmt: skip
def test_another_encoding_is_refused_and_not_overlooked(run, save, folder, data, words):
    (folder / "pyproject.toml").write_bytes(data)
    save("x.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(FileError, match=words):
        load_settings()
    result = run("compute", "x.npy")
    assert (result.code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    "header",
    ["[tool.BNCLI]", "[tool.Bncli]", "[Tool.bncli]", "[TOOL.BNCLI]", "[bncli]", "[tools.bncli]",
     "[tool.bn-cli]", "[tool.bn_cli]", '[tool."bncli "]'],
)  # fmt: skip
def test_a_table_of_nearly_that_name_is_refused(run, project, header):
    project('fail-on = "info"', header=header)
    with pytest.raises(UsageError, match=r"is not read; write \[tool\.bncli\]"):
        load_settings()
    assert run("compute", "x.npy").code == 2


def test_a_neighbour_of_such_a_name_is_none_of_ours(project, folder):
    project("", header='[tool.bnclient]\nbncli = 3\n[project.scripts]\nbncli = "x:y"')
    assert load_settings() == {}


@pytest.mark.parametrize(
    ("one", "other"), [("fail-on", "fail_on"), ("expect_layers", "expect-layers")]
)
def test_a_key_in_both_spellings_is_refused(run, project, one, other):
    value = "3" if "layers" in one else '"info"'
    project(f"{one} = {value}\n{other} = {value}")
    with pytest.raises(UsageError, match="which mean the same"):
        load_settings()
    assert run("compute", "x.npy").code == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_settings_that_may_not_be_read_are_refused(project, folder):
    project('fail-on = "info"')
    (folder / "pyproject.toml").chmod(0)
    with pytest.raises(FileError, match="cannot be read"):
        load_settings()


@pytest.mark.parametrize("header", ["[[tool.bncli]]", "[tool]\nbncli = 3"])
def test_a_section_that_is_no_table_is_refused(project, header):
    project("", header=header)
    with pytest.raises(UsageError, match=r"tool.bncli is not a table"):
        load_settings()


def test_settings_count_and_flags_override(run, project, shards):
    def fails(*flags):
        return run("compute", *shards, *flags).code

    assert fails() == 0
    project('fail-on = "info"')
    assert fails() == 1
    assert fails("--fail-on", "error") == 0
    project('fail-on = "info"\nignore = ["BN008", "BN010:inputs"]')
    assert fails() == 0
    assert fails("--ignore", "BN008") == 1
    assert fails("--ignore", "") == 1
    project('fail-on = "info"\nselect = ["BN9"]')
    assert fails() == 0
    assert fails("--select", "BN0") == 1


def test_the_baseline_of_the_settings(run, project, shards, folder, monkeypatch):
    project('fail-on = "info"\nbaseline = "known.json"')
    assert run("compute", *shards).stderr == (
        "bncli: known.json: there is no such baseline; create it with --update-baseline.\n"
    )
    assert run("compute", *shards, "--update-baseline").code == 0
    assert len(json.loads((folder / "known.json").read_text("utf-8"))["findings"]) == 2
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert run("compute", "../0.npy", "../1.npy").code == 0


def test_help_and_version_read_no_settings(run, project):
    project("nonsense = 1")
    assert run("--version").code == 0
    assert run("compute", "--help").code == 0
    assert run("schema").code == 0
