"""One network in the files of two frameworks: what is the same, and what a port got wrong."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

from bncli.changes.compare import compare
from bncli.loaders import open_file
from bncli.model.changes import How, Same, State
from bncli.report import Certainty
from bncli.rulebook.change_findings import change_findings
from tests.changes.causes import all_fused
from tests.changes.files import made
from tests.changes.frameworks import WRITERS, kernel, modules_of, of
from tests.changes.trainings import LAYERS, state_of, trained, trained_on

EPS = 1e-5
PAIRS = [
    *(("torch", other) for other in WRITERS if other != "torch"),
    ("onnx", "keras-named"),
    ("onnx-anonymous", "flax"),
    ("keras-h5", "mxnet"),
    ("keras-weights", "tf-checkpoint"),
    ("tf-checkpoint", "paddle"),
    ("flax", "keras-h5"),
    ("mxnet", "onnx-scoped"),
    ("paddle", "torch-module"),
]
STORES_NONE = {"torch", "tf-checkpoint", "flax", "paddle"}
EACH = [
    PAIRS[at] if not at % 3 else pytest.param(*PAIRS[at], marks=pytest.mark.exhaustive)
    for at in range(len(PAIRS))
]
"""A third of them, and all on request."""
BARE = "neck.4"
"""A layer without weight and bias, which tensors alone do not show to be one."""
NAMED = {"torch", "torch-module", "onnx", "onnx-scoped", "keras-named", "paddle"}
"""Files whose names of layers are those of PyTorch, as each spells them."""
COUNTED = {"keras-h5", "keras-weights", "tf-checkpoint"}
"""Files whose names Keras counts."""
FAULTED = "layer2.0.bn1"


@cache
def states():
    return state_of(trained()), state_of(trained_on())


def compared(one, two, first, second, eps=(EPS, EPS)):
    return compare(WRITERS[one](first, eps[0]), WRITERS[two](second, eps[1]))


def known(comparison):
    """The findings but those of an eps that a file without one is assumed to have."""
    found = change_findings(comparison)
    return [each for each in found if each.certainty is not Certainty.ASSUMED]


def hidden(one, two):
    """Whether neither file shows the layer that has statistics alone."""
    return {one, two} <= {"tf-checkpoint", "paddle"}


@pytest.mark.parametrize(("one", "two"), EACH)
def test_the_same_network_is_identical(one, two):
    comparison = compared(one, two, states()[0], states()[0])
    assert len(comparison.layers) == len(LAYERS) - hidden(one, two)
    assert {layer.found.state for layer in comparison.layers} == {State.IDENTICAL}
    assert {layer.before for layer in comparison.layers} <= {Same.SAME, None}
    assert sum(layer.before is None for layer in comparison.layers) <= 1
    assert comparison.related is True
    assert known(comparison) == []


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_a_network_that_was_trained_on_is_matched_in_order(one, two):
    comparison = compared(one, two, *states())
    assert len(comparison.layers) == len(LAYERS) - hidden(one, two)
    assert {layer.found.state for layer in comparison.layers} == {State.TRAINED}
    assert comparison.related is True
    assert known(comparison) == []
    ways = {layer.how for layer in comparison.layers if layer.name != BARE}
    by_name = {one, two} <= NAMED or {one, two} <= COUNTED
    assert ways <= ({How.NAME, How.NAMING} if by_name else {How.ORDER})


# ------------------------------------------------------------------ folded


def without_layers(state, seed=0):
    """What an exporter leaves of a network in evaluation: weights by number, in no order."""
    arrays = {}
    modules = [each for each in modules_of(state) if "weight" in of(state, each)]
    for at in np.random.default_rng(seed).permutation(len(modules)):
        own = of(state, modules[at])
        linear = own["weight"].ndim == 2
        arrays[f"onnx::Conv_{100 + 3 * at}"] = kernel(own["weight"]) if linear else own["weight"]
        if "bias" in own:
            arrays[f"onnx::Conv_{101 + 3 * at}"] = own["bias"]
    return made(arrays, "net.onnx", "onnx")


NOT_FOUND = {"tf-checkpoint": 2, "flax": 1, "paddle": 1}
"""Layers that the tensors do not show to be one, or what they do not show to be in front of it."""


@pytest.mark.parametrize("one", WRITERS)
def test_a_network_that_was_folded_on_the_way(one):
    comparison = compare(WRITERS[one](states()[0], EPS), without_layers(state_of(all_fused())))
    folded = [layer for layer in comparison.layers if layer.found.state is State.FOLDED]
    assert len(folded) == len(LAYERS) - NOT_FOUND.get(one, 0)
    assert {layer.found.numbers["eps"] for layer in folded} == {EPS}
    assert {layer.found.numbers["fault"] for layer in folded} == {None}
    assert len({layer.found.numbers["convolution"] for layer in folded}) == len(folded)
    assert {finding.code for finding in known(comparison)} == {"BN616"}


def test_a_fold_with_another_eps_is_said():
    file = WRITERS["onnx"](states()[0], 1e-3)
    comparison = compare(file, without_layers(state_of(all_fused())))
    numbers = [layer.found.numbers for layer in comparison.layers]
    assert [(each["fault"], each["eps"]) for each in numbers] == [("eps", EPS)] * len(LAYERS)


@pytest.mark.parametrize("folding", [True, False])
def test_what_torch_exports(folding, tmp_path):
    """In evaluation mode it folds each layer behind a convolution, and leaves that of a linear."""
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the exporter by tracing is the old one
        torch.onnx.export(
            trained().eval(),
            (torch.randn(2, 3, 8, 8),),
            path,
            training=torch.onnx.TrainingMode.EVAL if folding else torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=folding,
            dynamo=False,
        )
    comparison = compare(WRITERS["torch"](states()[0], EPS), open_file(path))
    found = {layer.name: layer.found.state for layer in comparison.layers}
    left = State.FOLDED if folding else State.IDENTICAL
    assert found == dict.fromkeys(LAYERS, left) | {"head.1": State.IDENTICAL}
    assert {finding.code for finding in known(comparison)} == ({"BN616"} if folding else set())
    bare = next(layer.found.numbers for layer in comparison.layers if layer.name == BARE)
    assert bare.get("neutral_in_second") == (None if folding else ["weight", "bias"])


# ------------------------------------------------------------------ faults


def with_layer(change):
    """The state with a layer's tensors changed, which are given by their own names."""
    state = {name: values.clone() for name, values in states()[0].items()}
    own = {
        leaf: state[f"{FAULTED}.{leaf}"]
        for leaf in ("weight", "bias", "running_mean", "running_var")
    }
    state.update({f"{FAULTED}.{leaf}": values.clone() for leaf, values in change(own).items()})
    return state


def exchanged(first="layer2.0.bn2", second="layer3.0.bn1"):
    state = {name: values.clone() for name, values in states()[0].items()}
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        one, two = f"{first}.{leaf}", f"{second}.{leaf}"
        state[one], state[two] = state[two].clone(), state[one].clone()
    return state


FAULTS = {
    "mean and variance": (
        lambda own: {
            "running_mean": own["running_var"],
            "running_var": own["running_mean"],
        },
        "swapped",
    ),
    "gamma and beta": (lambda own: {"weight": own["bias"], "bias": own["weight"]}, "swapped"),
    "standard deviation": (lambda own: {"running_var": own["running_var"].sqrt()}, "std"),
    "unbiased": (lambda own: {"running_var": own["running_var"] * (128 / 127)}, "unbiased"),
    "eps in the variance": (
        lambda own: {"running_var": own["running_var"] + 1e-3},
        "eps-in-variance",
    ),
    "inverse": (lambda own: {"running_var": 1 / (own["running_var"] + EPS)}, "inverse-variance"),
}


@pytest.mark.parametrize(
    ("one", "two", "fault"),
    [
        (*pair, fault)
        for at, pair in enumerate(PAIRS)
        for number, fault in enumerate(FAULTS)
        if (at + number) % len(FAULTS) == 0
    ],
)
def test_a_fault_of_a_port_is_named(one, two, fault):
    change, cause = FAULTS[fault]
    comparison = compared(one, two, states()[0], with_layer(change))
    odd = [layer for layer in comparison.layers if layer.found.state is not State.IDENTICAL]
    assert [layer.found.numbers.get("cause") for layer in odd] == [cause], odd
    assert [finding.code for finding in known(comparison)] == ["BN614"]


@pytest.mark.parametrize(("one", "two"), PAIRS[::3])
def test_two_layers_in_each_others_places_are_named(one, two):
    comparison = compared(one, two, states()[0], exchanged())
    odd = [layer for layer in comparison.layers if layer.found.state is not State.IDENTICAL]
    out = [layer for layer in comparison.layers if layer.out_of_order]
    assert Counter(layer.found.state for layer in odd) == {State.ORDER: 2} or len(out) == 2


@pytest.mark.parametrize(("one", "two"), EACH)
def test_another_eps_is_named_where_both_files_store_it(one, two):
    comparison = compared(one, two, states()[0], states()[0], (1e-3, 1e-5))
    found = {finding.code for finding in known(comparison)}
    both = not {one, two} & STORES_NONE
    assert found == ({"BN614"} if both else set())
    trained_comparison = compared(one, two, *states(), (1e-3, 1e-5))
    found = {finding.code for finding in known(trained_comparison)}
    assert found == ({"BN623"} if both else set())
