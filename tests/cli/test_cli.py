"""What a script can rely on: exit codes, and what goes to which stream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import bncli
from bncli import cli
from bncli.errors import BncliError, ExitCode
from bncli.renderers import Format
from bncli.report import Column, FailOn, Finding, Report, Severity, Table

ESCAPE = "\x1b"
MACHINE = [form.value for form in Format if form is not Format.TABLE]


@pytest.fixture
def x(save):
    return save("x.npy", np.random.default_rng(0).normal(1, 2, (8, 3, 5)).astype(np.float32))


@pytest.fixture
def command(monkeypatch):
    """Make `compute` do something else: `command(lambda: Report(...))`."""

    def replace(action):
        def compute() -> Report:
            return action()

        monkeypatch.setattr(cli, "command", lambda name: compute)

    return replace


def hand_made(*severities: Severity, nothing_checked: bool = False) -> Report:
    return Report(
        command="hand-made",
        facts={"input": "hand"},
        tables=(Table("channels", "Channels", (Column("channel", "channel"),), [{"channel": 0}]),),
        findings=tuple(Finding("BN999", severity, "here", "a fact.") for severity in severities),
        nothing_checked=nothing_checked,
    )


# ---------------------------------------------------------------------------- exit codes


def test_exit_codes_are_the_published_ones():
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "FINDING": 1,
        "ERROR": 2,
        "NOTHING": 3,
        "BUG": 4,
        "INTERRUPTED": 130,
        "CLOSED_PIPE": 141,
        "TERMINATED": 143,
    }


ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO


@pytest.mark.parametrize(
    ("severities", "failing"),
    [
        ((), ()),
        ((INFO,), ("info",)),
        ((WARNING,), ("info", "warning")),
        ((ERROR,), ("info", "warning", "error")),
        ((INFO, ERROR, WARNING), ("info", "warning", "error")),
        ((INFO, WARNING), ("info", "warning")),
    ],
)
@pytest.mark.parametrize("fail_on", list(FailOn))
def test_fail_on(run, command, severities, failing, fail_on):
    command(lambda: hand_made(*severities))
    result = run("compute", "--fail-on", fail_on.value, "-f", "json")
    assert result.code == (1 if fail_on.value in failing else 0)
    assert result.report["exit_code"] == result.code
    assert len(result.report["findings"]) == len(severities)


def test_fail_on_is_error_by_default(run, command):
    command(lambda: hand_made(WARNING, INFO))
    assert run("compute").code == 0
    command(lambda: hand_made(ERROR))
    assert run("compute").code == 1


@pytest.mark.parametrize("fail_on", list(FailOn))
@pytest.mark.parametrize("severities", [(), (ERROR,)])
def test_nothing_checked_is_3_whatever_fails(run, command, fail_on, severities):
    command(lambda: hand_made(*severities, nothing_checked=True))
    result = run("compute", "--fail-on", fail_on.value, "-f", "json")
    assert result.code == 3
    assert result.report["exit_code"] == 3


@pytest.mark.parametrize("form", list(Format))
def test_a_report_with_empty_tables_is_shown(run, command, form):
    empty = Table("layers", "Layers", (Column("name", "name"), Column("eps", "eps")), [])
    report = Report("compute", {}, (empty,), verdict="No layer.", nothing_checked=True)
    command(lambda: report)
    for width in ((), ("--width", 40)):
        result = run("compute", "-f", form.value, *width)
        assert (result.code, result.stderr) == (3, "")
        said = ["name"] if form is Format.CSV else ["NOTHING  No layer"]
        if form in (Format.SVG, Format.HTML):  # a text of its own for each colour
            said = [">NOTHING<", "No layer"]
        assert all(words in result.stdout for words in said)


@pytest.mark.parametrize(
    "bug", [RuntimeError("boom\nwith a second line"), KeyError("lost"), ZeroDivisionError()]
)
def test_a_bug_is_one_line_and_4(run, command, bug):
    def action():
        raise bug

    command(action)
    code, stdout, stderr = run("compute")
    assert code == 4
    assert stdout == ""
    assert stderr.startswith(f"bncli: a bug in bncli {bncli.__version__}; please report")
    assert type(bug).__name__ in stderr
    assert "test_cli.py:" in stderr
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr


def test_a_bug_in_the_real_command_is_4(run, x, monkeypatch):
    monkeypatch.setattr("bncli.verify.batch_norm_pass.update", lambda *args: 1 / 0)
    code, stdout, stderr = run("compute", x)
    assert (code, stdout) == (4, "")
    assert "ZeroDivisionError" in stderr
    assert stderr.count("\n") == 1


def test_no_memory_is_2(run, command):
    def action():
        raise MemoryError

    command(action)
    assert tuple(run("compute")) == (2, "", "bncli: there is not enough memory for this input.\n")


def test_an_interrupt_is_130(run, command):
    def action():
        raise KeyboardInterrupt

    command(action)
    code, stdout, _ = run("compute")
    assert (code, stdout) == (130, "")


def test_an_interrupted_process_is_130(x):
    slow = (
        "import sys, time, bncli.moments, bncli.cli\n"
        "def wait(*args, **flags):\n"
        "    print('ready', file=sys.stderr, flush=True)\n"
        "    time.sleep(3600)\n"
        "bncli.moments.channel_stats = wait\n"
        "sys.exit(bncli.cli.main(['compute', 'x.npy']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=1800)
    assert process.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("compute", "x.npy"),
        ("compute", "x.npy", "-f", "csv"),
        ("compute", "wide.npy", "-f", "json"),  # more than a buffer holds
        ("compute", "wide.npy"),
        *(("compute", "wide.npy", "-f", form) for form in MACHINE[1:]),
        ("schema",),
        ("--version",),
        ("--help",),
    ],
)
def test_a_closed_pipe_is_141_and_quiet(x, save, arguments):
    save("wide.npy", np.random.default_rng(0).normal(size=(8, 500)).astype(np.float32))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bncli", *arguments],
            stdout=writing, stderr=subprocess.PIPE, check=False, timeout=1800,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 141


# ---------------------------------------------------------------------------- streams


def test_the_exit_code_of_a_process_is_the_one_of_main(run_process, x, save):
    save("nan.npy", np.full((8, 2), np.nan, np.float32))
    for arguments, code in (
        (("compute", "x.npy"), 0),
        (("compute", "nan.npy"), 1),
        (("compute", "nan.npy", "--fail-on", "never"), 0),
        (("compute", "missing.npy"), 2),
    ):
        result = run_process(*arguments)
        assert result.code == code
        assert (result.stdout == "") == (code == 2)
        assert (result.stderr == "") == (code != 2)


@pytest.mark.parametrize(
    ("form", "env"),
    [
        ("table", {"COLUMNS": "20", "TERM": "dumb"}),
        ("table", {"FORCE_COLOR": "1", "COLUMNS": "40"}),
        ("json", {"COLUMNS": "20", "FORCE_COLOR": "1"}),
        ("csv", {"COLUMNS": "20", "FORCE_COLOR": "1"}),
        ("markdown", {"COLUMNS": "20", "FORCE_COLOR": "1"}),
        ("github", {"COLUMNS": "20", "FORCE_COLOR": "1"}),
        ("sarif", {"COLUMNS": "20", "FORCE_COLOR": "1"}),
        ("junit", {"COLUMNS": "20", "FORCE_COLOR": "1"}),
    ],
)
def test_off_a_terminal_nothing_depends_on_one(run, run_process, x, form, env):
    result = run_process("compute", x, "-f", form, env=env)
    assert (result.code, result.stderr) == (0, "")
    assert ESCAPE not in result.stdout
    assert result.stdout == run("compute", x, "-f", form).stdout


@pytest.mark.parametrize("form", [form for form in MACHINE if form != "svg"])  # a picture of it
def test_off_a_terminal_the_width_changes_no_machine_format(run, x, form):
    plain = run("compute", x, "-f", form).stdout
    assert run("compute", x, "-f", form, "--width", 30).stdout == plain


class Terminal:
    """Standard output that says it is a terminal, 60 columns wide."""

    def __init__(self, stream):
        self.stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self.stream, name)


@pytest.fixture
def on_terminal(monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda *args: os.terminal_size((60, 24)))

    def on_terminal():
        monkeypatch.setattr(sys, "stdout", Terminal(sys.stdout))
        monkeypatch.setattr(sys.stdout, "fileno", lambda: 1, raising=False)

    return on_terminal


def test_on_a_terminal_there_is_color_and_its_width(run, x, on_terminal):
    on_terminal()
    result = run("compute", x)
    assert result.code == 0
    assert ESCAPE in result.stdout
    plain = without_escapes(result.stdout)
    assert max(map(len, plain.splitlines())) <= 60
    assert run("compute", x, "--width", 60).stdout.count("\n") == plain.count("\n")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("NO_COLOR", ""), ("TERM", "dumb")])
def test_color_can_be_refused(run, x, on_terminal, monkeypatch, name, value):
    on_terminal()
    monkeypatch.setenv(name, value)
    assert ESCAPE not in run("compute", x).stdout


def test_a_machine_format_has_no_color_on_a_terminal_either(run, x, on_terminal):
    on_terminal()
    for form in MACHINE:
        assert ESCAPE not in run("compute", x, "-f", form).stdout


def without_escapes(text: str) -> str:
    pieces = text.split(ESCAPE)
    return pieces[0] + "".join(piece.partition("m")[2] for piece in pieces[1:])


def test_quiet_prints_nothing_and_writes_files(run, x, folder):
    assert tuple(run("compute", x, "-q", "-o", "r.json", "-o", "r.md")) == (0, "", "")
    assert json.loads((folder / "r.json").read_text("utf-8"))["command"] == "compute"
    assert (folder / "r.md").read_text("utf-8").startswith("## bncli compute")


def test_quiet_still_says_what_went_wrong(run, folder):
    assert tuple(run("compute", "x.npy", "-q")) == (
        2, "", "bncli: x.npy: there is no such file.\n",
    )  # fmt: skip


def test_a_terminal_without_the_characters_is_no_bug(run_process, x):
    result = run_process("compute", x, env={"PYTHONIOENCODING": "ascii"})
    assert (result.code, result.stderr) == (0, "")
    assert "mean" in result.stdout


# ---------------------------------------------------------------------------- usage


def test_version(run, run_process):
    assert tuple(run("--version")) == (0, f"bncli {bncli.__version__}\n", "")
    assert tuple(run_process("--version")) == (0, f"bncli {bncli.__version__}\n", "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_the_commands(run_process, flag):
    code, stdout, stderr = run_process(flag)
    assert (code, stderr) == (0, "")
    assert "compute" in stdout
    assert ESCAPE not in stdout


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_compute_shows_every_flag_in_its_panel(run_process, flag):
    code, stdout, stderr = run_process("compute", flag, env={"COLUMNS": "200"})
    assert (code, stderr) == (0, "")
    for panel in ("Input", "Layer", "Comparison", "Output", "Findings"):
        assert f"\n{panel}:\n" in stdout
    for option in OPTIONS.split():
        assert option in stdout


OPTIONS = """
--channel-axis --dtype --channel --per-input
--training --eval --state --eps --momentum --affine --no-affine --track-running-stats
--no-track-running-stats --weight --bias --running-mean --running-var
--against --rtol --atol --seed
--save-output --threads --format --output --width --quiet
--fail-on --select --ignore --baseline --update-baseline
"""


def test_without_arguments_it_helps(run):
    alone, asked = run(), run("--help")
    assert (alone.code, alone.stderr) == (0, "")
    assert "compute" in alone.stdout
    assert alone.stdout == asked.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--bogus", "bncli has no flag --bogus; flags come after a command"),
        ("compute --eps 1", "INPUT is missing: name a file, or type numbers with --values."),
        ("compute x.npy --channel-axis one", "--channel-axis: 'one' is not a whole number."),
        ("compute x.npy -f yaml", "--format: it takes table, concise, json, "),
    ],
)
def test_a_wrong_call_is_one_sentence_and_2(run, arguments, words):
    code, stdout, stderr = run(*arguments.split())
    assert (code, stdout) == (2, "")
    assert stderr.startswith("bncli: ")
    assert stderr.count("\n") == 1
    assert words in stderr


@pytest.mark.parametrize("flag", ["-v", "--verbose", "-qv"])
def test_an_error_says_where_it_was_raised_where_that_is_wanted(run, folder, flag):
    short, long = run("compute", "x.npy"), run("compute", "x.npy", flag)
    assert short.code == long.code == 2
    assert short.stderr.count("\n") == 1
    assert long.stderr.startswith("Traceback (most recent call last):\n")
    assert long.stderr.endswith(f"\n{short.stderr}")


def test_a_traceback_is_in_lines_that_no_terminal_obeys(capsys):
    error = BncliError("net.py raised it.")
    error.__cause__ = ValueError("\x1b[2J first\nsecond \u202e")
    cli._show_traceback(error)
    shown = capsys.readouterr().err
    assert r"ValueError: \x1b[2J first" in shown
    assert shown.isascii()
    assert shown.endswith("bncli.errors.BncliError: net.py raised it.\n")


def test_main_takes_the_arguments_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bncli", "--version"])
    assert cli.main() == 0
    assert capsys.readouterr().out == f"bncli {bncli.__version__}\n"


@pytest.mark.parametrize(
    ("redirection", "code", "sentence"),
    [
        (">&-", 2, "bncli: standard output: is closed.\n"),
        (">/dev/full", 2, "bncli: standard output: cannot be written (No space left on device).\n"),
        ("2>&-", 0, ""),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="it takes a shell and /dev/full")
def test_streams_that_are_closed_or_full(x, redirection, code, sentence):
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m bncli compute {x} {redirection}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, sentence)


@pytest.mark.parametrize("flag", ["--version", "--help"])
@pytest.mark.skipif(sys.platform != "linux", reason="it takes a shell and /dev/full")
def test_help_and_version_without_room_are_no_bug(flag):
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m bncli {flag} >/dev/full', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "bncli: standard output: cannot be written (no space left).\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("flag", [("-o", "pipe.json"), ("--save-output", "pipe.npy")])
def test_what_is_no_regular_file_is_left_alone(run, x, folder, flag):
    os.mkfifo(flag[1])
    result = run("compute", x, *flag)
    assert result.code == 2
    assert result.stderr == f"bncli: {flag[1]}: cannot be written: it is not a regular file.\n"
    assert not (folder / flag[1]).is_file()


def test_control_characters_of_a_name_do_not_reach_the_terminal(run, x):
    result = run("compute", f"{x}::a\x1b[31mred")
    assert result.code == 2
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("counter", [-1, 2.5, 1e300, 2**63 - 1, float("nan")])
def test_a_counter_that_is_no_count_is_refused(run, x, folder, counter):
    import torch

    layer = torch.nn.BatchNorm1d(3).state_dict()
    dtype = torch.int64 if isinstance(counter, int) else torch.float64
    layer["num_batches_tracked"] = torch.tensor(counter, dtype=dtype)
    torch.save({f"bn.{name}": value for name, value in layer.items()}, "net.pt")
    result = run("compute", x, "--state", "net.pt::bn", "--momentum", "none")
    assert result.code == 2
    assert "which is not a number of batches" in result.stderr
