"""The tests that lean on PyTorch, run on several releases of it, each in an environment of its own.

    python tests/torch_releases.py                  2.3, 2.6 and the newest
    python tests/torch_releases.py 2.8 -- -x        one release, with arguments for pytest

The environments are made one after the other and removed again; one takes up to 6 GB where pip
finds builds for graphics cards only. What pip is told beside (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL)
goes for these installs too, so that smaller builds can be taken. The exit code is 1 where a
release failed, and 2 where one could not be installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
RELEASES = ("2.3", "2.6", "newest")
TESTS = ("tests/commands", "tests/backends", "tests/pytorch_cpu", "tests/test_tolerance.py")


def run_on(release: str, more: list[str]) -> int:
    """Install the release beside bncli and run the tests; the exit code."""
    with tempfile.TemporaryDirectory(prefix="bncli-torch-") as folder:
        print(f"== torch {release}: installing", flush=True)
        venv.create(folder, with_pip=True)
        python = Path(folder, "Scripts" if sys.platform == "win32" else "bin", "python")
        torch = "torch" if release == "newest" else f"torch=={release}.*"
        install = [python, "-m", "pip", "install", "--quiet", "--upgrade", torch, ".[test]"]
        if subprocess.run(install, cwd=REPOSITORY, check=False).returncode:
            print(f"== torch {release}: could not be installed", flush=True)
            return 2
        code = "import torch, numpy; print(f'{torch.__version__} with NumPy {numpy.__version__}')"
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        print(f"== torch {release}: it is {found.stdout.strip() or found.stderr}", flush=True)
        begin = time.perf_counter()
        pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, *more]
        failed = subprocess.run(pytest, cwd=REPOSITORY, check=False).returncode
        seconds = time.perf_counter() - begin
        print(
            f"== torch {release}: {'FAILED' if failed else 'passed'} in {seconds:.0f} s", flush=True
        )
        return int(failed != 0)


def main() -> int:
    """Every release asked for, and the worst exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("releases", nargs="*", default=list(RELEASES), metavar="RELEASE")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    releases = parser.parse_args(sys.argv[1:at]).releases
    codes = {release: run_on(release, sys.argv[at + 1 :]) for release in releases}
    words = ("passed", "FAILED", "could not be installed")
    print("\n".join(f"torch {release}: {words[code]}" for release, code in codes.items()))
    return max(codes.values())


if __name__ == "__main__":
    sys.exit(main())
