"""The registry of subcommands: one file or package each, imported when it is called.

A new subcommand is its module and one entry here, which is all that the helps say of it beside its
flags. The name is the module's, the function's, and with hyphens the one that is typed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from bncli.light import dataclass

LIVE = "Why is my model good in training and bad in evaluation?"
CHECKPOINT = "What is wrong with this checkpoint?"
OUTPUT = "Does an output match PyTorch's, and which normalisation made it?"
TENSOR = "What does BatchNorm do to my tensor, and to its running statistics?"
REFERENCE = "How do other frameworks define it, and what does a finding mean?"


@dataclass(frozen=True, slots=True)
class Example:
    """A call that a user could make, as it is typed behind `bncli`, and what it does."""

    call: str
    comment: str
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """What the helps say of a subcommand.

    `purpose` is one sentence that fits a line of the list of commands, `question` the heading that
    the command is listed under. `flags` are those that most users want first. `needs` says what a
    call cannot do without. A command that `reads` files gets the flag of how they are read, and one
    that `merges` the parts of a whole that of what may be missing.
    """

    question: str
    purpose: str
    examples: tuple[Example, ...]
    flags: tuple[str, ...] = ()
    needs: str = ""
    reads: bool = True
    merges: bool = False


COMMANDS = {
    "diagnose": Entry(
        LIVE,
        "Find the layers at fault and the cause, and try a repair.",
        (
            Example(
                "diagnose seg.py:UNet --checkpoint unet.pth --data 'batches/*.pt'",
                "Which layers are off, why, and what new statistics would change",
            ),
            Example(
                "diagnose seg.py:UNet --data x.pt --batch-size 8 --metric loss.py:loss",
                "Show a number of your own beside the gap, such as a loss",
            ),
            Example(
                "diagnose stats.npz --reference training.npz",
                "Judge what bncli capture saved, without the model, beside the training data",
            ),
        ),
        ("--checkpoint", "--data", "--input-key", "--metric", "--try", "--frozen", "--verbose"),
        needs="a model and its data, or statistics files that bncli capture saved",
        merges=True,
    ),
    "recalibrate": Entry(
        LIVE,
        "Write the right running statistics into a checkpoint.",
        (
            Example(
                "recalibrate seg.py:UNet --checkpoint unet.pth --data 'train/*.pt'",
                "Find new statistics and measure whether they help; write nothing yet",
            ),
            Example(
                "recalibrate --stats s.npz --checkpoint unet.pth --save-checkpoint new.pt",
                "Write what bncli capture saw into a copy; nothing else changes in it",
            ),
            Example(
                "recalibrate --stats s.npz --checkpoint unet.pth --average batches",
                "The numbers of torch.optim.swa_utils.update_bn",
            ),
        ),
        (
            "--checkpoint",
            "--data",
            "--stats",
            "--save-checkpoint",
            "--metric",
            "--layer",
            "--verbose",
        ),
        needs="a model and its data, or --stats with files that bncli capture saved",
        merges=True,
    ),
    "capture": Entry(
        LIVE,
        "Show and save what each BatchNorm layer takes in.",
        (
            Example(
                "capture seg.py:UNet --checkpoint unet.pth --data 'batches/*.pt'",
                "Show what the layers of a model take in, in training and in evaluation",
            ),
            Example(
                "capture seg.py:UNet --data seg.py:validation --input-key image",
                "Take the batches from your own code, such as a DataLoader",
            ),
            Example(
                "capture seg.py:UNet --checkpoint unet.pth --data x.pt --save-stats s.npz",
                "Save the statistics in a file that bncli diagnose reads",
            ),
        ),
        (
            "--checkpoint",
            "--data",
            "--input-key",
            "--batches",
            "--save-stats",
            "--device",
            "--verbose",
        ),
        needs="a model, as file.py:name, and --data",
    ),
    "inspect_checkpoint": Entry(
        CHECKPOINT,
        "Check every BatchNorm layer of a checkpoint.",
        (
            Example("inspect-checkpoint net.pth", "What is wrong, and in which layers"),
            Example(
                "inspect-checkpoint 'runs/*.pth' --fail-on warning",
                "A gate for CI: many files, and exit code 1 for a warning too",
            ),
            Example(
                "inspect-checkpoint net.pth --layer 'layer1.*' --eps 1e-3",
                "Some of the layers, with the eps that the model was built with",
            ),
        ),
        ("--layer", "--sort", "--eps", "--fail-on", "--baseline", "--format", "--verbose"),
        needs="a checkpoint",
        merges=True,
    ),
    "compare_checkpoints": Entry(
        CHECKPOINT,
        "Say what happened to each layer between checkpoints.",
        (
            Example("compare-checkpoints before.pth after.pth", "What a fine-tuning did"),
            Example(
                "compare-checkpoints before.pth after.pth --expect 'frozen:backbone.*'",
                "A gate for CI: exit code 1 if a layer of the backbone moved",
            ),
            Example(
                "compare-checkpoints 'client*.pt' --with global.pt",
                "What an average of clients is made of, and whose statistics it has",
            ),
            Example("compare-checkpoints 'epoch*.pth'", "A series, one line a file"),
        ),
        ("--expect", "--with", "--layer", "--weights", "--baseline", "--format", "--verbose"),
        needs="two checkpoints or more",
    ),
    "diff": Entry(
        OUTPUT,
        "Explain how two tensors, or bncli and PyTorch, differ.",
        (
            Example(
                "diff x.npy",
                "Every quantity beside PyTorch's (`compute --against torch` only checks)",
            ),
            Example(
                "diff port.npy reference.npy --rtol 1e-4 --atol 1e-5",
                "Two stored outputs, at your own tolerance",
                1,
            ),
            Example(
                "diff port.npy reference.npy --input x.npy --state net.pth::bn1",
                "The same, with the cause of the difference",
                1,
            ),
        ),
        ("--input", "--state", "--rtol", "--atol", "--training", "--verbose"),
        needs="one tensor to check against PyTorch, or two to compare",
    ),
    "identify": Entry(
        OUTPUT,
        "Find the mode, eps and variance behind an output.",
        (
            Example(
                "identify x.npy output.npy", "Which normalisation turned x.npy into output.npy"
            ),
            Example(
                "identify x.npy output.npy --state net.pth::bn1",
                "The same for a layer with weight, bias and running statistics",
            ),
        ),
        ("--state", "--eps", "--training", "--verbose"),
        needs="a tensor and the output that was made from it",
    ),
    "compute": Entry(
        TENSOR,
        "Show the statistics and the output of each channel.",
        (
            Example("compute x.npy", "Mean, variance and running statistics of each channel"),
            Example(
                "compute --values '[[1, 2], [3, 4]]' --against torch",
                "Typed numbers, two samples of two channels, checked against PyTorch",
            ),
            Example(
                "compute x.npy --state net.pth::bn1 --eval",
                "A checkpoint's layer in evaluation mode",
            ),
        ),
        ("--against", "--training", "--state", "--eps", "--momentum", "--save-output", "--verbose"),
        needs="a tensor, or numbers with --values",
        merges=True,
    ),
    "trace": Entry(
        TENSOR,
        "Show each step of the arithmetic with its numbers.",
        (
            Example("trace x.npy --channel 0", "From the batch to the output, for one channel"),
            Example("trace x.npy --at 0,0,1,1", "The steps of one element"),
            Example("trace x.npy --channel 0 --backward", "The gradients too"),
        ),
        ("--channel", "--at", "--backward", "--training", "--state", "--eps", "--verbose"),
        needs="a tensor, or numbers with --values",
    ),
    "compare_norms": Entry(
        TENSOR,
        "Compare BatchNorm with LayerNorm, GroupNorm and others.",
        (
            Example("compare-norms x.npy", "Which axes each norm reduces, and what it gives"),
            Example(
                "compare-norms x.npy --groups 2 --against torch",
                "Two groups in GroupNorm, and every norm checked against PyTorch",
            ),
        ),
        ("--groups", "--normalized-shape", "--channel-axis", "--eps", "--against", "--verbose"),
        needs="a tensor, or numbers with --values",
    ),
    "simulate_ema": Entry(
        TENSOR,
        "Follow running statistics over many batches.",
        (
            Example(
                "simulate-ema --generate 32,64,28 --batches 60 --momentum 0.1",
                "60 generated batches of shape (32, 64, 28)",
            ),
            Example(
                "simulate-ema batch0.npy batch1.npy --state net.pth::bn1",
                "Batches of your own, from a layer's running statistics on",
            ),
            Example(
                "simulate-ema x.npy --batch-size 32 --convention keras3",
                "One tensor split into batches, with the update of Keras",
            ),
        ),
        (
            "--momentum",
            "--convention",
            "--batch-size",
            "--generate",
            "--batches",
            "--state",
            "--verbose",
        ),
        needs="batches, from files, --values or --generate",
        merges=True,
    ),
    "conventions": Entry(
        REFERENCE,
        "List conventions of frameworks and convert between them.",
        (
            Example("conventions", "Defaults, names and variances, framework by framework"),
            Example(
                "conventions --from keras3 --to pytorch --momentum 0.99",
                "What Keras' momentum of 0.99 is in PyTorch",
            ),
        ),
        reads=False,
    ),
    "rules": Entry(
        REFERENCE,
        "List the rules behind the findings, or explain one.",
        (
            Example("rules", "All rules"),
            Example(
                "rules BN201",
                "One rule: the arithmetic, the fix, and what it is easily confused with",
            ),
        ),
        reads=False,
    ),
}
"""Every subcommand that makes a report, in the order of the help."""

DOCUMENTS = {
    "schema": Entry(
        REFERENCE,
        "Print the JSON Schema of the JSON reports.",
        (Example("schema > bncli.schema.json", "Keep it in a file"),),
        reads=False,
    )
}
"""Subcommands that print a document as it is: no report, and none of a report's flags."""


def command(name: str) -> Callable[..., Any]:
    """The function of a subcommand: from its flags to a `Report`, or to a document's text."""
    function: Callable[..., Any] = getattr(import_module(f"bncli.commands.{name}"), name)
    return function
