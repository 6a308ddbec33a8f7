"""Every command takes every format and every flag of its output, for it knows none of them."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET

import pytest

from bncli.renderers import SUFFIXES, Format
from bncli.report import Severity
from tests.calls import CALLS, NAMES

MAIN = {
    "compute": "channels",
    "trace": "steps",
    "simulate-ema": "steps",
    "diff": "differences",
    "identify": "hypotheses",
    "inspect-checkpoint": "layers",
    "compare-norms": "norms",
    "conventions": "conventions",
    "rules": "rules",
}
"""The table that CSV carries."""


def well_formed(form: Format, text: str) -> bool:
    """Whether a parser of the format takes the text."""
    if form in (Format.JSON, Format.SARIF):
        return bool(json.loads(text))
    if form is Format.JUNIT:
        return bool(list(ET.fromstring(text).iter("testcase")))
    if form is Format.CSV:
        return len({len(row) for row in csv.reader(io.StringIO(text))}) == 1
    return text.count("bncli") > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_format(run, repository, monkeypatch, name):
    monkeypatch.chdir(repository)
    codes = set()
    for form in Format:
        result = run(name, *CALLS[name], "-f", form.value)
        codes.add(result.code)
        assert result.stderr == ""
        assert well_formed(form, result.stdout), form
        if form is Format.JSON:
            found = [(item["severity"], item["code"]) for item in result.report["findings"]]
            assert found == sorted(found, key=lambda pair: (-Severity(pair[0]).rank, pair[1]))
    assert len(codes) == 1
    assert codes <= {0, 1}


@pytest.mark.parametrize("name", NAMES)
def test_csv_carries_the_main_table(run, repository, monkeypatch, name):
    monkeypatch.chdir(repository)
    rows = run(name, *CALLS[name], "-f", "json").report["tables"]
    assert next(iter(rows)) == MAIN[name]
    text = run(name, *CALLS[name], "-f", "csv").stdout
    assert next(csv.reader(io.StringIO(text))) == list(rows[MAIN[name]][0])


@pytest.mark.parametrize("name", NAMES)
def test_the_flags_of_the_output(run, repository, monkeypatch, tmp_path, name):
    monkeypatch.chdir(repository)
    paths = [tmp_path / f"r{suffix}" for suffix in SUFFIXES]
    flags = [part for path in paths for part in ("-o", path)]
    baseline = tmp_path / "known.json"
    result = run(name, *CALLS[name], "-q", *flags, "--baseline", baseline, "--update-baseline")
    assert tuple(result) == (0, "", "")
    assert all(path.stat().st_size for path in paths)
    assert run(name, *CALLS[name], "-q", "--baseline", baseline, "--fail-on", "info").code == 0
    assert run(name, *CALLS[name], "-q", "--ignore", "BN", "--fail-on", "info").code == 0
