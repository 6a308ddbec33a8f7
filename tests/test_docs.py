"""What README.md and examples/ show is what bncli prints; `pytest --update` writes it anew."""

from __future__ import annotations

import io
import os
import re
import shlex
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


PLAIN = re.compile(r"bncli [^;&<>*$`\\]*")
"""A call of bncli, and what its output is piped into, without anything else for the shell."""


def executed(block: str, folder: Path, *, processes: bool = False) -> str:
    """The block as it would look had it just been typed.

    A command that fails has to be followed by `echo $?`, so that no exit code goes unseen. A plain
    call of bncli is made in this process unless all are to be made in `processes` of their own.
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
        if processes or not PLAIN.fullmatch(line[2:]):
            code, output = in_shell(line[2:], folder)
        else:
            code, output = in_process(line[2:], folder)
        lines += output.splitlines()
    return "\n".join(lines) + "\n"


def in_shell(script: str, folder: Path, stdin: str = "") -> tuple[int, str]:
    """The exit code of a script, and what it printed on either stream."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def in_process(line: str, folder: Path) -> tuple[int, str]:
    """The same of a call of bncli; what stands behind a pipe is a script for the shell."""
    call, _, script = line.partition(" | ")
    stdout = io.StringIO()
    stderr = io.StringIO() if script else stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        code = int(main(shlex.split(call)[1:]))
    if not script:
        return code, stdout.getvalue()
    last, printed = in_shell(script, folder, stdout.getvalue())
    return last or code, stderr.getvalue() + printed


def comparable(text: str) -> str:
    """Text without the release of torch, which differs between machines."""
    return TORCH_VERSION.sub("VERSION", text)


@pytest.mark.parametrize(
    "processes", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["", "processes"]
)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_page(page, processes, tmp_path, request):
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    text = page.read_text("utf-8")
    assert BLOCK.search(text)
    renewed = BLOCK.sub(
        lambda match: f"```console\n{executed(match[1], tmp_path, processes=processes)}```", text
    )
    if request.config.getoption("--update"):
        page.write_text(renewed)
    else:
        assert comparable(renewed) == comparable(text)


def test_comparable_sees_a_difference():
    assert comparable("torch 2.13.0+cpu agrees") == comparable("torch 2.14.1 agrees")
    assert comparable("mean 6.5") != comparable("mean 6.4")


def test_install_lines_are_what_ci_takes():
    """Both are single lines, and the script finds them."""
    text = (REPOSITORY / "README.md").read_text("utf-8")
    script = (REPOSITORY / ".ci" / "run").read_text("utf-8")
    patterns = re.findall(r"grep -m1 -E '([^']+)' README", script)
    assert len(patterns) == 2
    for pattern in patterns:
        lines = re.findall(f"{pattern}.*$", text, re.MULTILINE)
        assert len(lines) == 1
        assert lines[0].startswith("python -m pip install torch==2.13.0 ")


def exit_codes() -> dict[int, str]:
    """The README's table of exit codes: the example of each."""
    text = (REPOSITORY / "README.md").read_text("utf-8")
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
    shown = executed(f"$ {exit_codes()[code]}\n$ echo $?", tmp_path, processes=True)
    assert shown.endswith(f"\n{code}\n")


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
