"""The user's code: its prints go aside, its errors become a sentence with its file and line."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import bncli
from bncli.errors import ModelError, TensorError
from bncli.given import objects_given
from bncli.live import users_code as module
from bncli.live.users_code import users_code
from bncli.process import signals


def failed(error: BaseException, what: str = "the forward pass") -> str:
    """The sentence that an error becomes."""
    with pytest.raises(ModelError) as caught, users_code(what):
        raise error
    assert caught.value.__cause__ is error
    sentence = str(caught.value)
    assert sentence.isprintable()
    return sentence


def test_an_error_is_told_with_the_file_the_line_and_what_ran():
    assert re.search(
        r"test_users_code\.py:\d+: the metric raised ValueError: no\.$",
        failed(ValueError("no"), "the metric"),
    )


def test_leaving_the_process_is_told_and_other_ends_pass():
    assert failed(SystemExit(3)).endswith("the forward pass ended the process (SystemExit: 3).")
    for passing in (KeyboardInterrupt(), signals.Terminated(), TensorError("x: 3 axes.")):
        with pytest.raises(type(passing)) as caught, users_code("it"):
            raise passing
        assert caught.value is passing


@pytest.mark.parametrize(
    ("number", "kind"), [(2, KeyboardInterrupt), (15, signals.Terminated)], ids=["INT", "TERM"]
)
def test_an_error_that_a_library_made_of_a_signal_is_the_signal(monkeypatch, number, kind):
    monkeypatch.setattr(signals, "_received", [number])
    with pytest.raises(kind), users_code("reading the data"):
        raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")


def test_a_bug_of_bnclis_in_a_hook_is_not_the_users():
    where = str(Path(bncli.__file__).with_name("hook.py"))
    inside: dict[str, Any] = {}
    exec(compile("def hook(): 1 / 0\ndef run(model): model()", where, "exec"), inside)

    def forward():
        inside["hook"]()

    with pytest.raises(ZeroDivisionError), users_code("the forward pass"):
        forward()
    with pytest.raises(ModelError), users_code("the forward pass"):
        inside["run"](lambda: 1 / 0)


def test_a_recursion_without_end():
    def down(depth):
        return down(depth + 1)

    said = r"test_users_code.py:\d+: it raised RecursionError: max"
    with pytest.raises(ModelError, match=said), users_code("it"):
        down(0)


# ------------------------------------------------------------------ prints


def test_prints_go_to_standard_error(capsys):
    with users_code("it"):
        sys.stdout.write("from the code\n")
    sys.stdout.write("the report\n")
    assert capsys.readouterr() == ("the report\n", "from the code\n")


@pytest.mark.parametrize("harm", [
    "del sys.stdout", "sys.stdout = None", "sys.stdout.close()", "sys.stderr = None",
    "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')",
    "sys.stdout.reconfigure(encoding='utf-8'); sys.stdout.close(); sys.stderr.flush()",
])  # fmt: skip
def test_standard_output_stays_the_reports_whatever_is_done_to_it(run_process, folder, harm):
    script = f"""
        import gc, io, logging, os, subprocess, sys
        from bncli.live.users_code import users_code

        sys.stdout.write("before ")
        for time in range(2):
            with users_code("it"):
                print("print", time)
                sys.__stdout__.write("original\\n")
                os.write(1, b"written\\n")
                subprocess.run(["echo", "process"])
                {harm}
            gc.collect()
        with users_code("it"):
            print("again")
        print("report")
        print("said", file=sys.stderr)
    """
    done = run_process(python=["-c", textwrap.dedent(script)])
    assert (done.code, done.stdout) == (0, "before report\n")
    for word in ("print 0", "print 1", "original", "written", "process", "again", "said"):
        assert word in done.stderr


def test_a_logger_that_keeps_the_stream_writes_to_it_later(run_process, folder):
    script = """
        import logging, sys
        from bncli.live.users_code import users_code
        with users_code("it"):
            logging.basicConfig(stream=sys.stdout)
        with users_code("it"):
            logging.warning("late")
        logging.warning("later")
        print("report")
    """
    done = run_process(python=["-W", "error", "-c", textwrap.dedent(script)])
    assert (done.code, done.stdout) == (0, "report\n")
    assert "late\n" in done.stderr
    assert "later\n" in done.stderr


def test_without_standard_error(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        with users_code("it"):
            sys.stdout.write("nowhere")
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------ surroundings


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(module, "_surroundings", module._Surroundings())


def test_the_folders_are_there_for_the_code_alone(fresh, folder):
    path, argv = list(sys.path), list(sys.argv)
    module.let_import_from("/first", "net.py")
    module.let_import_from("/second", "net.py")
    with users_code("it"):
        assert sys.path[:2] == ["/second", "/first"]
        assert sys.argv == ["net.py"]
        sys.path.insert(0, "/own")
        sys.argv.append("x")
    assert (sys.path, sys.argv) == (path, argv)
    with users_code("it"):
        assert sys.path[:3] == ["/own", "/second", "/first"]
        assert sys.argv == ["net.py"]
    failed(ValueError())
    assert (sys.path, sys.argv) == (path, argv)


def test_the_code_has_a_current_folder_of_its_own(fresh, folder):
    (folder / "data").mkdir()
    here = str(Path.cwd())
    with users_code("it"):
        os.chdir("data")
    assert str(Path.cwd()) == here
    with users_code("it"):
        assert str(Path.cwd()) == str(Path(here, "data"))
        os.chdir(here)
    with users_code("it"):
        assert str(Path.cwd()) == here
    with users_code("it"):
        os.chdir("data")
        Path.cwd().rmdir()  # on Linux that may be done
    with users_code("it"):
        assert str(Path.cwd()) == here


def test_the_users_code_keeps_its_streams_and_its_arguments(capfd):
    argv, path, out = sys.argv, list(sys.path), sys.stdout
    with objects_given(), users_code("the forward pass"):
        assert sys.argv is argv
        assert sys.stdout is out
        print("loss 0.5")  # noqa: T201  # as a user's model does
    assert sys.path == path
    assert capfd.readouterr() == ("loss 0.5\n", "")
