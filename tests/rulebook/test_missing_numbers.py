"""Every rule on layers with missing, infinite and empty numbers: no number there, none formatted.

A check that formats what may be None, divides by a count of 0 or takes the least of nothing ends
in an exception, and so does the report of a whole checkpoint for the sake of one odd layer.
"""

from __future__ import annotations

import itertools
import math
import os
import warnings

import numpy as np
import pytest

from bncli.model import BatchNormModule, BatchNormState, TensorFile, TensorRef
from bncli.renderers import Format, renderer
from bncli.renderers.interface import RenderContext
from bncli.report import Report
from bncli.rulebook.checkpoint import checkpoint, file_findings, layer_findings
from bncli.rulebook.counters import counter_groups
from bncli.rulebook.layers import Layer
from bncli.rulebook.summaries import summary

NAN, INF = math.nan, math.inf

MEANS = {
    "none": None,
    "zero": [0.0] * 9,
    "normal": [0.5, -0.25, 0.75, -1.0, 0.1, 0.2, -0.3, 0.4, 0.0],
    "nan": [NAN] * 9,
    "inf": [INF] * 9,
    "one nan": [NAN, *[0.5] * 8],
    "both": [INF, -INF, NAN, *[0.0] * 6],
    "one": [0.5],
    "empty": [],
}
VARIANCES = {
    "none": None,
    "zero": [0.0] * 9,
    "one": [1.0] * 9,
    "normal": [0.5, 1.5, 0.9, 1.1, 2.0, 0.01, 1e-12, 3.0, 1.0],
    "nan": [NAN] * 9,
    "inf": [INF] * 9,
    "minus inf": [-INF] * 9,
    "one inf": [INF, *[0.5] * 8],
    "negative": [-1e-5, -1.0, *[0.5] * 7],
    "both": [INF, -INF, NAN, *[1.0] * 6],
    "garbage": [1e-38, 1e30, 5e-324, -3e38, 1e-40, 2.0, 0.0, 1e9, 7.0],
    "one channel": [0.25],
    "empty": [],
}
WEIGHTS = {
    "none": None,
    "one": [1.0] * 9,
    "zero": [0.0] * 9,
    "normal": [0.5, 1.5, 0.9, -1.1, 2.0, 0.3, 1e-9, 1e6, 1.0],
    "nan": [NAN] * 9,
    "inf": [-INF] * 9,
    "one channel": [0.5],
    "empty": [],
}
COUNTERS = (None, 0, 1, 500, 2**63 - 1, -3, 2.5, 1e300, NAN, INF, -INF)
MOMENTA = (None, 0.1, 0.0, 1.0, NAN, INF)
STRIDES = (61, pytest.param(int(os.environ.get("BNCLI_EVERY", "13")), marks=pytest.mark.exhaustive))
"""One in so many of the combinations; all with BNCLI_EVERY=1, which takes minutes.

Both numbers are prime to the sizes of the tables, so that every value of each table has its turn.
"""


def vector(values, dtype="float32"):
    if values is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array(values, dtype)


def made(
    mean, var, weight, counter, momentum, *, name="bn", eps=1e-5, module=None, dtype="float32"
):
    """A layer as it comes out of a file."""
    vectors = {
        "running_mean": vector(mean, dtype),
        "running_var": vector(var, dtype),
        "weight": vector(weight, dtype),
        "bias": None if weight is None else np.zeros(len(weight), dtype),
    }
    there = {leaf: values for leaf, values in vectors.items() if values is not None}
    shapes = {leaf: values.shape for leaf, values in there.items()}
    dtypes = dict.fromkeys(there, dtype)
    if counter is not None:
        shapes["num_batches_tracked"], dtypes["num_batches_tracked"] = (), "int64"
    state = BatchNormState(
        name, **vectors, num_batches_tracked=counter, dtype=dtype, module=module
    )  # fmt: skip
    return Layer(
        state,
        shapes,
        dtypes,
        eps=eps,
        momentum=momentum,
        eps_assumed=False,
        momentum_assumed=counter == 0,
        unread=() if len(there) == 4 else ("a tensor could not be read.",),
    )


HEALTHY = made(MEANS["normal"], VARIANCES["normal"], WEIGHTS["normal"], 500, 0.1, name="healthy")


def judged(*layers):
    """Every finding on a file with these layers, shown in every format."""
    refs = {
        f"{layer.state.name}.{leaf}": TensorRef(
            f"{layer.state.name}.{leaf}", "net.pt", shape, layer.dtypes[leaf], (1,) * len(shape),
            None, "not here",
        )
        for layer in layers
        for leaf, shape in layer.shapes.items()
    }  # fmt: skip
    file = TensorFile("net.pt", "torch-zip", refs)
    findings = [finding for layer in layers for finding in layer_findings(layer)]
    findings += file_findings(checkpoint(file, [summary(layer) for layer in layers]))
    for finding in findings:
        assert "None" not in finding.text, finding
    counter_groups([layer.state.num_batches_tracked for layer in layers])
    return findings


def show(findings):
    report = Report("inspect-checkpoint", {}, (), tuple(findings))
    context = RenderContext(report.exit_code())
    for form in Format:
        if form is not Format.CSV:
            renderer(form)(report, context)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("var", VARIANCES)
def test_no_rule_formats_a_number_that_is_not_there(var, stride):
    shown = {}
    every = itertools.product(COUNTERS, MEANS, WEIGHTS, MOMENTA)
    for counter, mean, weight, momentum in itertools.islice(every, 0, None, stride):
        layer = made(MEANS[mean], VARIANCES[var], WEIGHTS[weight], counter, momentum)
        try:
            found = judged(layer) + judged(layer, HEALTHY)
        except Exception as error:
            error.add_note(f"mean {mean}, var {var}, weight {weight}, {counter=}, {momentum=}")
            raise
        shown |= {(finding.code, finding.subject): finding for finding in found}
    show(shown.values())


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e3])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("name", ["", "momentum_encoder.bn", "module.bn"])
@pytest.mark.parametrize("stride", STRIDES)
def test_nor_with_another_eps_dtype_or_name(eps, dtype, name, stride):
    module = BatchNormModule("BatchNorm2d", None, None, has_momentum=False)
    shown = {}
    every = itertools.product(MEANS, VARIANCES, ("none", "normal", "empty"))
    for mean, var, weight in itertools.islice(every, 0, None, stride // 4 + 1):
        values = MEANS[mean], VARIANCES[var], WEIGHTS[weight]
        layers = [
            made(*values, counter, 0.1, name=name or f"bn{index}", eps=eps, dtype=dtype,
                 module=module if index else None)
            for index, counter in enumerate((0, None, 7))
        ][: 3 if not name else 1]  # fmt: skip
        twin = made(*values, 7, 0.1, name="bn", eps=eps, dtype=dtype)
        found = judged(*layers, twin)
        shown |= {(finding.code, finding.subject): finding for finding in found}
    show(shown.values())
