"""A pipeline's year, played by a shell script on checkpoints that were trained for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SETTINGS = """
[tool.bncli]
fail-on = "warning"
baseline = "known.json"
expect-layers = 4
"""


CODES = [
    1,  # a flaw
    0, 0, 0,  # known, and matched after training
    1, 0, 1,  # a fault in one layer; ignored there; in another layer
    0,  # a renamed prefix
    2, 2,  # a file that cannot be read, alone and beside a good one
    3, 1,  # no BatchNorm at all, and fewer layers than expected
    0, 0, 1,  # fixed, written down, and back again
    0, 1, 1,  # written down under another name: known there, and in no other file
    2, 0,  # a typing error, a healthy end
]  # fmt: skip


@pytest.fixture
def project(folder):
    """The folder of the pipeline, with its checkpoints and its settings."""
    subprocess.run([sys.executable, HERE / "checkpoints.py"], check=True)
    (folder / "pyproject.toml").write_text(SETTINGS)
    (folder / "known.json").write_text('{"format_version": 1, "findings": []}')
    (folder / "bin").mkdir()
    bncli = folder / "bin" / "bncli"
    bncli.write_text(f'#!/bin/sh\nexec {sys.executable} -m bncli "$@"\n')
    bncli.chmod(0o755)
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="it takes a shell")
def test_a_year(project, golden):
    path = f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", HERE / "year.sh"],
        env=os.environ | {"PATH": path, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.stderr == ""
    codes = [int(code) for code in re.findall(r"^exit (\d+)$", done.stdout, re.MULTILINE)]
    assert codes == CODES
    golden("year.txt", done.stdout)
