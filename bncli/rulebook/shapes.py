"""BN206 and BN207: tensors of other shapes, and tensors that could not be read."""

from __future__ import annotations

import math
from collections import Counter

from bncli.dtypes import DTYPES
from bncli.report import Finding, Severity
from bncli.rulebook.counters import NOT_A_COUNT
from bncli.rulebook.interface import Rule
from bncli.rulebook.layers import Layer, found

SHAPES = Rule(
    "BN206",
    "shapes-disagree",
    Severity.ERROR,
    "The layer's tensors have different numbers of channels, or not one axis each.",
    "Look at the conversion or pruning that wrote it; weight, bias and statistics are one a "
    "channel.",
    symptom="Loading fails, or strict=False leaves some of the tensors as they were.",
    arithmetic="The shapes of weight, bias, running_mean and running_var are not the same (C,).",
    certainty="Certain.",
    lookalike="A counter of shape (1,) instead of () is harmless, and not blamed.",
)
NOT_JUDGED = Rule(
    "BN207",
    "not-judged",
    Severity.INFO,
    "Some of the layer's tensors were not judged, since their values are none to judge.",
    "Save the values in a plain dtype and on a real device.",
    symptom="A note in the layer's row, and rules that stay silent about it.",
    arithmetic="None: the values are not there (quantised, on the meta device), or are complex. A "
    "tensor that is damaged is no finding: the file cannot be judged, and the exit code is 2.",
    certainty="Certain.",
    lookalike="Tensors whose lengths disagree are BN206; a counter that was read and is not one "
    "number is BN304.",
)


def _no_number(dtype: str) -> bool:
    """Whether numbers of a dtype count nothing."""
    return dtype in DTYPES and DTYPES[dtype].kind in ("bool", "complex")


def check_shapes(layer: Layer) -> list[Finding]:
    """BN206 and BN207: tensors of other shapes, and tensors that could not be read; and BN304.

    The last where the counter was read and is not one number.
    """
    shapes = dict(layer.shapes)
    counter = shapes.pop("num_batches_tracked", ())
    dtype = layer.dtypes.get("num_batches_tracked", "")
    findings = []
    if math.prod(counter) != 1 or _no_number(dtype):
        what = f"the shape {list(counter)}" if math.prod(counter) != 1 else f"the dtype {dtype}"
        findings.append(
            found(
                NOT_A_COUNT,
                layer,
                f"num_batches_tracked has {what}, and a counter is one whole number.",
                "not-one-number",
                hint="Look at what assigned the counter: an index that is used twice, or a wrong "
                "key.",
                shape=list(counter),
                dtype=dtype,
            )
        )
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        said = ", ".join(f"{leaf} {list(shape)}" for leaf, shape in shapes.items())
        findings.append(
            found(
                SHAPES,
                layer,
                f"the shapes disagree: {said}.",
                "other-network-or-damaged-conversion",
                extent=_apart(shapes),
                shapes=[[leaf, *shape] for leaf, shape in shapes.items()],
            )
        )
    elif layer.unread:
        findings.append(
            found(
                NOT_JUDGED,
                layer,
                f"{len(layer.unread)} of {len(layer.shapes)} tensors were not judged: "
                f"{' '.join(layer.unread)}",
                "unreadable",
                extent=tuple(
                    leaf for leaf in layer.shapes if getattr(layer.state, leaf, None) is None
                ),
                unread=list(layer.unread),
            )
        )
    return findings


LAYER_CHECKS = (check_shapes,)


def _apart(shapes: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """The tensors that have another shape than most, or than the first of as many."""
    counts = Counter(shapes.values())
    return tuple(leaf for leaf, shape in shapes.items() if shape != counts.most_common(1)[0][0])
