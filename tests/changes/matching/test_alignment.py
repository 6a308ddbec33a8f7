"""Layers matched without names."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bncli.changes.matching import alignment
from bncli.changes.matching.alignment import aligned, common, contents, out_of_order
from bncli.state_dict import batch_norm_layers
from tests.changes.files import made, norm

SEQUENCES = st.lists(st.integers(0, 3), min_size=1, max_size=7)


def every_longest(a, b):
    """All longest common subsequences of two, as sets of pairs of indices."""
    for length in range(min(len(a), len(b)), -1, -1):
        found = [
            set(zip(first, second, strict=True))
            for first in combinations(range(len(a)), length)
            for second in combinations(range(len(b)), length)
            if [a[i] for i in first] == [b[j] for j in second]
        ]
        if found:
            return found
    raise AssertionError


@given(SEQUENCES, SEQUENCES)
def test_pairs_are_those_of_every_longest_common_subsequence(a, b):
    assert set(common(a, b)) == set.intersection(*every_longest(a, b))


def layers(*widths, name="n{}", seed=1):
    norms = [norm(name.format(at), width, seed + at) for at, width in enumerate(widths)]
    return batch_norm_layers(made({leaf: each[leaf] for each in norms for leaf in each}))


def kinds(several):
    return {layer.name: (layer.running_var.numel,) for layer in several}


def test_long_sequences_match_where_they_are_equal(monkeypatch):
    a, b = layers(4, 5, 6, 7), layers(4, 5, 6, 7, name="x{}")
    shorter = b[:3]
    assert len(aligned(a, shorter, kinds(a), kinds(b))) == 3
    monkeypatch.setattr(alignment, "MOST_CELLS", 11)
    assert aligned(a, shorter, kinds(a), kinds(b)) == []
    assert len(aligned(a, b, kinds(a), kinds(b))) == 4
    assert aligned([], b, {}, kinds(b)) == []


def test_numbers_in_names_are_put_in_order():
    a = layers(*range(4, 16))
    b = sorted(layers(*range(4, 16), name="x{}"), key=lambda layer: layer.name)
    found = aligned(a, b, kinds(a), kinds(b))
    assert found == [(f"n{at}", f"x{at}") for at in range(12)]


def test_contents_that_two_layers_have_tell_nothing():
    a = layers(8, 8, 8)
    twice = batch_norm_layers(made(norm("x", 8, 1) | norm("y", 8, 1) | norm("z", 8, 2)))
    assert contents(a, twice) == [("n1", "z")]


def test_a_layer_is_known_by_its_mean_or_weight_where_the_variance_moved():
    tensors = norm("x", 8, 1)
    tensors["x.running_var"] = tensors["x.running_var"] * 2
    assert contents(layers(8), batch_norm_layers(made(tensors))) == [("n0", "x")]
    tensors["x.running_mean"] = tensors["x.running_mean"] * 2
    assert contents(layers(8), batch_norm_layers(made(tensors))) == [("n0", "x")]
    tensors["x.weight"] = np.ones(8)
    assert contents(layers(8), batch_norm_layers(made(tensors))) == []


def test_values_that_are_equal_in_all_channels_or_of_one_tell_nothing():
    fresh = batch_norm_layers(made(norm("x", 8)))
    assert contents(fresh, fresh) == []
    assert contents(layers(1), layers(1)) == []


def test_pairs_out_of_order():
    ours, theirs = layers(*[8] * 12), layers(*[8] * 12, name="m{}")
    pairs = [(f"n{at}", f"m{at}") for at in range(12)]
    assert out_of_order(pairs, ours, theirs) == []
    by_name = sorted(theirs, key=lambda layer: layer.name)  # m10 before m2
    assert out_of_order(pairs, ours, by_name) == []
    exchanged = [*pairs[:3], ("n3", "m5"), ("n4", "m4"), ("n5", "m3"), *pairs[6:]]
    assert sorted(out_of_order(exchanged, ours, theirs)) == [("n3", "m5"), ("n5", "m3")]
