"""Sentences with their place, and the exit codes that scripts rely on."""

import signal

import pytest

from bncli import errors
from bncli.errors import BncliError, ExitCode, FileError


def test_exit_codes():
    assert [(code.name, code.value) for code in ExitCode] == [
        ("OK", 0), ("FINDING", 1), ("ERROR", 2), ("NOTHING", 3), ("BUG", 4),
        ("INTERRUPTED", 130), ("CLOSED_PIPE", 141), ("TERMINATED", 143),
    ]  # fmt: skip
    assert ExitCode.INTERRUPTED == 128 + signal.SIGINT
    assert ExitCode.TERMINATED == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    "kind", [kind for kind in vars(errors).values() if isinstance(kind, type)
             and issubclass(kind, BncliError)],
)  # fmt: skip
def test_every_error_is_one_sentence_and_exit_2(kind):
    assert kind.exit_code == 2
    if issubclass(kind, FileError):
        error = kind("a/net.pt", "it is damaged.")
        assert str(error) == "a/net.pt: it is damaged."
        assert (error.path.name, error.problem) == ("net.pt", "it is damaged.")
    else:
        assert str(kind("a sentence.")) == "a sentence."
