"""Shell completion: the scripts install, and complete commands, flags, codes and FILE::NAME."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from bncli.arguments.completion import complete_layers, complete_tensors
from bncli.cli.flags import flags_of
from bncli.commands import COMMANDS, command
from bncli.rulebook import RULES

FLAGS = ("--select", "--ignore", "--baseline", "--fail-on", "--format", "--output")


@pytest.fixture
def files(save, folder):
    save("x.npz", first=np.ones(3), second=np.ones(3))
    layers = torch.nn.ModuleDict({"stem": torch.nn.BatchNorm1d(2), "head": torch.nn.BatchNorm1d(2)})
    torch.save({"model": layers.state_dict(), "epoch": 3}, "net.pt")
    (folder / "broken.pt").write_bytes(b"PK\x03\x04 and no more")
    return folder


@pytest.fixture
def complete(run_process):
    """What zsh or fish gets to see for a line that ends where the cursor is; and for Bash."""

    def complete(line: str, shell: str = "fish") -> list[str]:
        env = {"_BNCLI_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
        env["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
        result = run_process(env=env)
        assert (result.code, result.stderr) == (0, "")
        return [text.split("\t")[0] for text in result.stdout.splitlines() if text]

    return complete


def test_commands_and_flags(complete):
    assert complete("bncli ins") == ["inspect-checkpoint"]
    assert {"compute", "inspect-checkpoint", "schema"} <= set(complete("bncli "))
    offered = complete("bncli compute --")
    assert set(FLAGS) <= set(offered)
    assert complete("bncli compute x.npy --fail-on w") == ["warning"]
    assert complete("bncli compute x.npy -f s") == ["sarif"]


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
        layers = fields[place].metavar.startswith("CKPT")
        assert completes is (complete_layers if layers else complete_tensors), place


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("compute x.npz::", ["x.npz::first", "x.npz::second"]),
        ("compute x.npz::f", ["x.npz::first"]),
        ("compute x.npy --weight x.npz::s", ["x.npz::second"]),
        ("inspect-checkpoint net.pt::", ["net.pt::model.head", "net.pt::model.stem"]),
        ("inspect-checkpoint net.pt net.pt::model.s", ["net.pt::model.stem"]),
        ("compute x.npy --state net.pt::model.h", ["net.pt::model.head"]),
        ("trace x.npz::f", ["x.npz::first"]),
        ("identify x.npz::first x.npz::s", ["x.npz::second"]),
        ("simulate-ema --state net.pt::model.h", ["net.pt::model.head"]),
        ("compute x.np", []),  # files are the shell's
        ("compute broken.pt::", []),
        ("compute missing.pt::", []),
        ("compute .::", []),
    ],
)
def test_names_in_files(complete, files, line, names):
    assert sorted(complete(f"bncli {line}")) == names


def test_zsh_sees_whole_words(run_process, files):
    env = {"_BNCLI_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "bncli compute x.npz::f"}
    assert run_process(env=env).stdout == "_arguments '*: :((\"x.npz\\\\:\\\\:first\"))'\n"


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
        ("compu", "compute\n"),
    ],
)
def test_bash_breaks_words(run_process, files, words, printed):
    typed = ["bncli", *words.split()]
    env = {"COMP_WORDS": "\n".join(typed), "COMP_CWORD": str(len(typed) - 1)}
    result = run_process(env={**env, "_BNCLI_COMPLETE": "complete_bash"})
    assert (result.code, result.stdout, result.stderr) == (0, printed, "")


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
