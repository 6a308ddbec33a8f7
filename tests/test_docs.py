"""What README.md and examples/ show is what bncli prints; `pytest --update` writes it anew."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bncli.cli import main
from bncli.errors import ExitCode
from bncli.process.signals import Terminated

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("examples/**/README.md"))]
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TORCH_VERSION = re.compile(r"\d+\.\d+\.\d+\+?\w*(?= |$)")


def executed(block: str, folder: Path) -> str:
    """The block as it would look had it just been typed.

    A command that fails has to be followed by `echo $?`, so that no exit code goes unseen.
    """
    lines: list[str] = []
    code = 0
    for line in [*block.splitlines(), "$ "]:
        if not line.startswith("$ "):
            continue
        if line == "$ echo $?":
            lines += [line, str(code)]
            code = 0
            continue
        assert code == 0, f"exit code {code}, and no echo $? behind it, after {lines}"
        if line == "$ ":
            break
        lines.append(line)
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
        }
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line[2:]],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        code = done.returncode
        lines += done.stdout.splitlines()
    return "\n".join(lines) + "\n"


def comparable(text: str) -> str:
    """Text without the release of torch, which differs between machines."""
    return TORCH_VERSION.sub("VERSION", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_page(page, tmp_path, request):
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    text = page.read_text()
    assert BLOCK.search(text)
    renewed = BLOCK.sub(lambda match: f"```console\n{executed(match[1], tmp_path)}```", text)
    if request.config.getoption("--update"):
        page.write_text(renewed)
    else:
        assert comparable(renewed) == comparable(text)


def test_comparable_sees_a_difference():
    assert comparable("torch 2.13.0+cpu agrees") == comparable("torch 2.14.1 agrees")
    assert comparable("mean 6.5") != comparable("mean 6.4")


def test_install_lines_are_what_ci_takes():
    """Both are single lines, and the script finds them."""
    text = (REPOSITORY / "README.md").read_text()
    script = (REPOSITORY / ".ci" / "run").read_text()
    patterns = re.findall(r"grep -m1 -E '([^']+)' README", script)
    assert len(patterns) == 2
    for pattern in patterns:
        lines = re.findall(f"{pattern}.*$", text, re.MULTILINE)
        assert len(lines) == 1
        assert lines[0].startswith("python -m pip install torch==2.13.0 ")


def exit_codes() -> dict[int, str]:
    """The README's table of exit codes: the example of each."""
    text = (REPOSITORY / "README.md").read_text()
    rows = text[text.index("| exit code |") :].split("\n\n")[0].splitlines()[2:]
    examples = {}
    for _, codes, _, example, _ in (row.split("|") for row in rows):
        examples |= dict.fromkeys(map(int, codes.split(",")), example.strip("` "))
    return examples


def test_exit_codes_of_the_readme_are_those_of_the_code():
    assert set(exit_codes()) == {int(code) for code in ExitCode}


@pytest.mark.parametrize("code", [code for code, example in exit_codes().items() if example])
def test_exit_codes_of_the_readme_are_executed(code, tmp_path):
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    assert executed(f"$ {exit_codes()[code]}\n$ echo $?", tmp_path).endswith(f"\n{code}\n")


def test_the_exit_codes_without_an_example_are_executed_too(monkeypatch, capsys):
    """A bug, an interrupt, a closed pipe and an end, which no command line asks for."""
    assert [code for code, example in exit_codes().items() if not example] == [4, 130, 141, 143]
    for error, code in (
        (ZeroDivisionError(), ExitCode.BUG),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (Terminated(), ExitCode.TERMINATED),
    ):
        monkeypatch.setattr(
            "bncli.loaders.open_model", lambda path, error=error: (_ for _ in ()).throw(error)
        )
        assert main(["inspect-checkpoint", "net.pt"]) == code
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "bncli", "schema"], stdout=writing, check=False)
    os.close(writing)
    assert done.returncode == ExitCode.CLOSED_PIPE
