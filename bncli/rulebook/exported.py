"""BN108: what a file that is run as it stands, such as an ONNX graph, does with its statistics."""

from __future__ import annotations

from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule
from bncli.rulebook.layers import Checkpoint, label

PROGRAMS = ("onnx", "torch-export")
"""How the names of those containers begin that are run as they stand."""

IN_TRAINING_MODE = Rule(
    "BN108",
    "exported-in-training-mode",
    Severity.WARNING,
    "the exported layer normalises with the batch that it is given, not with its statistics",
    "Call model.eval() before the export; torch.onnx.export also takes training=TrainingMode.EVAL.",
    symptom="The exported network gives other results than the original, and its output for one "
    "sample depends on the other samples in the batch.",
    arithmetic="The node has training_mode=1 (in the first opsets, further outputs or is_test=0), "
    "or the exported call has training=True: running_mean and running_var are not used for the "
    "output.",
    certainty="Certain that the graph does so. It may be meant to be trained further.",
    lookalike="A BatchNorm with track_running_stats=False has no statistics to use, and is "
    "exported in the same way. A module that was saved with torch.save in training mode says "
    "nothing of how it will be run, and is not reported.",
    seen=("microsoft/onnxscript#1791", "pytorch/pytorch#75252"),
)


def check_training_mode(file: Checkpoint) -> list[Finding]:
    """BN108, where the file is run as it stands."""
    return [
        in_training_mode(layer.name)
        for layer in file.distinct(file.layers)
        if file.runs_as_stored and layer.module is not None and layer.module.training
    ]


def in_training_mode(layer: str) -> Finding:
    """BN108 of a layer by its name."""
    return IN_TRAINING_MODE.finding(
        label(layer),
        "the exported layer normalises with the batch, not with running_mean and running_var",
        {"layer": layer, "cause": "training-mode"},
    )


FILE_CHECKS = (check_training_mode,)
