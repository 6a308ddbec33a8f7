"""What bncli says of a command line that it cannot take: what to type instead."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.commands import COMMANDS
from tests.calls import NAMES

SENTENCES = {
    # a flag of another command, under another name, or misspelt
    "compute x.npy --budget": "--budget is a flag of diff, not of compute.",
    "compute x.npy --expect-layers 3": "--expect-layers is a flag of inspect-checkpoint, not of"
    " compute.",
    "inspect-checkpoint x.npy --eval": "--eval is a flag of diff, identify, compute and trace, not"
    " of inspect-checkpoint.",
    "compute x.npy --json": "compute has no flag --json; use -f json.",
    "compute x.npy --tolerance 1": "compute has no flag --tolerance; use --rtol and --atol.",
    "compute x.npy --momentumm 1": "compute has no flag --momentumm; did you mean --momentum?",
    "compute x.npy --bogus": "compute has no flag --bogus; bncli compute --help lists them.",
    "compute x.npy -x": "compute has no flag -x; bncli compute --help lists them.",
    "rules --tolerance": "rules has no flag --tolerance; bncli rules --help lists them.",
    "compute x.npy -json": "compute has no flag --json; use -f json.",
    "compute x.npy -verbose": "write --verbose with two dashes.",
    "rules BN203 BN204": "rules takes fewer arguments; leave out BN204.",
    # a value
    "compute x.npy --eps": "--eps needs a value: --eps NUMBER.",
    "compute x.npy --eps abc": "--eps: 'abc' is not a number.",
    "compute x.npy --eval=1": "--eval takes no value; write --eval alone.",
    "inspect-checkpoint x.npy --expect-layers three": "--expect-layers: 'three' is not a whole"
    " number.",
    "compute x.npy --seed=-1": "--seed: -1 is not 0 or more.",
    "compute x.npy --threads 0": "--threads: 0 is not from 1 to 1024.",
    "compute x.npy --dtype int8": "--dtype: it takes float16, bfloat16, float32 or float64, not"
    " 'int8'.",
    "compute x.npy --against jax": "--against jax: it is neither torch nor code of "
    "yours; write that as package.module:name or file.py:name.",
    "compute x.npy --fail-on notes": "--fail-on: it takes error, warning, info or never, not"
    " 'notes'.",
    # a command
    "comput x.npy": "there is no command comput; did you mean compute?",
    "inspect x.npy": "there is no command inspect; did you mean inspect-checkpoint?",
    "quux": "there is no command quux; bncli --help lists them.",
    "x.npy": "x.npy is not a command; write bncli compute x.npy for a tensor, or bncli"
    " inspect-checkpoint x.npy for a checkpoint.",
    "seg.py:UNet": "seg.py:UNet is not a command; write bncli diagnose seg.py:UNet --data FILE to"
    " find out what is wrong with that model in evaluation.",
    "package.module:net": "package.module:net is not a command; write bncli diagnose"
    " package.module:net --data FILE to find out what is wrong with that model in evaluation.",
    # a running model
    "capture net.py:Net --weights net.pth": "capture has no flag --weights; use --checkpoint.",
    "capture net.py:Net --loader x.npy": "capture has no flag --loader; use --data.",
    "capture net.py:Net --metric net.py:loss": (
        "--metric is a flag of diagnose and recalibrate, not of capture."
    ),
    "capture --model net.py:Net": "capture has no flag --model; bncli capture --help lists them.",
    "capture": "capture needs a model, as file.py:name, and --data; for example bncli capture"
    " seg.py:UNet --checkpoint unet.pth --data 'batches/*.pt'.",
    "capture net.py:Net": "--data is missing: name files of tensors, or a loader as file.py:name.",
    "capture --data x.npy": "capture needs a model, as file.py:name, and --data; for example bncli"
    " capture seg.py:UNet --checkpoint unet.pth --data 'batches/*.pt'.",
    # nothing
    "inspect-checkpoint": "inspect-checkpoint needs a checkpoint; for example bncli"
    " inspect-checkpoint net.pth.",
    "inspect-checkpoint --eps 1": "inspect-checkpoint needs a checkpoint; for example bncli"
    " inspect-checkpoint net.pth.",
    "compute": "compute needs a tensor, or numbers with --values; for example bncli compute x.npy.",
    "identify": "identify needs a tensor and the output that was made from it; for example bncli"
    " identify x.npy output.npy.",
}


@pytest.fixture
def x(save):
    return save("x.npy", np.random.default_rng(0).normal(1, 2, (8, 3, 5)).astype(np.float32))


@pytest.mark.parametrize(("typed", "sentence"), SENTENCES.items())
def test_a_mistake_is_told_with_what_to_type(run, x, typed, sentence):
    assert tuple(run(*typed.split())) == (2, "", f"bncli: {sentence}\n")


@pytest.mark.parametrize("name", [name for name in NAMES if COMMANDS[name.replace("-", "_")].needs])
def test_a_command_alone_says_what_it_needs(run, name):
    entry = COMMANDS[name.replace("-", "_")]
    code, stdout, stderr = run(name)
    assert (code, stdout) == (2, "")
    assert stderr.startswith(f"bncli: {name} needs {entry.needs}; for example bncli {name} ")


def test_help_and_version_are_commands_too(run):
    assert run("version") == run("--version")
    assert run("help") == run("--help")
    assert run("help", "compute") == run("compute", "--help")
    assert run("help", "comput").stderr == (
        "bncli: there is no command comput; did you mean compute?\n"
    )


def test_note_is_info(run, save):
    x = np.random.default_rng(0).normal(1, 2, (8, 3, 5)).astype(np.float32)
    x[:, 1] = 4  # a constant channel is worth a note
    save("flat.npy", x)
    codes = [run("compute", "flat.npy", "--fail-on", name).code for name in ("note", "info")]
    assert codes == [1, 1]
