"""A layer of a capture, by any name that is enough."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.errors import MissingTensorError
from bncli.loaders.statistics import find_layer, layer_names, layer_state
from bncli.model.capture import Capture, WatchedLayer

from .captures import model_capture, state

CAPTURE = model_capture([np.ones((2, 3, 1, 2))])


def test_a_layer_is_found_by_its_end():
    assert find_layer("s.npz", CAPTURE, "head.bn").name == "head.bn"
    assert find_layer("s.npz", CAPTURE, "input").order == 0
    with pytest.raises(MissingTensorError, match="2 layers end in 'bn'"):
        find_layer("s.npz", CAPTURE, "bn")
    assert list(layer_names(CAPTURE)) == ["input", "stem.bn", "head.bn"]


def test_without_a_name_it_must_be_the_only_one():
    with pytest.raises(MissingTensorError, match=r"it holds 3 layers; name one as s\.npz::NAME"):
        find_layer("s.npz", CAPTURE, "")
    alone = Capture((WatchedLayer("input", 0, 3), CAPTURE.layers[1]))
    assert find_layer("s.npz", alone, "").name == "stem.bn"
    assert find_layer("s.npz", Capture((WatchedLayer("x", 0, 3),)), "").name == "x"
    with pytest.raises(MissingTensorError, match="there is no layer in it"):
        find_layer("s.npz", Capture(()), "")


def test_the_state_of_a_layer_has_its_name():
    inner = state("", 3, np.random.default_rng(0))
    found = layer_state("s.npz", Capture((WatchedLayer("a.bn", 1, 3, inner),)), "bn")
    assert found.name == "a.bn"
    assert found.running_mean is inner.running_mean
    with pytest.raises(MissingTensorError, match="'input' has statistics in it, but no weight"):
        layer_state("s.npz", CAPTURE, "input")
