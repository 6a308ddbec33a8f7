"""How the process ends, whatever happens to it: streams, folder, environment and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from bncli import cli
from bncli.errors import ExitCode
from bncli.process import signals
from bncli.report import Report

POSIX = pytest.mark.skipif(os.name != "posix", reason="it takes a POSIX shell")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it takes /dev/full")


@pytest.fixture
def x(save):
    return save("x.npy", np.random.default_rng(0).normal(1, 2, (8, 3, 5)).astype(np.float32))


def shell(script: str, *arguments: str, env: dict[str, str] | None = None):
    """A script in which "$@" is bncli."""
    return subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-m", "bncli", *arguments],
        capture_output=True, text=True, check=False, timeout=1800, env=os.environ | (env or {}),
    )  # fmt: skip


def assert_refused(done, *words: str) -> None:
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("bncli: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


# ---------------------------------------------------------------------------- streams


STANDARD_INPUT = ["compute -", "trace -", "compare-norms -", "diff - x.npy", "identify - x.npy",
                  "identify x.npy -", "simulate-ema -", "inspect-checkpoint -",
                  "inspect-checkpoint x.npy -", "compute x.npy --weight -"]  # fmt: skip


@pytest.mark.parametrize("command", STANDARD_INPUT)
def test_standard_input_that_is_not_there_is_2(run, x, monkeypatch, command):
    monkeypatch.setattr(sys, "stdin", None)
    result = run(*command.split())
    assert result.code == 2
    assert "standard input is closed" in result.stderr


@POSIX
def test_standard_input_that_is_closed_or_cannot_be_read_is_2(x):
    assert_refused(shell('"$@" <&-', "compute", "-"), "standard input is closed")
    assert_refused(shell('"$@" 0>written', "compute", "-"), "standard input cannot be read")


@LINUX
@pytest.mark.parametrize(
    ("redirection", "arguments"),
    [
        ("2>/dev/full", "compute nofile"),
        ("2>/dev/full", "compute x.npy --bogus"),
        ("2>&-", "nonsense"),
        (">/dev/full 2>/dev/full", "compute x.npy"),
        ("<&- >&- 2>&-", "compute nofile"),
    ],
)
def test_an_error_that_cannot_be_said_is_2_all_the_same(x, redirection, arguments):
    done = shell(f'"$@" {redirection}', *arguments.split())
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@POSIX
def test_nobody_who_reads_the_error_changes_nothing(x):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "bncli", "compute", "nofile"],
            stdout=subprocess.PIPE, stderr=nobody, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")


# ---------------------------------------------------------------------------- folder, environment


GONE = 'mkdir gone && cd gone && rmdir ../gone && "$@"'


@POSIX
@pytest.mark.parametrize("flags", ["-o r.json", "--save-output y.npy", "-o r.json -q"])
def test_nothing_is_written_from_a_folder_that_is_gone(x, folder, flags):
    done = shell(GONE, "compute", str(folder / "x.npy"), *flags.split())
    assert_refused(done, "cannot be written")


@POSIX
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("compute {x}", 0),
        ("compute {x} -o {folder}/r.json -q", 0),
        ("compute x.npy", 2),
        ("inspect-checkpoint '*.pt'", 2),
        ("diff {x} {x}", 0),
        ("conventions", 0),
        ("simulate-ema {x} --batch-size 4", 0),
    ],
)
def test_what_needs_no_folder_works_without_one(x, folder, command, code):
    arguments = command.replace("'", "").format(x=folder / "x.npy", folder=folder).split()
    done = shell(GONE, *arguments)
    assert done.returncode == code
    assert (done.stderr == "") == (code == 0)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("env", [{"COLUMNS": "99999999999999"}, {"TERMINAL_WIDTH": "abc"}])
def test_an_impossible_terminal_is_no_bug(run_process, env):
    result = run_process("--help", env=env)
    assert (result.code, result.stderr) == (0, "")
    assert "compute" in result.stdout


# ---------------------------------------------------------------------------- counts


@pytest.mark.parametrize("number", ["1025", "100000", str(10**30)])
@pytest.mark.parametrize(
    "command",
    ["diff x.npy --torch-threads", "compute x.npy --threads", "diff x.npy --threads",
     "trace x.npy --threads", "simulate-ema x.npy --batch-size 4 --threads",
     "simulate-ema x.npy --batch-size 4 --torch-threads"],
)  # fmt: skip
def test_more_threads_than_any_machine_has_are_refused(run, x, command, number):
    code, stdout, stderr = run(*command.split(), number)
    assert (code, stdout) == (2, "")
    assert stderr.endswith(f": {number} is not from 1 to 1024.\n")


@pytest.mark.parametrize("number", [10**5, 2**31, 2**63, 10**30])
@pytest.mark.parametrize(
    "command",
    ["compute x.npy --seed", "compute x.npy --against torch --seed", "diff x.npy --seed",
     "compute x.npy --channel-axis", "compute x.npy --channel", "compute x.npy --width",
     "compare-norms x.npy --first-values", "compare-norms x.npy --groups",
     "compare-norms x.npy --normalized-shape", "trace x.npy --at",
     "simulate-ema x.npy --batch-axis", "simulate-ema x.npy --batch-size",
     "simulate-ema --generate 4,3 --batches 4 --every",
     "simulate-ema --generate 4,3 --batches 4 --seed",
     "simulate-ema --generate 4,3 --batches 4 --freeze-after",
     "simulate-ema --generate 4,3 --batches 4 --reach-steps", "conventions --count",
     "inspect-checkpoint x.npy --expect-layers"],
)  # fmt: skip
def test_no_number_is_too_large_for_a_sentence(run, x, command, number):
    result = run(*command.split(), str(number))
    assert result.code in {0, 1, 2, 3}
    assert result.stderr.count("\n") == (result.code == 2)


@pytest.mark.parametrize("momentum", ["1e-320", "5e-324"])
def test_a_momentum_below_any_normal_number_is_no_bug(run, momentum):
    assert run("simulate-ema", "--generate", "4,3", "--momentum", momentum).code in {0, 1}


# ---------------------------------------------------------------------------- the system's trouble


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (OSError(24, "Too many open files", "x.npy"), "x.npy: "),
        (PermissionError(13, "Permission denied", b"\xff.npy"), r"\udcff.npy: "),
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError("a library's own"), "a library's own"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "not enough"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), "not enough memory"),
    ],
)
def test_what_the_system_refuses_is_2(run, monkeypatch, trouble, words):
    def compute() -> Report:
        raise trouble

    monkeypatch.setattr(cli, "command", lambda name: compute)
    code, stdout, stderr = run("compute")
    assert (code, stdout) == (2, "")
    assert words in stderr
    assert stderr.count("\n") == 1


# ---------------------------------------------------------------------------- signals


ENDINGS = [("SIGINT", 130), ("SIGTERM", 143)] + [("SIGHUP", 143)] * hasattr(signal, "SIGHUP")


def started(*statements: str) -> subprocess.Popen[str]:
    """The entry point, after some statements, in a process of its own."""
    code = ["import sys", "import bncli.__main__", *statements, "bncli.__main__.entry_point()"]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(code), "compute", "x.npy", "-q", "--save-output", "y.npy"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


RAISED = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            import os, signal
            os.kill(os.getpid(), signal.{signal})
sys.meta_path.insert(0, Finder())
"""


@POSIX
@pytest.mark.parametrize(
    ("module", "name", "code"),
    [("bncli.cli", *ending) for ending in ENDINGS]
    + [
        (module, "SIGINT", 130)
        for module in ("typer", "bncli.commands", "numpy", "bncli.files.save")
    ],
)
def test_a_signal_while_modules_are_imported_leaves_no_traceback(x, folder, name, code, module):
    with started(RAISED.format(name=module, signal=name)) as process:
        stdout, stderr = process.communicate(timeout=1800)
    assert (process.returncode, stdout, stderr) == (code, "", "")
    assert [path.name for path in folder.iterdir()] == ["x.npy"]


WRITING = """
import bncli.files.save, os, signal
def stopped(stream, *args, real=bncli.files.save._npy_header):
    real(stream, *args)
    for number in ({numbers}):
        os.kill(os.getpid(), number)
bncli.files.save._npy_header = stopped
"""


@POSIX
@pytest.mark.parametrize(("name", "code"), ENDINGS)
def test_a_signal_while_a_file_is_written_leaves_none(x, folder, name, code):
    with started(WRITING.format(numbers=f"signal.{name},")) as process:
        stdout, stderr = process.communicate(timeout=1800)
    assert (process.returncode, stdout, stderr) == (code, "", "")
    assert [path.name for path in folder.iterdir()] == ["x.npy"]


@POSIX
def test_a_signal_that_a_library_makes_an_error_of_is_no_bug(x):
    swallowing = """
import bncli.moments, os, signal
def stats(*args, **flags):
    try:
        os.kill(os.getpid(), signal.{name})
    except BaseException as error:
        raise ImportError("numpy") from error
bncli.moments.channel_stats = stats
"""
    for name, code in ENDINGS:
        with started(swallowing.format(name=name)) as process:
            stdout, stderr = process.communicate(timeout=1800)
        assert (process.returncode, stdout, stderr) == (code, "", "")


@POSIX
def test_what_was_to_be_ignored_stays_ignored(x, folder):
    done = shell("trap '' INT TERM HUP; \"$@\"", "compute", "x.npy", "-q")
    assert done.returncode == 0
    probe = (
        "import signal, bncli.process.signals as s; s.at_once(); print(signal.getsignal(15).name)"
    )
    assert shell(f"trap '' TERM; \"$1\" -c '{probe}'").stdout == "SIG_IGN\n"


def test_the_exit_codes_are_those_of_the_signals():
    assert ExitCode.TERMINATED == 128 + signal.SIGTERM
    assert ExitCode.INTERRUPTED == 128 + signals.INTERRUPT
    assert signals.received() is None


@pytest.mark.parametrize("lacking", [(), ("SIGHUP",), ("SIGHUP", "SIGTERM")])
def test_a_system_may_lack_signals(monkeypatch, lacking):
    for name in lacking:
        monkeypatch.delattr(signal, name, raising=False)
    handled = {}
    monkeypatch.setattr(signal, "signal", handled.__setitem__)
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    signals.at_once()
    there = {getattr(signal, name) for name in signals.ENDING if hasattr(signal, name)}
    assert set(handled) == there >= {signal.SIGINT}
    for handler in handled.values():
        ended = []
        monkeypatch.setattr(os, "_exit", ended.append)
        handler(signal.SIGINT, None)
        handler(15, None)
        assert ended == [130, 143]


def test_a_signal_raises_once_and_is_remembered(monkeypatch):
    monkeypatch.setattr(signals, "_received", [])
    handled = {}
    monkeypatch.setattr(signal, "signal", handled.__setitem__)
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    signals.orderly()
    handler = handled[signal.SIGINT]
    assert signals.received() is None
    with pytest.raises(signals.Terminated):
        handler(signal.SIGTERM, None)
    handler(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGINT, None)
    assert signals.received() == signal.SIGTERM


def test_once_the_end_is_decided_a_signal_changes_nothing(monkeypatch):
    handlers = {signal.SIGTERM: signals._raise, signal.SIGINT: "the program's own"}
    monkeypatch.setattr(signal, "getsignal", lambda number: handlers.get(number, signal.SIG_DFL))
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    signals.decided()
    assert handlers == {signal.SIGTERM: signal.SIG_IGN, signal.SIGINT: "the program's own"}


@POSIX
@pytest.mark.parametrize("ours", [True, False])
def test_another_thread_ends_the_main_thread_while_it_waits(ours):
    """It waits in the system; without a handler of bncli's it is a KeyboardInterrupt."""
    script = f"""
import threading, time
from bncli.process import signals
if {ours}:
    signals.orderly()
threading.Timer(0.1, signals.end_main_thread).start()
try:
    time.sleep(60 if {ours} else 0.5)
except (signals.Terminated, KeyboardInterrupt) as error:
    print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == ("Terminated\n" if ours else "KeyboardInterrupt\n")


@pytest.mark.parametrize("disposition", [signal.SIG_IGN, None])
def test_what_is_ignored_or_another_languages_is_not_handled(monkeypatch, disposition):
    handled = {}
    monkeypatch.setattr(signal, "signal", handled.__setitem__)
    monkeypatch.setattr(signal, "getsignal", lambda number: disposition)
    signals.orderly()
    assert handled == {}
