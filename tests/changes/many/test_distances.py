"""Whether files lie along a way or around one start, by the distances of their weights."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.changes.many.common import Common
from bncli.changes.many.distances import (
    DISORDERED,
    about_equal,
    distances,
    ordered,
    turned_back,
)
from tests.changes.many.networks import clients, epochs, opened


def squared(points):
    """The squared distances of files, for one tensor a row of points (tensors, files, values)."""
    return np.square(points[:, :, None] - points[:, None]).sum(-1)


def walk(files=6, tensors=8, values=2000, seed=0):
    steps = np.random.default_rng(seed).normal(size=(tensors, files, values))
    return squared(steps.cumsum(1))


def star(files=6, tensors=8, values=2000, seed=0):
    """Files of equal distance from one start, each in a direction of its own."""
    return squared(np.random.default_rng(seed).normal(size=(tensors, files, values)))


def line(files=6):
    return squared(np.arange(files, dtype=float).reshape(1, files, 1))


def test_a_star_turns_half_of_each_step_back():
    assert turned_back(star()) == pytest.approx(0.5, abs=0.02)
    assert turned_back(walk()) == pytest.approx(0, abs=0.05)
    assert turned_back(line()) < 0
    assert turned_back(np.empty((0, 3, 3))) == 0
    assert turned_back(star(files=2)) == 0


def test_a_star_is_about_equal_and_a_walk_is_not():
    assert about_equal(star())
    assert not about_equal(walk())
    assert not about_equal(np.zeros((1, 3, 3)))


def test_a_walk_is_ordered():
    assert ordered(walk()) > 0.9
    assert ordered(line()) == 1
    shares = [ordered(star(seed=seed)) for seed in range(30)]
    assert np.mean(shares) == pytest.approx(1 / 3, abs=0.1)  # as often as by chance
    assert ordered(walk(files=3)) is None
    assert ordered(np.empty((0, 6, 6))) is None


def test_distances_are_those_of_the_weights(tmp_path):
    states = epochs()
    found = distances(Common.of(opened(tmp_path, *states)))
    tensors = ("1.weight", "1.bias", "4.weight", "4.bias", "0.weight", "3.weight")
    expected = []
    for name in tensors:
        values = np.stack([state[name].double().numpy().ravel() for state in states])
        apart = squared(values[None])[0]
        expected.append(apart / apart.sum())
    assert found.shape == (6, 6, 6)
    assert sorted(found[:, 0, 5].tolist()) == pytest.approx(
        sorted(each[0, 5] for each in expected), rel=1e-9
    )
    assert ordered(found) > DISORDERED


def test_clients_of_one_start_are_not_ordered(tmp_path):
    found = distances(Common.of(opened(tmp_path, *clients(4))))
    assert about_equal(found)
    assert turned_back(found) > 0.3
