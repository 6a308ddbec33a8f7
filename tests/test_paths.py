"""Paths and URLs: which is which, what people see of them, and their neighbours."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from bncli.errors import FileError
from bncli.paths import (
    RemotePath,
    as_path,
    as_shown,
    is_remote,
    lexists,
    names_in,
    without_scheme,
)


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/x.npy", "https://host/x.npy", "memory://x", "hf://user/repo/x.pt", "GS://b/x"],
)
def test_a_url_is_remote(text):
    assert is_remote(text)
    assert isinstance(as_path(text), RemotePath)
    assert str(as_path(text)) == text.replace("GS", "gs")
    assert as_path(as_path(text)) is not None


@pytest.mark.parametrize(
    "text", ["x.npy", "C://x", "a:/b", "./https:/x", "://x", "-", "", "/s3://x", "1s://x"]
)
def test_other_texts_are_paths_of_this_system(text):
    assert not is_remote(text)
    assert type(as_path(text)) is type(Path())


def test_a_local_file_of_that_name_is_meant(folder):
    (folder / "odd:").mkdir()
    (folder / "odd:" / "x.npy").write_bytes(b"")
    assert is_remote("odd://y.npy")
    assert not is_remote("odd://x.npy")
    assert lexists("odd://x.npy")


def test_file_urls_are_paths_of_this_system(tmp_path):
    spaced = tmp_path / "a b.npy"
    spaced.write_bytes(b"")
    assert as_path(f"file://{spaced}") == spaced
    assert as_path(f"file://localhost{spaced}") == spaced
    assert as_path(f"file://{tmp_path}/a%20b.npy") == spaced
    assert not is_remote(f"file://{spaced}")
    assert without_scheme("x.npy") == "x.npy"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@host:80/x.pt", "https://host:80/x.pt"),
        ("https://host/a/x.pt?sig=secret", "https://host/a/x.pt?..."),
        ("https://host/x.pt#secret", "https://host/x.pt?..."),
        ("https://host?u=/secret", "https://host?..."),
        ("s3://key:secret@bucket/run?/x.pt", "s3://bucket/run?/x.pt"),
        ("abfs://c/x.pt?sv=1&sig=secret", "abfs://c/x.pt?..."),
        ("hf://me/net@main/x.pt", "hf://me/net@main/x.pt"),
    ],
)
def test_secrets_are_not_shown(url, shown):
    path = as_path(url)
    assert path.url == url
    # A number is added where another URL looks alike; each stands for its own.
    assert str(path).startswith(shown)
    for text in (str(path), repr(path), path.as_posix(), f"{FileError(path, 'no.')}"):
        assert "secret" not in text
    assert as_path(str(path)) == path


def test_urls_that_look_alike_are_told_apart():
    one, two = as_path("https://twins/x?a=1"), as_path("https://twins/x?a=2")
    assert one != two
    assert len({one, two, as_path("https://twins/x?a=1")}) == 2
    assert (str(one), str(two)) == ("https://twins/x?...", "https://twins/x?...(2)")
    assert as_path(str(two)).url == "https://twins/x?a=2"


def test_names_and_neighbours():
    path = as_path("https://me:secret@host/run/model.tar.gz?token=secret")
    assert (path.name, path.suffix, path.stem) == ("model.tar.gz", ".gz", "model.tar")
    assert path.suffixes == [".tar", ".gz"]
    assert path.parent.url == "https://me:secret@host/run?token=secret"
    assert (path.parent / "b/c.pt").url == "https://me:secret@host/run/b/c.pt?token=secret"
    assert path.with_name("x.json").url == "https://me:secret@host/run/x.json?token=secret"
    assert path.with_suffix(".zst").url == "https://me:secret@host/run/model.tar.zst?token=secret"
    assert [each.name for each in path.parents] == ["run", ""]
    assert path.is_relative_to(path.parent)
    assert path.relative_to(path.parent) == Path("model.tar.gz")
    with pytest.raises(ValueError):
        path.relative_to(as_path("https://other/run"))
    assert pickle.loads(pickle.dumps(path)) == path


def test_names_in_a_bucket():
    path = as_path("s3://bucket/run/x.pt")
    assert [str(each) for each in path.parents] == ["s3://bucket/run", "s3://bucket", "s3://"]
    assert str(as_path("s3://bucket/run/") / "x.pt") == "s3://bucket/run/x.pt"
    assert as_path("memory://x.pt").name == "x.pt"
    assert str(as_path("memory://x.pt").with_name("y.pt")) == "memory://y.pt"
    assert str(as_path("memory://x.pt").parent / "y.pt") == "memory://y.pt"
    assert path.parts == ("s3://", "bucket", "run", "x.pt")


@pytest.mark.parametrize(
    ("url", "magic"),
    [
        ("s3://b/*.pt", "*"),
        ("s3://b/x?.pt", "?"),
        ("s3://b/[ab]*.pt", "*["),
        ("https://h/x.pt?a=*", ""),
        ("https://[::1]:80/x.pt", ""),
        ("https://h/*.pt", "*"),
    ],
)
def test_patterns(url, magic):
    assert as_path(url).magic == magic


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("https://line/x.pt?a=secret::bn.1", "https://line/x.pt?...::bn.1"),
        ("--state=https://u:secret@line/y.pt", "--state=https://line/y.pt"),
        ("--eps=1", "--eps=1"),
        ("x.npy::y", "x.npy::y"),
        ("memory://x::", "memory://x::"),
    ],
)
def test_words_of_a_command_line(word, shown):
    assert as_shown(word) == shown
    assert as_shown(shown) == shown


def test_a_folder_of_this_system_is_listed(tmp_path):
    (tmp_path / "x").touch()
    assert names_in(tmp_path) == ["x"]


@pytest.mark.parametrize("secret", ["PASS/WORD", "PASS#WORD", "PASS?WORD"])
def test_a_password_that_was_not_escaped_is_hidden(secret):
    shown = str(as_path(f"https://name:{secret}@host.example/x.pt"))
    assert shown == "https://host.example/x.pt"


def test_a_port_is_no_password_and_capitals_no_other_scheme():
    assert str(as_path("http://host.example:80/a@b")) == "http://host.example:80/a@b"
    assert str(as_path("HTTP://host.example/x.pt")) == "http://host.example/x.pt"
