"""In which tensors ranks differ, and by how much."""

from __future__ import annotations

import numpy as np

from bncli.model.ranks import RankDifference, RankTensor, differences


def differences_of(states):
    return differences(dict(enumerate(states)))


def tensor(values, crc=1, dtype="float32"):
    values = np.asarray(values, np.float64)
    return RankTensor(dtype, values.shape, crc, values)


def test_ranks_that_are_alike_have_none():
    state = {"bn.weight": tensor([1, 2]), "fc.weight": RankTensor("float32", (3, 4), 9)}
    assert differences_of([state, dict(state), dict(state)]) == []


def test_each_tensor_names_its_ranks_and_the_largest_difference():
    first = {"a.bn.mean": tensor([1, 2]), "a.bn.var": tensor([1, 1])}
    second = {"a.bn.mean": tensor([1, 2.5], 2), "a.bn.var": tensor([1, 1])}
    third = {"a.bn.mean": tensor([-1, 2], 3), "a.bn.var": tensor([1, 1])}
    assert differences_of([first, second, third]) == [
        RankDifference("a.bn", "mean", (1, 2), "values", 2.0)
    ]


def test_what_else_may_differ():
    first = {"x": tensor([1]), "y": tensor([1]), "z": tensor([1]), "w": tensor([1])}
    second = {
        "x": tensor([1, 2]), "y": tensor([1], dtype="float16"), "w": tensor([np.nan], 2),
        "more": tensor([1]),
    }  # fmt: skip
    found = {each.name: (each.what, each.apart) for each in differences_of([first, second])}
    assert found == {
        "x": ("shape", None), "y": ("dtype", 0.0), "z": ("missing", None),
        "w": ("values", None), "more": ("added", None),
    }  # fmt: skip


def test_a_tensor_that_differs_in_several_ways_comes_for_each():
    states = [{"w": tensor([1])}, {"w": tensor([1], 1, "float64")}, {"w": tensor([3], 2)}, {}]
    found = [(each.what, each.ranks, each.apart) for each in differences_of(states)]
    assert found == [("dtype", (1,), 0.0), ("values", (2,), 2.0), ("missing", (3,), None)]


def test_a_tensor_without_bytes_is_compared_by_its_shape():
    state = {"x": RankTensor("float32", (3,), None)}
    assert differences_of([state, dict(state)]) == []
