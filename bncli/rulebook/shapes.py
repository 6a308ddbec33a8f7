"""BN206 and BN207: tensors of other shapes, and tensors that could not be read."""

from __future__ import annotations

import math
from collections import Counter

from bncli.dtypes import DTYPES
from bncli.report import Finding, Severity
from bncli.rulebook.counters import NOT_A_COUNT
from bncli.rulebook.interface import Rule, examples
from bncli.rulebook.layers import Layer, found

SHAPES = Rule(
    "BN206",
    "shapes-disagree",
    Severity.ERROR,
    "the shapes of a layer's tensors disagree",
    "Look at the conversion or pruning that wrote them: each tensor has one value per channel.",
    symptom="Loading fails with a size mismatch; code that skips such tensors leaves them at their "
    "initial values.",
    arithmetic="The shapes of weight, bias, running_mean and running_var are not the same (C,).",
    certainty="Certain.",
    lookalike="A counter of shape (1,) instead of () is harmless, and not reported.",
)
NOT_JUDGED = Rule(
    "BN207",
    "not-judged",
    Severity.INFO,
    "some tensors were not judged",
    "Save all values in the file itself, in a floating-point dtype. Where an exported model "
    "computes them, check the checkpoint that it was exported from.",
    symptom="The layer's row has a note, and the rules that need these tensors find nothing.",
    arithmetic="The values are quantised, complex, missing (on the meta device), or not in the "
    "file because an exported model computes them when it runs. A damaged tensor is not a finding: "
    "the file cannot be judged then, and the exit code is 2.",
    certainty="Certain.",
    lookalike="Tensors whose lengths disagree are BN206. A counter that was read and is not one "
    "number is BN304.",
)


def _no_number(dtype: str) -> bool:
    """Whether a dtype cannot hold a count."""
    return dtype in DTYPES and DTYPES[dtype].kind in ("bool", "complex")


KERAS_HINT = (
    "Check the model's .keras or .h5 file, whose config says which of the two the layer has."
)
"""The fix where a file of weights alone has gamma or beta, one cannot tell which."""


def check_shapes(layer: Layer) -> list[Finding]:
    """BN206 and BN207: tensors of other shapes, and tensors that could not be read.

    And BN304, where the counter was read and is not one number.
    """
    shapes = dict(layer.shapes)
    counter = shapes.pop("num_batches_tracked", ())
    dtype = layer.dtypes.get("num_batches_tracked", "")
    findings = []
    if math.prod(counter) != 1 or _no_number(dtype):
        what = f"has shape {list(counter)}" if math.prod(counter) != 1 else f"is {dtype}"
        findings.append(
            found(
                NOT_A_COUNT,
                layer,
                f"num_batches_tracked {what}, where a counter is one whole number",
                "not-one-number",
                hint="Look at what assigned the counter: an index used twice, or a wrong key.",
                shape=list(counter),
                dtype=dtype,
            )
        )
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        said = ", ".join(f"{leaf} {list(shape)}" for leaf, shape in shapes.items())
        apart = _apart(shapes)
        usual = next(list(shape) for leaf, shape in shapes.items() if leaf not in apart)
        claim = " and ".join(f"{leaf} has shape {list(shapes[leaf])}" for leaf in apart)
        if len(apart) > 1 and len({shapes[leaf] for leaf in apart}) == 1:
            claim = f"{' and '.join(apart)} have shape {list(shapes[apart[0]])}"
        claim = f"{claim} instead of {usual}" if apart else f"the shape is {usual}, not one axis"
        findings.append(
            found(
                SHAPES,
                layer,
                claim,
                "other-network-or-damaged-conversion",
                detail=f"All shapes: {said}.",
                extent=apart,
                shapes=[[leaf, *shape] for leaf, shape in shapes.items()],
            )
        )
    elif layer.unread:
        unread = tuple(leaf for leaf in layer.shapes if getattr(layer.state, leaf, None) is None)
        findings.append(
            found(
                NOT_JUDGED,
                layer,
                f"{_said(unread)} not judged",
                "unreadable",
                detail=" ".join(layer.unread),
                extent=unread,
                hint=KERAS_HINT if any("gamma or beta" in why for why in layer.unread) else "",
                unread=list(layer.unread),
            )
        )
    return findings


LAYER_CHECKS = (check_shapes,)


def _said(unread: tuple[str, ...]) -> str:
    """The tensors that could not be read, with the verb."""
    if not unread:
        return "part of the layer was"
    return f"{examples(unread, 5)} {'were' if len(unread) > 1 else 'was'}"


def _apart(shapes: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """The tensors whose shape is not the most common one (the first of several)."""
    counts = Counter(shapes.values())
    return tuple(leaf for leaf, shape in shapes.items() if shape != counts.most_common(1)[0][0])
