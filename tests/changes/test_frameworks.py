"""One network in the files of two frameworks: what is the same, and what a port got wrong."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from bncli.changes.compare import compare
from bncli.model.changes import How, Same, State
from bncli.rulebook.change_findings import change_findings
from tests.changes.frameworks import WRITERS
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


def hidden(one, two):
    """Whether neither file shows the layer that has statistics alone."""
    return {one, two} <= {"tf-checkpoint", "paddle"}


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_the_same_network_is_identical(one, two):
    comparison = compared(one, two, states()[0], states()[0])
    assert len(comparison.layers) == len(LAYERS) - hidden(one, two)
    assert {layer.found.state for layer in comparison.layers} == {State.IDENTICAL}
    assert {layer.before for layer in comparison.layers} <= {Same.SAME, None}
    assert sum(layer.before is None for layer in comparison.layers) <= 1
    assert comparison.related is True
    assert change_findings(comparison) == []


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_a_network_that_was_trained_on_is_matched_in_order(one, two):
    comparison = compared(one, two, *states())
    assert len(comparison.layers) == len(LAYERS) - hidden(one, two)
    assert {layer.found.state for layer in comparison.layers} == {State.TRAINED}
    assert comparison.related is True
    assert change_findings(comparison) == []
    ways = {layer.how for layer in comparison.layers if layer.name != BARE}
    by_name = {one, two} <= NAMED or {one, two} <= COUNTED
    assert ways <= ({How.NAME, How.NAMING} if by_name else {How.ORDER})


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
    assert [finding.code for finding in change_findings(comparison)] == ["BN614"]


@pytest.mark.parametrize(("one", "two"), PAIRS[::3])
def test_two_layers_in_each_others_places_are_named(one, two):
    comparison = compared(one, two, states()[0], exchanged())
    odd = [layer for layer in comparison.layers if layer.found.state is not State.IDENTICAL]
    out = [layer for layer in comparison.layers if layer.out_of_order]
    assert Counter(layer.found.state for layer in odd) == {State.ORDER: 2} or len(out) == 2


@pytest.mark.parametrize(("one", "two"), PAIRS[::2])
def test_another_eps_is_named_where_both_files_store_it(one, two):
    comparison = compared(one, two, states()[0], states()[0], (1e-3, 1e-5))
    found = {finding.code for finding in change_findings(comparison)}
    both = not {one, two} & STORES_NONE
    assert found == ({"BN614"} if both else set())
    trained_comparison = compared(one, two, *states(), (1e-3, 1e-5))
    found = {finding.code for finding in change_findings(trained_comparison)}
    assert found == ({"BN623"} if both else set())
