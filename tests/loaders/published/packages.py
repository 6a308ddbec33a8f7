"""Packages that ship checkpoints, each installed by exact version into a folder of its own.

BNCLI_PUBLISHED names the folder in which they are kept; without it that is one of the system's
for temporary files. Nothing of a package is imported.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def installed(requirement):
    """The folder into which `pip install --no-deps` put "NAME==VERSION", from the cache if it can.

    A package that is there is whole: it is installed beside its place and then moved there.
    """
    assert re.fullmatch(r"\w[\w.-]*==[\w.]+", requirement), "name an exact version"
    kept = os.environ.get("BNCLI_PUBLISHED")
    cache = Path(kept) if kept else Path(tempfile.gettempdir()) / "bncli-published"
    folder = cache / requirement.replace("==", "-")
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as fresh:
        target = Path(fresh) / "package"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        subprocess.run([*pip, "--target", str(target), requirement], check=True)
        try:
            target.rename(folder)
        except OSError:  # another process was faster
            assert folder.is_dir()
    return folder
