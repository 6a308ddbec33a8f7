"""What README.md and examples/ show is what bncli prints; `pytest --update` writes it anew."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bncli.cli import build_app, main
from bncli.commands import COMMANDS
from bncli.errors import ExitCode
from bncli.process.signals import Terminated
from tests.conftest import ENGINE_VERSION

REPOSITORY = Path(__file__).resolve().parents[1]
GUIDES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("examples/**/README.md"))]
CHINESE = sorted(REPOSITORY.glob("examples/**/README.zh.md"))
PAGES = [*GUIDES, *CHINESE]
PROGRAMS = [page for page in PAGES if "\nimport bncli\n" in page.read_text("utf-8")]
"""Those whose Python runs as it stands."""
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```\n(\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
"""A block of Python, and behind it what it prints."""
TORCH_VERSION = re.compile(r"\d+\.\d+\.\d+\+?\w*(?= |$)")


PLAIN = re.compile(r"bncli ([^;&<>*$`\\']|'[^']*')*")
"""A call of bncli, and what its output is piped into, without anything else for the shell."""

LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]+))?\)")
"""A link to a file of the repository, "" for this one, and to a heading in it."""

LONGEST_README = 180
"""Lines that a newcomer reads; everything else is in a guide."""


class Terminal(io.StringIO):
    """What looks to bncli like a terminal of 80 columns, which does not say its size."""

    def isatty(self) -> bool:
        return True


def executed(block: str, folder: Path, *, processes: bool = False) -> str:
    """The block as it would look had it just been typed in a terminal of 80 columns, uncoloured.

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
        if not PLAIN.fullmatch(line[2:]) or (processes and " | " in line):
            code, output = in_shell(line[2:], folder)
        elif processes:
            code, output = in_terminal(line[2:], folder)
        else:
            code, output = in_process(line[2:], folder)
        lines += output.splitlines()
    return "\n".join(lines) + "\n"


def environment() -> dict[str, str]:
    """That of a shell in which bncli is this one."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "NO_COLOR": "1",
    }


def in_shell(script: str, folder: Path, stdin: str = "") -> tuple[int, str]:
    """The exit code of a script, and what it printed on either stream."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=environment(),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def in_terminal(line: str, folder: Path) -> tuple[int, str]:
    """The same of a call whose standard output is a terminal of 80 columns."""
    import fcntl  # which Windows lacks
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = subprocess.Popen(
        shlex.split(line), cwd=folder, env=environment(), stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # which is how Linux says that nobody writes any more
        while some := os.read(ours, 1 << 16):
            printed += some
    os.close(ours)
    _, said = process.communicate()
    return process.returncode, (printed + said).decode().replace("\r\n", "\n")


def in_process(line: str, folder: Path) -> tuple[int, str]:
    """The same of a call of bncli; what stands behind a pipe is a script for the shell."""
    call, _, script = line.partition(" | ")
    stdout = io.StringIO() if script else Terminal()
    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NO_COLOR", "1")
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        code = int(main(shlex.split(call)[1:]))
    if not script:
        return code, stdout.getvalue() + stderr.getvalue()
    last, printed = in_shell(script, folder, stdout.getvalue())
    return last or code, stderr.getvalue() + printed


def programmed(text: str, folder: Path) -> str:
    """The page with what its blocks of Python print, one after the other in one module."""
    names: dict[str, object] = {"__name__": "guide"}

    def printed(block: re.Match[str]) -> str:
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
            patch.chdir(folder)
            exec(compile(block[1], "guide", "exec"), names)
        assert bool(output.getvalue()) == bool(block[2]), f"{block[1]} prints {output.getvalue()}"
        shown = f"\n```text\n{output.getvalue()}```" if block[2] else ""
        return f"```python\n{block[1]}```\n{shown}"

    return PYTHON.sub(printed, text)


def comparable(text: str) -> str:
    """Text without the releases of torch and of the engines, which differ between machines."""
    return ENGINE_VERSION.sub(r"\1 VERSION", TORCH_VERSION.sub("VERSION", text))


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


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_python(page, tmp_path, request):
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    text = page.read_text("utf-8")
    renewed = programmed(text, tmp_path)
    if request.config.getoption("--update"):
        page.write_text(renewed, "utf-8")
    else:
        assert comparable(renewed) == comparable(text)


def test_a_block_of_python_that_prints_something_else_is_seen(tmp_path):
    page = "```python\nx = 2\n```\n\n```python\nprint(x)\n```\n\n```text\n3\n```\n"
    assert programmed(page, tmp_path) == page.replace("3", "2")
    with pytest.raises(AssertionError, match="prints"):
        programmed("```python\nprint(1)\n```\n", tmp_path)


def test_the_readme_is_short_enough_to_be_read():
    assert (REPOSITORY / "README.md").read_text("utf-8").count("\n") <= LONGEST_README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page):
    for path, heading in LINK.findall(page.read_text("utf-8")):
        target = page.parent / path if path else page
        assert target.is_file(), path
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            assert heading in {anchor(each) for each in headings}


def anchor(heading):
    """What links to a heading: without its punctuation, in whatever script."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_the_index_has_every_guide():
    text = (REPOSITORY / "examples" / "README.md").read_text("utf-8")
    folders = {path.parent.name for path in REPOSITORY.glob("examples/*/README.md")}
    assert set(re.findall(r"^\| \[(\w+)\]\(\1/README\.md\) \|", text, re.MULTILINE)) == folders
    for folder in {path.name for path in (REPOSITORY / "examples").iterdir() if path.is_dir()}:
        assert f"{folder}/" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_in_a_guide(name):
    """By one of its names; most are the same in every command."""
    guides = "".join(page.read_text("utf-8") for page in GUIDES)
    for param in typer.main.get_command(build_app((name,))).commands[name.replace("_", "-")].params:
        if param.param_type_name == "option" and not param.hidden and "--help" not in param.opts:
            names = [*param.opts, *param.secondary_opts]
            assert any(re.search(rf"(?<![\w-]){each}(?![\w-])", guides) for each in names), names


def test_the_picture_is_what_bncli_draws(tmp_path, monkeypatch, request):
    """The one in README.md, by the command that its guide shows."""
    picture = REPOSITORY / "examples" / "checkpoint" / "report.svg"
    assert "(examples/checkpoint/report.svg)" in (REPOSITORY / "README.md").read_text("utf-8")
    command = "bncli inspect-checkpoint examples/checkpoint/nan.pt -o report.svg"
    assert f"\n$ {command}\n" in picture.with_name("README.md").read_text("utf-8")
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == ExitCode.FINDING
    drawn = Path("report.svg").read_text("utf-8")
    if request.config.getoption("--update"):
        picture.write_text(drawn, "utf-8")
    assert drawn == picture.read_text("utf-8")


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


def test_the_exit_codes_without_an_example_are_executed_too(monkeypatch, capsys, folder):
    """A bug, an interrupt, a closed pipe and an end, which no command line asks for."""
    assert [code for code, example in exit_codes().items() if not example] == [4, 130, 141, 143]
    Path("net.pt").write_bytes(b"PK")
    for error, code in (
        (ZeroDivisionError(), ExitCode.BUG),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (Terminated(), ExitCode.TERMINATED),
    ):
        monkeypatch.setattr(
            "bncli.commands.inspect_checkpoint.looking.open_model",
            lambda *_, error=error: (_ for _ in ()).throw(error),
        )
        assert main(["inspect-checkpoint", "net.pt"]) == code
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "bncli", "schema"], stdout=writing, check=False)
    os.close(writing)
    assert done.returncode == ExitCode.CLOSED_PIPE
