"""The tests that lean on PyTorch, run on several releases of it, each in an environment of its own.

    python tests/torch_releases.py                  2.3, 2.6 and the newest
    python tests/torch_releases.py 2.8 -- -x        one release, with arguments for pytest

The environments are made one after the other and removed again; one takes up to 6 GB where pip
finds builds for graphics cards only. Variables such as PIP_INDEX_URL hold for these installs too,
so that smaller builds can be taken. With --environments FOLDER they stay there for the next time.
The exit code is 1 where a release failed, and 2 where one could not be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
RELEASES = ("2.3", "2.6", "newest")
TESTS = ("tests/commands", "tests/backends", "tests/pytorch_cpu", "tests/verify")
OUTCOMES = ("passed", "FAILED", "could not be installed")


def run_on(release: str, folder: Path, more: list[str]) -> int:
    """Install the release and the tests' needs into an environment, and run them; the exit code."""
    if not (folder / "pyvenv.cfg").exists():
        venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    torch = "torch" if release == "newest" else f"torch=={release}.*"
    install = [python, "-m", "pip", "install", "--quiet", torch, ".[test]"]
    if subprocess.run(install, cwd=REPOSITORY, check=False).returncode:
        return 2
    code = "import torch, numpy; print(f'{torch.__version__} with NumPy {numpy.__version__}')"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    print(f"== torch {release} is {found.stdout.strip() or found.stderr.strip()}", flush=True)
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *more, *TESTS]
    return int(subprocess.run(pytest, cwd=REPOSITORY, check=False).returncode != 0)


def main() -> int:
    """Every release asked for, and the worst exit code."""
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("releases", nargs="*", default=list(RELEASES), metavar="RELEASE")
    parser.add_argument("--environments", type=Path, metavar="FOLDER")
    flags = parser.parse_args(sys.argv[1:at])
    said = {}
    for release in flags.releases:
        begin = time.perf_counter()
        with contextlib.ExitStack() as until:
            kept = flags.environments
            folder = kept or until.enter_context(tempfile.TemporaryDirectory(prefix="bncli-torch-"))
            said[release] = run_on(release, Path(folder) / release, sys.argv[at + 1 :])
        seconds = time.perf_counter() - begin
        print(f"== torch {release}: {OUTCOMES[said[release]]} in {seconds:.0f} s", flush=True)
    print("\n".join(f"torch {release}: {OUTCOMES[code]}" for release, code in said.items()))
    return max(said.values())


if __name__ == "__main__":
    sys.exit(main())
