"""The process: which signals hold when, whose warnings are heard, and the exit code."""

from __future__ import annotations

import sys
import warnings

import pytest

import bncli.cli
from bncli import __main__
from bncli.process import signals


@pytest.fixture
def ended(monkeypatch):
    """Run the entry point with a `main` of the test's; the exit code, and what happened in turn."""

    def ended(main) -> tuple[int, list[str]]:
        happened = []

        def recorded():
            happened.append("main")
            return main()

        for name in ("at_once", "orderly"):
            monkeypatch.setattr(signals, name, lambda name=name: happened.append(name))
        monkeypatch.setattr(bncli.cli, "main", recorded)
        with pytest.raises(SystemExit) as exit_, warnings.catch_warnings():
            __main__.entry_point()
        return exit_.value.code, happened

    return ended


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code"),
    [
        (lambda: 0, 0),
        (lambda: 3, 3),
        (raising(KeyboardInterrupt), 130),
        (raising(signals.Terminated), 143),
    ],
)
def test_it_ends_with_the_code_between_two_times_without_tidying_up(ended, main, code):
    assert ended(main) == (code, ["at_once", "orderly", "main", "at_once"])


@pytest.mark.parametrize(("options", "heard"), [([], False), (["default"], True)])
def test_warnings_of_libraries_are_heard_where_python_was_asked_for_them(
    ended, monkeypatch, options, heard
):
    monkeypatch.setattr(sys, "warnoptions", options)
    ignored = ("ignore", None, Warning, None, 0)
    found = []
    ended(lambda: found.append(warnings.filters[0] == ignored) or 0)
    assert found == [not heard]


def test_it_is_what_python_runs(run_process):
    code, stdout, _ = run_process("--version")
    assert (code, stdout) == (0, f"bncli {bncli.__version__}\n")
