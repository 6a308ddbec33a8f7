"""Shell completion: the scripts install, and complete commands, flags, codes and FILE::NAME."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from bncli.arguments.completion import (
    MOST_NAMES,
    complete_against,
    complete_layers,
    complete_parts,
    complete_tensors,
)
from bncli.cli.flags import flags_of
from bncli.commands import COMMANDS, command
from bncli.loaders.statistics import write_statistics
from bncli.rulebook import RULES
from tests.conftest import Result
from tests.loaders.statistics.captures import model_capture

FLAGS = ("--select", "--ignore", "--baseline", "--fail-on", "--format", "--output")


@pytest.fixture
def files(save, folder):
    save("x.npz", first=np.ones(3), second=np.ones(3))
    layers = torch.nn.ModuleDict({"stem": torch.nn.BatchNorm1d(2), "head": torch.nn.BatchNorm1d(2)})
    torch.save({"model": layers.state_dict(), "epoch": 3}, "net.pt")
    (folder / "net.py").write_text(
        "import os\nLEARNING_RATE: float = 1\n_PRIVATE = 2\nLEARNING_RATE = 3\n"
        "class Net: pass\ndef validation(): raise SystemExit\nvalidation()\n"
    )
    (folder / "broken.py").write_text("class Net(\n")
    (folder / "broken.pt").write_bytes(b"PK\x03\x04 and no more")
    write_statistics("stats.npz", model_capture([np.ones((2, 3, 1, 1))]))
    return folder


@pytest.fixture
def asked(run, monkeypatch):
    """bncli as a shell's script calls it: with these variables, and without arguments."""

    def asked(**variables: str):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return run()

    return asked


@pytest.fixture
def complete(asked):
    """What fish gets to see for a line that ends where the cursor is."""

    def complete(line: str) -> list[str]:
        result = asked(
            _BNCLI_COMPLETE="complete_fish",
            _TYPER_COMPLETE_ARGS=line,
            _TYPER_COMPLETE_FISH_ACTION="get-args",
        )
        assert (result.code, result.stderr) == (0, "")
        return [text.split("\t")[0] for text in result.stdout.splitlines() if text]

    return complete


def test_commands_and_flags(complete):
    assert complete("bncli ins") == ["inspect-checkpoint"]
    assert {"compute", "inspect-checkpoint", "schema"} <= set(complete("bncli "))
    offered = complete("bncli compute --")
    assert set(FLAGS) <= set(offered)
    assert complete("bncli compute x.npy --fail-on w") == ["warning"]
    assert complete("bncli compute x.npy -f s") == ["sarif", "svg"]


def test_a_shell_shows_what_each_command_is_for(asked):
    shown = asked(_BNCLI_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="bncli ").stdout
    for name, entry in COMMANDS.items():
        assert f'"{name.replace("_", "-")}":"{entry.purpose}"' in shown


def test_rule_codes(complete):
    def codes(begun: str) -> list[str]:
        return [rule.code for rule in RULES if rule.code.startswith(begun)]

    assert complete("bncli rules BN60") == codes("BN60")
    assert complete("bncli compute x.npy --ignore ") == codes("")
    assert complete("bncli compute x.npy --select BN90") == codes("BN90")
    behind = complete("bncli compute x.npy --ignore BN001,BN90")
    assert behind == [f"BN001,{code}" for code in codes("BN90")]
    assert {"BN001,BN901", "BN001,BN902"} <= set(behind)


def names_inside(text: str) -> bool:
    """Whether a metavar stands for a file that may be followed by "::" and a name."""
    return "::" in text or text.split(maxsplit=1)[0].rstrip(".") in {"INPUT", "OUTPUT"}


def test_wherever_a_name_in_a_file_may_stand_it_is_completed():
    fields = {
        (name, flag.name): field
        for name in COMMANDS
        for flag in flags_of(command(name))
        for field in getattr(flag.annotation, "__metadata__", ())
    }
    inside = {
        place: field.autocompletion
        for place, field in fields.items()
        if names_inside(field.metavar or "-")
    }
    assert len(inside) > 30
    assert {command for command, _ in inside} >= {"compute", "trace", "diff", "identify"}
    for place, completes in inside.items():
        metavar = fields[place].metavar
        layers = complete_layers if metavar.startswith("CKPT") else complete_tensors
        assert completes is (complete_parts if "PART" in metavar else layers), place


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("compute x.npz::", ["x.npz::first", "x.npz::second"]),
        ("compute x.npz::f", ["x.npz::first"]),
        ("compute x.npy --weight x.npz::s", ["x.npz::second"]),
        ("inspect-checkpoint net.pt::", ["net.pt::model.head", "net.pt::model.stem"]),
        ("compare-checkpoints net.pt net.pt::", ["net.pt::model"]),
        ("compare-checkpoints net.pt --with net.pt::m", ["net.pt::model"]),
        ("inspect-checkpoint net.pt net.pt::model.s", ["net.pt::model.stem"]),
        ("compute x.npy --state net.pt::model.h", ["net.pt::model.head"]),
        ("trace x.npz::f", ["x.npz::first"]),
        ("compute stats.npz::", [f"stats.npz::{name}" for name in ("head.bn", "input", "stem.bn")]),
        ("simulate-ema stats.npz::s", ["stats.npz::stem.bn"]),
        ("compute x.npy --state stats.npz::", ["stats.npz::head.bn", "stats.npz::stem.bn"]),
        ("identify x.npz::first x.npz::s", ["x.npz::second"]),
        ("simulate-ema --state net.pt::model.h", ["net.pt::model.head"]),
        ("capture net.py:", ["net.py:LEARNING_RATE", "net.py:Net", "net.py:validation"]),
        ("capture net.py:N", ["net.py:Net"]),
        ("capture net.py:Net --data net.py:v", ["net.py:validation"]),
        ("capture net.py:Net --data x.npz::f", ["x.npz::first"]),
        ("capture net.py:Net --checkpoint net.pt::m", ["net.pt::model"]),
        ("capture broken.py:", []),
        ("capture missing.py:", []),
        ("compute x.np", []),  # files are the shell's
        ("compute broken.pt::", []),
        ("compute missing.pt::", []),
        ("compute .::", []),
    ],
)
def test_names_in_files(complete, files, line, names):
    assert sorted(complete(f"bncli {line}")) == names


def test_no_shell_shows_more_than_a_thousand_names(complete, save):
    save("many.npz", **{f"n{number}": np.zeros(0) for number in range(1003)})
    assert len(complete("bncli compute many.npz::n")) == MOST_NAMES == 1000


def test_zsh_sees_whole_words(asked, files):
    line = "bncli compute x.npz::f"
    result = asked(_BNCLI_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line)
    assert result.stdout == "_arguments '*: :((\"x.npz\\\\:\\\\:first\"))'\n"


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("compute x.npz :: f", "first\n"),
        ("compute x.npz ::", "first\nsecond\n"),
        ("compute x.npy --state net.pt :: model.h", "model.head\n"),
        ("compute x.npy --state = net.pt :: model.h", "model.head\n"),
        ("compute x.npy --fail-on = ne", "never\n"),
        ("compute x.npy --fail-on ne", "never\n"),
        ("compute x.npz::f", "x.npz::first\n"),  # where ":" is no break
        ("compute x.npz :: f | --state net.pt :: x", "first\n"),  # what is behind the cursor
        ("compu", "compute\n"),
    ],
)
def test_bash_breaks_words(asked, files, words, printed):
    before, _, behind = f"bncli {words}".partition(" | ")
    typed = "\n".join([*before.split(), *behind.split()])
    place = str(len(before.split()) - 1)
    result = asked(_BNCLI_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=place)
    assert result == Result(0, printed, "")


def test_bash_begins_a_new_word(asked, files):
    typed = "bncli\ncompute\nx.npz\n::\nfirst\n"
    result = asked(_BNCLI_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD="5")
    assert result == Result(0, "\n", "")


@pytest.mark.parametrize("place", ["", "x", "-1", "1.5", "9" * 10, "9" * 30, "²", "\u0663"])
def test_a_place_that_is_no_number_is_refused(asked, place):
    result = asked(_BNCLI_COMPLETE="complete_bash", COMP_WORDS="bncli", COMP_CWORD=place)
    said = f"bncli: COMP_CWORD: {place!r} is not a word number; Bash sets it itself.\n"
    assert result == Result(2, "", said)


@pytest.mark.parametrize("place", ["0", "1", "2", "99"])
@pytest.mark.parametrize("words", ["", "bncli", "bncli\ncompute\n--", 'bncli\n"', "bncli\n::\n=\n"])
def test_any_words_of_a_shell_are_completed(asked, words, place):
    assert asked(_BNCLI_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=place).code == 0


@pytest.mark.parametrize("shell", ["nonsense", "complete_nosh", "show_bash", "source_nosh"])
def test_a_completion_that_nobody_knows_is_2(asked, shell):
    assert asked(_BNCLI_COMPLETE=shell).code == 2


def test_it_takes_neither_torch_nor_rich(run_process, files):
    probe = (
        "import sys\nfrom bncli.cli import main\ncode = main()\n"
        "print('HEAVY', *({'torch', 'numpy'} & set(sys.modules)), file=sys.stderr)\n"
    )
    for line in ("compute x.npy --ignore ", "inspect-checkpoint net.pt::", "compute x.npz::"):
        env = {"_BNCLI_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": f"bncli {line}"}
        result = run_process(env=env, python=["-c", probe])
        assert len(result.stdout) > 20
        assert "torch" not in result.stderr.rpartition("HEAVY")[2]


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no Bash")
def test_it_installs_and_a_real_bash_completes(files, tmp_path_factory):
    """Through the script that --install-completion writes, as Bash calls it at a Tab."""
    home = tmp_path_factory.mktemp("home")
    (home / "bin").mkdir()
    (home / "bin/bncli").write_text(f'#!/bin/sh\nexec {sys.executable} -m bncli "$@"\n')
    (home / "bin/bncli").chmod(0o755)
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }

    def bash(script: str) -> str:
        done = subprocess.run(
            ["bash", "--norc", "-c", script],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert "bash completion installed" in bash("bncli --install-completion bash")
    tab = (
        "source ~/.bash_completions/bncli.sh\n"
        "COMP_WORDS=(bncli compute x.npz :: f)\nCOMP_CWORD=4\n"
        "_bncli_completion bncli\necho ${COMPREPLY[@]}\ncomplete -p bncli"
    )
    assert bash(tab) == "first\ncomplete -o default -F _bncli_completion bncli\n"


def test_what_to_compare_with_is_a_library_or_code(folder):
    (folder / "mine.py").write_text("class Mine: pass\ndef fused(x): pass\n_own = 1\n")
    assert list(complete_against("")) == ["torch"]
    assert list(complete_against("to")) == ["torch"]
    assert list(complete_against("mine.py:")) == ["mine.py:Mine", "mine.py:fused"]
    assert list(complete_against("numpy")) == []
