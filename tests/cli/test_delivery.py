"""The flags of every command: what counts, where the report goes, and what is said of it."""

from __future__ import annotations

import json
import stat

import numpy as np
import pytest

from bncli import cli
from bncli.commands import COMMANDS
from bncli.files.reading import current, read_bytes
from bncli.report import Column, Table, Unread
from tests.findings import finding, report


@pytest.fixture
def command(monkeypatch):
    """Make `made` a command that gives this report."""

    def replace(given):
        def made():
            return given

        made.__annotations__["return"] = type(given)
        monkeypatch.setattr(cli, "COMMANDS", {"made": COMMANDS["compute"]})
        monkeypatch.setattr(cli, "command", lambda name: made)

    return replace


@pytest.fixture
def faulty(command, folder):
    """A report with an error, a warning and a note."""
    given = report(
        finding("BN001", "a"), finding("BN002", "b", severity="warning"),
        finding("BN008", "c", severity="info"), verdict="3 layers.",
    )  # fmt: skip
    command(given)
    return given


SAID = {
    "only": "explains it", "gone": "; not counted:",
    "all": "BN001, BN002, BN008",
}  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "code", "verdict"),
    [
        ("", 1, "FAIL  3 layers; 1 error, 1 warning, 1 note (see bncli rules BN001)"),
        ("--ignore BN001", 0,
         "WARN  3 layers; 1 warning, 1 note (see bncli rules BN002){gone} 1 ignored (BN001)"),
        ("--ignore BN001 --fail-on warning", 1,
         "FAIL  3 layers; 1 warning, 1 note (see bncli rules BN002){gone} 1 ignored (BN001)"),
        ("--select BN008", 0,
         "PASS  3 layers; 1 note (bncli rules BN008 {only}){gone} 2 not selected (BN001, BN002)"),
        ("--select BN00 --ignore BN", 0, "PASS  3 layers{gone} 3 ignored ({all})"),
        ("--ignore BN001:b", 1,
         "FAIL  3 layers; 1 error, 1 warning, 1 note (see bncli rules BN001)"),
        ("--ignore BN001:a --ignore BN002,BN008", 0, "PASS  3 layers{gone} 3 ignored ({all})"),
        ("--select BN001,BN002 --ignore BN001", 0,
         "{gone} 1 not selected (BN008), 1 ignored (BN001)"),
    ],
)  # fmt: skip
def test_what_counts(run, faulty, flags, code, verdict):
    result = run("made", *flags.split(), "-f", "json")
    assert result.code == code
    assert result.report["verdict"].endswith(verdict.format(**SAID))
    kept = [item["code"] for item in result.report["findings"]]
    gone = [item["code"] for item in result.report["suppressed"]]
    assert sorted(kept + gone) == ["BN001", "BN002", "BN008"]
    shown = run("made", *flags.split()).stdout
    assert all(shown.count(f"[{item}]") == 1 for item in kept)
    assert not any(f"[{item}]" in shown for item in gone)


def test_the_scope_stands_behind_the_counts(run, command, folder):
    command(report(finding(), scope="9 layers", verdict="one more thing."))
    said = run("made", "-f", "json").report["verdict"]
    assert said == "FAIL  1 error in 9 layers (bncli rules BN001 explains it); one more thing"
    command(report(finding(severity="info"), scope="9 layers", verdict="one thing"))
    said = run("made", "-f", "json").report["verdict"]
    assert said == "PASS  one thing; 1 note in 9 layers (bncli rules BN001 explains it)"
    command(report(scope="9 layers", verdict="one thing"))
    assert run("made", "-f", "json").report["verdict"] == "PASS  one thing"
    command(report(scope="9 layers"))
    assert run("made", "-f", "json").report["verdict"] == "PASS  no findings in 9 layers"
    command(report(scope="9 layers", nothing_checked=True, verdict="there is none"))
    assert run("made", "-f", "json").report["verdict"] == "NOTHING  there is none"
    command(report(judged=False, verdict="2 rules"))
    assert run("made", "-f", "json").report["verdict"] == "2 rules"


def test_an_answer_may_be_made_of_the_findings_that_count(run, command, folder):
    def answer(delivered, fail_on):
        row = {"codes": " ".join(each.code for each in delivered.findings), "fails": fail_on.value}
        return (Table("answer", "", Column.plain("codes", "fails"), [row]),)

    command(report(finding("BN001"), finding("BN002"), answer=answer))
    shown = run("made", "--ignore", "BN001", "--fail-on", "warning").stdout
    assert "codes   fails\nBN002   warning\n" in shown


def test_a_baseline_from_the_first_run_on(run, faulty, command, folder):
    known = ("--baseline", "b.json")
    assert run("made", *known).code == 2
    first = run("made", *known, "--update-baseline", "-f", "json")
    assert first.code == 0
    assert first.report["verdict"].endswith(
        "PASS  3 layers; b.json is rewritten; not counted: 3 in the baseline (BN001, BN002, BN008)"
    )
    assert run("made", *known, "--fail-on", "info").code == 0
    command(report(*faulty.findings[1:], finding("BN011", "d")))
    second = run("made", *known, "-f", "json")
    assert second.code == 1
    assert [item["code"] for item in second.report["findings"]] == ["BN011"]
    assert (
        "1 of b.json is no longer found: --update-baseline removes it" in second.report["verdict"]
    )


def test_what_is_ignored_is_not_written_to_a_baseline(run, faulty, folder):
    run("made", "--baseline", "b.json", "--update-baseline", "--ignore", "BN002")
    known = json.loads((folder / "b.json").read_text("utf-8"))["findings"]
    assert [item["code"] for item in known] == ["BN001", "BN008"]
    assert run("made", "--baseline", "b.json", "--fail-on", "warning").code == 1


def test_a_run_that_saw_less_leaves_the_baseline_alone(run, faulty, command, folder):
    run("made", "--baseline", "b.json", "--update-baseline")
    before = (folder / "b.json").read_bytes()
    for given, code in (
        (report(unread=(Unread("net.pt", "it is cut short."),)), 2),
        (report(nothing_checked=True), 3),
    ):
        command(given)
        result = run("made", "--baseline", "b.json", "--update-baseline")
        assert result.code == code
        assert "b.json is left unchanged because not everything was checked" in result.stdout
        assert (folder / "b.json").read_bytes() == before


def test_a_baseline_keeps_its_permissions_and_its_link(run, faulty, folder):
    (folder / "real.json").write_text('{"format_version": 1, "findings": []}')
    (folder / "real.json").chmod(0o640)
    (folder / "b.json").symlink_to("real.json")
    assert run("made", "--baseline", "b.json", "--update-baseline").code == 0
    assert (folder / "b.json").is_symlink()
    assert stat.S_IMODE((folder / "real.json").stat().st_mode) == 0o640
    assert sorted(path.name for path in folder.iterdir()) == ["b.json", "real.json"]


def test_a_report_does_not_take_the_place_of_the_baseline_that_is_written(run, faulty, folder):
    result = run("made", "--baseline", "b.json", "--update-baseline", "-o", "./b.json")
    assert (result.code, result.stdout) == (2, "")
    assert "--output ./b.json: this would overwrite" in result.stderr
    assert list(folder.iterdir()) == []


def test_a_baseline_that_is_an_input_too_may_be_read_and_not_written(run, faulty, folder):
    given = cli.command("made")

    def made():
        read_bytes("b.json")
        return given()

    made.__annotations__["return"] = type(given())
    text = '{"format_version": 2, "findings": []}'
    (folder / "b.json").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "command", lambda name: made)
        assert run("made", "--baseline", "b.json", "--fail-on", "never").code == 0
        result = run("made", "--baseline", "b.json", "--update-baseline")
    assert (result.code, result.stdout) == (2, "")
    assert "--baseline b.json: this would overwrite an input" in result.stderr
    assert (folder / "b.json").read_text() == text


def test_what_is_to_be_said_of_the_files_is_among_the_facts(run, faulty):
    assert "notes" not in run("made", "-f", "json").report["facts"]
    given = cli.command("made")

    def made():
        current().notes |= {"one.": None, "two.": None}
        return given()

    made.__annotations__["return"] = type(given())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "command", lambda name: made)
        assert run("made", "-f", "json").report["facts"]["notes"] == ["one.", "two."]
        assert "\none.\ntwo.\n\nFAIL" in run("made").stdout


def test_a_file_that_could_not_be_read(run, command, folder):
    command(
        report(finding(path="a.pt"), read=("a.pt",), unread=(Unread("b.pt", "it is cut short."),))
    )
    result = run("made", "-f", "json")
    assert result.code == 2
    assert result.stderr == "bncli: b.pt: it is cut short.\n"
    assert result.report["unread"] == [{"path": "b.pt", "problem": "it is cut short."}]
    assert (
        result.report["verdict"]
        == "ERROR  1 error (bncli rules BN001 explains it); 1 file could not be read"
    )
    assert run("made", "-q", "--fail-on", "never").stderr == "bncli: b.pt: it is cut short.\n"
    assert "error[BN001] a fact (certain)\n  --> a.pt: here\n" in run("made").stdout


def test_many_files_in_one_call(run, folder, save):
    """Each suffix has its format, and the terminal its own."""
    save("x.npy", np.arange(24, dtype=np.float32).reshape(8, 3))
    names = ["r.json", "r.csv", "r.md", "r.sarif", "r.xml", "r.txt"]
    flags = [part for name in names for part in ("-o", name)]
    result = run("compute", "x.npy", *flags, "-f", "github")
    assert result.code == 0
    assert result.stdout.startswith(("::", "bncli compute: "))
    starts = ['{\n  "format', "channel,", "## bncli", '{\n  "$schema"', "<?xml", "x.npy  "]
    for name, start in zip(names, starts, strict=True):
        assert (folder / name).read_text("utf-8").startswith(start)
    for name, form in (("r.sarif", "sarif"), ("r.xml", "junit"), ("r.md", "markdown")):
        assert (folder / name).read_text("utf-8") == run("compute", "x.npy", "-f", form).stdout


def test_quiet_keeps_files_and_exit_code(run, faulty, folder):
    assert tuple(run("made", "-q", "-o", "r.sarif", "-o", "r.xml")) == (1, "", "")
    assert len(json.loads((folder / "r.sarif").read_text("utf-8"))["runs"][0]["results"]) == 3
    assert 'failures="1"' in (folder / "r.xml").read_text("utf-8")
