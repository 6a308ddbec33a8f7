"""What the weights in front of layers tell."""

from __future__ import annotations

import numpy as np

from bncli.changes.matching.behind import behind_the_same, kin
from bncli.state_dict.in_front import InFront
from tests.changes.files import ref


def fronts(**weights):
    return {
        name: InFront(f"{name}_conv", ref(f"{name}_conv.weight", values))
        for name, values in weights.items()
    }


def kernel(seed, shape=(16, 8, 3, 3)):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def test_layers_behind_the_weights_of_another():
    ours = fronts(a=kernel(1), b=kernel(2), c=kernel(3))
    theirs = fronts(p=kernel(1), q=kernel(2), r=kernel(3))
    crossed = [("a", "q"), ("b", "p")]
    assert behind_the_same(crossed, ours, theirs) == [("a", "p"), ("b", "q")]
    right = [("a", "p"), ("b", "q")]
    assert behind_the_same(right, ours, theirs) == []
    assert behind_the_same(crossed, ours, fronts(p=kernel(4), q=kernel(5))) == []
    equal = fronts(p=kernel(1), q=kernel(1))  # which of the two is not told
    assert behind_the_same([("b", "p"), ("a", "q")], fronts(b=kernel(1)), equal) == []


def test_weights_of_one_network():
    ours = fronts(a=kernel(1), b=kernel(2))
    later = fronts(a=kernel(1) + kernel(7), b=kernel(2) + kernel(8))
    pairs = [("a", "a"), ("b", "b")]
    assert kin(pairs, ours, later)
    assert not kin(pairs, ours, fronts(a=kernel(5), b=kernel(6)))
    assert not kin(pairs, {}, later)
