"""What is kept of a layer: whether it was trained, and numbers without its arrays."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.rulebook.summaries import summary
from tests.rulebook.layers import f4, layer


@pytest.mark.parametrize(
    ("weight", "bias", "affine"),
    [
        (None, None, "none"),
        ([1, 1], [0, 0], "initial"),
        ([0, 0], [0, 0], "initial"),  # the last layer of a residual branch
        ([0.5, 0.5], [0, 0], "initial"),  # a constant, as some initialise
        ([0.5, 0.6], [0, 0], "weight"),
        ([1, 1], [0.5, 0.6], "trained"),
        ([0.5, 0.6], None, "trained"),
        (None, [0, 0], "initial"),
        ([1], [0], "initial"),
        ([0.7], [0], "weight"),  # one value is the same as itself, and no constant
        ([1], [0.7], "trained"),
        ([0], [1], "initial"),
    ],
)
def test_whether_weight_and_bias_are_those_of_a_new_module(weight, bias, affine):
    channels = len(weight or bias or [0, 0])
    vectors = {
        name: None if values is None else np.array(values, np.float32)
        for name, values in (("weight", weight), ("bias", bias))
    }
    made = layer(channels=channels, **{n: v for n, v in vectors.items() if v is not None})
    for name, values in vectors.items():
        object.__setattr__(made, name, values)
    shapes = {
        name: shape for name, shape in made.shapes.items() if vectors.get(name, 0) is not None
    }
    object.__setattr__(made, "shapes", shapes)
    assert summary(made).affine == affine


def test_what_remains_of_a_layer():
    made = summary(layer("bn", running_var=f4(1, np.nan, 0.25, np.inf), counter=7))
    assert (made.name, made.channels, made.counter, made.has_counter) == ("bn", 4, 7, True)
    assert (made.least_var, made.greatest_var) == (0.25, 1.0)
    assert (made.finite, made.varied, made.mean_zero, made.initial) == (False, True, False, False)
    assert made.has_statistics
    assert (made.statistics_dtype, made.affine_dtype) == ("float32", "float32")
    fresh = summary(layer(running_mean=f4(0, 0, 0, 0), running_var=f4(1, 1, 1, 1)))
    assert (fresh.initial, fresh.mean_zero, fresh.varied, fresh.finite) == (True, True, False, True)
    assert summary(layer(running_mean=f4(0, 0, 0, 0), running_var=f4(1, 1, 1, 2))).initial is False
    odd = layer(running_var=f4(1, 1))
    assert not odd.coherent
    assert not summary(odd).has_statistics


def test_digests_are_equal_where_all_bits_are():
    one, other = summary(layer("a")), summary(layer("a"))
    assert (one.statistics_digest, one.affine_digest) == (
        other.statistics_digest,
        other.affine_digest,
    )
    wide = layer("a").state.running_mean.astype(np.float64)
    assert summary(layer("a", running_mean=wide)).statistics_digest != one.statistics_digest
    assert summary(layer("a", bias=f4(1, 2, 3, 4))).affine_digest != one.affine_digest
