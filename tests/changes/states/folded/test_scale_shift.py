"""Layers that became a scale and a shift."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.changes.states.folded import gone
from bncli.changes.states.folded.scale_shift import find
from bncli.model.changes import State
from tests.changes.files import ref
from tests.changes.pairs import NO_FILES, random_layer, side

EPS = 1e-3


def parts(layer, eps=EPS):
    scale = layer["weight"] / np.sqrt(layer["running_var"] + np.float32(eps))
    return scale, layer["bias"] - layer["running_mean"] * scale


def vectors(*values):
    return [ref(f"v{at}", np.asarray(each, np.float32)) for at, each in enumerate(values)]


@pytest.mark.parametrize("channels", [1, 8, 64])
@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_its_eps_and_its_tensors(channels, eps):
    layer = random_layer(channels, seed=3)
    scale, shift = parts(layer, eps)
    found = find(side(layer), vectors(np.ones(channels), shift, layer["bias"], scale), "second")
    assert (found.state, found.numbers["cause"]) == (State.FOLDED, "scale-and-shift")
    assert (found.numbers["scale"], found.numbers["shift"]) == ("v3", "v1")
    assert found.numbers["eps"] == eps
    assert found.what == f"became a scale and a shift, eps {eps:g}"


def test_a_layer_without_weight_and_bias():
    layer = random_layer() | {"weight": None, "bias": None}
    scale = 1 / np.sqrt(layer["running_var"] + np.float32(EPS))
    both = vectors(scale, -layer["running_mean"] * scale)
    assert gone(side(layer), None, NO_FILES, both).numbers["cause"] == "scale-and-shift"


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_the_two_alone_is_nothing(which):
    layer = random_layer()
    assert find(side(layer), vectors(parts(layer)[which]), "second") is None


def test_values_that_are_off_and_other_widths_are_nothing():
    layer = random_layer()
    scale, shift = parts(layer)
    assert find(side(layer), vectors(scale * 1.00001, shift), "second") is None
    assert find(side(layer), vectors(scale[:4], shift[:4]), "second") is None
    assert find(side(layer), [], "second") is None


def test_what_is_met_anywhere_is_nothing():
    layer = random_layer()
    layer["running_var"][:], layer["running_mean"][:], layer["bias"][:] = 1, 0, 0
    scale, shift = parts(layer)
    assert find(side(layer), vectors(scale, shift), "second") is None
