"""What bncli does in an environment without PyTorch, run by that environment's own Python.

    python -m venv FOLDER && FOLDER/bin/python -m pip install . && FOLDER/bin/python THIS_FILE

Every command is called on the examples, and every comparison says how PyTorch is installed. The
exit code is 1 where something else happens; the last line is the size of the environment.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import bncli
from bncli.cli.flags import flags_of
from bncli.commands import COMMANDS, DOCUMENTS, command

EXAMPLES = Path(__file__).parents[1] / "examples"
X = "tutorial/x.npy"

RUNS = (
    ("--version", 0),
    ("--help", 0),
    (f"compute {X}", 0),
    (f"compute {X} --eval", 0),
    (f"compute {X} -f json", 0),
    (f"trace {X} --backward", 0),
    ("diff debugging/port.npy debugging/keras.npy --input debugging/x.npy", 1),
    ("identify debugging/x.npy debugging/served.npy --state debugging/bn.npz --eval", 0),
    ("diagnose diagnose/stats.npz", 0),
    (
        "recalibrate --stats diagnose/stats.npz --checkpoint diagnose/unet.pth --max-error 0.1",
        0,
    ),
    ("capture diagnose/seg.py:UNet --data diagnose/unet.pth", 2),
    ("inspect-checkpoint checkpoint/net.pt", 0),
    ("inspect-checkpoint checkpoint/net.pt --fail-on warning -f sarif", 1),
    ("compare-checkpoints compare/before.pt compare/after.pt --expect frozen:layer1.*", 1),
    (f"compare-norms {X}", 0),
    ("simulate-ema --generate 32,64,28 --batches 60", 0),
    ("conventions --from keras3 --to pytorch --momentum 0.99", 0),
    ("rules BN105", 0),
    ("schema", 0),
)
"""What is called in examples/, and the exit code of each."""

COMPARED = {"simulate_ema": "--generate 32,64,28 --batches 60"}
"""What the commands with --against take, where it is not X."""

SENTENCE = (
    "bncli: PyTorch is not installed here, and the comparison needs it: "
    "python -m pip install torch\n"
)


def call(line: str) -> tuple[int, str, str]:
    """The exit code of a command line in examples/, its output and its errors."""
    words = [str(EXAMPLES / word) if "/" in word else word for word in line.split()]
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        code = bncli.main(words)
    return int(code), output.getvalue(), errors.getvalue()


def faults() -> list[str]:
    """What is not as it should be, in sentences."""
    if importlib.util.find_spec("torch"):
        return ["torch can be imported here."]
    called = {line.split()[0].replace("-", "_") for line, _ in RUNS}
    found = [f"{name}: add a call of it." for name in (*COMMANDS, *DOCUMENTS) if name not in called]
    for line, wanted in RUNS:
        code, output, errors = call(line)
        if code != wanted or (code < 2 and (errors or not output)):
            found.append(f"bncli {line}: exit code {code} for {wanted}, {output}{errors}")
    comparing = [
        f"{name.replace('_', '-')} {COMPARED.get(name, X)} --against torch"
        for name in COMMANDS
        if any(flag.name == "against" for flag in flags_of(command(name)))
    ]
    for line in (f"diff {X}", *comparing):
        said = call(line)
        if said != (2, "", SENTENCE):
            found.append(f"bncli {line}: {said}")
    return found


def megabytes(folder: str) -> float:
    """What the files under a folder take, in millions of bytes."""
    return sum(path.lstat().st_size for path in Path(folder).rglob("*")) / 1e6


if __name__ == "__main__":
    problems = faults()
    print("\n".join(problems) or f"bncli {bncli.__version__} works without torch.")
    print(f"{sys.prefix} takes {megabytes(sys.prefix):.0f} MB.")
    sys.exit(bool(problems))
