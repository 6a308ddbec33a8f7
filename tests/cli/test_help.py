"""The helps: short, whole at 80 columns, and with examples that work."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import typer.main

from bncli.cli import build_app, main
from bncli.cli import help as helps
from bncli.commands import COMMANDS, DOCUMENTS
from tests.calls import NAMES
from tests.conftest import REPOSITORY

ENTRIES = COMMANDS | DOCUMENTS
HELPED = [name.replace("_", "-") for name in ENTRIES]
EXAMPLES = [(example, name) for name, entry in ENTRIES.items() for example in entry.examples]
ESCAPE = "\x1b["


def shown(run, *arguments: str) -> str:
    """A help, which every call gives with exit code 0 and nothing beside it."""
    code, stdout, stderr = run(*arguments)
    assert (code, stderr) == (0, "")
    return stdout


# ---------------------------------------------------------------------------- bncli itself


def test_the_commands_stand_under_their_questions(run):
    lines = shown(run, "--help").splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    listed = [line for line in lines if line.startswith("  ")]
    assert len(listed) == len(ENTRIES)
    for line, (name, entry) in zip(listed, ENTRIES.items(), strict=True):
        assert line.split(maxsplit=1) == [name.replace("_", "-"), entry.purpose]
        above = lines[: lines.index(line)]
        assert [each for each in above if each.endswith(("?", ")"))][-1] == entry.question


def test_a_question_is_asked_once(run):
    lines = shown(run).splitlines()
    questions = {entry.question for entry in ENTRIES.values()}
    assert [lines.count(question) for question in questions] == [1] * len(questions)


def test_the_flags_of_bncli_itself_are_named(run):
    last = shown(run).splitlines()[-1]
    for flag in ("--version", "-h", "--help", "--install-completion", "--show-completion"):
        assert flag in last.replace(".", " ").replace(",", " ").split()


# ---------------------------------------------------------------------------- each command


def parameters(name: str) -> list:
    """What a command takes, as Typer has it; `--help` is Click's own."""
    return typer.main.get_command(build_app((name,))).commands[name].params


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("columns", [80, 100, 40])
@pytest.mark.parametrize("name", HELPED)
def test_no_name_metavar_or_default_is_cut(run, monkeypatch, name, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = shown(run, name, "--help")
    lines = text.splitlines()
    assert "…" not in text
    panels = lines[lines.index("", lines.index("Examples:")) :]
    assert max(map(len, panels)) <= max(columns, 50)  # as long as a name may be
    for param in parameters(name):
        names = [*param.opts, *param.secondary_opts] if param.param_type_name == "option" else []
        assert all(flag in one_line(text).replace(",", " ").split() for flag in names)
        if param.param_type_name == "argument" or not param.is_flag:
            value = param.metavar or "|".join(getattr(param.type, "choices", ["?"]))
            assert any(value in line for line in panels), value
        if isinstance(param.show_default, str):
            assert f"default: {param.show_default}" in one_line(text)
        elif param.show_default and param.default not in (None, False, True, ()):
            assert f"default: {getattr(param.default, 'value', param.default)}" in one_line(text)
        assert one_line(param.help or "") in one_line(text)


@pytest.mark.parametrize("name", HELPED)
def test_a_help_begins_with_usage_purpose_and_examples(run, name):
    entry = ENTRIES[name.replace("-", "_")]
    lines = shown(run, name, "-h").splitlines()
    assert lines[0].startswith(f"Usage: bncli {name} ")
    assert lines[2:5] == [entry.purpose, "", "Examples:"]
    shown_examples = lines[5 : 5 + 2 * len(entry.examples)]
    assert shown_examples[1::2] == [f"  bncli {example.call}" for example in entry.examples]
    assert shown_examples[::2] == [f"  # {example.comment}" for example in entry.examples]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", HELPED)
def test_the_common_flags_come_first_and_the_panels_that_all_have_last(run, name):
    entry = ENTRIES[name.replace("-", "_")]
    lines = shown(run, name, "-h").splitlines()
    titles = [line for line in lines if line.endswith((":", ")")) and not line.startswith(" ")]
    wanted = ["Examples:"]
    wanted += ["Arguments:"] * ("Arguments:" in titles)
    wanted += ["Common flags:"] * bool(entry.flags)
    assert titles[: len(wanted)] == wanted
    panels = [title for title in titles if title in {"Input:", "Layer:", "Comparison:"}]
    assert panels == sorted(panels, key=["Input:", "Layer:", "Comparison:"].index)
    findings = "Findings:" if entry.reads else helps.NO_FINDINGS
    assert titles[-2:] == [findings if name in NAMES else "Examples:", "Output:"]
    assert len(titles) == len(set(titles))
    if entry.flags:
        begin = lines.index("Common flags:")
        common = [line for line in lines[begin + 1 : lines.index("", begin)] if line[2] == "-"]
        assert len(common) == len(entry.flags) <= 7
        for line, flag in zip(common, entry.flags, strict=True):
            assert flag in line.replace(",", " ").split()
    for param in parameters(name):
        if param.param_type_name == "option":
            assert sum(line.startswith(f"  {param.opts[0]} ") for line in lines) <= 1


def test_a_flag_that_a_command_lacks_is_not_called_common(run, monkeypatch):
    wrong = replace(COMMANDS["rules"], flags=("--eps",))
    monkeypatch.setitem(helps.COMMANDS, "rules", wrong)
    code, _, stderr = run("rules", "--help")
    assert code == 4
    assert "--eps" in stderr


def test_limits_that_surprise_are_said(run):
    text = one_line(shown(run, "compute", "-h"))
    assert "default: all cores, up to 6; 1 to 1024]" in text
    assert "default: the terminal's width; at least 20]" in text
    assert "at least 0" not in text
    assert "--training, --eval" in text
    assert "[default: training]" in text


@pytest.mark.parametrize("columns", [80, 90, 100])
def test_a_literal_stands_in_one_line(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert "'[[1, 2], [3, 4]]'" in shown(run, "compute", "-h")
    assert "'backbone.*=1e-3'" in shown(run, "inspect-checkpoint", "-h")


def test_arguments_stand_in_the_usage(run):
    assert shown(run, "compute", "-h").startswith("Usage: bncli compute [INPUT...] [FLAGS]\n")
    assert shown(run, "simulate-ema", "-h").startswith("Usage: bncli simulate-ema [INPUT...] [F")
    assert shown(run, "diff", "-h").startswith("Usage: bncli diff [INPUT | ACTUAL EXPECTED] [FL")


@pytest.mark.parametrize("name", ["compute", "inspect-checkpoint"])
def test_python_without_docstrings_has_the_same_helps(run, run_process, name):
    for arguments in (("--help",), (name, "--help")):
        result = run_process(*arguments, python=["-OO", "-m", "bncli"])
        assert tuple(result) == (0, shown(run, *arguments), "")


def test_a_terminal_sees_headings_in_bold(run, monkeypatch):
    plain = shown(run, "compute", "-h")
    assert ESCAPE not in plain
    monkeypatch.setattr(helps, "color_wanted", lambda: True)
    page = helps._Page(100)
    page.heading("Input")
    page.rows([("--eps", "A number.")], 20)
    assert page.lines == [
        typer.style("Input:", bold=True),
        f"  {typer.style('--eps', fg='cyan')}{' ' * 13}A number.",
    ]


# ---------------------------------------------------------------------------- examples


@cache
def captured() -> bytes:
    """A statistics file of the example's model on images that are all alike."""
    image = np.random.default_rng(0).normal(size=(1, 1, 16, 16)).astype(np.float32)
    with TemporaryDirectory() as folder:
        data, stats = Path(folder) / "x.npy", Path(folder) / "s.npz"
        np.save(data, image.repeat(4, axis=0))
        example = REPOSITORY / "examples/diagnose"
        flags = (f"--checkpoint={example / 'unet.pth'}", f"--data={data}", f"--save-stats={stats}")
        assert main(["capture", f"{example / 'seg.py'}:UNet", *flags, "--quiet"]) == 0
        return stats.read_bytes()


@pytest.fixture
def files(save, folder):
    """The files that the examples name."""
    import torch

    tensor = np.load(REPOSITORY / "examples/tutorial/x.npy")
    layer = torch.nn.BatchNorm2d(2)
    for _ in range(50):
        layer(torch.from_numpy(tensor))
    state = {f"{name}.{key}": value for name in ("bn1", "layer1.0.bn1")
             for key, value in layer.state_dict().items()}  # fmt: skip
    (folder / "runs").mkdir()
    for name in ("net.pth", "runs/a.pth", "runs/b.pth"):
        save(name, state)
    for name in ("before.pth", "after.pth"):
        save(name, {f"backbone.{key}": value for key, value in state.items()})
    for path in (REPOSITORY / "examples" / "compare").glob("*.pt"):
        suffix = ".pth" if path.stem.startswith("epoch") else ".pt"
        shutil.copy(path, folder / f"{path.stem}{suffix}")
    for name in ("x.npy", "batch0.npy", "batch1.npy"):
        save(name, tensor)
    for name in ("seg.py", "unet.pth"):
        shutil.copy(REPOSITORY / "examples" / "diagnose" / name, folder)
    for name in ("stats.npz", "training.npz"):
        shutil.copy(REPOSITORY / "examples/diagnose/stats.npz", folder / name)
    (folder / "loss.py").write_text("def loss(output, batch):\n    return output.square().mean()\n")
    (folder / "batches").mkdir()
    for name in ("x.pt", "batches/0.pt", "batches/1.pt"):
        save(name, torch.from_numpy(np.random.default_rng(0).normal(size=(2, 1, 16, 16))).float())
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 16, 16))).float()
    (folder / "train").mkdir()
    for name in ("train/0.pt", "train/1.pt"):
        save(name, image.repeat(4, 1, 1, 1))  # alike, so that four samples are enough
    (folder / "s.npz").write_bytes(captured())
    output = layer.eval()(torch.from_numpy(tensor)).detach().numpy()
    save("output.npy", output)
    save("port.npy", output)
    layer.eps = 1e-3
    save("reference.npy", layer(torch.from_numpy(tensor)).detach().numpy() * np.float32(1.01))


@pytest.mark.parametrize(("example", "name"), EXAMPLES, ids=[call.call for call, _ in EXAMPLES])
@pytest.mark.usefixtures("files")
def test_an_example_does_what_it_says(run, example, name):
    first, *arguments = shlex.split(example.call.partition(" > ")[0])
    assert first.replace("-", "_") == name
    result = run(first, *arguments)
    assert (result.code, result.stderr) == (example.exit_code, "")
    assert result.stdout
