"""The columns of a statistics file: the channels of all layers, each where its layer says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bncli.loaders.statistics.columns import columns, places
from bncli.model.capture import Capture, WatchedLayer

from .captures import EVAL, SIZES, TRAINING, odd_capture, state


def test_every_column_has_the_channels_of_all_layers():
    total = sum(SIZES)
    for name, column in columns(odd_capture()):
        if name.startswith(("state/", "layer")):
            assert len(column) == total
        elif name.startswith(("training/", "eval/", "as-trained/", "renewed/")):
            whole = name.endswith(("/values", "/samples", "/batches", "/batches_with_var"))
            assert len(column) == (len(SIZES) if whole else total)


def test_a_layer_lies_at_its_place():
    capture = odd_capture()
    found = dict(columns(capture))
    for layer, place in zip(capture.layers, places(capture.layers), strict=True):
        assert place.stop - place.start == layer.num_features
        for propagation in (TRAINING, EVAL):
            sums = layer.seen.get(propagation)
            expected = np.full(layer.num_features, np.nan) if sums is None else sums.within
            column = found[f"{propagation.value}/within"]
            np.testing.assert_array_equal(column[place], expected)
        own = None if layer.state is None else layer.state.running_mean
        if own is None:
            assert np.isnan(found["state/running_mean"][place]).all()


def test_tensors_of_one_dtype_keep_it():
    rng = np.random.default_rng(0)
    layers = [WatchedLayer(f"bn{i}", i, 3, state("bn", 3, rng)) for i in (1, 2)]
    assert dict(columns(Capture(tuple(layers))))["state/weight"].dtype == np.float32
    wide = replace(layers[0], state=state("bn", 3, rng, "float64"))
    assert dict(columns(Capture((wide, layers[1]))))["state/weight"].dtype == np.float64


def test_what_no_layer_has_is_no_column():
    names = [name for name, _ in columns(Capture((WatchedLayer("input", 0, 2),)))]
    assert names == ["layer"]
