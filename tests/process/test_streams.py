"""What is written to the standard streams, whatever stands behind them."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest

from bncli.errors import FileError
from bncli.process.streams import (
    WIDEST,
    abandon_standard_output,
    forget_impossible_sizes,
    print_text,
    say,
    take_any_character,
)


class Failing(io.StringIO):
    """A stream that cannot be written, with the file that another one has."""

    def __init__(self, error, number=None):
        super().__init__()
        self.error, self.number = error, number

    def flush(self):
        raise self.error

    def fileno(self):
        if self.number is None:
            raise io.UnsupportedOperation
        return self.number


def test_text_is_written_as_it_is(capsys):
    print_text("γ and σ²\n")
    say("a sentence\nin two")
    captured = capsys.readouterr()
    assert captured.out == "γ and σ²\n"
    assert captured.err == "bncli: a sentence\\x0ain two\n"


def test_standard_output_that_is_closed_or_full(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(FileError, match=r"^standard output: is closed\.$"):
        print_text("x")
    monkeypatch.setattr(sys, "stdout", Failing(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(FileError, match=r"cannot be written \(No space left on device\)\."):
        print_text("x")
    monkeypatch.setattr(sys, "stdout", Failing(BrokenPipeError()))
    with pytest.raises(BrokenPipeError):
        print_text("x")


@pytest.mark.parametrize(("system", "error"), [("win32", BrokenPipeError), ("linux", FileError)])
def test_windows_has_a_word_of_its_own_for_a_closed_pipe(monkeypatch, system, error):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(sys, "stdout", Failing(OSError(errno.EINVAL, "Invalid argument")))
    with pytest.raises(error):
        print_text("x")


def test_standard_error_that_nobody_reads_is_left_alone(monkeypatch):
    for stream in (None, Failing(BrokenPipeError()), Failing(ValueError("closed"))):
        monkeypatch.setattr(sys, "stderr", stream)
        say("a sentence")


def test_what_is_abandoned_goes_nowhere(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setattr(sys, "stdout", Failing(BrokenPipeError(), writer))
    abandon_standard_output()
    os.write(writer, b"lost")
    os.close(writer)  # the last handle of what is now the null device
    assert os.read(reader, 9) == b""
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", None)
    abandon_standard_output()


@pytest.mark.parametrize(
    ("system", "terminal", "written"),
    [("win32", False, "γ".encode()), ("win32", True, b"?"), ("linux", False, b"?")],
)
def test_a_file_lacks_no_letter_on_windows(monkeypatch, system, terminal, written):
    for name in ("stdout", "stderr"):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="cp1252")
        monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
        monkeypatch.setattr(sys, name, stream)
        monkeypatch.setattr(sys, "platform", system)
        take_any_character()
        stream.write("γ")
        stream.flush()
        assert raw.getvalue() == written


def test_a_stream_that_is_none_of_pythons_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    take_any_character()


@pytest.mark.parametrize("size", ["", "0", "-5", "abc", "1e3", "²", str(WIDEST + 1), "9" * 14])
def test_no_size_of_a_terminal_that_is_none_is_believed(monkeypatch, size):
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        monkeypatch.setenv(name, size)
        forget_impossible_sizes()
        assert name not in os.environ
        for possible in ("1", "132", str(WIDEST)):
            monkeypatch.setenv(name, possible)
            forget_impossible_sizes()
            assert os.environ[name] == possible
