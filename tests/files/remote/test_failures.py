"""What a driver raises, as people read it."""

from __future__ import annotations

import errno

import pytest

from bncli.errors import FileError
from bncli.files.remote.failures import (
    BUSY,
    AbsentError,
    ChangedError,
    CutError,
    ForbiddenError,
    HiddenError,
    NoRangesError,
    StatusError,
    absent,
    explained,
    is_passing,
)
from bncli.paths import as_path

PATH = as_path("https://host/x.pt?sig=secret")


class NoCredentialsError(Exception):
    """As botocore's."""


class EndpointConnectionError(Exception):
    """As botocore's, which tries again by itself."""


class ClientResponseError(Exception):
    """As aiohttp's, whose text has the URL in it."""

    status = 403


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StatusError(404), "there is no such file (the server answered 404 Not Found)"),
        (StatusError(500), "500 Internal Server Error in 3 tries"),
        (StatusError(499), "the server answered 499."),
        (ClientResponseError("https://host/x.pt?sig=secret"), "403 Forbidden; check"),
        (ChangedError(), "it changed"),
        (NoRangesError(), "--download"),
        (AbsentError(), "there is no such file"),
        (FileNotFoundError("secret"), "there is no such file"),
        (PermissionError("secret"), "refuses access"),
        (IsADirectoryError("secret"), "it is a folder"),
        (MemoryError(), "not enough memory"),
        (NoCredentialsError("secret"), "no credentials that it can use (NoCredentialsError)"),
        (TimeoutError("secret"), "no answer in time, in 3 tries"),
        (CutError(), "cut short in 3 tries"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "secret"), "(connection refused)"),
        (EndpointConnectionError("secret"), "cannot be reached (EndpointConnectionError)"),
        (ValueError("secret"), "its driver cannot read it (ValueError)"),
    ],
)
def test_each_error_is_one_sentence_without_secrets(error, said):
    found = explained(PATH, error)
    assert isinstance(found, FileError)
    assert said in str(found)
    assert "secret" not in str(found)
    assert str(found).startswith("https://host/x.pt?...: ")
    assert "\n" not in str(found)


def test_an_error_of_bnclis_stays():
    error = FileError(PATH, "no.")
    assert explained(PATH, error) is error


def test_what_is_hidden_may_be_absent():
    assert isinstance(absent(PATH), HiddenError)
    for error in (StatusError(401), StatusError(403), PermissionError()):
        assert isinstance(explained(PATH, error), ForbiddenError)
    for error in (StatusError(404), StatusError(410), FileNotFoundError()):
        assert type(explained(PATH, error)) is HiddenError
    assert not isinstance(explained(PATH, StatusError(500)), HiddenError)


def test_what_is_tried_again():
    passing = [*map(StatusError, BUSY), CutError(), ConnectionResetError(), TimeoutError()]
    assert all(map(is_passing, passing))
    lasting = [
        EndpointConnectionError(),
        StatusError(404),
        FileNotFoundError(),
        PermissionError(),
        ValueError(),
    ]
    assert not any(map(is_passing, lasting))
