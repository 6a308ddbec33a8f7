"""The user's code: its prints go aside, its errors become a sentence with its file and line."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from bncli.errors import ModelError, TensorError
from bncli.live import users_code as module
from bncli.live.users_code import hint_for, last_line, place_of, users_code
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
    sentence = failed(ValueError("channels must be even"))
    file, line, rest = sentence.split(":", 2)
    assert Path(file).name == "test_users_code.py"
    assert int(line) > 20
    assert rest == " the forward pass raised ValueError: channels must be even."


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(""), "RuntimeError"),
        (RuntimeError("a\n\n  b  \n"), "RuntimeError: b"),
        (KeyError("image"), "KeyError: 'image'"),
        (SystemExit(), "SystemExit"),
        (SystemExit("bye"), "SystemExit: bye"),
        (ValueError("red \x1b[31m\u202e \r text"), r"ValueError: text"),
        (ValueError("\x1b[31mred\u202e"), r"ValueError: \x1b[31mred\u202e"),
        (ValueError("##[error] x"), r"ValueError: #\x23[error] x"),
        (RuntimeError("CUDA error: none\nCompile with DSA."), "RuntimeError: CUDA error: none"),
        (RuntimeError("Caught in worker 0.\nOriginal Traceback\nKeyError: 'x'"), "KeyError: 'x'"),
        (SyntaxError("invalid syntax", ("gone.py", 3, 1, "")), "SyntaxError: invalid syntax"),
    ],
)  # fmt: skip
def test_the_last_line_of_an_error(error, told):
    assert last_line(error) == told


def test_a_long_text_is_cut():
    assert len(last_line(ValueError("x" * 10**6))) == module.LONGEST_MESSAGE


def test_an_error_that_cannot_say_itself():
    class SilentError(Exception):
        def __str__(self):
            raise RuntimeError("twice")

    class LeavingError(Exception):
        def __str__(self):
            raise SystemExit

    class WrongError(Exception):
        def __str__(self):
            return 3  # noqa: PLE0307  # as someone wrote it

    for kind in (SilentError, LeavingError, WrongError):
        assert failed(kind()).endswith(f"the forward pass raised {kind.__name__}.")


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


def test_a_recursion_without_end():
    def down(depth):
        return down(depth + 1)

    said = r"test_users_code.py:\d+: it raised RecursionError: max"
    with pytest.raises(ModelError, match=said), users_code("it"):
        down(0)


# ------------------------------------------------------------------ where


def test_the_place_is_in_the_users_own_code_and_not_in_a_package():
    class Net(nn.Module):
        def forward(self, x):
            return nn.functional.linear(x, torch.ones(2, 3))  # the line

    with pytest.raises(RuntimeError) as caught:
        Net()(torch.ones(1, 5))
    own, line = place_of(caught.value).rsplit(":", 1)
    assert own.endswith("test_users_code.py")
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert lines[int(line) - 1].endswith("# the line")


def test_only_packages_on_the_way(monkeypatch):
    frames = [("/a/bncli/x.py", 1), ("/lib/timm/net.py", 7), ("/lib/torch/nn.py", 3)]
    folders = (
        ("/a/bncli", module._LIBRARY),
        ("/lib/torch", module._LIBRARY),
        ("/lib", module._PACKAGE),
    )
    monkeypatch.setattr(module, "_folders", lambda: folders)
    monkeypatch.setattr(module, "_standing", module._standing.__wrapped__)
    monkeypatch.setattr(module, "_frames", lambda trace: frames)
    assert place_of(ValueError()) == "/lib/timm/net.py:7"
    frames.insert(1, ("/home/me/net.py", 5))
    assert place_of(ValueError()) == "/home/me/net.py:5"
    frames[:] = [("/lib/torch/nn.py", 3), ("<frozen importlib>", 4)]
    assert place_of(ValueError()) == ""


def test_a_place_in_a_worker_is_read_from_its_text():
    text = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call "
        f'last):\n  File "{torch.__file__}", line 3, in fetch\n  File "/home/me/data.py", line 12, '
        'in __getitem__\n    raise ValueError("no")\nValueError: no\n'
    )
    assert failed(ValueError(text), "reading batch 1") == (
        "/home/me/data.py:12: reading batch 1 raised ValueError: no."
    )  # fmt: skip


# ------------------------------------------------------------------ hints


@pytest.mark.parametrize("model", [
    nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.LayerNorm(3), nn.Linear(3, 3),
    nn.ConvTranspose2d(3, 3, 1),
], ids=lambda model: type(model).__name__)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.uint8], ids=str)
def test_an_input_of_another_dtype_has_a_hint(model, dtype):
    with pytest.raises((RuntimeError, NotImplementedError)) as caught:
        model(torch.ones((2, 3, 3, 3), dtype=dtype))
    assert hint_for(caught.value).endswith("add --dtype float32.")
    assert failed(caught.value).endswith("add --dtype float32.")


def test_the_hint_names_the_dtype_of_the_weights():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        with pytest.raises(RuntimeError) as caught:
            nn.Linear(3, 3, dtype=dtype)(torch.ones(2, 3))
        assert hint_for(caught.value).endswith(f"add --dtype {str(dtype)[6:]}.")
    with pytest.raises(ValueError, match="RNN input") as caught:
        nn.GRU(3, 3)(torch.ones(2, 3, dtype=torch.float64))
    assert hint_for(caught.value).endswith("add --dtype float32.")


def test_no_hint_where_the_dtype_is_not_the_cause():
    with pytest.raises(RuntimeError) as caught:
        nn.Embedding(3, 3)(torch.ones(2))
    assert hint_for(caught.value) == ""
    with pytest.raises(RuntimeError) as caught:
        nn.Linear(3, 3)(torch.ones(2, 5))
    assert hint_for(caught.value) == ""
    assert hint_for(ValueError("x")) == ""


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
