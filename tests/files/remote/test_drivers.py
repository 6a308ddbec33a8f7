"""The driver of a scheme, and the sentence where there is none."""

from __future__ import annotations

import importlib
import sys

import pytest

from bncli.errors import FileError
from bncli.files.remote.drivers import file_system
from bncli.paths import as_path


def test_a_driver_and_the_path_in_it(memory):
    assert file_system(as_path("memory://a/b.npy")) == (memory, "/a/b.npy")


def test_a_web_servers_path_is_the_url():
    assert file_system(as_path("https://me@host/b.npy?x"))[1] == "https://me@host/b.npy?x"


def test_without_the_extra(run, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "fsspec"]:
        monkeypatch.setitem(sys.modules, name, None)
    code, out, err = run("compute", "https://host/x.npy")
    assert (code, out) == (2, "")
    assert err == (
        "bncli: https://host/x.npy: a path of this kind needs fsspec: python -m pip install fsspec"
        " aiohttp.\n"
    )


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [("s3://b/x.npy", "s3fs", "s3fs"), ("gs://b/x", "gcsfs", "gcsfs"),
     ("smb://h/x", "smbprotocol", "smbprotocol")],
)  # fmt: skip
def test_without_the_stores_driver(monkeypatch, url, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    registry = importlib.import_module("fsspec.registry")  # fsspec.registry is a table of it
    for scheme in ("s3", "gs", "smb"):
        monkeypatch.delitem(registry._registry, scheme, raising=False)
    with pytest.raises(FileError, match=rf"is not installed: python -m pip install {package}\.$"):
        file_system(as_path(url))


def test_no_such_scheme():
    with pytest.raises(FileError, match="fsspec has no driver for bogus://"):
        file_system(as_path("bogus://x/y"))
