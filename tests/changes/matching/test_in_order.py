"""Layers without names in common, in order."""

from __future__ import annotations

import numpy as np

from bncli.changes.matching.in_order import in_order
from bncli.changes.matching.sides import Layers
from tests.changes.files import made, network, norm

BARE = {"running_mean": "_mean", "running_var": "_variance"}


def pairs(a, b):
    return in_order(Layers.of(made(a), ""), Layers.of(made(b), ""), 0, named=False)


def test_a_layer_of_which_one_file_alone_shows_what_is_in_front():
    a = network((8, 16, 32, 8), name="layer{}.bn")
    b = network((8, 16, 32, 8), name="block{}.bn")
    named = {"block3.conv.weight": "block3.head.weight"}
    b = {named.get(name, name): values for name, values in sorted(b.items())}
    expected = [(f"layer{at}.bn", f"block{at}.bn") for at in range(4)]
    assert sorted(pairs(a, b)) == expected
    # Another width there is another layer.
    other = b | {name: np.ones(4) for name in b if name.startswith("block3.bn.") and b[name].ndim}
    assert sorted(pairs(a, other)) == expected[:3]


def test_a_layer_that_one_file_alone_shows_to_be_one():
    a = network((8, 16, 32, 64, 8), name="layer{}.bn")
    b = network((8, 16, 32, 64), name="block{}.bn") | norm("block4.bn", 8, 1, leaves=BARE)
    assert ("layer4.bn", "block4.bn") in pairs(a, b)
    assert ("block4.bn", "layer4.bn") in pairs(b, a)
