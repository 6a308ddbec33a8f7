"""What every test has: bncli in process or in a process of its own, and goldens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from bncli.cli import main
from bncli.process.signals import ENDING

REPOSITORY = Path(__file__).parents[1]

COLOR_SWITCHES = ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "GITHUB_ACTIONS")
"""Variables that would change what Typer and Rich print."""

ENGINE_VERSION = re.compile(r"\b(numpy|numkong) \d[\w.]*\w")
"""What summed, as facts name it; the release differs between machines."""

TERMINAL = {"COLUMNS": "80", "LINES": "25", "TERM": "xterm-256color"}


# Without a deadline, as a busy machine is no failure.
settings.register_profile("sample", deadline=None)
settings.register_profile("exhaustive", deadline=None)


def pytest_configure(config):
    """`-m exhaustive`, and `-m ""` for all there is, try as many examples as there are meant."""
    whole = config.option.markexpr in {"", "exhaustive"}
    settings.load_profile("exhaustive" if whole else "sample")
    # A background job ignores SIGINT, nohup SIGHUP, and so would each process of a test.
    for name in ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_xdist_auto_num_workers(config):
    """None for files named one by one, which are few, or measure; else as many as there are."""
    named = any(Path(word.partition("::")[0]).suffix == ".py" for word in config.args)
    return 0 if named or "benchmarks" in " ".join(config.args) else None


@dataclass(frozen=True)
class Result:
    """What a run of bncli left behind."""

    code: int
    stdout: str
    stderr: str

    @cached_property
    def report(self) -> dict[str, Any]:
        """Standard output as strict JSON, which the published schema describes."""
        document = parse_strictly(self.stdout)
        tables = {key: _ends(rows) for key, rows in document["tables"].items()}
        best = best_match(schema().iter_errors(document | {"tables": tables}))
        assert best is None, f"{best.json_path}: {best.message}"
        assert document["exit_code"] == self.code
        return document

    def __iter__(self):
        return iter((self.code, self.stdout, self.stderr))


def _ends(rows: list[Any]) -> list[Any]:
    """The first and the last rows of a long table: validating 100,000 takes half a minute."""
    return rows if len(rows) <= 200 else rows[:100] + rows[-100:]


def parse_strictly(text: str) -> dict[str, Any]:
    """JSON in which NaN and Infinity are no numbers."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@cache
def schema() -> Draft202012Validator:
    """The JSON Schema that is in the package."""
    return Draft202012Validator(
        json.loads((REPOSITORY / "bncli/report.schema.json").read_text("utf-8"))
    )


def pytest_addoption(parser):
    parser.addoption("--update", action="store_true", help="write the goldens anew")


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    for name in COLOR_SWITCHES:
        monkeypatch.delenv(name, raising=False)
    for name, value in TERMINAL.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def repository():
    return REPOSITORY


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that is the current one, so that labels are bare names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """bncli in this process: `run("compute", "x.npy")` gives a `Result`."""

    def run(*argv: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return Result(int(code), captured.out, captured.err)

    return run


@pytest.fixture
def run_process():
    """`python -m bncli` in a process of its own; `python=[...]` runs other Python arguments."""

    def run_process(
        *argv: object,
        stdin: bytes | None = None,
        env: dict[str, str] | None = None,
        python: list[str] | None = None,
    ) -> Result:
        environment = {k: v for k, v in os.environ.items() if k not in COLOR_SWITCHES}
        done = subprocess.run(
            [sys.executable, *(["-m", "bncli"] if python is None else python), *map(str, argv)],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            env=environment | TERMINAL | {"PYTHONIOENCODING": "utf-8"} | (env or {}),
            check=False,
            timeout=1800,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run_process


@pytest.fixture
def save(folder):
    """Write arrays into the current folder: `save("x.npy", x)`, `save("x.npz", a=..., b=...)`."""

    def save(name: str, array: Any = None, **arrays: Any) -> str:
        path = folder / name
        if path.suffix == ".npy":
            np.save(path, np.asarray(array))
        elif path.suffix == ".npz":
            np.savez(path, **arrays)
        else:
            import torch

            torch.save(array if array is not None else arrays, path)
        return name

    return save


@pytest.fixture
def golden(request):
    """Compare text with `goldens/NAME` beside the test, or beside a folder that it is in.

    `pytest --update` writes it anew. The release of an engine is left out of it.
    """
    beside = [parent / "goldens" for parent in request.path.parents]
    folder = next(filter(Path.is_dir, beside), beside[0])

    def golden(name: str, text: str) -> None:
        path = folder / name
        text = ENGINE_VERSION.sub(r"\1 VERSION", text)
        if request.config.getoption("--update"):
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing; write it with pytest --update"
        assert text == path.read_text(encoding="utf-8")

    return golden
