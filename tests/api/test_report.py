"""A report in Python: it shows, saves, converts, compares and is pickled."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest

import bncli
from bncli.api.calls import surrounded
from bncli.api.report import Report
from bncli.api.tables import Table
from bncli.errors import ExitCode, FileError, MissingBackendError, UsageError
from bncli.given import name_of, object_of
from bncli.pictures import Picture
from bncli.report import FailOn
from tests.calls import CALLS
from tests.findings import finding, report

from .python_calls import python_call


@pytest.fixture
def x(save):
    return save("x.npy", np.random.default_rng(0).normal(1, 2, (8, 3, 5)).astype(np.float32))


def test_it_is_a_report_with_tables_by_name(x):
    made = bncli.compute(x)
    assert isinstance(made, bncli.report.Report)
    table = made.table("channels")
    assert isinstance(table, Table)
    assert table is made.tables[0]
    values = np.load(x).astype(np.float64)
    assert table["mean"] == pytest.approx(values.mean((0, 2)).tolist(), abs=1e-12)
    assert table.to_pandas()["var"].tolist() == pytest.approx(values.var((0, 2)).tolist())
    assert list(made.facts["shape"]) == [8, 3, 5]
    with pytest.raises(KeyError, match="the report of compute has no table 'layers': channels"):
        made.table("layers")


def test_it_is_ok_as_far_as_it_was_told(repository):
    path = repository / "examples" / "checkpoint" / "nan.pt"
    assert bncli.inspect_checkpoint(path).exit_code() is ExitCode.FINDING
    never = bncli.inspect_checkpoint(path, fail_on="never")
    assert (never.ok, never.word) == (True, "WARN")
    assert never.exit_code(FailOn.ERROR) is ExitCode.FINDING
    note = [[1, 2], [3, 4]]
    assert bncli.compute(note).ok
    assert not bncli.compute(note, fail_on="note").ok
    assert bncli.compute(note, fail_on="note").verdict.startswith("FAIL")


@pytest.mark.parametrize("suffix", ["json", "csv", "md", "txt", "sarif", "xml", "svg", "html"])
def test_it_is_saved_as_the_command_line_does(x, run, folder, suffix):
    bncli.compute(x).save(folder / f"mine.{suffix}")
    run("compute", x, "-q", "-o", f"told.{suffix}")
    mine, told = ((folder / f"{name}.{suffix}").read_text("utf-8") for name in ("mine", "told"))
    assert mine == told
    bncli.compute(x).save(folder / f"mine.{suffix}", verbose=True)
    run("compute", x, "-q", "-v", "-o", f"told.{suffix}")
    assert (folder / f"mine.{suffix}").read_text("utf-8") == (folder / f"told.{suffix}").read_text(
        "utf-8"
    )


def test_it_overwrites_nothing_that_was_read(x, folder, save):
    (folder / "x.json").write_text("[[1, 2], [3, 4]]", "utf-8")
    (folder / "link.json").symlink_to(folder / "x.json")
    made = bncli.compute("x.json")
    for path in ("x.json", "link.json", folder / "x.json"):
        with pytest.raises(UsageError, match="this would overwrite an input; name another file"):
            made.save(path)
    with pytest.raises(UsageError, match=r"^save report\.docx: the suffix picks the format"):
        made.save("report.docx")
    with pytest.raises(FileError, match="the folder 'missing' does not exist"):
        made.save("missing/report.json")
    assert (folder / "x.json").read_text("utf-8") == "[[1, 2], [3, 4]]"
    pickle.loads(pickle.dumps(made)).save("other.json")
    with pytest.raises(UsageError):
        pickle.loads(pickle.dumps(made)).save("x.json")


def test_it_shows_itself(x, monkeypatch, run):
    made = bncli.compute(x)
    text = str(made)
    assert run("compute", x, "--width", "80").stdout.rstrip("\n") == text
    assert repr(made) == text
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, str(made).splitlines())) <= 40
    monkeypatch.setenv("COLUMNS", "1")
    assert str(made)


def test_a_path_is_text_bytes_or_a_path(x, folder):
    made = bncli.compute(x)
    made.save(b"mine.json")
    assert (folder / "mine.json").is_file()
    for path, problem in (("", "the path is empty"), ("a\0.json", "the path has a null byte")):
        with pytest.raises(UsageError) as refused:
            made.save(path)
        assert str(refused.value) == f"save: {problem}; name a file, such as report.html."


def test_a_shell_of_ipython_and_a_notebook_show_it(x, save, monkeypatch):
    core = pytest.importorskip("IPython.core.formatters")
    made = bncli.compute(x)
    assert core.PlainTextFormatter()(made) == str(made)
    page = core.HTMLFormatter()(made)
    assert "channel" in page
    hostile = bncli.compute(save("<script>x</script>.npy".replace("/", ""), np.eye(4, 2)))
    assert "<script>" not in hostile._repr_html_()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    page = hostile._repr_html_()
    assert page.startswith("<pre>")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    with pytest.raises(MissingBackendError, match=r"save r\.html needs jinja2, which is not inst"):
        made.save("r.html")


def test_to_dict_is_the_json_report(x, run):
    made = bncli.compute(x, channel=1)
    assert made.to_dict() == run("compute", x, "--channel", "1", "-f", "json").report
    bad = bncli.compute([[float("nan"), 2], [3, 4]], fail_on="never").to_dict()
    assert bad["tables"]["channels"][0]["mean"] is None
    json.dumps(bad, allow_nan=False)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "capture"])
def test_it_is_pickled_copied_and_compared(name, repository, monkeypatch):
    monkeypatch.chdir(repository)
    command, inputs, given = python_call(" ".join([name, *CALLS[name]]))
    made = getattr(bncli, command)(*inputs, **given)
    again = pickle.loads(pickle.dumps(made))
    assert again == made == copy.deepcopy(made)
    assert type(again) is Report
    assert str(again) == str(made)
    assert again.to_dict() == made.to_dict()
    assert replace(made, verdict="another") != made
    assert (made == "a text") is False
    with pytest.raises(TypeError, match="unhashable"):
        hash(made)


def test_reports_of_nan_are_equal_too():
    one, other = (bncli.compute([[float("nan"), 2], [3, 4]]) for _ in range(2))
    assert one == other
    assert one != bncli.compute([[float("inf"), 2], [3, 4]])


# ---------------------------------------------------------------------------- pictures


class Big:
    """An object that a call was given."""


def drawn(name, calls):
    """A function that makes a picture of the object of that name."""

    def pictures():
        calls.append(type(object_of(name)).__name__)
        return (Picture("depth", "Depth", (), "what one sees"),)

    return pictures


def made_with_pictures(calls):
    with surrounded() as around:
        big = Big()
        given = replace(report(finding()), pictures=drawn(name_of(big), calls))
        return Report.of(given, FailOn.ERROR, around), weakref.ref(big)


def test_pictures_are_made_after_the_call_of_what_it_was_given():
    calls: list[str] = []
    made, big = made_with_pictures(calls)
    gc.collect()
    assert big() is not None
    assert calls == []
    assert [each.key for each in made.pictures()] == ["depth"]
    assert calls == ["Big"]
    gc.collect()
    assert big() is None  # nothing needs it any more
    assert made.pictures()[0].title == "Depth"
    assert calls == ["Big"]


def test_a_page_of_what_was_changed_says_so_and_warns(x, folder):
    pytest.importorskip("jinja2")
    values = np.load(x)
    made = bncli.compute(values)
    bncli.compute(values).save("before.html")  # and warns of nothing
    values *= 1000
    for each in (made, pickle.loads(pickle.dumps(made))):
        with pytest.warns(UserWarning, match=r"^save r.html: the page has no pictures. <ndarray>:"):
            each.save("r.html")
        page = (folder / "r.html").read_text("utf-8")
        assert "no longer those that the statistics are of" in page
        each.save("r.json")  # and warns of nothing


def test_pictures_are_pickled_as_they_are():
    calls: list[str] = []
    made, _ = made_with_pictures(calls)
    again = pickle.loads(pickle.dumps(made))
    assert again.pictures()[0].text == "what one sees"
    assert again == made


def test_objects_are_let_go_where_no_picture_needs_them():
    with surrounded() as around:
        big = Big()
        name_of(big)
        made = Report.of(report(), FailOn.ERROR, around)
    del around
    gone = weakref.ref(big)
    del big
    gc.collect()
    assert gone() is None
    assert made.pictures == ()
