"""The text of a baseline: it reads well, and what does not fit is refused."""

from __future__ import annotations

import os

import pytest

from bncli.errors import FileError
from bncli.gate.baseline import update_baseline
from bncli.gate.entries import Baseline, Entry, read_baseline
from tests.findings import of_layers

LAYERS = ("stem.bn", "layer1.0.bn1", "layer1.0.bn2", "head.1")


def test_the_file_reads_well(folder):
    path = folder / "b.json"
    names = [f"model.{name}" for name in LAYERS]
    update_baseline("b.json", of_layers(*names, faulty=reversed(names)))
    assert path.read_text("utf-8") == (
        '{\n  "format_version": 2,\n  "findings": [\n'
        + ",\n".join(
            f'    {{"command": "hand-made", "file": "net.pt", "code": "BN001", '
            f'"place": "model.{name}", "prefix": "model."}}'
            for name in sorted(LAYERS)
        )
        + "\n  ]\n}\n"
    )
    update_baseline("b.json", of_layers(*LAYERS))
    assert path.read_text("utf-8") == '{\n  "format_version": 2,\n  "findings": []\n}\n'
    assert read_baseline("b.json") == Baseline()
    assert [entry.name for entry in folder.iterdir()] == ["b.json"]


def test_an_entry_is_read_as_it_was_written(folder):
    entries = (
        Entry("diff", "a.npy", "BN901", "output", inputs=(("a.npy", "x"), ("", "evaluation"))),
        Entry("inspect-checkpoint", "../n.pt", "BN201", "m.\u2028\udc80", "m.", True,
              extent=("m.a", "1-3", ("running_var", 0, 5)), apart_from=("BN209",)),
    )  # fmt: skip
    (folder / "b.json").write_text(Baseline(entries).text())
    assert read_baseline("b.json").entries == entries


GOOD = '{"command": "compute", "file": "x.npy", "code": "BN001", "place": "channels"%s}'


@pytest.mark.parametrize(
    "text",
    [
        '{"format_version": 2, "findings": {}}',
        '{"format_version": 2, "findings": ""}',
        '{"format_version": 2, "findings": null}',
        '{"format_version": 2, "findings": 3}',
        '{"format_version": 2, "findings": [3]}',
        '{"format_version": 2, "findings": [[]]}',
        '{"format_version": 2}',
        '{"findings": []}',
        '{"format_version": true, "findings": []}',
        '{"format_version": 1.0, "findings": []}',
        '{"format_version": 2.0, "findings": []}',
        '{"format_version": "2", "findings": []}',
        '{"format_version": null, "findings": []}',
        '{"format_version": 3, "findings": []}',
        '{"format_version": 0, "findings": []}',
        '{"format_version": 1, "findings": {}}',
        '{"format_version": 1, "findings": ""}',
        '{"format_version": true, "findings": [{}]}',
        '{"format_version": 2, "findings": [], "findings": []}',
        '{"format_version": 2, "findings": [], "finding": []}',
        '{"format_version": 2, "findings": [], "version_1": {}}',
        "[]", "3", "null", '"x"', "", "{", "\ufeff{}",
        *(
            f'{{"format_version": 2, "findings": [{entry}]}}'
            for entry in (
                '{"command": "compute", "code": "BN001", "place": "channels"}',
                GOOD.replace('"x.npy"', "3") % "", GOOD.replace('"BN001"', "null") % "",
                GOOD % ', "extnt": []', GOOD % ', "extent": "NaN"', GOOD % ', "extent": [3]',
                GOOD % ', "extent": [["NaN", 3, 1]]', GOOD % ', "extent": [["NaN", true, 1]]',
                GOOD % ', "extent": [["NaN", -1, 1]]', GOOD % ', "inputs": [["x"]]',
                GOOD % ', "inputs": {}', GOOD % ', "literal": 1', GOOD % ', "prefix": null',
                GOOD % ', "apart_from": [3]', GOOD % ', "file": "y.npy"',
            )
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(run, save, folder, text):
    save("x.npy", [[1.0, 2.0], [3.0, 4.0]])
    (folder / "b.json").write_text(text, encoding="utf-8")
    with pytest.raises(FileError):
        read_baseline("b.json")
    for flags in ([], ["--update-baseline"]):
        result = run("compute", "x.npy", "--baseline", "b.json", *flags)
        assert (result.code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert (folder / "b.json").read_text(encoding="utf-8") == text


def test_the_good_entry_is_one(folder):
    entry = GOOD % ""
    (folder / "b.json").write_text(f'{{"format_version": 2, "findings": [{entry}]}}')
    assert len(read_baseline("b.json").entries) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("flags", [[], ["--update-baseline"]])
def test_a_pipe_or_a_device_is_refused(run, save, folder, flags):
    save("x.npy", [[1.0, 2.0], [3.0, 4.0]])
    os.mkfifo(folder / "pipe")
    for path in ("pipe", os.devnull):
        result = run("compute", "x.npy", "--baseline", path, *flags)
        assert (result.code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
